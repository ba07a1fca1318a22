"""Whole cells: this workflow against a script of stock tools (stock_cell.py), on the same data.

Ours is `snakemake --cores all` on the evaluations of depth cells (three seeds) at the default
settings, from nothing: planning, data, pretraining, SFT, GRPO on ID and on OOD prompts, exact
evaluation, jobs side by side. Theirs runs the script for one cell after another and samples 8
completions a test prompt where ours takes one forward pass for the exact mass. Wall seconds from
the start of the process to its end, alternating, in a new folder each time. Prints both and their
ratio (median; goal: at least 1.5) with what each stage took, and writes cell.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

REPO = Path(__file__).parents[1]
Timed = tuple[
    float, dict[str, float], dict[str, float]
]  # wall seconds; seconds by stage; accuracy by stage and split


def ours(extra: list[Path], run: str, ratio: str, cells: int) -> Timed:
    """The cell through Snakemake; seconds of the training stages, mean mass of every stage."""
    with tempfile.TemporaryDirectory() as name:
        for folder in ("config", "profiles"):
            (Path(name) / folder).symlink_to(REPO / folder)
        folders = [f"results/{run}/depth/seed~{seed}/ood~{ratio}" for seed in range(cells)]
        cell = folders[0]
        command: list[str | Path] = [
            "snakemake",
            "-s",
            str(REPO / "Snakefile"),
            "--cores",
            "all",
            *(f"{folder}/evaluation.parquet" for folder in folders),
        ]
        command += ["--configfile", *map(str, extra)] if extra else []
        started = time.perf_counter()
        subprocess.run(command, cwd=name, check=True, capture_output=True)
        wall = time.perf_counter() - started
        root = Path(name) / cell
        stages = {
            file.parent.name: json.loads(file.read_text())["seconds"]
            for file in sorted(root.glob("*/provenance.json"))
        }
        table = pq.read_table(root / "evaluation.parquet").to_pandas()
        means = table.assign(mass=np.exp(table.log_mass)).groupby(["stage", "split"]).mass.mean()
        return wall, stages, {" ".join(key): float(value) for key, value in means.items()}


def stock(extra: list[Path], ratio: str, cells: int) -> Timed:
    """The cell as one script of stock tools."""
    files = [REPO / "config" / "config.yaml", *extra]
    command: list[str | Path] = [
        sys.executable,
        REPO / "benchmarks" / "stock_cell.py",
        "--ratio",
        ratio,
        "--configfile",
        *files,
    ]
    started = time.perf_counter()
    for _ in range(cells):
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    wall = time.perf_counter() - started
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return wall, said["seconds"], said["accuracy"]


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of every entry."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2, help="times each side runs (default 2)")
    parser.add_argument(
        "--cells",
        type=int,
        default=3,
        help="cells (seeds) that each side has to do (default 3, that of the configuration)",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a few steps of a small model, to see that it runs"
    )
    options = parser.parse_args()
    cells = 1 if options.tiny else options.cells
    extra, run, ratio = (
        ([REPO / "config" / "smoke.yaml"], "smoke", "0.1")
        if options.tiny
        else ([], "laptop", "0.01")
    )
    mine: list[Timed] = []
    theirs: list[Timed] = []
    for repeat in range(options.repeats):
        sides = [
            lambda: mine.append(ours(extra, run, ratio, cells)),
            lambda: theirs.append(stock(extra, ratio, cells)),
        ]
        for side in sides[:: -1 if repeat % 2 else 1]:
            side()
    result = {
        "settings": run,
        "repeats": options.repeats,
        "cells": cells,
        "ours_s": statistics.median(wall for wall, *_ in mine),
        "stock_s": statistics.median(wall for wall, *_ in theirs),
        "ratio": statistics.median(b[0] / a[0] for a, b in zip(mine, theirs, strict=True)),
        "ours_stages_s": medians([stages for _, stages, _ in mine]),
        "stock_stages_s": medians([stages for _, stages, _ in theirs]),
        "ours_mass": medians([mass for *_, mass in mine]),
        "stock_accuracy": medians([accuracy for *_, accuracy in theirs]),
    }
    for key, value in result.items():
        shown = (
            "  ".join(f"{name} {x:.3g}" for name, x in value.items())
            if isinstance(value, dict)
            else value
        )
        print(f"{key:16} {f'{shown:.3g}' if isinstance(shown, float) else shown}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
