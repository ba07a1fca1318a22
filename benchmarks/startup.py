"""Start-up: a sweep whose jobs are forked from one prepared process against one that imports.

Runs one cell of the smoke scale through `snakemake` both ways, alternating, prints the wall seconds
and their ratio (median), then what a job by itself (as on a cluster) pays for Python and the
imports of its stage, and whether that imports trl. Writes startup.json beside this file.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
REPEATS = 3
CONFIG = """
run: bench
axes: {{length: null, token: null, composition: null}}
ratios: ["0.1"]
runtime: {{prefork: {prefork}}}
"""


def sweep(prefork: bool) -> float:
    """Wall seconds of a cell, from nothing to its evaluation."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "bench.yaml").write_text(CONFIG.format(prefork=str(prefork).lower()))
        for folder in ("config", "profiles"):
            (Path(name) / folder).symlink_to(REPO / folder)
        files: list[str | Path] = [REPO / "config" / "smoke.yaml", "bench.yaml"]
        target = "results/bench/depth/seed~0/ood~0.1/evaluation.parquet"
        command: list[str | Path] = [
            "snakemake",
            "-s",
            REPO / "Snakefile",
            "--cores",
            "1",
            target,
            "--configfile",
            *files,
        ]
        started = time.perf_counter()
        subprocess.run(command, cwd=name, check=True, capture_output=True)
        return time.perf_counter() - started


STAGES = {
    "data": "data.pools",
    "pretrain and SFT": "training.loop",
    "RL": "rl.trainer",
    "evaluate": "evaluation.mass",
    "tables": "analysis.tables",
    "figures": "report.figures",
}


def imports(module: str) -> tuple[float, bool]:
    """Wall seconds of a process that imports a stage's module, and whether trl came with it."""
    code = f"import sys, grpo_origin.{module}; print('trl' in sys.modules)"
    started = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, said.stdout.strip() == "True"


def main() -> None:
    """Measure, print, write."""
    pairs = [(sweep(True), sweep(False)) for _ in range(REPEATS)]
    result = {
        "forked_s": statistics.median(a for a, _ in pairs),
        "by_themselves_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
    }
    for stage, module in STAGES.items():
        runs = [imports(module) for _ in range(REPEATS)]
        result[f"import_{stage}_s"] = statistics.median(seconds for seconds, _ in runs)
        result[f"import_{stage}_trl"] = any(trl for _, trl in runs)
    for key, value in result.items():
        print(f"{key:28} {value:.3g}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
