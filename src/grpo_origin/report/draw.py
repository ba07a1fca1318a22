"""Draws the figures of a run from its table files; called by workflow/scripts/figures.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from grpo_origin.analysis.stages import of_base, of_method
from grpo_origin.analysis.tables import TABLES
from grpo_origin.jobs.files import read_table
from grpo_origin.report.figures import ENTRIES
from grpo_origin.report.plotting import save, style


def by_name(paths: Iterable[str | Path]) -> dict[str, str | Path]:
    """Files by their name without suffix, which is that of the table or figure."""
    return {Path(path).stem: path for path in paths}


def draw_figures(
    figures: Mapping[str, tuple[str, str | None]],
    tables: Iterable[str | Path],
    pngs: Iterable[str | Path],
    pdfs: Iterable[str | Path],
    *,
    method: str,
    beta: float,
    equivalent: float,
) -> None:
    """Draw figures (name -> kind and axis) into the PNG and PDF files of their names.

    `tables` are parquet files by name, `method` the one that figures of a single method show,
    `beta` its KL weight, `equivalent` that of `claims`. Raises ArtefactError if a table can't be
    read.
    """
    full = {name: read_table(path).to_pandas() for name, path in by_name(tables).items()}
    full = {n: table if TABLES[n].contrast else of_base(table) for n, table in full.items()}
    single = {name: of_method(table, method) for name, table in full.items()}
    png, pdf = by_name(pngs), by_name(pdfs)
    with style():
        for name, (kind, axis) in figures.items():
            print(f"drawing {name}", flush=True)
            entry = ENTRIES[kind]
            picture = entry.figure(full if entry.all_methods else single, axis, beta, equivalent)
            save(picture, png[name], pdf[name])
