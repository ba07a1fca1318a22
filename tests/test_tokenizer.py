"""The tokenizer that travels with every checkpoint."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_origin.config.notation import OPERATIONS, TaskSpec
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World


@pytest.fixture(scope="module", params=[2, 8, 26, 27, 300])
def saved(request, tmp_path_factory):
    """A node count and the tokenizer reopened from disk, with the network cut off."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(World(request.param, 0)).save_pretrained(folder)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    from transformers import AutoTokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield request.param, AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.data())
def test_ids_round_trip_through_text_with_and_without_spaces(saved, data):
    nodes, tokenizer = saved
    vocabulary = Vocabulary(nodes)
    ids = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), min_size=1, max_size=12))
    names = [vocabulary.tokens[i] for i in ids]
    assert tokenizer.decode(ids) == " ".join(names)
    gaps = data.draw(
        st.lists(st.sampled_from(["", " ", "  ", "\n"]), min_size=len(ids), max_size=len(ids))
    )
    for text in (
        " ".join(names),
        "".join(names),
        "".join(map("".join, zip(names, gaps, strict=True))),
    ):
        assert ids_of(tokenizer, text) == ids


def test_a_sample_written_as_text_has_the_ids_that_models_see(saved):
    nodes, tokenizer = saved
    vocabulary = Vocabulary(nodes)
    task = Task(TaskSpec.model_validate("trav shift;4;B"), World(nodes, 0))
    starts = task.in_alphabet(np.arange(4)[None] % nodes)
    for render in (vocabulary.prompts, vocabulary.completions):
        ids = render(task, starts)[0].tolist()
        assert ids_of(tokenizer, "".join(vocabulary.tokens[i] for i in ids)) == ids


@pytest.mark.parametrize(
    ("nodes", "text", "names"),
    [
        (26, "ABCD<trav>", "A B C D <trav>"),
        (8, "ABzCé<trav>", "A B <unk> C <unk> <trav>"),
        (8, "A5<trav>5", "<unk> <trav> <unk>"),
        (26, "A<unknown>B<trav", "A <unk> B <unk> t r a v"),
        (300, "A1A10A100a1", "A1 A10 A100 a1"),
        (300, "A299A300A01A3000<eos>", "A299 <unk> <eos>"),
        (300, "A299 A300 A01A3 x", "A299 <unk> <unk> A3 <unk>"),
    ],
)
def test_only_a_piece_that_is_no_token_is_unknown(nodes, text, names):
    tokenizer = build_tokenizer(World(nodes, 0))
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text)) == names.split()


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
    assert ids_of(tokenizer, "?") == [UNK]


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
