"""The report of a run: one HTML page that needs nothing but itself, figures and tables inside.

Called by workflow/scripts/report.py. A page of our own rather than `snakemake --report`: it is a
node of the DAG like any other, so `make figures` ends with it and it is never out of date; it opens
with the verdicts and shows every figure; and all it needs is inside, so nothing can fail to load.
Without JavaScript only search and explorer are missing.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from grpo_origin.analysis.stages import method_label, of_base
from grpo_origin.analysis.statistics import LEVEL
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.schema import Settings
from grpo_origin.jobs.files import atomic
from grpo_origin.report.completions import TITLE as COMPLETIONS
from grpo_origin.report.completions import legend, shown_cells
from grpo_origin.report.explorer import bundle, charts, explorer_data
from grpo_origin.report.figures import figures_of
from grpo_origin.report.registry import (
    CATEGORIES,
    EXPLORER_TABLES,
    PAGE_TEMPLATE,
    SHOWN_TABLES,
    FigureEntry,
)
from grpo_origin.report.verdicts import ALL, SAID, SYMBOLS, cards, signed, summary
from grpo_origin.report.words import GLOSSARY, PAPER

EXPLORE, RUN = "Explore", "How it was run"
# Libraries whose versions can change the weights that a stage ends with.
MATTERING = ("torch", "transformers", "trl")
# What the explorer lets a reader choose, with the words before it; page.js.j2 has their order.
CHOICES = {
    "variant": "variant",
    "axis": "axis",
    "method": "method",
    "split": "prompts",
    "metric": "show",
    "ratio": "OOD ratio",
    "seed": "seed",
    "stage": "stage",
}


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it; `data` is its PNG in base64."""

    name: str
    title: str
    caption: str
    data: str


@dataclass
class Category:
    """A section of the page."""

    title: str
    figures: list[Picture] = field(default_factory=list)
    tables: list[tuple[str, pd.DataFrame]] = field(default_factory=list)


def words_of(settings: Settings, beta: float, axis: str | None = None) -> dict[str, Any]:
    """What titles and captions can name; `beta` is the KL weight of the method shown, 0 for none.

    `seeds` counts seeds, `prompts` test prompts of a split and seed, `pool` prompts that runs to
    convergence train on, `bin_prompts` the fewest a bin needs. Text: `n` and `theory_n` (how
    many seeds), `interval` (what bars are), `means` (both), `mixed` (numbers of foreign tokens).
    """
    seeds = len(settings.seeds)
    unit = "t interval over seeds (over prompts where seeds agree)"
    interval = f"{100 * LEVEL:g} % {unit if seeds > 1 else 'interval over prompts (one seed)'}"
    counts = (0, *settings.axes[axis].mixed) if axis else ()
    return {
        "axis": axis,
        "beta": beta,
        "bin_prompts": settings.claims.band_prompts,
        "equivalent": settings.claims.equivalent,
        "interval": interval,
        "means": f"{_counted(seeds)}: mean over seeds, bars: {interval}, every seed a point",
        "method": method_label(settings.main_method),
        "mixed": ", ".join(map(str, counts)),
        "n": _counted(seeds),
        "pool": settings.theory.pool,
        "prompts": settings.evaluation.prompts,
        "seeds": seeds,
        "theory_n": _counted(min(seeds, settings.theory.seeds)),
    }


def _counted(seeds: int) -> str:
    return f"n = {seeds} seed{'' if seeds == 1 else 's'}"


def texts(entry: FigureEntry, words: Mapping[str, Any]) -> tuple[str, str]:
    """Title and caption of a figure; raises jinja2.UndefinedError for a word there is not."""
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined)
    title, caption = (
        plain.from_string(text).render(**words).strip() for text in (entry.title, entry.caption)
    )
    return title, caption


def write_captions(settings: Settings, beta: float, paths: Mapping[str, str | Path]) -> None:
    """Write the title and caption of each figure to its path, as reStructuredText."""
    for name, (entry, axis) in figures_of(settings).items():
        title, caption = (
            re.sub(r"([\\*`|_<>])", r"\\\1", text)
            for text in texts(entry, words_of(settings, beta, axis))
        )
        with atomic(paths[name]) as temporary:
            temporary.write_text(f"**{title}**\n\n{caption}\n", encoding="utf-8")


def claims_table(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger as a reader wants it: verdict first, effect and bounds as one."""
    numbers = claims[["effect", "low", "high"]].to_numpy(float)
    effect = [
        ("–" if math.isnan(mean) else signed(mean))
        + ("" if math.isnan(low) else f" [{signed(low)}, {signed(high)}]")
        for mean, low, high in numbers
    ]
    columns = {name: claims[name] for name in ("verdict", "claim", "axis", "statement")}
    columns["effect on mass [one-sided bounds]"] = pd.Series(effect, claims.index)
    columns |= {"p (Holm)": claims["p_adjusted"], "cells": claims["cells"], "note": claims["note"]}
    return pd.DataFrame(columns)


def stage_times(provenance: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Run time and memory by stage and device from provenance records, each with a `stage`."""
    columns = {"seconds": "seconds", "peak memory (MiB)": "peak_memory_mib"}
    table = pd.DataFrame(
        {"stage": record["stage"], "device": record.get("device_name", record["device"])}
        | {name: record[key] for name, key in columns.items()}
        for record in provenance
    )
    grouped = table.groupby(["stage", "device"], sort=False)
    times = grouped["seconds"].agg(["count", "median", "sum"])
    times.columns = ["jobs", "median (s)", "total (s)"]
    return times.join(grouped["peak memory (MiB)"].max()).reset_index()


def numerics_of(provenance: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """How the stages computed, a row for each way that occurs.

    Columns device (its class), what provenance records of numerics, jobs (how many), stages.
    """
    keys = ("precision", "tf32", "compile", "deterministic", "cpu_capability", "threads")
    rows = []
    for record in provenance:
        known = record.get("numerics", {})
        row = {"device": record["device"].partition(":")[0]}
        row |= {key: str(known.get(key, "not recorded")) for key in keys}
        rows.append(row | {"stage": record["stage"]})
    grouped = pd.DataFrame(rows).groupby(["device", *keys], sort=False)["stage"]
    stages = grouped.agg(lambda names: ", ".join(dict.fromkeys(names)))
    table = pd.DataFrame({"jobs": grouped.size(), "stages": stages}).reset_index()
    return table.rename(columns={"cpu_capability": "CPU capability"})


def differences(provenance: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each of device class, precision and library in which the stages of a run differ.

    Of libraries, those whose version can change a stage's weights (MATTERING).
    """
    kinds = {
        "device class": [record["device"].partition(":")[0] for record in provenance],
        "precision": [record.get("numerics", {}).get("precision") for record in provenance],
    }
    kinds |= {
        f"the version of {name}": [record["versions"].get(name) for record in provenance]
        for name in MATTERING
    }
    lines = []
    for label, values in kinds.items():
        jobs = Counter(str(value or "not recorded") for value in values)
        if len(jobs) > 1:
            counts = ", ".join(f"{count} {value}" for value, count in jobs.items())
            lines.append(f"Stages of this run differ in {label} (jobs: {counts}). See {RUN}.")
    return lines


def software(provenance: Sequence[Mapping[str, Any]]) -> str:
    """Libraries that the stages ran with, each with all versions that occur."""
    known: dict[str, dict[str, None]] = {}
    for record in provenance:
        for name, version in record["versions"].items():
            if version:
                known.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in known.items())


def _categories(
    settings: Settings,
    beta: float,
    figures: Mapping[str, str | Path],
    tables: Mapping[str, pd.DataFrame],
) -> list[Category]:
    """The sections that hold a figure or a table, in their order."""
    sections = {title: Category(title) for title in CATEGORIES}
    for name, (entry, axis) in figures_of(settings).items():
        title, caption = texts(entry, words_of(settings, beta, axis))
        data = base64.b64encode(_small(figures[name])).decode()
        sections[entry.category].figures.append(Picture(name, title, caption, data))
    for name, (category, title) in SHOWN_TABLES.items():
        if name in tables and len(tables[name]):
            sections[category].tables.append((title, tables[name]))
    return [section for section in sections.values() if section.figures or section.tables]


def _small(path: str | Path) -> bytes:
    """A figure as a PNG of at most 256 colours: a third of its size, to the eye the same."""
    from PIL import Image

    with Image.open(path) as picture, io.BytesIO() as small:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG")
        return small.getvalue()


def _as_written(settings: Settings) -> dict[str, Any]:
    """The settings that change results, as a configuration that gives the same ones."""
    dumped = settings.model_dump(mode="json", exclude={"runtime", "resources"})
    for name, axis in settings.axes.items():
        dumped["axes"][name] |= {split: [t.written for t in axis.tasks(split)] for split in SPLITS}
    dumped["methods"] = [{name: values} for name, values in settings.methods.items()]
    return dumped


def _shown(value: Any) -> str:
    """A value in a cell of a table: numbers to three digits or more, nothing if it is missing."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _environment() -> jinja2.Environment:
    """Where the page is rendered: every text is escaped, a word there is not is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"anchor": _anchor, "shown": _shown}
    return environment


def write_report(
    path: str | Path,
    *,
    settings: Settings,
    beta: float,
    figures: Mapping[str, str | Path],
    tables: Mapping[str, pd.DataFrame],
    provenance: Sequence[Mapping[str, Any]],
    unlike_reference: Sequence[str] = (),
) -> None:
    """Write the page of a run; the ledger of its main method is open, the others' folded away.

    `figures` are PNG files by name, all that `figures_of` names; `tables` by name, of all variants
    or of none, hold `claims` and what there is of `warnings`, `completions`, SHOWN_TABLES and
    EXPLORER_TABLES (an explorer needs all of these); `provenance` a record a stage, with its
    `stage`; `unlike_reference` names settings in which the reference run differs.
    """
    explorer = _explorer(tables, settings.main_method)
    tables = {name: of_base(table) for name, table in tables.items()}
    method = settings.main_method
    ledgers = {
        str(name): claims_table(table)
        for name, table in tables["claims"].groupby("method", sort=False)
    }
    main = ledgers.pop(method)
    claims = tables["claims"][tables["claims"]["method"] == method]
    references = tables.get("agreement")
    compared = references is not None and len(references) > 0
    numerics = numerics_of(provenance) if provenance else None
    warnings = differences(provenance)
    warning_rows = tables.get("warnings")
    if warning_rows is not None and warning_rows.empty:
        warning_rows = None
    warned = bool(warnings) or warning_rows is not None
    categories = _categories(settings, beta, figures, tables)
    completions = shown_cells(tables["completions"]) if "completions" in tables else []
    pictures = [picture for category in categories for picture in category.figures]
    kinds = {name: drawing.entry.name for name, drawing in figures_of(settings).items()}
    page = (
        _environment()
        .get_template(PAGE_TEMPLATE.name)
        .render(
            run=settings.run,
            worked=[name for name, of in settings.axes.items() if of.completions == "worked"],
            titles=[
                "In short",
                *(["Warnings"] if warned else []),
                *("Verdicts", "Terms", "Claims"),
                *([EXPLORE] if explorer else []),
                *([COMPLETIONS] if completions else []),
                "Ledger",
                *(category.title for category in categories),
                RUN,
            ],
            sentences=summary(claims, settings),
            symbols=SYMBOLS,
            said=SAID,
            columns=[*settings.axes, ALL],
            cards=cards(
                claims,
                settings,
                references if compared else None,
                {p.name: (kinds[p.name], p.title) for p in pictures},
            ),
            compared=compared,
            glossary={
                term: text.format(error=f"{settings.claims.significance:.0%}")
                for term, text in GLOSSARY.items()
            },
            paper=PAPER,
            interval=words_of(settings, beta)["interval"],
            choices=CHOICES,
            explorer=explorer,
            bundle=Markup(bundle()) if explorer else "",
            warned=warned,
            warnings=warnings,
            warning_rows=warning_rows,
            method=method_label(method),
            claims=main,
            others=ledgers,
            categories=categories,
            completions=completions,
            completions_title=COMPLETIONS,
            legend=legend(),
            unlike_reference=unlike_reference,
            commits=sorted({str(record["git_commit"]) for record in provenance}),
            software=software(provenance),
            numerics=numerics,
            times=stage_times(provenance) if provenance else None,
            settings=json.dumps(_as_written(settings), indent=2),
        )
    )
    with atomic(path) as temporary:
        temporary.write_text(page + "\n", encoding="utf-8")


def _explorer(tables: Mapping[str, pd.DataFrame], method: str) -> Markup | None:
    """Data and charts of the explorer as JSON that may stand inside a page, if there are any."""
    if not {*EXPLORER_TABLES} <= {*tables} or tables["seed_means"].empty:
        return None
    return htmlsafe_json_dumps(
        {"data": explorer_data(tables, method), "charts": charts()}, separators=(",", ":")
    )
