"""Run-level tables as files: the same rows as CSV and as parquet, and the training logs of all GRPO stages in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from grpo_origin.jobs.files import atomic, read_table


def write(table: pd.DataFrame, csv: str | Path, parquet: str | Path) -> None:
    """Write a table twice, each atomically."""
    with atomic(csv) as temporary:
        table.to_csv(temporary, index=False)
    with atomic(parquet) as temporary:
        table.to_parquet(temporary, index=False)


def training_logs(
    cells: Sequence[Mapping[str, Any]], stages: Sequence[str], folders: Sequence[str | Path]
) -> pd.DataFrame:
    """Training logs of the RL stages, one row a step: axis, seed, ood_ratio, stage, step and what was logged.

    Wall seconds stay in the stages' own logs, so that tables of the same run are the same whenever it ran.

    `folders` are the model folders of every cell and stage, cells outermost. Raises ArtefactError if a log can't be read.
    """
    logs = []
    places = [(cell, stage) for cell in cells for stage in stages]
    for (cell, stage), folder in zip(places, folders, strict=True):
        if "~" not in stage:
            continue
        log = (
            read_table(Path(folder) / "training_log.parquet")
            .to_pandas()
            .drop(columns="seconds", errors="ignore")
        )
        logs.append(
            log.assign(axis=cell["axis"], seed=cell["seed"], ood_ratio=cell["ratio"], stage=stage)
        )
    table = pd.concat(logs, ignore_index=True)
    first = ["axis", "seed", "ood_ratio", "stage", "step"]
    return table[[*first, *(name for name in table.columns if name not in first)]]
