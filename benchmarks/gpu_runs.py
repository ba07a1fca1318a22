"""Whole runs on a GPU, two parts of gpu.py: one cell of the paper, and many small models at once.

The cell is one of `config/paper.yaml` but for the number of pretraining samples, which follows from
the rates measured before and the time left: its stages, learning curve and evaluation are those of
`cell.py`. The small models are those of `config/config.yaml`; some processes share the GPU, each
trains for a while, and cells an hour are computed from the rates that they reach together.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_part import CONFIG, Part
from gpu_speed import RATIO, SKIPPED, cudnn_attention, steps_for, training_loop
from grpo_origin.cell import make_data, train_stage
from grpo_origin.config.load import read_yaml
from grpo_origin.config.paths import LEARNING_CURVE, PROVENANCE, Paths
from grpo_origin.cost import find_rates, work_seconds
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, write_pool
from grpo_origin.data.source import Source
from grpo_origin.evaluation.mass import evaluate
from grpo_origin.jobs.files import read_table
from grpo_origin.study import Study
from grpo_origin.training.loop import Block

AXIS = "depth"
SLACK = 0.85  # share of the time that is planned: rates vary
COMPILING = 30.0  # seconds of the first steps, by when most is in the compiler's cache
AT_ONCE = (1, 8, 16, 4, 2)  # processes, the most telling first
GUESSED = {"pretrain_samples_per_s": 5000.0, "grpo_step_s": 1.0, "startup_s": 0.0}


# One cell of the paper


def measured(results: dict[str, Any], best: bool = False) -> dict[str, float]:
    """What `grpo-origin cost` calls rates, as far as the part `speed` has them.

    Pretraining is as the configuration has it, or, if `best`, the fastest way at its batch size.
    """
    found = {
        name: result for name, result in results.get("speed", {}).items() if "seconds" in result
    }
    rates = {name: value for name, value in found.get("rates", {}).items() if name != "seconds"}
    bf16 = [result for name, result in found.items() if name.startswith("pretraining bf16")]
    usual = [row for row in bf16 if row["batch_size"] == bf16[0]["batch_size"]]
    speeds = [row["samples_per_s"] for row in usual if best or row["cudnn"]]
    steps = [result["step_s"] for name, result in found.items() if name.startswith("GRPO step")]
    if speeds:
        rates["pretrain_samples_per_s"] = max(speeds)
    if steps:
        rates["grpo_step_s"] = steps[0]
    return rates


def prefers_cudnn(results: dict[str, Any]) -> bool:
    """Whether pretraining was faster with cuDNN's attention."""
    with_it, best = (
        measured(results, best).get("pretrain_samples_per_s") for best in (False, True)
    )
    return with_it == best


def planned_samples(part: Part, study: Study, seconds: float) -> tuple[int, float]:
    """Pretraining samples of a cell that takes so many seconds, whole batches, and theirs of it."""
    rl = study.settings.rl
    step = {"grpo_step_fixed_s": 0.0, "grpo_step_completions": rl.prompts_per_step * rl.group_size}
    given = GUESSED | step | measured(part.known(), best=True)
    rates = find_rates(given, CONFIG.parent / "benchmarks" / "rates.json", study.settings, "laptop")
    work, pretrain = work_seconds(study, rates), study.settings.pretrain
    with_samples = work["data"] + work["pretrain"]
    others = work["sft"] + work["rl"] + work["evaluate"]
    each = with_samples / pretrain.samples * pretrain.batch_size
    batches = max(int((seconds - others) / each), 8)
    return min(batches * pretrain.batch_size, pretrain.samples), batches * each


def cell(part: Part) -> None:
    """A cell of the paper's configuration, stage by stage."""
    one: dict[str, Any] = {"run": "gpu-cell", "seeds": [0], "ratios": [RATIO]}
    one["axes"] = {name: None for name in read_yaml(CONFIG / "config.yaml")["axes"] if name != AXIS}
    one["pretrain"] = {"ood_pool": RATIO}
    if not part.rl:
        part.say("GRPO is left out: trl is not installed")
    budget = SLACK * part.left - (COMPILING if part.cuda else 0.0)
    for splits in (["ood", "id"], ["ood"]):  # one RL stage where two would leave too little
        study = part.study(one, {"trained_on": splits})
        samples, seconds = planned_samples(part, study, budget)
        if part.tiny or seconds > budget / 3:
            break
    if not part.tiny:
        study = part.study(one, {"trained_on": splits, "pretrain": {"samples": samples}})
    samples = study.settings.pretrain.samples
    share = samples / part.study().settings.pretrain.samples
    cudnn = prefers_cudnn(part.known())
    plan = {"samples": samples, "share_of_paper": share, "cudnn": cudnn, "seconds_left": part.left}
    part.put("plan", plan)
    with cudnn_attention(cudnn):
        run_cell(part, study)


def run_cell(part: Part, study: Study) -> None:
    """The stages of the study's one cell, and their evaluation."""
    paths, done = Paths(study.settings.run, str(part.folder)), []

    def data() -> dict[str, Any]:
        make_data(study, paths, AXIS, 0)
        return {}

    part.attempt("data", data)
    for stage in study.grid.stages:
        if stage.method and not part.rl:
            continue
        if part.attempt(stage.name, partial(train, study, paths, stage.name)) is None:
            break
        done.append(stage.name)
    part.attempt("evaluation", lambda: evaluated(study, paths, done))


def train(study: Study, paths: Paths, name: str) -> dict[str, Any]:
    """Train a stage; what it took, and for RL its learning curve."""
    train_stage(study, paths, AXIS, 0, RATIO, name)
    folder = Path(paths.stage(AXIS, 0, RATIO, name))
    record = read_yaml(folder / PROVENANCE)
    found = {"steps": record["steps"], "peak_memory_mib": record.get("peak_device_memory_mib")}
    if (folder / LEARNING_CURVE).exists():
        found["learning_curve"] = read_table(folder / LEARNING_CURVE).to_pylist()
    return found


def evaluated(study: Study, paths: Paths, stages: list[str]) -> dict[str, Any]:
    """Mean mass and greedy accuracy of the stages that are there."""
    settings, file = study.settings, Path(paths.evaluation(AXIS, 0, RATIO))
    evaluate(
        {name: paths.stage(AXIS, 0, RATIO, name) for name in stages},
        paths.data(AXIS, 0, "test"),
        file,
        axis=AXIS,
        seed=0,
        ratio=RATIO,
        tokens=study.source(AXIS, 0, paths).domain.tokens,
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
    table = read_table(file).to_pandas()
    table["mass"] = np.exp(table.log_mass)
    means = table.groupby(["stage", "split"])[["mass", "greedy_correct"]].mean()
    rows = means.reset_index().to_dict("records")
    return {"prompts": len(table) // len(stages), "rows": rows}


# Many small models


def many(part: Part) -> None:
    """Cells an hour of the default configuration with ever more processes on one device."""
    study = part.study({"seeds": [0]}, paper=False)
    settings = study.settings
    source = Source(settings.world, settings.axes[AXIS], 0)
    samples = int(part.scale(settings.pretrain.samples, 512))
    for split in ("id", "ood"):
        write_pool(source, split, samples, part.folder / f"many-{split}.parquet")
    took = 0.0
    counts = AT_ONCE if not part.tiny else (1, 2)
    for count in counts:
        began = time.monotonic()
        part.attempt(f"{count} at once", partial(at_once, part, study, count), 1.3 * took + 20)
        took = max(took, time.monotonic() - began)
    with mps(part) as running:
        if running:
            for count in (8, 16):
                part.attempt(
                    f"{count} at once, MPS", partial(at_once, part, study, count), 1.3 * took
                )


def at_once(part: Part, study: Study, count: int) -> dict[str, float]:
    """Steps a second of each of some processes, and cells an hour of all."""
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(count), fork.Queue()
    workers = [
        fork.Process(target=worker, args=(part, study, barrier, queue, n)) for n in range(count)
    ]
    for process in workers:
        process.start()
    try:
        found = [queue.get(timeout=max(part.left, part.scale(1, 300))) for _ in workers]
        for process in workers:
            process.join(5)
    finally:
        for process in workers:
            process.kill()
    if broken := [result["failed"] for result in found if "failed" in result]:
        first = min(broken, key=lambda text: text.startswith("BrokenBarrier"))
        raise RuntimeError(f"{len(broken)} of {count}: {first}")
    settings = study.settings
    speeds = {name: statistics.mean(result[name] for result in found) for name in found[0]}
    seconds = settings.pretrain.steps / speeds["pretrain_steps_per_s"]
    if settings.sft:  # its steps are like those of pretraining
        seconds += settings.sft.steps / speeds["pretrain_steps_per_s"]
    if "grpo_steps_per_s" in speeds:
        rl = len(settings.trained_on) * settings.rl.steps
        seconds += rl / speeds["grpo_steps_per_s"]
        speeds["cells_per_hour"] = count * 3600 / seconds
    return speeds


def worker(part: Part, study: Study, barrier: Any, queue: Any, number: int) -> None:
    """One process: pretraining steps, then GRPO steps, all processes in step with each other."""
    settings, seconds = study.settings, part.scale(4, 0.2)
    torch.set_num_threads(settings.runtime.threads)
    try:
        with tempfile.TemporaryDirectory(dir=part.folder) as name:
            own = replace(part, folder=Path(name))
            found = {"pretrain_steps_per_s": small_pretraining(own, part, study, barrier, seconds)}
            if part.rl:
                found["grpo_steps_per_s"] = small_grpo(own, settings, barrier, seconds)
        queue.put(found)
    except Exception as error:
        barrier.abort()
        queue.put({"failed": f"{type(error).__name__}: {error}"[:200]})


def small_pretraining(own: Part, part: Part, study: Study, barrier: Any, seconds: float) -> float:
    """Steps a second of the loop, from when all processes have done their first steps."""
    settings, size = study.settings, study.settings.pretrain.batch_size
    pool, ood_pool = (Pool(part.folder / f"many-{split}.parquet") for split in ("id", "ood"))
    samples = len(pool)
    mixture = Mixture(pool, ood_pool, samples, RATIO, 0)

    def make(step: int) -> list[Block]:
        if step == SKIPPED - 1:
            barrier.wait(300)
        start = step % (samples // size) * size
        return [Block(tokens, 1) for tokens, _ in mixture.blocks(start, start + size)]

    batch, began, _ = steps_for(own, seconds, make)
    training_loop(own, settings, settings.numerics, settings.pretrain, batch)
    counted = began[SKIPPED:]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def small_grpo(own: Part, settings: Any, barrier: Any, seconds: float) -> float:
    """Steps a second of GRPO, likewise."""
    from grpo_step import Clock, Setting, our_trainer

    class Until(Clock):
        """Ends the training after some seconds of steps that count."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_step_end(args, state, control, **more)
            if len(self.times) == SKIPPED - 1:
                barrier.wait(300)
                self.times[-1] = self.now()
            if len(self.times) > SKIPPED and self.times[-1] - self.times[SKIPPED - 2] > seconds:
                control.should_training_stop = True

    at = Setting(settings, settings.rl.steps, own.folder, own.device)
    clock = Until(at.now)
    our_trainer(at, clock).train()
    counted = clock.times[SKIPPED - 2 :]
    return (len(counted) - 1) / (counted[-1] - counted[0])


@contextlib.contextmanager
def mps(part: Part) -> Iterator[bool]:
    """NVIDIA's multi-process service for the processes started in the block, if it can be had."""
    control = shutil.which("nvidia-cuda-mps-control")
    if not part.cuda or control is None:
        part.put("MPS", {"skipped": "no GPU, or no nvidia-cuda-mps-control"})
        yield False
        return
    for name, place in mps_folders(part.folder).items():
        place.mkdir()
        os.environ[name] = str(place)
    said = part.folder / "mps.txt"  # a file: the daemon would keep a pipe open
    try:
        with open(said, "w") as file:
            started = subprocess.run([control, "-d"], stdout=file, stderr=file, timeout=20)
        if started.returncode:
            part.put("MPS", {"skipped": f"it does not start: {said.read_text().strip()[:200]}"})
        yield started.returncode == 0
    finally:
        stop_mps(part.folder)
        for name in mps_folders(part.folder):
            del os.environ[name]


def mps_folders(folder: Path) -> dict[str, Path]:
    """The variables that tell the service's own folders from those of another one."""
    return {f"CUDA_MPS_{kind}_DIRECTORY": folder / f"mps-{kind}" for kind in ("PIPE", "LOG")}


def stop_mps(folder: Path) -> None:
    """End the service that `mps` started with these folders, if it did."""
    places, control = mps_folders(folder), shutil.which("nvidia-cuda-mps-control")
    if control and all(place.is_dir() for place in places.values()):
        variables = os.environ | {name: str(place) for name, place in places.items()}
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(
                [control], input=b"quit\n", env=variables, capture_output=True, timeout=9
            )
