"""Curves of pass@k that cross, and shares of seeds that take off, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_origin.analysis.crossings import crossing, crossings_table
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.analysis.takeoff import takeoff_table
from planting import SEEDS, plant


def test_curves_that_cross_are_equal_where_they_cross():
    """SFT solves all prompts at 0.1; RL solves half of them surely: equal where 0.9^k = 1/2."""
    before, after = np.log([0.1, 0.1]), np.array([0.0, -np.inf])
    k, level = crossing(before, after)
    assert k == pytest.approx(np.log(0.5) / np.log(0.9))
    assert level == pytest.approx(0.5)


@pytest.mark.parametrize("after", [[0.1, 0.1], [0.2, 0.3], [0.01, 0.1]])
def test_curves_that_are_equal_or_apart_do_not_cross(after):
    assert np.isnan(crossing(np.log([0.1, 0.1]), np.log(after))).all()


def test_a_crossing_beyond_a_thousand_samples_is_found():
    k, level = crossing(np.log([1e-4] * 4), np.array([np.log(0.5)] + [-np.inf] * 3))
    assert k == pytest.approx(np.log(0.75) / np.log1p(-1e-4), rel=1e-6)
    assert level == pytest.approx(0.25)


def gains(changes):
    """Gains of eight seeds at two ratios; `changes` are those of RL on OOD prompts at 0.1."""

    def mass(seed, ratio, stage, split, task, prompts):
        rises = ratio == "0.1" and stage == "grpo~ood" and split == "ood"
        half = np.where(prompts % 2, 0.0, 1.0) if rises and changes[seed] else 0.05
        return np.where(rises, half, 0.05)

    return prompt_gains(plant(mass))


def test_take_off_is_counted_over_seeds():
    table = takeoff_table(gains([1, 1, 1, 0, 0, 0, 0, 0]), 0.1, ["grpo"])
    assert set(table["ood_ratio"]) == {"0.1"}
    row = table[table["trained_on"] == "ood"].iloc[0]
    assert (row["seeds"], row["taken_off"]) == (SEEDS, 3 / 8)
    # Clopper and Pearson's interval of 3 in 8
    assert (row["low"], row["high"]) == pytest.approx((0.0852, 0.7551), abs=1e-4)
    assert row["gain"] == pytest.approx(3 / 8 * 0.45)
    assert table.set_index("trained_on").loc["id", "taken_off"] == 0


def test_crossings_of_a_run():
    table = crossings_table(gains([1] + [0] * 7))
    crossed = table.dropna(subset="k")
    place = crossed[["seed", "ood_ratio", "stage", "split"]].values.tolist()
    assert place == [[0, "0.1", "grpo~ood", "ood"]]
    assert crossed["k"].item() == pytest.approx(np.log(0.5) / np.log(0.95))
    assert crossed["ahead"].item() == "RL"
    assert set(table.drop(crossed.index)["ahead"]) == {"neither"}
