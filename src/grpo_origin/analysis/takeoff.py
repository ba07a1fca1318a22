"""Take-off: how many seeds rise at a ratio where a seed learns all or nothing.

There a mean says little; the share of seeds has an exact interval. A table of the run, called by
the registry of tables.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from grpo_origin.analysis.intervals import clopper_pearson_interval

CELL = ["axis", "ood_ratio", "method", "trained_on"]
COLUMNS = (*CELL, "seeds", "taken_off", "low", "high", "gain")


def takeoff_table(pairs: pd.DataFrame, takeoff: float, methods: Iterable[str]) -> pd.DataFrame:
    """One row an axis, positive ratio, method and training split; columns of COLUMNS.

    `pairs` are rows of `prompt_gains`. taken_off: share of seeds whose mean gain on OOD prompts
    exceeds `takeoff`, low and high its Clopper-Pearson interval; gain: mean over seeds.
    """
    chosen = (pairs["split"] == "ood") & pairs["method"].isin(list(methods))
    pairs = pairs[chosen & (pairs["ood_ratio"].astype(float) > 0)]
    means = pairs.groupby([*CELL, "seed"], sort=False)["gain"].mean()
    rows = []
    for cell, gains in means.groupby(CELL, sort=False):
        seeds, count = len(gains), int((gains > takeoff).sum())
        low, high = clopper_pearson_interval(count, seeds)
        rows.append((*cell, seeds, count / seeds, low, high, gains.mean()))
    return pd.DataFrame(rows, columns=list(COLUMNS))
