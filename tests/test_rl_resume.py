"""RL interrupted and resumed: the same weights, whatever happened in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from grpo_origin.jobs.errors import Interrupted
from grpo_origin.rl import callbacks
from grpo_origin.rl import stage as stages
from helpers import interrupt_stage, run_stage, tiny, weights_hash, without_seconds
from rl_trainer import STAGE, capture, run


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_interrupted_in_a_process_of_its_own_ends_with_the_same_weights(cell, tmp_path, how):
    output, checkpoint = tmp_path / "grpo", tmp_path / "checkpoint"
    changes = {"runtime": {"checkpoint_seconds": 0 if how == signal.SIGKILL else 300}}
    status, printed = interrupt_stage(how, 4, STAGE, cell, output, checkpoint, changes)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 1)
    assert how == signal.SIGKILL or "the same command resumes" in printed
    assert not output.exists()
    assert any(name.startswith("step-") for name in os.listdir(checkpoint))
    assert run_stage(STAGE, cell, output, checkpoint) is None
    assert weights_hash(output) == weights_hash(cell / STAGE)
    assert without_seconds(output) == without_seconds(cell / STAGE)
    assert not checkpoint.exists()


class StopAfter(callbacks.Keeper):
    """Told to stop once 5 steps are done."""

    def on_step_end(self, args, state, control, **more):
        self.stopping = lambda: state.global_step >= 5
        super().on_step_end(args, state, control, **more)


def interrupted_state(cell: Path, tmp_path: Path, changes: dict | None = None) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "Keeper", StopAfter)
        with pytest.raises(Interrupted, match=r"stopped after step [56] of 12"):
            run_stage(STAGE, cell, tmp_path / "out", tmp_path / "checkpoint", changes)
    assert not (tmp_path / "out").exists()
    return tmp_path / "checkpoint"


def test_an_interrupted_job_continues_where_it_stopped(cell, tmp_path, monkeypatch):
    checkpoint = interrupted_state(cell, tmp_path)
    records: list[dict] = []
    capture(monkeypatch, records, [])
    run_stage(STAGE, cell, tmp_path / "out", checkpoint)
    assert len(records) == 7
    assert weights_hash(tmp_path / "out") == weights_hash(cell / STAGE)


def test_an_interruption_between_iterations_waits_for_their_end(cell, tmp_path):
    """The rollouts of unfinished iterations are not saved, so a state between them could not be
    resumed exactly.
    """
    changes = {"rl": {"iterations": 2}}
    undisturbed = run(cell, tmp_path / "undisturbed", changes)
    checkpoint = interrupted_state(cell, tmp_path, changes)
    assert "step-6" in os.listdir(checkpoint)
    run_stage(STAGE, cell, tmp_path / "out", checkpoint, changes)
    assert weights_hash(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "about missing", "about truncated", "all missing"]
)
def test_a_damaged_state_is_left_out(cell, tmp_path, damage):
    """Half-written or half-copied: the job goes back to the state before, or to the start."""
    checkpoint = interrupted_state(cell, tmp_path)
    newer = checkpoint / "step-7"
    shutil.copytree(checkpoint / "step-5", newer)
    victim = newer / ("about.json" if damage.startswith("about") else "optimizer.pt")
    if damage == "all missing":
        shutil.rmtree(checkpoint / "step-5")
    if damage.endswith("missing"):
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-5])
    run_stage(STAGE, cell, tmp_path / "out", checkpoint)
    assert weights_hash(tmp_path / "out") == weights_hash(cell / STAGE)


def test_a_state_of_other_settings_or_inputs_is_not_resumed(cell, tmp_path):
    checkpoint = interrupted_state(cell, tmp_path)
    changes = {"rl": {"learning_rate": 1e-4}}
    run_stage(STAGE, cell, tmp_path / "out", checkpoint, changes)
    assert weights_hash(tmp_path / "out") == run(cell, tmp_path / "fresh", changes)

    root = tmp_path / "root"
    shutil.copytree(cell / "data", root / "data")
    shutil.copytree(cell / "sft", root / "sft")
    shutil.rmtree(tmp_path / "out")
    checkpoint = interrupted_state(root, tmp_path)
    shutil.rmtree(root / "sft")
    shutil.copytree(cell / "pretrain", root / "sft")
    run_stage(STAGE, root, tmp_path / "out", checkpoint)
    assert weights_hash(tmp_path / "out") == run(root, tmp_path / "other")


def test_provenance_holds_the_settings_of_the_stage(cell):
    record = json.loads((cell / STAGE / "provenance.json").read_text())
    assert record["settings"]["rl"] == tiny().rl.model_dump()
    assert record["settings"]["trained_on"] == "ood"
    assert record["steps"] == 12
