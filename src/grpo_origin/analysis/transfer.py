"""Prompts without mass beside the mass of their task: does what RL learns on others reach them?

A policy free at every prompt can't move where it never succeeds; a model shares its parameters.
Called by the registry of tables and by the claim `transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from grpo_origin.analysis.evidence import hidden

WITH_MASS = 10  # a task has mass from this many times the mass that counts as zero
CELL = ["axis", "seed", "ood_ratio", "stage", "method", "trained_on", "task"]
COLUMNS = (*CELL, "task_mass_before", "prompts", "before", "after")


def task_cells(pairs: pd.DataFrame, zero_mass: float) -> pd.DataFrame:
    """One row a method, cell and OOD task, of RL on OOD prompts; columns of COLUMNS.

    `pairs` are rows of `prompt_gains`. task_mass_before: mean mass of all its prompts after SFT;
    prompts: those without mass (below `zero_mass` in the pretrained model and after SFT), before
    and after: their mean mass (NaN where there are none).
    """
    pairs = pairs[(pairs["split"] == "ood") & (pairs["trained_on"] == "ood")]
    without = (pairs["mass_before"] < zero_mass) & ~hidden(pairs, zero_mass)
    groups = pairs.assign(
        prompts=without,
        before=pairs["mass_before"].where(without),
        after=pairs["mass_after"].where(without),
    ).groupby(CELL, sort=False, observed=True)
    table = groups.agg(
        task_mass_before=("mass_before", "mean"),
        prompts=("prompts", "sum"),
        before=("before", "mean"),
        after=("after", "mean"),
    )
    return table.reset_index()[[*COLUMNS]]


def transfer_table(pairs: pd.DataFrame, zero_masses: Mapping[str, float]) -> pd.DataFrame:
    """The task cells that have prompts without mass, of the methods with these zero masses."""
    parts = [
        task_cells(pairs[pairs["method"] == method], zero_mass)
        for method, zero_mass in zero_masses.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[table["prompts"] > 0].reset_index(drop=True)
