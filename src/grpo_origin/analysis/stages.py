"""Stages in tables: which RL method a row belongs to and how a text calls it.

Used by every module of this room and by the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from grpo_origin.config.paths import BASE, BEFORE_RL, stage_of

if TYPE_CHECKING:
    import pandas as pd

METHOD_COLUMNS = ("method", "trained_on")


def with_method(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns `method` and `trained_on` (null before RL) after its `stage`."""
    table = table.drop(columns=[name for name in METHOD_COLUMNS if name in table])
    stages = {name: stage_of(name) for name in table["stage"].unique()}
    place = list(table.columns).index("stage") + 1
    for name in reversed(METHOD_COLUMNS):
        values = {stage: getattr(parts, name) for stage, parts in stages.items()}
        table.insert(place, name, table["stage"].map(values).astype("str"))
    return table


def of_base(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the run's own settings, without the column that says so."""
    if "variant" not in table:
        return table
    return table[table["variant"] == BASE].drop(columns="variant").reset_index(drop=True)


def of_method(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of the stages before RL and of one method; a table without stages as it is."""
    if "stage" not in table:
        return table
    return table[table["method"].isna() | (table["method"] == method)]


def start_of(stages: Iterable[str]) -> str:
    """The stage that RL starts from: SFT, or pretraining where there is none."""
    names = set(stages)
    return next((name for name in reversed(BEFORE_RL) if name in names), BEFORE_RL[-1])


def entries(variant: str, names: pd.Series) -> pd.Series:
    """Methods or stages (n,) as tables of a run and its variants name them, `variant: name`."""
    return names if variant == BASE else f"{variant}: " + names


def method_label(method: str) -> str:
    """A method as a text calls it: `GRPO` for plain GRPO, else its name."""
    return "GRPO" if method == "grpo" else method
