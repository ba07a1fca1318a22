"""What test files share: a tiny study, its stages, and the real `snakemake` in a copied tree."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from grpo_origin import cell
from grpo_origin.config.grid import DATA_FILES
from grpo_origin.config.load import merged
from grpo_origin.config.paths import Paths, stage_of
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.data.source import Source
from grpo_origin.study import Study, open_study
from grpo_origin.tasks.domains.strings import Strings
from grpo_origin.tasks.tokenizer import Vocabulary

REPO = Path(__file__).parents[1]
CODE = ("Snakefile", "config", "profiles", "src", "workflow")

# An axis that no configuration of the project has; 64 strings a length, so all can be listed.
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
    "model": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 64, "context": 40},
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


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` merged over it, as configurations are; a key set to ... is removed."""
    out = merged(base, changes)
    for key, value in changes.items():
        if value is ...:
            del out[key]
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            out[key] = changed(base[key], value)
    return out


def tiny_study(**changes: Any) -> Study:
    """The tiny study, changed."""
    return open_study(changed(TINY, changes))


def tiny(**changes: Any) -> Settings:
    """The tiny study's settings, changed."""
    return tiny_study(**changes).settings


def strings(nodes: int = 8, seed: int = 0) -> Strings:
    """The domain of strings in a world, on an axis that doesn't matter."""
    axis = AxisSettings(id=("trav;1;A",), ood=("shift;1;A",))
    return Strings(WorldSettings(nodes=nodes), axis, seed)


def source_of(settings: Settings, axis: str = "mini", seed: int = 0) -> Source:
    return Source(settings.world, settings.axes[axis], seed)


@dataclass(frozen=True)
class Flat(Paths):
    """One cell in one folder, and where a test wants them its output and checkpoint elsewhere."""

    output: Path | None = None
    state: Path | None = None

    def group(self, axis: str, seed: int | str) -> str:
        return self.results

    def cell(self, axis: str, seed: int | str, ratio: str) -> str:
        return self.results

    def stage(self, axis: str, seed: int | str, ratio: str, stage: str) -> str:
        return f"{self.results}/{stage}"

    def checkpoint(self, axis: str, seed: int | str, ratio: str, stage: str) -> str:
        return str(self.state or f"{self.results}/checkpoints/{stage}")


def make_data(root: Path, study: Study, axis: str = "mini", seed: int = 0) -> dict[str, Path]:
    """Write all data files of an axis and seed to root/data; name -> path."""
    paths = Flat("tiny", str(root))
    cell.make_data(study, paths, axis, seed)
    return {name: Path(paths.data(axis, seed, name)) for name in DATA_FILES}


@dataclass(frozen=True)
class _Elsewhere(Flat):
    """Flat, but the stage being trained goes to `output`."""

    trained: str = ""

    def stage(self, axis: str, seed: int | str, ratio: str, stage: str) -> str:
        return (
            str(self.output) if stage == self.trained else super().stage(axis, seed, ratio, stage)
        )


def run_stage(
    stage: str,
    root: Path,
    output: Path,
    checkpoint: Path,
    changes: dict[str, Any] | None = None,
    ratio: str = "0.25",
    loud: bool = False,
) -> None:
    """Train a stage of the study in `root` (its data in data/, earlier stages beside it)."""
    from grpo_origin.training import loop

    changes = dict(changes or {})
    if method := stage_of(stage).method:
        changes.setdefault("methods", [method])
    if loud:
        loop.PROGRESS_SECONDS = 0.0
    paths = _Elsewhere("tiny", str(root), output=output, state=checkpoint, trained=stage)
    cell.train_stage(tiny_study(**changes), paths, "mini", 0, ratio, stage)


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
    """Send a stage in a process of its own a signal after some steps; its status and output."""
    places = ", ".join(f"Path({str(place)!r})" for place in (root, output, checkpoint))
    call = f"run_stage({stage!r}, {places}, {changes!r}, loud=True)"
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


def kill_again_and_again(tree: Path, moments: Sequence[float], *arguments: str) -> None:
    """Run a sweep, kill -9 of its controller after these seconds, until it may end."""
    for seconds in moments:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        variables = environment() | {"PYTHONPATH": "", "XDG_CACHE_HOME": str(tree / ".cache")}
        child = subprocess.Popen(
            command,
            cwd=tree,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        child.kill()
        child.wait()
    result = snakemake(tree, "--cores", "2", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def assert_same_results(run: Path, other: Path) -> None:
    """Another run has the models, data and evaluations of a run byte for byte, and its tables."""
    for path in sorted(filter(Path.is_file, run.rglob("*"))):
        same = other / path.relative_to(run)
        if (
            path.name == "model.safetensors"
            or path.parent.name == "data"
            or path.name == "evaluation.parquet"
        ):
            assert same.read_bytes() == path.read_bytes(), path
        if path.suffix == ".csv":
            assert _timeless(same) == _timeless(path), path
    assert not list(other.rglob("*.tmp"))


def _timeless(path: Path) -> list[dict[str, str]]:
    """The rows of a table but for how long a step took."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in csv.DictReader(path.open())
    ]


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
    """Write the tiny study into a folder, as an override of config/config.yaml; its name."""
    others = yaml.safe_load((REPO / "config" / "config.yaml").read_text())["axes"]
    config = merged(TINY, {"axes": dict.fromkeys(others)})
    (tree / name).write_text(yaml.safe_dump(merged(config, changes)))
    return name


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    """Rows of a stage's training log, but for what no two runs share."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read(folder / "training_log.parquet")
    ]


def run(stage: str, root: Path, output: Path, **more: Any) -> str:
    """Run a stage to `output`, its checkpoint beside it; the hash of its weights."""
    run_stage(stage, root, output, output.with_name(f"{output.name}.checkpoint"), **more)
    return weights_hash(output)


def assert_same_weights(folder: Path, model: Any) -> None:
    """The saved weights are the model's, but for the rounding of another order of sums."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.allclose(saved[name], tensor, atol=1e-4, rtol=1e-4), name
