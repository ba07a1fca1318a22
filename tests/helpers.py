"""What several test files share: a tiny study, its stages as one call each, and the real `snakemake` in a copy of this tree."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from grpo_origin.config.load import load_settings
from grpo_origin.config.schema import Settings
from grpo_origin.data.pools import write_pool
from grpo_origin.data.prompt_sets import write_grpo, write_sft, write_test
from grpo_origin.data.source import Source
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World

REPO = Path(__file__).parents[1]
CODE = ("Snakefile", "config", "profiles", "src", "workflow")

# An axis that no configuration of the project has; 64 strings a length, so everything can be enumerated.
TINY: dict[str, Any] = {
    "run": "tiny",
    "seeds": [0],
    "ratios": ["0", "0.25"],
    "axes": {
        "mini": {
            "id": ["trav;2;A", "shift trav;2;A"],
            "ood": ["trav shift trav;2;A"],
            "mixed": [1, 2],
        }
    },
    "world": {"nodes": 8, "test_fraction": 0.2},
    "model": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 64, "context": 32},
    "pretrain": {"samples": 8000, "batch_size": 32, "learning_rate": 1.0e-2},
    "sft": {"samples": 40, "batch_size": 16, "epochs": 2, "learning_rate": 1.0e-3},
    "rl": {
        "steps": 12,
        "prompts_per_step": 4,
        "group_size": 4,
        "learning_rate": 3.0e-4,
        "beta": 0.01,
    },
    "evaluation": {"prompts": 8},
    "numerics": {"device": "cpu"},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` merged over it, section by section; a key set to Ellipsis is removed."""
    out = copy.deepcopy(base)
    for key, value in changes.items():
        if value is ...:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def tiny(**changes: Any) -> Settings:
    """The tiny study's settings, changed."""
    return load_settings(merged(TINY, changes))


def source_of(settings: Settings, axis: str = "mini", seed: int = 0) -> Source:
    return Source(settings.world, settings.axes[axis], seed)


def make_data(root: Path, settings: Settings, axis: str = "mini", seed: int = 0) -> dict[str, Path]:
    """Write all data files of an axis and seed; name -> path."""
    source = source_of(settings, axis, seed)
    files = {
        name: root / f"{name}.parquet"
        for name in ("pretrain-id", "pretrain-ood", "sft", "grpo", "test")
    }
    for split in ("id", "ood"):
        write_pool(source, split, settings.pretrain.samples, files[f"pretrain-{split}"])
    write_sft(source, settings.sft.samples, files["sft"])
    write_grpo(source, settings.rl.prompts, settings.sft.samples, files["grpo"])
    write_test(source, settings.evaluation.prompts, files["test"])
    return files


def run_stage(
    stage: str,
    root: Path,
    output: Path,
    checkpoint: Path,
    changes: dict[str, Any] | None = None,
    ratio: str = "0.25",
    loud: bool = False,
) -> None:
    """Run a training stage of the study in `root` (its data in data/, earlier stages beside it) to `output`."""
    from grpo_origin.training import loop

    study = open_study(merged(TINY, changes or {}))
    settings = study.settings
    world = World(settings.world.nodes, 0)
    data = root / "data"
    if loud:
        loop.PROGRESS_SECONDS = 0.0
    if stage == "pretrain":
        pools = (data / "pretrain-id.parquet", data / "pretrain-ood.parquet")
        more = {"model": settings.model, "pretrain": settings.pretrain, **how}
        loop.pretrain(*pools, output, checkpoint, world=world, ratio=ratio, **more)
    elif stage == "sft":
        loop.sft(
            root / "pretrain",
            data / "sft.parquet",
            output,
            checkpoint,
            world=world,
            sft=settings.sft,
            runtime=settings.runtime,
        )
    else:
        from grpo_origin.rl.method import find
        from grpo_origin.rl.trainer import train_rl

        method, split = stage.split("~")
        files = (root / "sft", data / "grpo.parquet", split, output, checkpoint)
        grpo(
            *files,
            world=world,
            rl=settings.rl,
            runtime=settings.runtime,
            method=settings.methods.get(method) or find(method)(),
        )


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def interrupt_stage(
    how: signal.Signals,
    after: int,
    stage: str,
    root: Path,
    output: Path,
    checkpoint: Path,
    changes: dict[str, Any],
) -> tuple[int, str]:
    """Run a stage in a process of its own, send it a signal once `after` steps are done; its exit status and output."""
    call = f"run_stage({stage!r}, Path({str(root)!r}), Path({str(output)!r}), Path({str(checkpoint)!r}), {changes!r}, loud=True)"
    command = [
        sys.executable,
        "-c",
        f"from pathlib import Path; from helpers import run_stage; {call}",
    ]
    log = output.with_name(f"{output.name}.log")
    with open(log, "wb") as file:
        child = subprocess.Popen(
            command, env=environment(), cwd=root, stdout=file, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 120
    while child.poll() is None and f"step {after}/" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)
    assert child.poll() is None, f"ended before it could be interrupted:\n{log.read_text()}"
    child.send_signal(how)
    return child.wait(120), log.read_text()


def environment() -> dict[str, str]:
    """The environment of child processes: this tree's code, one thread."""
    path = os.pathsep.join([str(REPO / "src"), str(REPO / "tests")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def copy_code(target: Path) -> Path:
    """A copy of the workflow and library, without results."""
    for name in CODE:
        copy_one = shutil.copytree if (REPO / name).is_dir() else shutil.copy2
        copy_one(
            REPO / name,
            target / name,
            **(
                {"ignore": shutil.ignore_patterns("__pycache__")}
                if copy_one is shutil.copytree
                else {}
            ),
        )
    return target


def snakemake(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a tree; its PYTHONPATH is empty, so that the tree's own code runs."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    variables = environment() | {"PYTHONPATH": "", "XDG_CACHE_HOME": str(tree / ".cache")}
    return subprocess.run(
        command, cwd=tree, env=variables, capture_output=True, text=True, timeout=600
    )


def planned(tree: Path, *arguments: str) -> dict[str, int]:
    """Jobs that a dry run plans, by rule, without the default target."""
    result = snakemake(tree, "--dry-run", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    counts: dict[str, int] = {}
    for line in result.stdout.split("Job stats:")[-1].splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[1].isdigit():
            counts[parts[0]] = int(parts[1])
        elif line.startswith("Reasons"):
            break
    assert counts or "Nothing to be done" in result.stdout + result.stderr, (
        result.stdout + result.stderr
    )
    return {rule: count for rule, count in counts.items() if rule not in ("all", "total", "job")}


def rows_table(vocabulary: Vocabulary, task: Any, starts: Any) -> pa.Table:
    """Prompts and completions of a task as the table that evaluation reads."""
    prompts, completions = (
        vocabulary.prompts(task, starts).tolist(),
        vocabulary.completions(task, starts).tolist(),
    )
    kind = pa.list_(pa.int16())
    return pa.table(
        {"prompt_ids": pa.array(prompts, kind), "completion_ids": pa.array(completions, kind)}
    )


def read(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def write_config(tree: Path, name: str = "tiny.yaml", **changes) -> str:
    """The tiny study as an override of config/config.yaml, written into a tree; returns the file's name."""
    others = yaml.safe_load((tree / "config" / "config.yaml").read_text())["axes"]
    config = merged(TINY, {"axes": dict.fromkeys(others)})
    (tree / name).write_text(yaml.safe_dump(merged(config, changes)))
    return name
