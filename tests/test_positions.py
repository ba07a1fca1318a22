"""How attention knows positions, and that model folders open as what they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from grpo_origin.config.stages import ModelSettings
from grpo_origin.training.alibi import attend, slopes
from grpo_origin.training.model import build_model, load_model, save_model
from helpers import strings

TOKENS = strings(26).tokens
IDS = torch.randint(8, 60, (3, 12), generator=torch.Generator().manual_seed(0))


def built(positions: str, layers: int = 2):
    """A model far from uniform, so that differences show."""
    settings = ModelSettings(
        layers=layers, width=32, heads=4, feed_forward=64, positions=positions, initial_scale=0.3
    )
    return build_model(settings, TOKENS, 0).eval()


@torch.no_grad()
def logits(model, ids, **more):
    return model(input_ids=ids, use_cache=False, **more).logits


@pytest.mark.parametrize("positions", ["rope", "none", "alibi"])
def test_padding_on_the_left_changes_nothing(positions):
    model, width = built(positions), IDS.shape[1]
    padded = torch.nn.functional.pad(IDS, (4, 0))
    mask = (torch.arange(width + 4) >= 4).long().expand(len(IDS), -1)
    behind = logits(model, padded, attention_mask=mask)[:, 4:]
    torch.testing.assert_close(behind, logits(model, IDS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["rope", "none", "alibi"])
def test_generation_with_its_cache_gives_what_plain_passes_give(positions):
    model, expected = built(positions), IDS
    for _ in range(5):
        following = logits(model, expected)[:, -1:].argmax(-1)
        expected = torch.cat([expected, following], 1)
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with torch.no_grad():
        given = model.generate(IDS, attention_mask=torch.ones_like(IDS), **settings)
    assert torch.equal(given, expected)


@pytest.mark.parametrize(
    ("positions", "blind"), [("rope", False), ("none", True), ("alibi", False)]
)
def test_one_layer_without_positions_does_not_see_the_order_of_earlier_tokens(positions, blind):
    model = built(positions, layers=1)
    swapped = IDS[:, [1, 0, *range(2, IDS.shape[1])]]
    change = (logits(model, swapped) - logits(model, IDS))[:, -1].abs().max()
    assert (change < 1e-4) == blind


def test_alibi_subtracts_slope_times_distance_from_the_scores():
    draws = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 5, 8, generator=draws) for _ in range(3))
    later = torch.ones(5, 5).triu(1).bool()
    mask = torch.zeros(1, 1, 5, 5).masked_fill(later, torch.finfo(torch.float32).min)
    distance = (torch.arange(5)[:, None] - torch.arange(5)).clamp(min=0)
    scores = query @ key.transpose(-1, -2) / 8**0.5 - slopes(2)[:, None, None] * distance
    expected = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
    module = torch.nn.Module()
    module.is_causal = True
    given, _ = attend(module, query, key, value, mask, scaling=8**-0.5)
    torch.testing.assert_close(given.transpose(1, 2), expected)
    assert slopes(8).tolist() == [2**-i for i in range(1, 9)]


@pytest.mark.parametrize("positions", ["rope", "none", "alibi"])
def test_a_folder_opens_as_what_it_is(positions, tmp_path):
    model = built(positions)
    save_model(model, strings(26), tmp_path)
    assert torch.equal(logits(load_model(tmp_path), IDS), logits(model, IDS))
    code = (
        "import sys; from transformers import AutoModelForCausalLM as Auto; "
        "print(type(Auto.from_pretrained(sys.argv[1])).__name__)"
    )
    opened = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    if positions == "alibi":  # transformers alone must not take it for a model without positions
        assert opened.returncode
        assert "grpo_origin_alibi" in opened.stderr
    else:
        assert opened.stdout.strip() == type(model).__name__


def test_the_three_have_the_same_number_of_weights():
    sizes = {built(positions).num_parameters() for positions in ("rope", "none", "alibi")}
    assert len(sizes) == 1
