"""Evaluation files of a run as one table, checked. Every table starts from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from grpo_origin.config.paths import stage_of
from grpo_origin.evaluation.table import COLUMNS, NULL_BEFORE_RL, evaluation_schema
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import read_table

STAGE = ["axis", "seed", "ood_ratio", "variant", "stage"]
ROW = [*STAGE, "split", "task", "prompt_index"]


def read_evaluations(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read evaluation files into one table, a row a stage and test prompt; columns of `COLUMNS`.

    Raises ArtefactError if a file is missing, truncated, foreign or empty, if a log mass is not the
    log of a probability, if `method` or `trained_on` is not that of the stage, or if a row is there
    twice (in one file or in two).
    """
    tables: list[pd.DataFrame] = []
    stages: dict[tuple, str | Path] = {}
    for path in paths:
        table = _read(path)
        for stage in table[STAGE].drop_duplicates().itertuples(index=False, name=None):
            if stage in stages:
                raise ArtefactError(path, f"repeats the cell {stage} of {stages[stage]}")
            stages[stage] = path
        tables.append(table)
    if not tables:
        raise ValueError("no evaluation files given")
    return pd.concat(tables, ignore_index=True)


def _read(path: str | Path) -> pd.DataFrame:
    import pyarrow as pa

    try:
        table = (
            read_table(path, [*COLUMNS]).select([*COLUMNS]).cast(evaluation_schema()).to_pandas()
        )
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(path, f"foreign parquet file ({reason})") from None
    if table.empty:
        raise ArtefactError(path, "holds no evaluations")
    needed = table.drop(columns=[*NULL_BEFORE_RL])
    if needed.isna().to_numpy().any() or table["log_mass"].max() > 1e-3:
        raise ArtefactError(path, "holds values that are missing or no log probability")
    if table.duplicated(ROW).any():
        raise ArtefactError(path, "holds the same stage and prompt twice")
    for name, *labels in (
        table[["stage", *NULL_BEFORE_RL]].drop_duplicates().itertuples(index=False, name=None)
    ):
        stage = stage_of(name)
        given = [None if pd.isna(label) else label for label in labels]
        if given != [stage.method, stage.trained_on]:
            raise ArtefactError(path, f"gives stage {name} the method and prompts {given}")
    return table
