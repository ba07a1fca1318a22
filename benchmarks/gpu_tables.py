"""Results of gpu.py as tables for docs/paper-scale.md, and as an entry of rates.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpu_part import CONFIG, TINY
from gpu_runs import measured
from grpo_origin.config.load import load_settings, merged, read_config
from grpo_origin.cost import Rates

Results = Mapping[str, Mapping[str, dict[str, Any]]]


def rates_entry(results: Results, tiny: bool) -> dict[str, Any]:
    """The file `rates.json` of these results: one entry, under the name of the run.

    Rates that were not measured are missing in it.
    """
    config = read_config(CONFIG / "config.yaml", CONFIG / "paper.yaml")
    settings = load_settings(merged(config, TINY if tiny else {}))
    device = results.get("machine", {}).get("machine", {}).get("device", "unknown")
    entry = {"model": settings.model.model_dump(), "device": device, "data_device": "CPU, 1 core"}
    found = measured(dict(results))
    rates = {name: float(f"{found[name]:.4g}") for name in Rates.model_fields if name in found}
    return {settings.run: entry | rates}


def tables(results: Results) -> str:
    """All results as Markdown."""
    parts = [machine_table(results.get("machine", {})), checks_table(results.get("checks", {}))]
    speed = results.get("speed", {})
    parts += [speed_table(speed, start, columns) for start, columns in SPEED.items()]
    parts += [cell_tables(results.get("cell", {})), many_table(results.get("many", {}))]
    parts.append(problems(results))
    return "\n\n".join(part for part in parts if part) + "\n"


# Tables of the part `speed`: how the names of their results begin, and their columns.
SPEED = {
    "peaks": ("bf16_tflops", "tf32_tflops", "float32_tflops", "copy_gb_per_s"),
    "pretraining": (
        *("samples_per_s", "tokens_per_s", "step_ms", "tflops", "mfu", "data_share"),
        *("first_steps_s", "peak_memory_gib"),
    ),
    "rates": Rates.model_fields,
    "GRPO": (
        *("step_s", "whole_s", "generation_s", "log-probs_s", "backward_s", "optimiser_s"),
        *("rest_s", "peak_memory_gib"),
    ),
    "generation": ("batch_s", "tokens_per_s", "first_s"),
    "evaluation": ("prompts_per_s", "tflops", "share_of_peak"),
}


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    head = [str(column).replace("_", " ") for column in columns]
    lines = [head, ["---"] * len(head), *([cell_text(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_text(value: Any) -> str:
    """A value of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def machine_table(found: Mapping[str, dict[str, Any]]) -> str:
    """What it was measured on."""
    about = found.get("machine", {})
    return table(["machine", ""], [(k, v) for k, v in about.items() if k != "seconds"])


def checks_table(found: Mapping[str, dict[str, Any]]) -> str:
    """Verdicts of the checks, with what they measured."""
    rows = []
    for name, result in found.items():
        verdict = "" if "ok" not in result else "right" if result["ok"] else "**wrong**"
        shown = {k: v for k, v in result.items() if k not in ("ok", "seconds", "masses")}
        shown.pop("other_masses", None)
        values = ", ".join(f"{k} {cell_text(v)}" for k, v in shown.items())
        rows.append((name, verdict, values))
    return table(["check", "", "measured"], rows) if rows else ""


def speed_table(found: Mapping[str, dict[str, Any]], start: str, columns: Iterable[str]) -> str:
    """Measurements whose names begin alike; columns that none of them has are left out."""
    rows = {name: result for name, result in found.items() if name.startswith(start)}
    rows = {name: result for name, result in rows.items() if not {"failed", "skipped"} & {*result}}
    kept = [name for name in columns if any(name in result for result in rows.values())]
    if not rows:
        return ""
    return table([start, *kept], ([n, *(r.get(c) for c in kept)] for n, r in rows.items()))


def cell_tables(found: Mapping[str, dict[str, Any]]) -> str:
    """The cell: its plan, seconds of its stages, masses, learning curves."""
    if "plan" not in found:
        return ""
    plan, parts = found["plan"], []
    share = f"{plan['share_of_paper']:.3g}"
    parts.append(f"One cell with {plan['samples']:,} pretraining samples, {share} of the paper's:")
    seconds = [(n, r["seconds"], r.get("steps")) for n, r in found.items() if "seconds" in r]
    parts.append(table(["stage", "seconds", "steps"], seconds))
    rows = found.get("evaluation", {}).get("rows", [])
    if rows:
        parts.append(table(rows[0], (row.values() for row in rows)))
    for name, result in found.items():
        if curve := result.get("learning_curve"):
            kept = ("step", "completions", "split", "mass", "greedy_accuracy")
            parts.append(f"Learning curve of `{name}`:")
            parts.append(table(kept, ([row[column] for column in kept] for row in curve)))
    return "\n\n".join(parts)


def many_table(found: Mapping[str, dict[str, Any]]) -> str:
    """Small models at once."""
    columns = ("pretrain_steps_per_s", "grpo_steps_per_s", "cells_per_hour")
    rows = {name: result for name, result in found.items() if columns[0] in result}
    if not rows:
        return ""
    body = ([name, *(result.get(column) for column in columns)] for name, result in rows.items())
    return table(["small models", *(f"{name} each" for name in columns[:2]), columns[2]], body)


def problems(results: Results) -> str:
    """What failed or was left out."""
    lines = [
        f"- {part}, {name}: {result.get('failed') or 'left out, ' + result['skipped']}"
        for part, found in results.items()
        for name, result in found.items()
        if "failed" in result or "skipped" in result
    ]
    return "\n".join(["Failed or left out:", "", *lines]) if lines else ""
