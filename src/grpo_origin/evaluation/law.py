"""What theory predicts for KL-regularised RL with a binary reward: closed forms.

The law and its bound are computed here and nowhere else; `rl.converge`, `analysis` and `report`
call them. Masses Q are probabilities of the one correct completion under the reference model.
docs/theory.md derives every formula. Knows neither models nor trainers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import binom

STD_EPSILON = 1e-4  # TRL adds it to the standard deviation of a group


def optimal_mass(q: ArrayLike, beta: float) -> np.ndarray:
    """The law: mass Q e^{1/beta} / (1 - Q + Q e^{1/beta}) of the maximiser of E[R] - beta KL.

    In log-odds it adds 1/beta, which neither overflows nor cancels (arXiv 2510.15990). Raises
    ValueError unless beta > 0 and masses lie in [0, 1].
    """
    q = _checked(q, beta)
    with np.errstate(divide="ignore", over="ignore"):
        reward = 1 / np.float64(beta)
        return np.where((q > 0) & (q < 1), expit(logit(np.where(q > 0, q, 0.5)) + reward), q)


def gain_bound(q: ArrayLike, beta: float) -> np.ndarray:
    """Upper bound (e^{1/beta} - 1) Q of the gain in mass: 0 where Q is 0, else it may overflow."""
    q = _checked(q, beta)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.where(q > 0, np.expm1(1 / np.float64(beta)) * q, 0.0)


def mass_bound(q: ArrayLike, beta: float) -> np.ndarray:
    """Upper bound Q + (e^{1/beta} - 1) Q of the mass; says nothing where it exceeds 1."""
    return np.asarray(q, dtype=float) + gain_bound(q, beta)


def log_mass_bound(log_q: ArrayLike, beta: float) -> np.ndarray:
    """`mass_bound` from ln Q, in nats: ln Q + 1/beta. It stays exact where Q underflows."""
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}: without a KL term there is no bound")
    return np.asarray(log_q, dtype=float) + 1 / beta


def optimal_objective(q: ArrayLike, beta: float) -> np.ndarray:
    """The largest E[R] - beta KL there is: beta ln Z with Z = 1 - Q + Q e^{1/beta}."""
    q = _checked(q, beta)
    with np.errstate(divide="ignore"):
        return beta * np.logaddexp(np.log1p(-q), np.log(q) + 1 / beta)


def _checked(q: ArrayLike, beta: float) -> np.ndarray:
    if not beta > 0:
        raise ValueError(
            f"beta must be positive, not {beta}: without a KL term there is no finite optimum"
        )
    q = np.asarray(q, dtype=float)
    if q.size and not ((q >= 0) & (q <= 1)).all():
        raise ValueError("a mass must lie in [0, 1]")
    return q


def group_contrast(q: ArrayLike, group_size: int) -> np.ndarray:
    """Mean advantage of a correct completion minus that of a wrong one under GRPO, at mass q.

    Advantages are (R - mean) / (std + 1e-4) over a group of `group_size` in which each of the
    others is right with probability q. About 1 / sqrt(q (1 - q)) for large groups; without the
    division by std it would be 1.
    """
    q = np.atleast_1d(np.asarray(q, dtype=float))
    others = np.arange(group_size)  # correct ones among the other group_size - 1

    def advantage(reward: float, correct: np.ndarray) -> np.ndarray:
        std = np.sqrt(correct * (group_size - correct) / (group_size * (group_size - 1)))
        return (reward - correct / group_size) / (std + STD_EPSILON)

    contrast = advantage(1.0, others + 1) - advantage(0.0, others)
    return binom.pmf(others, group_size - 1, q[:, None]) @ contrast


def token_tilt(log_probs: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Mass (prompts,) at the fixed point of a per-token KL penalty.

    `log_probs` (prompts, T) are the reference's log-probabilities of the gold tokens, `strength`
    (prompts,) is the reward contrast in units of beta. Each token's log-odds gain `strength` times
    the probability that the rest will be right, so the recursion runs from the last token back.
    """
    ahead = np.ones(len(log_probs))
    for column in log_probs.T[::-1]:
        ahead = ahead * expit(
            column - np.log(-np.expm1(np.minimum(column, -1e-300))) + strength * ahead
        )
    return ahead


def grpo_mass(log_probs: np.ndarray, beta: float, group_size: int) -> np.ndarray:
    """Mass (prompts,) at which GRPO as practised rests, for a policy free at every prefix.

    `log_probs` (prompts, T) as in `token_tilt`. GRPO divides advantages by the group's standard
    deviation, which depends on the mass itself, so this is a fixed point; it is approached from the
    reference's mass, as training does.
    """
    start = np.exp(log_probs.sum(1))
    _checked(start, beta)
    mass = start.copy()
    for _ in range(2000):
        mass += 0.02 * (token_tilt(log_probs, group_contrast(mass, group_size) / beta) - mass)
    return mass
