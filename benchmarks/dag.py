"""Planning: seconds and memory of `snakemake -n` against the number of cells.

The default study with more seeds and, if asked, another number of ratios an axis (cells = axes x
seeds x ratios), planned in an empty folder, a process of its own each time. `bare_s` is Snakemake's
own share: processor seconds to plan a workflow of as many cells, each the same chain of jobs, whose
rules have neither settings, resources nor logs. Sizes go up and down in turn, figures are medians.
Writes dag.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).parents[1]
BARE = """
rule all:
    input: expand("{cell}/evaluation", cell=range(int(config["cells"])))
rule pretrain:
    output: "{cell}/pretrain"
    shell: "touch {output}"
rule sft:
    input: "{cell}/pretrain"
    output: "{cell}/sft"
    shell: "touch {output}"
rule grpo:
    input: "{cell}/sft"
    output: "{cell}/grpo~{prompts}"
    shell: "touch {output}"
rule evaluate:
    input: "{cell}/pretrain", "{cell}/sft", "{cell}/grpo~id", "{cell}/grpo~ood"
    output: "{cell}/evaluation"
    shell: "touch {output}"
"""


def study(cells: int, ratios: int) -> dict[str, object]:
    """The change to the default configuration that has about so many cells: whole seeds."""
    default = yaml.safe_load((REPO / "config" / "config.yaml").read_text(encoding="utf-8"))
    listed = ["0", *(f"{i / 1000:.3f}" for i in range(1, ratios))]
    seeds = max(1, round(cells / (ratios * len(default["axes"]))))
    return {
        "run": "plan",
        "seeds": list(range(seeds)),
        "axes": {name: {"ratios": listed} for name in default["axes"]},
    }


def cells_of(change: dict[str, Any]) -> int:
    """Number of cells of a study."""
    return len(change["seeds"]) * sum(len(axis["ratios"]) for axis in change["axes"].values())


def planned(change: dict[str, Any]) -> dict[str, float]:
    """Jobs, wall and processor seconds and memory of a dry run; processor seconds of a bare one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plan.yaml").write_text(yaml.safe_dump(change), encoding="utf-8")
        for shared in ("config", "profiles"):
            (folder / shared).symlink_to(REPO / shared)
        whole = dry_run(folder, "-s", str(REPO / "Snakefile"), "--configfile", "plan.yaml")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(BARE, encoding="utf-8")
        bare = dry_run(folder, "--config", f"cells={cells_of(change)}")
    return whole | {"bare_s": bare["cpu_s"]}


def dry_run(folder: Path, *arguments: str) -> dict[str, float]:
    """Number of jobs, wall and processor seconds and memory of a dry run in a folder."""
    command = ["snakemake", "--cores", "1", "-n", "--quiet", "rules", *arguments]
    with open(folder / "out", "w+b") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode()
    if process.returncode:
        raise SystemExit(f"snakemake -n failed:\n{said[-2000:]}")
    total = re.search(r"^total\s+(\d+)", said, re.MULTILINE)
    jobs = float(total.group(1)) if total else float("nan")
    return {
        "jobs": jobs,
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss * 1024 / 1e6,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells",
        type=int,
        nargs="+",
        default=[60, 600, 3000],
        help="numbers of cells (default 60 600 3000)",
    )
    parser.add_argument("--ratios", type=int, default=5, help="ratios an axis (default 5)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="times each size is planned (default 3)"
    )
    options = parser.parse_args()
    studies = {size: study(size, options.ratios) for size in sorted(set(options.cells))}
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in studies}
    for repeat in range(options.repeats):
        for size in list(studies)[:: -1 if repeat % 2 else 1]:
            runs[size].append(planned(studies[size]))
    rows = []
    for size, change in studies.items():
        rows.append(
            {"cells": cells_of(change)}
            | {key: statistics.median(run[key] for run in runs[size]) for key in runs[size][0]}
        )
        rows[-1] |= {
            "cpu_ms_a_job": rows[-1]["cpu_s"] / rows[-1]["jobs"] * 1e3,
            "over_bare": rows[-1]["cpu_s"] / rows[-1]["bare_s"],
        }
    print("".join(f"{key:>14}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value:>14.4g}" for value in row.values()))
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"ratios": options.ratios, "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
