"""What theory predicts for KL-regularised RL with a binary reward: closed forms, and tables of how far runs are from them.

Masses Q are probabilities of the one correct completion under the reference model. docs/theory.md derives every formula
here. Knows neither models nor trainers (`converge` runs the experiment).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import binom

from grpo_origin.files import read_table
from grpo_origin.statistics import binomial_agrees, pass_at_k, unbiased_pass_at_k

CELL = ["axis", "seed", "ood_ratio"]
PROMPT_COLUMNS = (
    *("method", "beta", *CELL, "pool", "prompt_index", "task"),
    *("log_mass_before", "log_mass_after", "log_mass_fixed_point"),
)
SAMPLE_COLUMNS = (*CELL, "split", "task", "prompt_index", "log_mass", "samples", "successes")
STD_EPSILON = 1e-4  # TRL adds it to the standard deviation of a group


def optimal_mass(q: ArrayLike, beta: float) -> np.ndarray:
    """The law: correct mass Q e^{1/beta} / (1 - Q + Q e^{1/beta}) of the maximiser of E[R] - beta KL (arXiv 2510.15990).

    In log-odds it adds 1/beta, which neither overflows nor cancels. Raises ValueError unless beta > 0.
    """
    q = _checked(q, beta)
    with np.errstate(divide="ignore", over="ignore"):
        reward = 1 / np.float64(beta)
        return np.where((q > 0) & (q < 1), expit(logit(np.where(q > 0, q, 0.5)) + reward), q)


def gain_bound(q: ArrayLike, beta: float) -> np.ndarray:
    """Upper bound (e^{1/beta} - 1) Q of the gain in mass; infinite where e^{1/beta} overflows, 0 where Q is 0."""
    q = _checked(q, beta)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.where(q > 0, np.expm1(1 / np.float64(beta)) * q, 0.0)


def mass_bound(q: ArrayLike, beta: float) -> np.ndarray:
    """Upper bound Q + (e^{1/beta} - 1) Q of the mass; says nothing where it exceeds 1."""
    return np.asarray(q, dtype=float) + gain_bound(q, beta)


def optimal_objective(q: ArrayLike, beta: float) -> np.ndarray:
    """The largest E[R] - beta KL there is: beta ln Z with Z = 1 - Q + Q e^{1/beta}."""
    q = _checked(q, beta)
    with np.errstate(divide="ignore"):
        return beta * np.logaddexp(np.log1p(-q), np.log(q) + 1 / beta)


def _checked(q: ArrayLike, beta: float) -> np.ndarray:
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}: without a KL term there is no finite optimum")
    q = np.asarray(q, dtype=float)
    if q.size and not ((q >= 0) & (q <= 1)).all():
        raise ValueError("a mass must lie in [0, 1]")
    return q


def group_contrast(q: ArrayLike, group_size: int) -> np.ndarray:
    """How much larger GRPO's advantage of a correct completion is, on average, than that of a wrong one, at mass q.

    Advantages are (R - mean) / (std + 1e-4) over a group of `group_size` in which each of the others is right with
    probability q. About 1 / sqrt(q (1 - q)) for large groups; without the division by std it would be 1.
    """
    q = np.atleast_1d(np.asarray(q, dtype=float))
    others = np.arange(group_size)  # correct ones among the other group_size - 1

    def advantage(reward: float, correct: np.ndarray) -> np.ndarray:
        std = np.sqrt(correct * (group_size - correct) / (group_size * (group_size - 1)))
        return (reward - correct / group_size) / (std + STD_EPSILON)

    contrast = advantage(1.0, others + 1) - advantage(0.0, others)
    return binom.pmf(others, group_size - 1, q[:, None]) @ contrast


def token_tilt(log_probs: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Mass (prompts,) at the fixed point of a per-token KL penalty with reward contrast `strength` (prompts,), in units of beta.

    `log_probs` (prompts, T) are the reference's log-probabilities of the gold tokens. Each token's log-odds gain
    `strength` times the probability V that the rest will be right, so the recursion runs from the last token back.
    """
    ahead = np.ones(len(log_probs))
    for column in log_probs.T[::-1]:
        ahead = ahead * expit(column - np.log(-np.expm1(np.minimum(column, -1e-300))) + strength * ahead)
    return ahead


def grpo_mass(log_probs: np.ndarray, beta: float, group_size: int) -> np.ndarray:
    """Correct mass (prompts,) at which GRPO as practised comes to rest, for a policy free at every prefix.

    GRPO divides advantages by the group's standard deviation, which depends on the mass itself, so this is a fixed point;
    it is approached from the reference's mass, as training does.
    """
    start = np.exp(log_probs.sum(1))
    _checked(start, beta)
    mass = start.copy()
    for _ in range(2000):
        mass += 0.02 * (token_tilt(log_probs, group_contrast(mass, group_size) / beta) - mass)
    return mass


def read_prompts_table(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All runs to convergence, one row a prompt, with masses instead of their logarithms, the law and the bound."""
    table = pd.concat([read_table(path, PROMPT_COLUMNS).to_pandas() for path in paths], ignore_index=True)
    for name in ("before", "after", "fixed_point"):
        table[f"mass_{name}"] = np.exp(table.pop(f"log_mass_{name}"))
    by_beta = table.groupby("beta")["mass_before"]
    for name, function in (("law", optimal_mass), ("bound", mass_bound)):
        table[name] = by_beta.transform(lambda q, function=function: function(q.clip(0, 1), q.name))
    return table


def summarise(prompts: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """One row a run and pool: mean masses, mean distance to the law and to the method's own fixed point, share above the bound.

    A prompt is above the bound if it is so by more than `tolerance`; prompts whose bound exceeds 1 can't be.
    """
    rows = prompts.assign(
        difference=prompts["mass_after"] - prompts["law"],
        distance=(prompts["mass_after"] - prompts["law"]).abs(),
        fixed_point_distance=(prompts["mass_after"] - prompts["mass_fixed_point"]).abs(),
        above_bound=(prompts["mass_after"] > prompts["bound"] + tolerance).astype(float),
        bound_below_1=(prompts["bound"] < 1).astype(float),
    )
    columns = ["mass_before", "mass_after", "law", "mass_fixed_point", "difference", "distance", "fixed_point_distance", "above_bound"]
    grouped = rows.groupby(["method", "beta", *CELL, "pool"], sort=True)
    return grouped[[*columns, "bound_below_1"]].mean().assign(prompts=grouped.size()).reset_index()


def sampling_agreement(samples: pd.DataFrame, k: int = 8) -> pd.DataFrame:
    """Sampled against exact, one row an axis and split: frequency and Q, pass@k by both ways, binomial agreement."""
    rows = []
    for (axis, seed, ratio, split), part in samples.groupby([*CELL, "split"]):
        n, q = int(part["samples"].iloc[0]), np.exp(part["log_mass"])
        frequency = part["successes"] / n
        row = {"axis": axis, "seed": seed, "ood_ratio": ratio, "split": split, "prompts": len(part), "samples": n}
        row |= {"exact": q.mean(), "sampled": frequency.mean(), "standard_error": np.sqrt((q * (1 - q) / n).sum()) / len(part)}
        row |= {"largest_difference": (frequency - q).abs().max(), "k": min(k, n)}
        row["exact_pass_at_k"] = pass_at_k(part["log_mass"], row["k"]).mean()
        row["sampled_pass_at_k"] = unbiased_pass_at_k(n, part["successes"].to_numpy(), row["k"]).mean()
        rows.append(row | {"agrees": binomial_agrees(part["successes"], n, q)})
    return pd.DataFrame(rows)


def read_samples(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All sampling checks, one row a prompt."""
    return pd.concat([read_table(path, SAMPLE_COLUMNS).to_pandas() for path in paths], ignore_index=True)
