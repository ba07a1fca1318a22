"""Tables as files: CSV and parquet with the same content, and the README that describes them.

The jobs that make tables call `write_tables` and `write_readme`; the tables are in `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.statistics import METRICS
from grpo_origin.analysis.table_entry import column_lines
from grpo_origin.analysis.tables import TABLES
from grpo_origin.config.paths import BASE
from grpo_origin.jobs.files import atomic


def make_table(name: str, sources: Sources | Mapping[str, Sources]) -> pd.DataFrame:
    """A table with the columns and types of its entry, of a run or of its variants by name.

    Raises ValueError if it has others.
    """
    entry = TABLES[name]
    variants = {BASE: sources} if isinstance(sources, Sources) else sources
    if entry.make:
        parts = [entry.make(own).assign(variant=variant) for variant, own in variants.items()]
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    elif entry.contrast:
        table = entry.contrast(variants)
    if set(table.columns) != set(entry.columns):
        odd = sorted(set(table.columns) ^ set(entry.columns))
        raise ValueError(f"table {name}: columns made and described differ: {', '.join(odd)}")
    return table[[*entry.columns]].astype(entry.types)


def write_tables(outputs: Iterable[str | Path], sources: Sources | Mapping[str, Sources]) -> None:
    """Make the tables that the outputs (`.../NAME.csv`, `.../NAME.parquet`) are named for.

    Each file is written atomically. Raises KeyError for a name that is not in TABLES.
    """
    paths = [Path(path) for path in outputs]
    for name in dict.fromkeys(path.stem for path in paths):
        table = make_table(name, sources)
        for path in paths:
            if path.stem == name:
                write(table, path)


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table atomically: parquet, or CSV with text in quotes and nothing for null.

    CSV has no types: the quotes keep the text "0.10" apart from the number 0.1.
    """
    import pyarrow as pa
    from pyarrow import csv

    with atomic(path) as temporary:
        if Path(path).suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            csv.write_csv(pa.Table.from_pandas(table, preserve_index=False), temporary)


def readme(names: Iterable[str]) -> str:
    """What the tables of a run hold, in Markdown: rows, columns, types and units."""
    lines = [
        "# Tables of this run",
        "",
        "Each table is here as CSV and as parquet, with the same rows, columns and values. Masses,",
        "shares and accuracies are numbers from 0 to 1. Text stands in quotes in the CSV files and",
        "nothing for a missing value, but CSV has no types: ratios are text (`0.10` is not `0.1`),",
        'so read `pandas.read_csv(path, dtype={"ood_ratio": str, "seed": int})` or the parquet.',
        "",
        "## Metrics",
        "",
        *(f"- `{name}`: {metric.meaning}" for name, metric in METRICS.items()),
    ]
    for name in names:
        entry = TABLES[name]
        lines += ["", f"## {name}", "", f"One row: {entry.row}.", ""]
        lines += column_lines(entry.columns)
    return "\n".join(lines) + "\n"


def write_readme(path: str | Path, names: Iterable[str]) -> None:
    """Write `readme` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(readme(names), encoding="utf-8")
