"""Contrasts: differences of the same seeds, judged; and at equal numbers of completions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.contrasts import contrasts, differences, equal_completions
from grpo_origin.config.schema import ClaimsSettings

CELL = {"axis": "depth", "ood_ratio": "0.1"}
STAGE = {"stage": "grpo~ood", "method": "grpo", "trained_on": "ood"}
SETTINGS = ClaimsSettings()


def side(values, **more) -> pd.DataFrame:
    """A quantity of seeds 0, 1, .. on one side."""
    rows = [
        {**CELL, **STAGE, "seed": seed, "quantity": "OOD mass", "value": value, **more}
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def curve(points, seed=0, split="ood") -> pd.DataFrame:
    """A learning curve from (completions, mass), a step each."""
    rows = [
        {**CELL, **STAGE, "seed": seed, "split": split, "step": step, "completions": n, "mass": m}
        for step, (n, m) in enumerate(points)
    ]
    return pd.DataFrame(rows)


def test_seeds_meet_those_of_the_same_number():
    pairs = differences(side([0.5, 0.75, 0.9]), side([0.25, 0.5]), ["stage"])
    assert pairs["seed"].tolist() == [0, 1]
    assert pairs["difference"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("effect", "noise", "verdict"),
    [
        (0.3, 0.01, "differs"),
        (-0.3, 0.01, "differs"),
        (0.0, 0.002, "equivalent"),
        (0.05, 0.1, "inconclusive"),
    ],
)
def test_planted_differences_get_their_verdict(effect, noise, verdict):
    draws = np.random.default_rng(0)
    before = draws.uniform(0.3, 0.5, size=8)
    after = before + effect + noise * draws.standard_normal(8)
    (row,) = contrasts(differences(side(after), side(before), ["stage"]), SETTINGS).itertuples()
    assert row.verdict == verdict
    assert row.low < row.difference < row.high
    assert (row.seeds_needed > 8) == (verdict == "inconclusive")
    few = differences(side(after[:5]), side(before[:5]), ["stage"])
    assert contrasts(few, SETTINGS)["verdict"].tolist() == ["inconclusive"]  # of five seeds


def test_at_equal_completions_the_longer_curve_is_read_where_the_shorter_ends():
    short = curve([(0, 0.1), (50, 0.2), (100, 0.5)])
    long = curve([(0, 0.1), (80, 0.3), (160, 0.7), (320, 0.9)])
    (row,) = equal_completions(long, short, ["stage"]).itertuples()
    assert (row.reference, row.value) == (0.5, pytest.approx(0.4))  # at 100: 0.3 + 20 / 80 of 0.4
    assert row.quantity == "OOD mass at equal completions"
    (other,) = equal_completions(short, long, ["stage"]).itertuples()
    assert other.difference == pytest.approx(-row.difference)


def test_only_curves_of_other_lengths_are_read_there():
    same = curve([(0, 0.1), (100, 0.5)])
    assert equal_completions(same, curve([(0, 0.2), (100, 0.4)]), ["stage"]).empty
    assert equal_completions(same, curve([(0, 0.2), (50, 0.4)], seed=1), ["stage"]).empty
    both = [curve([(0, 0.0), (n, 1.0)], split=split) for n, split in ((10, "id"), (20, "ood"))]
    found = equal_completions(same, pd.concat(both), ["stage"])
    assert found["quantity"].tolist() == ["OOD mass at equal completions"]
