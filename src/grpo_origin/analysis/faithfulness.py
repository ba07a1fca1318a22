"""Faithfulness of traces: the measures of `evaluation.faithfulness`, by seed and over seeds.

Called by the registry of tables; the claim on causal use is in `gain_claims`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.intervals import LEVEL, clopper_pearson_interval, t_interval
from grpo_origin.analysis.stages import with_method
from grpo_origin.evaluation.trace_file import AFTER_WRONG, COUNTS, MASSES, causal_use

CELL = ["axis", "ood_ratio", "stage", "split"]
USE = "causal_use"
# Shares of completions, each with an exact interval: measure -> its count in the file, and of what.
SHARES = {
    "consistent": ("consistent", "samples"),
    "right_answers": ("right", "samples"),
    "wrong_traces": ("wrong_traces", "samples"),
}
# Mean masses of the gold answer over completions: of all, and of those whose trace is wrong.
AFTER = {"right_for_wrong_reasons": "samples", AFTER_WRONG: "wrong_traces"}
MEASURES = (*SHARES, *AFTER, USE, *MASSES)
LOWEST = {USE: -1.0}  # of measures that can be below 0


def seed_measures(rows: pd.DataFrame) -> pd.DataFrame:
    """Every measure in every seed, from the rows of the files.

    Columns axis, seed, ood_ratio, stage, method, trained_on, split, measure, mean, low, high,
    prompts. The interval of a share takes all completions as draws of one proportion, which is too
    wide where prompts differ; exact measures have none. Without a wrong trace there is no mass
    after one, so no row of it.
    """
    measured = []
    for place, part in rows.groupby(["seed", *CELL], sort=False):
        totals = {name: part[name].sum() for name in (*COUNTS, AFTER_WRONG)}
        masses = {name: part[name].to_numpy(float) for name in MASSES}
        means = {USE: causal_use(masses).mean()}
        means |= {name: np.exp(np.minimum(values, 0)).mean() for name, values in masses.items()}
        means |= {
            name: totals[AFTER_WRONG] / totals[count]
            for name, count in AFTER.items()
            if totals[count]
        }
        found = {name: (mean, np.nan, np.nan) for name, mean in means.items()}
        for name, (count, of) in SHARES.items():
            n, k = int(totals[of]), int(totals[count])
            found[name] = (k / n, *clopper_pearson_interval(k, n))
        known = dict(zip(["seed", *CELL], place, strict=True)) | {"prompts": len(part)}
        measured += [
            known | {"measure": name} | dict(zip(("mean", "low", "high"), found[name], strict=True))
            for name in MEASURES
            if name in found
        ]
    return with_method(pd.DataFrame(measured))


def over_seeds(measures: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of `seed_measures` with t intervals; columns seeds and prompts count.

    The interval is empty for one seed, since prompts don't stand in for seeds.
    """
    keys = [*CELL, "measure"]
    groups = measures.groupby(keys, sort=False)
    table = groups.agg(
        mean=("mean", "mean"),
        spread=("mean", "std"),
        seeds=("seed", "nunique"),
        prompts=("prompts", "sum"),
    ).reset_index()
    bounds = t_interval(table["mean"], table.pop("spread"), table["seeds"])
    lowest = table["measure"].map(LOWEST).fillna(0.0).to_numpy()
    low, high = (np.clip(bound, lowest, 1.0) for bound in bounds)
    label = [
        f"{100 * LEVEL:g} % t interval over {n} seeds" if n > 1 else "none of one seed"
        for n in table["seeds"]
    ]
    return with_method(table.assign(low=low, high=high, interval=label))
