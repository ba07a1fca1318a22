"""The tokenizer that travels with every checkpoint."""

from __future__ import annotations

import socket

import pytest

from grpo_origin.config.notation import OPERATIONS
from grpo_origin.tasks.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World


@pytest.fixture(params=[2, 26, 27, 60])
def saved(request, tmp_path, monkeypatch):
    """A node count and the tokenizer reopened from disk, with the network cut off."""
    build_tokenizer(World(request.param, 0)).save_pretrained(tmp_path)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    from transformers import AutoTokenizer

    return request.param, AutoTokenizer.from_pretrained(tmp_path)


def test_every_token_round_trips_through_the_saved_tokenizer(saved):
    nodes, tokenizer = saved
    vocabulary = Vocabulary(nodes)
    text = " ".join(vocabulary.tokens)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == list(range(len(vocabulary)))
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(ids) == vocabulary.tokens


def test_special_tokens_and_padding_side(saved):
    _, tokenizer = saved
    assert (
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ) == (PAD, UNK, BOS, EOS)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"
    assert tokenizer("nonsense", add_special_tokens=False)["input_ids"] == [UNK]


def test_a_batch_is_padded_on_the_left(saved):
    _, tokenizer = saved
    batch = tokenizer(["<bos> <trav>", "<bos>"], padding=True, add_special_tokens=False)
    assert batch["input_ids"][1] == [PAD, BOS]
    assert batch["attention_mask"][1] == [0, 1]


@pytest.mark.parametrize("nodes", [2, 26, 27, 300])
def test_tokens_are_distinct_and_hold_both_alphabets(nodes):
    vocabulary = Vocabulary(nodes)
    assert (
        len(set(vocabulary.tokens)) == len(vocabulary) == len(SPECIAL) + len(OPERATIONS) + 2 * nodes
    )
    assert not any(" " in token for token in vocabulary.tokens)


def test_names_of_elements():
    assert Vocabulary(26).tokens[-52:] == list(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    )
    many = Vocabulary(27)
    assert many.tokens[many.first_element] == "A0"
    assert many.tokens[-27] == "a0"
    assert many.tokens[-1] == "a26"
