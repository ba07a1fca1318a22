"""The report of a run: one HTML page that needs nothing but itself, figures and tables inside.

A page of our own rather than `snakemake --report`: it is a node of the DAG like any other, so `make figures` ends with it
and it is never out of date; it shows every figure at once, claims first; and it holds no script, so nothing can fail to load.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from grpo_origin.jobs.files import atomic

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ddd; }
figure { margin: 2rem 0; }
img { max-width: 100%; }
figcaption { color: #444; font-size: .92rem; }
nav a { margin-right: 1rem; }
table { border-collapse: collapse; font-size: .85rem; }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #e5e5e5; text-align: left; vertical-align: top; }
.scroll { overflow-x: auto; }
.supported { color: #0a6b3d; font-weight: 600; }
.contradicted { color: #a3261d; font-weight: 600; }
.inconclusive { color: #7a5b00; font-weight: 600; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""


def html_table(table: pd.DataFrame) -> str:
    """A table as HTML: numbers to three digits, verdicts coloured."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.3g}"
        text = html.escape(str(value))
        return (
            f'<span class="{text}">{text}</span>'
            if text in ("supported", "contradicted", "inconclusive")
            else text
        )

    head = "".join(f"<th>{html.escape(str(name)).replace('_', ' ')}</th>" for name in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>"
        for row in table.itertuples(index=False)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def claims_table(claims: pd.DataFrame, level: float) -> pd.DataFrame:
    """The ledger as a reader wants it: verdict first, effect and interval (of this level) together."""
    effect = [
        ("–" if pd.isna(row.effect) else f"{row.effect:+.3f}")
        + ("" if pd.isna(row.low) else f" [{row.low:+.3f}, {row.high:+.3f}]")
        for row in claims.itertuples(index=False)
    ]
    columns = {name: claims[name] for name in ("verdict", "claim", "axis", "statement")}
    return pd.DataFrame(
        columns
        | {
            f"effect [{100 * level:g} % interval]": effect,
            "p": claims["p_value"],
            "cells": claims["cells"],
            "note": claims["note"],
        }
    )


def claims_html(claims: pd.DataFrame, method: str, level: float) -> str:
    """The ledger of one method, and those of the others folded away."""
    shown = {
        name: html_table(claims_table(table, level))
        for name, table in claims.groupby("method", sort=False)
    }
    own = shown.pop(method)
    others = (
        f"<details><summary>the same for {html.escape(name)}</summary>{rows}</details>"
        for name, rows in shown.items()
    )
    return (f"<p>Method: {html.escape(method)}.</p>{own}" if shown else own) + "".join(others)


def figure_html(path: str | Path, title: str, caption: str) -> str:
    """A PNG figure, embedded, with its title and caption."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return (
        f"<figure><h3>{html.escape(title)}</h3>"
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def stage_times(provenance: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Run time and memory by stage from provenance records, each with a `stage`."""
    table = pd.DataFrame(
        {
            "stage": p["stage"],
            "device": p["device"],
            "seconds": p["seconds"],
            "peak memory (MiB)": p["peak_memory_mib"],
        }
        for p in provenance
    )
    grouped = table.groupby(["stage", "device"], sort=False)
    times = (
        grouped["seconds"]
        .agg(jobs="count", median="median", total="sum")
        .rename(columns={"median": "median s", "total": "total s"})
    )
    return times.join(grouped["peak memory (MiB)"].max()).reset_index()


def write_report(
    path: str | Path,
    *,
    run: str,
    claims: pd.DataFrame,
    method: str,
    figures: Sequence[tuple[str, str, str, str | Path]],
    tables: Sequence[tuple[str, str, pd.DataFrame]] = (),
    provenance: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write the page; the ledger of `method` is open.

    `figures` are (category, title, caption, PNG), `tables` (category, title, table), shown in their order.
    """
    categories: dict[str, list[str]] = {}
    for category, title, caption, png in figures:
        categories.setdefault(category, []).append(figure_html(png, title, caption))
    for category, title, table in tables:
        categories.setdefault(category, []).append(
            f"<h3>{html.escape(title)}</h3>{html_table(table)}"
        )
    sections = {"Claims": claims_html(claims, method, 1 - settings["claims"]["significance"])}
    sections |= {category: "".join(shown) for category, shown in categories.items()}
    versions = provenance[0]["versions"] if provenance else {}
    commits = sorted({str(p["git_commit"]) for p in provenance})
    software = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    times = html_table(stage_times(provenance)) if provenance else ""
    shown = html.escape(json.dumps(settings, indent=2))
    sections["How it was run"] = (
        f"<p>git commit {html.escape(', '.join(commits))}; {html.escape(software)}</p>{times}<h3>Settings</h3><pre>{shown}</pre>"
    )
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    links = "".join(
        f'<a href="#{anchor}">{html.escape(title)}</a>' for title, anchor in anchors.items()
    )
    body = "".join(
        f'<section id="{anchors[title]}"><h2>{html.escape(title)}</h2>{content}</section>'
        for title, content in sections.items()
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,">'
        f"<title>grpo-origin: {html.escape(run)}</title><style>{STYLE}</style></head><body><h1>grpo-origin: run {html.escape(run)}</h1>"
        "<p>Can RL post-training take a language model beyond what it was pretrained on? Every number below comes from this run.</p>"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
