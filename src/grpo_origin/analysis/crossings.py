"""Where curves of pass@k before and after RL cross: from that k on, sampling more beats RL.

A table of the run, called by the registry of tables.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import optimize

from grpo_origin.analysis.statistics import PASS_AT, pass_at_k

STAGE = ["axis", "seed", "ood_ratio", "stage", "method", "trained_on", "split"]
COLUMNS = (*STAGE, "k", "pass_at_k", "ahead")
_GRID = np.linspace(0, np.log(max(PASS_AT)), 41)  # ln k at which signs are compared
_EQUAL = 1e-9  # curves that differ by no more than this don't differ


def crossings_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row an RL stage, seed and split; columns of COLUMNS.

    `pairs` are rows of `prompt_gains`. k: the first real number of samples, up to the largest of
    PASS_AT, at which mean pass@k of the stage and of SFT are equal, and pass_at_k there; NaN where
    they don't cross. ahead: who has more at k = 1, or `neither`.
    """
    rows = []
    for place, prompts in pairs.groupby(STAGE, sort=False, observed=True):
        before, after = (prompts[f"log_mass_{when}"].to_numpy() for when in ("before", "after"))
        k, level = crossing(before, after)
        lead = np.exp(after).mean() - np.exp(before).mean()
        ahead = "neither" if abs(lead) <= _EQUAL else "RL" if lead > 0 else "SFT"
        rows.append((*place, k, level, ahead))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def crossing(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Where mean pass@k of two sets of log masses is first equal: k and the value; NaN if never."""

    def lead(log_k: float) -> float:
        k = np.exp(log_k)
        return float(pass_at_k(after, k).mean() - pass_at_k(before, k).mean())

    leads = [(place, value) for place in _GRID if abs(value := lead(place)) > _EQUAL]
    for (start, first), (end, second) in pairwise(leads):
        if first * second < 0:
            k = float(np.exp(optimize.bisect(lead, start, end, xtol=1e-9)))
            return k, float(pass_at_k(before, k).mean())
    return np.nan, np.nan
