"""What sampling can find: from exact masses of the training prompts, before RL takes a step.

Until the first rewarded completion nothing moves: all advantages are 0, and the KL term has no
gradient at the reference. So the chance of a first success follows exactly from the masses before.
Called by the RL stage's certificate and by analysis; knows masses only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def expected_successes(log_mass: ArrayLike, samples: float) -> float:
    """Mean number of right completions among `samples` of each prompt: samples x sum of Q.

    Here and below `samples` may be a mean over prompts.
    """
    return samples * float(np.exp(np.minimum(np.asarray(log_mass, dtype=float), 0.0)).sum())


def any_success(log_mass: ArrayLike, samples: float) -> float:
    """Probability of at least one right completion: 1 - prod (1 - Q)^samples, exact and at most the
    expected number of them (union bound)."""
    none = samples * float(log_miss(log_mass).sum())
    return float(-np.expm1(none))


def contrast(log_mass: ArrayLike, group_size: int) -> np.ndarray:
    """Probability that a prompt's group holds right and wrong completions: 1 - Q^G - (1 - Q)^G.

    Only such groups have advantages other than 0 where these are relative to the group.
    """
    log_hit = np.minimum(np.asarray(log_mass, dtype=float), 0.0)
    with np.errstate(invalid="ignore"):
        none, every = np.exp(group_size * log_miss(log_hit)), np.exp(group_size * log_hit)
    return np.clip(1 - none - every, 0.0, 1.0)


def budget_mass(samples: float, chance: float) -> float:
    """Largest mean mass at which `samples` completions hold a right one with at most this chance.

    From the union bound: chance / samples. Below it a mass counts as zero for that budget.
    """
    return chance / samples


def log_miss(log_mass: ArrayLike) -> np.ndarray:
    """ln(1 - Q) from ln Q, stable at both ends (Maechler 2012, log1mexp)."""
    log_hit = np.minimum(np.asarray(log_mass, dtype=float), 0.0)
    with np.errstate(divide="ignore"):
        near_one = np.log(-np.expm1(log_hit))
        return np.where(log_hit > -np.log(2), near_one, np.log1p(-np.exp(log_hit)))
