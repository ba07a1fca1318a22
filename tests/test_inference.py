"""Verdicts from seeds: errors kept in simulated families, looks, and how many seeds would do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grpo_origin.analysis import inference

ALPHA, RARE, EDGE, AXES = 0.05, 0.5, 0.01, 4


def share_of_false(kind, test, seeds=8, families=600):
    """Share of families of four axes, each at its null hypothesis, in which any axis is decided."""
    draws = np.random.default_rng(0)
    wrong = 0
    for _ in range(families):
        adjusted = inference.holm([test(kind(draws, seeds)) for _ in range(AXES)])
        wrong += bool((adjusted <= ALPHA).any())
    return wrong / families


def normal(draws, seeds):
    return draws.normal(EDGE, 0.05, seeds)


def all_or_none(draws, seeds):
    return (draws.random(seeds) < RARE) * 1.0 + draws.normal(0, 1e-9, seeds)


def edge_of_presence(draws, seeds):
    return (draws.random(seeds) < EDGE) * 1.0


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (normal, lambda values: inference.p_above(values, EDGE)),
        (edge_of_presence, lambda values: inference.p_above(values, EDGE)),
        (normal, lambda values: inference.p_absent(values, EDGE, RARE)),
        (all_or_none, lambda values: inference.p_absent(values, EDGE, RARE)),
        (normal, lambda values: inference.p_outside(values, EDGE, EDGE)),
        (normal, lambda values: inference.p_within(values, -EDGE, EDGE, RARE)),
    ],
)
def test_families_keep_their_error(kind, test):
    false = share_of_false(kind, test)
    assert false <= stats.binom.isf(1e-4, 600, ALPHA) / 600


@pytest.mark.parametrize("seeds", [8, 12])
def test_clear_effects_are_found(seeds):
    draws = np.random.default_rng(1)
    assert inference.p_above(draws.normal(0.3, 0.1, seeds), EDGE) < 1e-3
    assert inference.p_absent(np.abs(draws.normal(0, 1e-8, seeds)), EDGE, RARE) == 0.5**seeds
    assert inference.p_within(draws.normal(0, 1e-3, seeds), -EDGE, EDGE, 0.99) < 1e-6
    assert inference.p_outside(draws.normal(-0.3, 0.1, seeds), -EDGE, EDGE) < 2e-3


def test_a_seed_that_takes_off_forbids_an_absence():
    quiet = np.full(8, 1e-9)
    assert inference.p_absent(quiet, EDGE, RARE) == pytest.approx(0.5**8)
    assert inference.p_absent([*quiet[:-1], 0.9], EDGE, RARE) > 0.5


@pytest.mark.parametrize("seeds", range(1, inference.MIN_SEEDS))
def test_few_seeds_decide_nothing(seeds):
    values = np.linspace(0.9, 0.91, seeds)
    assert inference.p_above(values, EDGE) == inference.p_absent(-values, EDGE, RARE) == 1


def test_seeds_that_agree_are_judged_by_their_number():
    assert inference.p_above(np.full(7, 0.4), EDGE) == 0.5**7
    assert inference.p_above(np.full(7, 0.0), EDGE) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_value_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = inference.holm(p_values)
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= np.minimum(np.array(p_values) * len(p_values), 1) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()


def test_holm_by_hand():
    assert inference.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_looks():
    plan = ((4, 0.01), (8, 0.015), (12, 0.025))
    assert inference.look_at(3, plan) is None
    assert inference.look_at(4, plan) == inference.Look(1, 0.01)
    assert inference.look_at(11, plan) == inference.Look(2, 0.015)
    assert inference.look_at(40, plan) == inference.Look(3, 0.025)


@pytest.mark.parametrize(("seeds", "bound"), [(6, 0.393), (10, 0.259), (12, 0.221)])
def test_what_agreeing_seeds_exclude(seeds, bound):
    assert inference.excluded(seeds, ALPHA) == pytest.approx(bound, abs=5e-4)
    assert inference.excluded(seeds, ALPHA) == pytest.approx(1 - ALPHA ** (1 / seeds))
    assert inference.excluded(seeds, ALPHA, exceptions=seeds) == 1


@pytest.mark.parametrize(("mean", "spread"), [(0.1, 0.1), (0.05, 0.1), (0.3, 0.1), (-0.05, 0.05)])
def test_the_seeds_asked_for_decide(mean, spread):
    """With as many seeds as it asks for, four in five fresh samples are decided."""
    pattern = stats.norm.ppf((np.arange(8) + 0.5) / 8)
    values = mean + spread * (pattern / pattern.std(ddof=1))
    seeds = inference.seeds_to_decide(values, EDGE, ALPHA, rare=0.999)
    draws = np.random.default_rng(2)
    samples = [draws.normal(mean, spread, seeds) for _ in range(400)]
    if mean > EDGE:
        decided = np.mean([inference.p_above(sample, EDGE) <= ALPHA for sample in samples])
    else:
        decided = np.mean([inference.p_absent(sample, EDGE, 0.999) <= ALPHA for sample in samples])
    assert decided >= inference.POWER - 0.06


def test_no_number_of_seeds_decides_what_sits_on_the_edge():
    values = EDGE + np.array([-1, 1, -1, 1, -1, 1]) * 0.1
    assert inference.seeds_to_decide(values, EDGE, ALPHA, RARE) is None
    assert inference.seeds_to_decide([0.3], EDGE, ALPHA, RARE) is None


def test_bounds_are_students():
    values = [0.1, 0.2, 0.3, 0.4]
    low, high = inference.bounds(values, 0.025)
    assert (low, high) == pytest.approx(
        stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    )
    assert np.isnan(inference.bounds([0.1], 0.025)).all()
