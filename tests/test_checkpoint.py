"""The state of an unfinished stage: whole or absent, of this job or none, saved at a stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from grpo_origin.jobs import checkpoint as module
from grpo_origin.jobs.checkpoint import Checkpoint, stop_signals
from grpo_origin.jobs.errors import NotFinite
from helpers import environment, run_stage, weights_hash

IDENTITY = {"settings": {"seed": 0, "numerics": {"precision": "float32"}}, "code": "x"}


def checkpoint(folder: Path, identity=IDENTITY) -> Checkpoint:
    return Checkpoint(folder / "sft", identity, 0)


def save(state: Checkpoint, steps: int, value: float = 1.0) -> None:
    rows = [{"step": step + 1, "loss": 0.1 * step} for step in range(steps)]
    state.save({"weights": torch.full((3,), value)}, rows)


def test_a_save_is_read_back_as_it_was(tmp_path):
    tensors = {"a": torch.randn(4, 3).T, "b": torch.tensor(7)}
    log = [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 5e-324}]
    checkpoint(tmp_path).save(tensors, log)
    loaded, rows = checkpoint(tmp_path).load()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert rows == log
    assert [type(row["step"]) for row in rows] == [int, int]


def test_the_log_may_be_longer_than_a_safetensors_header(tmp_path):
    """That holds 100 MB, about as much as 2 million steps write."""
    state = checkpoint(tmp_path)
    log = [{"step": 1, "note": "x" * 110_000_000}]
    state.save({"weights": torch.ones(3)}, log)
    tensors, rows = state.load()
    assert rows == log
    assert torch.equal(tensors["weights"], torch.ones(3))


@pytest.mark.parametrize("moment", ["before it is in place", "before the old one is removed"])
def test_a_job_killed_while_saving_leaves_a_whole_save(tmp_path, monkeypatch, moment):
    state = checkpoint(tmp_path)
    save(state, 2, 2.0)

    def killed(*_, **__):
        raise KeyboardInterrupt

    name = "replace" if moment == "before it is in place" else "rmtree"
    owner = os if name == "replace" else module.shutil
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            save(state, 10, 10.0)
    tensors, rows = checkpoint(tmp_path).load()
    assert len(rows) == tensors["weights"][0].item() == (2 if name == "replace" else 10)
    save(state, 11, 11.0)
    assert [path.name for path in state.folder.iterdir()] == ["step-11"]


@pytest.mark.parametrize("file", ["state.safetensors", "log.json", "about.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "overwritten"])
def test_a_damaged_save_counts_as_none(tmp_path, capsys, file, damage):
    state = checkpoint(tmp_path)
    save(state, 2)
    victim = state.folder / "step-2" / file
    content = victim.read_bytes()
    victim.unlink()
    if damage != "gone":
        victim.write_bytes(content[:-1] if damage == "cut" else b"\xff" * len(content))
    assert state.load() is None
    assert "step-2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"seed": 0, "numerics": {"precision": "bfloat16"}}},
        {"settings": {"seed": 1, "numerics": {"precision": "float32"}}},
        {"code": "y"},
    ],
)
def test_another_precision_settings_or_code_does_not_go_on_from_a_save(tmp_path, capsys, changes):
    save(checkpoint(tmp_path), 2)
    assert checkpoint(tmp_path, IDENTITY | changes).load() is None
    assert "of other settings" in capsys.readouterr().out
    assert checkpoint(tmp_path).load() is not None


def test_a_foreign_save_of_more_steps_does_not_hide_this_jobs(tmp_path):
    save(checkpoint(tmp_path, IDENTITY | {"code": "y"}), 9, 9.0)
    shutil.copytree(tmp_path / "sft", tmp_path / "kept")
    save(checkpoint(tmp_path), 2, 2.0)
    shutil.copytree(tmp_path / "kept", tmp_path / "sft", dirs_exist_ok=True)
    assert checkpoint(tmp_path).load()[0]["weights"][0] == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_is_noted_and_a_second_one_changes_nothing(how):
    before = signal.getsignal(how)
    with stop_signals() as stopping:
        assert not stopping()
        signal.raise_signal(how)
        signal.raise_signal(how)
        assert stopping()
    assert signal.getsignal(how) is before


def test_what_is_not_finite_is_told_in_one_line():
    message = str(NotFinite("sft", 12, "gradient"))
    assert "sft" in message
    assert "step 12" in message
    assert "learning_rate" in message
    assert "\n" not in message


JOB = """
import sys
from pathlib import Path
from types import SimpleNamespace
from grpo_origin.jobs.job import job
root, output, checkpoint, log = map(Path, sys.argv[1:])
given = SimpleNamespace(log=[log], params={}, input=[], output=[output], wildcards={})
with job(given, "pretrain mini"):
    from helpers import run_stage
    run_stage("pretrain", root, output, checkpoint, loud=True)
"""


def test_ctrl_c_saves_the_stage_and_says_so_in_one_line(study, tmp_path):
    run_stage("pretrain", study, tmp_path / "undisturbed", tmp_path / "none")
    output, state, log = tmp_path / "pretrain", tmp_path / "checkpoint", tmp_path / "job.log"
    command = [sys.executable, "-c", JOB, study, output, state, log]
    child = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while child.poll() is None and not (log.exists() and "step 20/" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    printed, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert printed == ""
    assert "pretrain mini: stopped after step" in errors
    assert "the same command resumes" in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in log.read_text()
    assert not output.exists()
    assert checkpoint_steps(state) >= 20
    run_stage("pretrain", study, output, state)
    assert weights_hash(output) == weights_hash(tmp_path / "undisturbed")


def checkpoint_steps(folder: Path) -> int:
    (name,) = [path.name for path in folder.iterdir()]
    return int(name.removeprefix("step-"))
