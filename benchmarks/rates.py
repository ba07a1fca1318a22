"""The rates that `grpo-origin cost` needs, measured in a few short runs at one scale.

Pretraining and SFT: median step of our loop; GRPO: grpo_step.py's figure for our step; evaluation:
exact masses of test prompts; data: a pool of two row groups, written, then read and checked; all at
the batch sizes of the configuration and with its threads and precision. Start-up is the time to
import what a GRPO job needs, and 0 on a CPU where local jobs are forked from a process that has the
imports done. Replaces this scale's entry of rates.json (tracked, so `make bench` leaves this script
out); `--only` measures some of them, for example the rates of data for a scale whose models need
another machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import ood_count
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import OptimiserSettings, SFTSettings
from grpo_origin.cost import Rates
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import ROW_GROUP, Pool, write_pool
from grpo_origin.data.prompt_sets import read_prompts, write_sft, write_test
from grpo_origin.data.rows import Sequences
from grpo_origin.data.source import Source
from grpo_origin.data.summary import write_summary
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.training.loop import Block, Checkpoint, train
from grpo_origin.training.model import build_model
from grpo_origin.training.numerics import FiniteGuard, choose_device

CONFIG = Path(__file__).parents[1] / "config"
RATES = Path(__file__).with_suffix(".json")
RATIO = "0.1"
SKIPPED = 2  # first steps, which allocate and warm up


class Measure:
    """The measurements, on files of one temporary folder."""

    def __init__(self, settings: Settings, steps: int, folder: Path) -> None:
        self.settings, self.steps, self.folder = settings, steps, folder
        self.device = choose_device(settings.numerics, settings.runtime.threads)
        self.source = Source(settings.world, settings.axes["depth"], 0)

    def loop(
        self,
        section: OptimiserSettings,
        batch: Callable[[int], list[Block]],
        compiled: bool = False,
    ) -> float:
        """Samples a second of the training loop."""
        model = build_model(self.settings.model, self.source.domain.tokens, 0)
        with contextlib.redirect_stdout(io.StringIO()):  # progress
            none = Checkpoint(self.folder / "none", {}, 1e9)
            job = (section, self.settings.numerics, self.device, none, FiniteGuard("rates"))
            log = train(model, batch, self.steps, *job, compiled=compiled)
        return section.batch_size / statistics.median(row["seconds"] for row in log[SKIPPED:])

    def pretrain(self) -> dict[str, float]:
        """Pretraining."""
        size = self.settings.pretrain.batch_size
        samples = self.steps * size
        files = {split: self.folder / f"pretrain-{split}.parquet" for split in ("id", "ood")}
        for split, count in (("id", samples), ("ood", ood_count(RATIO, samples))):
            write_pool(self.source, split, count, files[split])
        mixture = Mixture(Pool(files["id"]), Pool(files["ood"]), samples, RATIO, 0)
        rate = self.loop(
            self.settings.pretrain,
            lambda step: [
                Block(tokens, 1) for tokens, _ in mixture.blocks(step * size, (step + 1) * size)
            ],
            compiled=self.settings.numerics.compile,
        )
        return {"pretrain_samples_per_s": rate}

    def sft(self) -> dict[str, float]:
        """SFT."""
        section = self.settings.sft or SFTSettings()
        write_sft(self.source, section.counts, self.folder / "sft.parquet")
        rows = Sequences(read_prompts(self.folder / "sft.parquet"))
        order = torch.arange(self.steps * section.batch_size).numpy() % rows.size

        def batch(step: int) -> list[Block]:
            chosen = order[step * section.batch_size : (step + 1) * section.batch_size]
            return [Block(tokens, prompt) for _, tokens, prompt in rows.blocks(chosen)]

        return {"sft_samples_per_s": self.loop(section, batch)}

    def grpo(self) -> dict[str, float]:
        """A GRPO step, and by one of twice the completions what of it does not grow with them."""
        from grpo_step import Setting, ours  # they need trl, the others don't

        rl = self.settings.rl
        settings = (
            self.settings.model_copy(update={"rl": changed})
            for changed in (rl, rl.model_copy(update={"group_size": 2 * rl.group_size}))
        )
        whole, double = (
            ours(Setting(each, self.steps, self.folder, self.device)) for each in settings
        )
        return {
            "grpo_step_s": whole,
            "grpo_step_fixed_s": min(max(0.0, 2 * whole - double), whole),
            "grpo_step_completions": float(rl.prompts_per_step * rl.group_size),
        }

    def evaluate(self) -> dict[str, float]:
        """Exact evaluation of a model."""
        write_test(self.source, self.settings.evaluation.prompts, self.folder / "test.parquet")
        rows = Sequences(read_prompts(self.folder / "test.parquet"))
        model, seconds = build_model(self.settings.model, self.source.domain.tokens, 0), []
        for _ in range(6):
            started = time.perf_counter()
            exact_mass(
                model, rows, self.settings.evaluation.batch_size, self.device
            )  # its results are on the CPU
            seconds.append(time.perf_counter() - started)
        return {"evaluate_prompts_per_s": rows.size / statistics.median(seconds[1:])}

    def data(self) -> dict[str, float]:
        """A pool of two row groups, written, then read and checked (faster above 4M samples)."""
        count = 2 * ROW_GROUP
        files: dict[str, str | Path] = {
            name: self.folder / f"{name}.parquet"
            for name in ("pretrain-id", "pretrain-ood", "sft", "grpo")
        }
        for name in ("sft", "grpo", "pretrain-ood"):
            write_pool(self.source, "id", 64, files[name])
        started = time.perf_counter()
        write_pool(self.source, "id", count, files["pretrain-id"])
        written = time.perf_counter()
        write_summary(self.source, files, [RATIO], count, self.folder / "summary.json")
        summarised = time.perf_counter()
        size = Path(files["pretrain-id"]).stat().st_size
        return {
            "data_samples_per_s": count / (written - started),
            "summary_samples_per_s": count / (summarised - written),
            "pool_bytes_per_sample": size / count,
        }

    def startup(self) -> dict[str, float]:
        """Start-up of a job."""
        if self.device.type == "cpu" and self.settings.runtime.prefork:
            return {"startup_s": 0.0}
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import grpo_origin.rl.trainer"], check=True)
            seconds.append(time.perf_counter() - started)
        return {"startup_s": statistics.median(seconds)}


def main() -> None:
    """Measure, print, write."""
    parts = ("pretrain", "sft", "grpo", "evaluate", "data", "startup")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale", default="laptop", help="laptop, or the name of a file in config/, such as paper"
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="steps of each training stage (default 20)"
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="measure these")
    options = parser.parse_args()
    disable_progress_bar()
    files = [
        CONFIG / "config.yaml",
        *([] if options.scale == "laptop" else [CONFIG / f"{options.scale}.yaml"]),
    ]
    settings = read_settings(*files)
    with tempfile.TemporaryDirectory() as name:
        measure = Measure(settings, max(options.steps, SKIPPED + 1), Path(name))
        found: dict[str, float] = {}
        for part in options.only:
            found |= getattr(measure, part)()
    threads = torch.get_num_threads()
    device = (
        torch.cuda.get_device_name()
        if measure.device.type == "cuda"
        else f"CPU, {threads} thread{'s' * (threads > 1)}"
    )
    known = json.loads(RATES.read_text(encoding="utf-8")) if RATES.exists() else {}
    entry = known.setdefault(settings.run, {})
    if set(options.only) not in ({"data"}, set(parts)) and entry.get("device", device) != device:
        sys.exit(
            f"{RATES.name}: rates of {settings.run} are of {entry['device']}, this is {device}: "
            "measure all of them (no --only)"
        )
    entry["model"] = settings.model.model_dump()
    entry |= {key: float(f"{value:.4g}") for key, value in found.items()}
    if set(options.only) != {"data"}:
        entry["device"] = device
    if "data" in options.only:
        entry["data_device"] = "CPU, 1 core"
    known[settings.run] = {
        key: entry[key]
        for key in ("model", "device", "data_device", *Rates.model_fields)
        if key in entry
    }
    for key, value in found.items():
        print(f"{key:24} {value:.4g}")
    RATES.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
