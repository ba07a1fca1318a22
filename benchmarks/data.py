"""Pretraining data: samples a second and peak memory against the number of samples.

Each figure comes from a process of its own, so that its peak memory (ru_maxrss) is its own:
`generate` makes samples and drops them, `write` makes the pools of a depth cell at ratio 0.1
(parquet), `summary` reads and checks them as the workflow does, `read` goes through their mixture
in batches of 256, as pretraining does. `start` only imports. One core. What 67,108,864 samples (the
paper's N) need is extrapolated along the line through the two largest sizes, or from nothing if
there is one size only; a summary, which counts different prompts in small pools only, in proportion
to the largest size. Sizes below a few row groups (131,072 samples) extrapolate badly. The order of
sizes alternates, figures are medians over repeats. Writes data.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import ood_count
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import ROW_GROUP, Pool, training_chunk, write_pool
from grpo_origin.data.source import Source
from grpo_origin.data.summary import write_summary

REPO = Path(__file__).parents[1]
PHASES = ("start", "generate", "write", "summary", "read")
PAPER, RATIO, BATCH = 67_108_864, "0.1", 256


def source() -> Source:
    """The depth axis of the default configuration; its samples are those of the paper's scale."""
    settings = read_settings(REPO / "config" / "config.yaml")
    return Source(settings.world, settings.axes["depth"], 0)


def phase(name: str, samples: int, folder: Path) -> None:
    """Do one phase and print its seconds and bytes of memory as JSON."""
    made, counts = (
        source(),
        {"id": samples - ood_count(RATIO, samples), "ood": ood_count(RATIO, samples)},
    )
    files: dict[str, str | Path] = {
        f"pretrain-{split}": folder / f"{split}.parquet" for split in counts
    }
    if name == "summary":  # it compares the pools with the prompt sets
        for other in ("sft", "grpo"):
            write_pool(made, "id", 2048, folder / f"{other}.parquet")
        files |= {other: folder / f"{other}.parquet" for other in ("sft", "grpo")}
    started = time.perf_counter()
    if name == "generate":
        for split, count in counts.items():
            rng = made.generator("pretrain", split)
            for start in range(0, count, ROW_GROUP):
                training_chunk(made, split, rng, min(ROW_GROUP, count - start))
    elif name == "write":
        for split, count in counts.items():
            write_pool(made, split, count, files[f"pretrain-{split}"])
    elif name == "summary":
        write_summary(made, files, [RATIO], samples, folder / "summary.json")
    elif name == "read":
        id_pool, ood_pool = (Pool(files[f"pretrain-{split}"]) for split in ("id", "ood"))
        mixture = Mixture(id_pool, ood_pool, samples, RATIO, 0)
        for start in range(0, samples, BATCH):
            mixture.blocks(start, min(start + BATCH, samples))
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "seconds": seconds,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def measure(samples: int) -> dict[str, Any]:
    """Every phase in a process of its own, on the same files."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PHASES:
            command = [
                sys.executable,
                __file__,
                "--phase",
                name,
                "--samples",
                str(samples),
                "--folder",
                folder,
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            found[name] = json.loads(done.stdout)
        found["bytes"] = sum(
            (Path(folder) / f"{split}.parquet").stat().st_size for split in ("id", "ood")
        )
    return found


def extrapolated(sizes: list[int], values: list[float], at_none: float) -> float:
    """Value at the paper's N on the line through the two largest sizes, 0 being one if need be."""
    sizes, values = [0, *sizes], [at_none, *values]
    return values[-1] + (PAPER - sizes[-1]) * (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=[1_000_000, 10_000_000],
        help="sizes (default 1M and 10M)",
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="times each size is measured (default 1)"
    )
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = sorted(set(options.samples))
    if options.phase:
        phase(options.phase, sizes[0], options.folder)
        return
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for repeat in range(options.repeats):
        for size in sizes[:: -1 if repeat % 2 else 1]:
            runs[size].append(measure(size))
    rows = []
    for name in PHASES:
        seconds, memory = (
            [statistics.median(run[name][key] for run in runs[size]) for size in sizes]
            for key in ("seconds", "memory")
        )
        for size, taken, peak in zip(sizes, seconds, memory, strict=True):
            rows.append(
                {
                    "phase": name,
                    "samples": size,
                    "seconds": taken,
                    "memory_mb": peak / 1e6,
                    "measured": True,
                }
            )
        if name == "summary":
            later = {
                "seconds": extrapolated(sizes[-1:], seconds[-1:], 0.0),
                "memory_mb": memory[-1] / 1e6,
            }
        else:
            imports = rows[0]["memory_mb"]
            megabytes = extrapolated(sizes, [peak / 1e6 for peak in memory], imports)
            later = {"seconds": extrapolated(sizes, seconds, 0.0), "memory_mb": megabytes}
        if name != "start":
            rows.append({"phase": name, "samples": PAPER, **later, "measured": False})
    print(f"{'phase':10}{'samples':>12}{'seconds':>10}{'samples/s':>12}{'memory MB':>12}")
    for row in rows:
        rate = (
            row["samples"] / row["seconds"]
            if row["phase"] != "start" and row["seconds"] > 0
            else float("nan")
        )
        row["samples_per_s"] = None if rate != rate else rate
        line = f"{row['phase']:10}{row['samples']:>12}{row['seconds']:>10.3g}{rate:>12.3g}"
        line += f"{row['memory_mb']:>12.4g}"
        print(line + ("" if row["measured"] else "  extrapolated"))
    size = runs[sizes[-1]][0]["bytes"] / sizes[-1]
    print(f"bytes a sample on disk: {size:.3g}")
    result = {"ratio": RATIO, "batch": BATCH, "bytes_per_sample": size, "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
