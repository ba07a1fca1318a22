"""How a verdict is reached from one number a seed: tests, families, looks, and seeds still needed.

Seeds are the only replicates. A mean is judged by one-sided t tests, from `MIN_SEEDS` on; an
absence must also hold seed by seed (an exact binomial test), since a seed at an edge learns all or
nothing, and a mean of zeros says little about the next seed. Called by `claims`; knows no claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

MIN_SEEDS = 6  # before that no t test decides anything
MOST_SEEDS = 1000  # beyond that nobody waits
POWER = 0.8  # chance that the seeds asked for decide, if mean and spread stay as they are
_PLANS = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
_ROUNDING = 1e-12  # seeds that differ relatively by no more than this agree
_CERTAIN = 1e-6  # spreads below this share of the distance leave a t test no doubt


@dataclass(frozen=True)
class Look:
    """Where a group-sequential plan is: the look's number (from 1) and the error it may spend."""

    number: int
    alpha: float


def look_at(seeds: int, plan: Sequence[tuple[int, float]]) -> Look | None:
    """The last look of a plan ((seeds, alpha), ...) that so many seeds reach; None before one.

    The levels add up to the whole error, so looking at each costs no more than that (Bonferroni).
    """
    reached = [Look(i, alpha) for i, (needed, alpha) in enumerate(plan, 1) if seeds >= needed]
    return reached[-1] if reached else None


def p_above(values: ArrayLike, edge: float) -> float:
    """p-value of `the mean over seeds lies above edge` (one-sided t test); 1 with too few seeds.

    Seeds that agree give a t test nothing to go by: then the sign test, 2^-n if all lie above.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < MIN_SEEDS:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    if _agree(values) or error == 0:  # numbers so small that their squares are 0
        return 0.5 ** len(values) if values.mean() > edge else 1.0
    return float(special.stdtr(len(values) - 1, (edge - values.mean()) / error))


def p_absent(values: ArrayLike, edge: float, rare: float) -> float:
    """p-value of `fewer than a share `rare` of seeds lie above edge`, if the mean is below it too.

    The larger of both tests' p-values. Where seeds are all or nothing the t test of the mean holds
    no error: what is then shown is of most seeds, and that of the mean only if seeds vary smoothly.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < MIN_SEEDS:
        return 1.0
    mean = 0.0 if _agree(values) and values.mean() < edge else p_above(-values, -edge)
    return max(p_few(values >= edge, rare), mean)


def p_few(seeds: ArrayLike, rare: float) -> float:
    """p-value of `fewer than a share rare of seeds are so`, from yes or no a seed (binomial)."""
    seeds = np.asarray(seeds, dtype=bool)
    if len(seeds) < MIN_SEEDS:
        return 1.0
    return float(special.bdtr(seeds.sum(), len(seeds), rare))


def p_outside(values: ArrayLike, low: float, high: float) -> float:
    """p-value of `the mean lies outside [low, high]`: both sides tried, so doubled."""
    values = np.asarray(values, dtype=float)
    return min(1.0, 2 * min(p_above(values, high), p_above(-values, -low)))


def p_within(values: ArrayLike, low: float, high: float, rare: float) -> float:
    """p-value of `the mean lies within [low, high]`, and so do most seeds (as in `p_absent`).

    The mean by two one-sided tests (Schuirmann 1987).
    """
    values = np.asarray(values, dtype=float)
    seedwise = p_few((values <= low) | (values >= high), rare)
    return max(p_above(values, low), p_above(-values, -high), seedwise)


def holm(p_values: ArrayLike) -> np.ndarray:
    """p-values of a family adjusted by Holm (1979): comparing them with alpha keeps its error."""
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def bounds(values: ArrayLike, alpha: float) -> tuple[float, float]:
    """One-sided bounds of the mean, each with error alpha (the interval has level 1 - 2 alpha).

    NaN with fewer than two seeds; equal to the mean where seeds agree, which is no statement about
    the next seed (see `excluded`).
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    half = float(stats.t.isf(alpha, len(values) - 1)) * error
    return mean - half, mean + half


def excluded(seeds: int, alpha: float, exceptions: int = 0) -> float:
    """Largest share of seeds that may behave otherwise when `exceptions` of `seeds` did.

    Clopper and Pearson's one-sided upper bound: 1 - alpha^(1/n) for none.
    """
    if exceptions >= seeds:
        return 1.0
    return float(stats.beta.isf(alpha, exceptions + 1, seeds - exceptions))


def seeds_to_decide(values: ArrayLike, edge: float, alpha: float, rare: float) -> int | None:
    """Seeds after which a verdict on `edge` is likely, if mean and spread stay as they are.

    Above the edge by the t test's power; below it by the binomial test too, at the share seen.
    None if more than `MOST_SEEDS`, or if nothing can be said from fewer than two seeds.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return None
    distance, spread = float(values.mean()) - edge, float(values.std(ddof=1))
    decided = _power(abs(distance), spread, _PLANS, alpha) >= POWER
    if distance < 0:
        exceptions = np.ceil(float((values >= edge).mean()) * _PLANS)
        decided &= special.bdtr(exceptions, _PLANS, rare) <= alpha
    return _first(decided)


def seeds_to_count(share: float, alpha: float, rare: float) -> int | None:
    """Seeds after which `p_few` decides, either way, if the share of such seeds stays as it is."""
    few = special.bdtr(np.ceil(share * _PLANS), _PLANS, rare)
    many = special.bdtr(np.ceil((1 - share) * _PLANS), _PLANS, 1 - rare)
    return _first(np.minimum(few, many) <= alpha)


def _first(decided: np.ndarray) -> int | None:
    """The smallest number of seeds that decides; None if none does."""
    return int(_PLANS[decided.argmax()]) if decided.any() else None


def _power(distance: float, spread: float, seeds: np.ndarray, alpha: float) -> np.ndarray:
    """Chance that a one-sided t test of so many seeds (sign test where they agree) finds it."""
    if spread <= _CERTAIN * distance:
        return ((distance > 0) & (0.5**seeds <= alpha)).astype(float)
    shift = distance / spread * np.sqrt(seeds)
    return 1 - special.nctdtr(seeds - 1, shift, special.stdtrit(seeds - 1, 1 - alpha))


def _agree(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
