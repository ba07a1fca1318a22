"""Sampled right answers: their mass where any trace may lead to them.

The exact mass is that of the one right trace with its answer, so it is a lower bound. Called by the
registry of tables.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.contrasts import STAGE
from grpo_origin.analysis.intervals import clopper_pearson_interval

CELL = ["axis", "seed", "ood_ratio"]
QUANTITIES = {"id": "ID answers, sampled", "ood": "OOD answers, sampled"}


def answer_masses(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of completions that end in the right answer, a row a cell, stage and split.

    Columns CELL, STAGE, split, prompts, samples (of each prompt), trace_mass (mean exact mass of
    the right completion), answer_mass, low and high. The interval takes all completions of the row
    as draws of one proportion, which is too wide where prompts differ.
    """
    rows = []
    groups = answers.groupby([*CELL, *STAGE, "split"], sort=False, dropna=False)
    for place, part in groups:
        hits, drawn = int(part["successes"].sum()), int(part["samples"].sum())
        low, high = clopper_pearson_interval(hits, drawn)
        rows.append(
            dict(zip([*CELL, *STAGE, "split"], place, strict=True))
            | {
                "prompts": len(part),
                "samples": int(part["samples"].iloc[0]),
                "trace_mass": float(np.exp(part["log_mass"].clip(upper=0.0)).mean()),
                "answer_mass": hits / drawn,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def answer_quantities(answers: pd.DataFrame) -> pd.DataFrame:
    """The same as what `contrasts.quantities` gives, a row a seed, stage and split."""
    table = answer_masses(answers)
    table = table.assign(quantity=table["split"].map(QUANTITIES))
    return table.rename(columns={"answer_mass": "value"})[[*CELL, *STAGE, "quantity", "value"]]
