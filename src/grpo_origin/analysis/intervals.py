"""Intervals and tests: Student's t for means, Wilson and Clopper-Pearson for proportions.

Used by `statistics`, `claims` and `theory`; what scipy has is scipy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95  # coverage of every interval


def t_interval(
    mean: ArrayLike, std: ArrayLike, n: ArrayLike, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of a mean from the sample standard deviation of n values.

    NaN where n < 2.
    """
    mean, n = np.asarray(mean, dtype=float), np.asarray(n, dtype=float)
    quantile = stats.t.ppf((1 + level) / 2, np.where(n > 1, n - 1, np.nan))
    half = quantile * np.asarray(std) / np.sqrt(n)
    return mean - half, mean + half


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean over seeds of `mean` with its 95 % t interval: columns `by`, mean, low, high, seeds."""
    groups = table.groupby(by, sort=False, dropna=False)["mean"]
    means = groups.agg(["mean", "std", "count"]).reset_index()
    low, high = t_interval(means["mean"], means.pop("std"), means["count"])
    return means.rename(columns={"count": "seeds"}).assign(low=low, high=high)


def wilson_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion from `count` of n (Wilson 1927)."""
    interval = stats.binomtest(count, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a proportion from `count` of n (Clopper and Pearson 1934).

    One-sided where the count is 0 or n.
    """
    side = {0: "less", n: "greater"}.get(count, "two-sided")
    interval = stats.binomtest(count, n, alternative=side).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def clopper_pearson_upper(count: ArrayLike, n: ArrayLike, level: float = LEVEL) -> np.ndarray:
    """One-sided upper bound of a proportion from `count` of n, for arrays of both."""
    count, n = np.asarray(count), np.asarray(n)
    return np.where(count >= n, 1.0, stats.beta.ppf(level, count + 1, np.maximum(n - count, 1)))


def constant_interval(
    value: ArrayLike, n: ArrayLike, floor: float, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of values in [floor, 1] when all n prompts gave the same one.

    They show no variance, but at most a share u of prompts is different, u being the
    Clopper-Pearson upper bound of 0 in n. So the mean lies between (1-u) value + u floor and
    (1-u) value + u. For 0 in [0, 1] that is [0, u].
    """
    value, share = np.asarray(value, dtype=float), clopper_pearson_upper(0, n, level)
    return (1 - share) * value + share * floor, (1 - share) * value + share


def binomial_agrees(
    successes: ArrayLike, samples: int, q: ArrayLike, significance: float = 1e-3
) -> bool:
    """Whether success counts of prompts fit exact masses q, each count being Binomial(samples, q).

    Half of `significance` goes to single prompts (exact two-sided test, Bonferroni), half to their
    sum (Bernstein's inequality, which holds for any mix of q). So a true `q` is refused at most
    with probability `significance`.
    """
    successes, q = np.broadcast_arrays(
        np.atleast_1d(successes), np.clip(np.atleast_1d(q), 0.0, 1.0)
    )
    tails = np.minimum(
        stats.binom.cdf(successes, samples, q), stats.binom.sf(successes - 1, samples, q)
    )
    off = abs(float(np.sum(successes - samples * q)))
    spread = float(np.sum(samples * q * (1 - q))) + off / 3
    pooled = 2 * np.exp(-(off**2) / 2 / spread) if off > 0 else 1.0
    return bool(min(float(2 * tails.min()) * q.size, pooled) >= significance / 2)
