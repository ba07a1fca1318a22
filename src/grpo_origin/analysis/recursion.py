"""Mroueh's recursion along measured learning curves: the next mass from the present one.

p_n = sigmoid(logit(p) + w(p_{n-1}) / beta), w = 1 / sqrt(p_{n-1} (1 - p_{n-1})), with p the chance
of success of the model that the KL divergence is to (arXiv 2503.06639: the recurrence of GRPO, and
of its mirror form, where p = p_{n-1}; `evaluation.amplification`). An iteration is taken for an
optimiser step, and the mean mass of a curve for the chance of its prompts. Called by the script
that fits the forecast (`benchmarks/outcome.py`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.outcome_check import BETAS
from grpo_origin.analysis.outcome_stages import STAGE
from grpo_origin.evaluation.amplification import amplified

OPEN = (0.01, 0.9)  # present masses from which something may be seen to happen


def ahead(curves: pd.DataFrame, beta: float) -> pd.DataFrame:
    """Every point of learning curves but the first, beside what the one before lets expect.

    `curves` are rows of `Sources.curves` of the split trained on, `beta` the run's KL weight.
    Columns STAGE, step, present (mass at the point before), measured, and the forecasts of it:
    `stays`, `recursion` with `beta`, and `fitted`, whose weight has the least absolute error on the
    other axes. An axis by itself has no `fitted`.
    """
    table = curves.sort_values([*STAGE, "step"])
    groups = table.groupby(STAGE, sort=False)
    table = table.assign(present=groups["mass"].shift(), iterations=groups["step"].diff())
    table = table[table["present"].notna()].rename(columns={"mass": "measured"})
    known = (table["present"].to_numpy(float), table["iterations"].to_numpy(int))
    table = table.assign(stays=table["present"], recursion=_next(*known, beta))
    by_weight = np.array([_next(*known, float(weight)) for weight in BETAS])
    errors = np.abs(by_weight - table["measured"].to_numpy())
    fitted = np.full(len(table), np.nan)
    for axis in table["axis"].unique():
        own = (table["axis"] == axis).to_numpy()
        if not own.all():
            fitted[own] = by_weight[errors[:, ~own].mean(1).argmin()][own]
    names = [*STAGE, "step", "present", "measured", "stays", "recursion", "fitted"]
    return table.assign(fitted=fitted)[names].reset_index(drop=True)


def _next(present: np.ndarray, iterations: np.ndarray, beta: float) -> np.ndarray:
    """Masses after so many iterations (n,), from those at present (n,)."""
    found = np.empty(len(present))
    for count in np.unique(iterations):
        same = iterations == count
        found[same] = amplified(present[same], beta, int(count), mirror=True)
    return found


def errors_ahead(table: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error of each forecast in rows of `ahead`, for all points and for OPEN ones."""
    moving = table["present"].between(*OPEN)
    rows = []
    for points, part in {"all": table, "open": table[moving]}.items():
        for name in ("stays", "recursion", "fitted"):
            off = part[name] - part["measured"]
            row = {"points": points, "forecast": name, "n": len(part)}
            rows.append(row | {"mae": off.abs().mean(), "bias": off.mean()})
    return pd.DataFrame(rows)
