"""Intervals keep their level, by simulation or exactly; the sampled check knows the truth."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from grpo_origin.analysis import intervals
from planting import covered

RNG = np.random.default_rng


def test_sampled_check_accepts_the_truth_and_refuses_what_is_not():
    rng = RNG(0)
    q = np.concatenate([rng.beta(0.3, 0.3, 200), np.full(56, 1e-18)])
    assert all(intervals.binomial_agrees(rng.binomial(64, q), 64, q) for _ in range(200))
    counts = rng.binomial(64, q)
    assert not intervals.binomial_agrees(counts, 64, q**1.3)  # all slightly wrong
    counts[-1] = 1
    assert not intervals.binomial_agrees(counts, 64, q)  # one success where there can't be any
    assert intervals.binomial_agrees(30, 64, 0.5)
    assert not intervals.binomial_agrees(60, 64, 0.5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_t_interval_covers(seeds):
    means = RNG(1).normal(0.6, 0.05, (40_000, seeds))
    assert (
        0.93 < covered(intervals.t_interval(means.mean(1), means.std(1, ddof=1), seeds), 0.6) < 0.97
    )


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.5, 0.9])
def test_wilson_interval_covers(share):
    counts, runs = np.unique(RNG(2).binomial(512, share, 40_000), return_counts=True)
    ends = [intervals.wilson_interval(int(count), 512) for count in counts]
    inside = [low <= share <= high for low, high in ends]
    assert 0.93 < np.average(inside, weights=runs) < 0.97


def test_clopper_pearson_bound_covers():
    n = 512
    for share in (
        0.003,
        0.01,
        0.1,
    ):  # a bound on counts keeps at least its level; exactly, not by simulation
        counts = np.arange(n + 1)
        below = intervals.clopper_pearson_upper(counts, n) < share
        assert scipy_stats.binom.pmf(counts, n, share)[below].sum() <= 0.05
    edge = float(intervals.clopper_pearson_upper(0, n))
    assert edge == pytest.approx(1 - 0.05 ** (1 / n))
    assert (1 - edge) ** n == pytest.approx(
        0.05
    )  # at the bound, no success in n has exactly this chance
    assert intervals.clopper_pearson_upper(n, n) == 1


@pytest.mark.parametrize(("count", "n"), [(0, 30), (4, 32), (30, 60), (30, 30)])
def test_clopper_pearson_interval_inverts_the_binomial_test(count, n):
    low, high = intervals.clopper_pearson_interval(count, n)
    tail = 0.05 if count in (0, n) else 0.025
    assert (
        low == 0 if count == 0 else scipy_stats.binom.sf(count - 1, n, low) == pytest.approx(tail)
    )
    assert high == 1 if count == n else scipy_stats.binom.cdf(count, n, high) == pytest.approx(tail)
