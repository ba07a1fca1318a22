"""Faults of a cluster give one-line errors that name what is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings
from grpo_origin.jobs import checkpoint as module
from grpo_origin.jobs.checkpoint import Checkpoint, stage
from grpo_origin.jobs.errors import ArtefactError, DeviceError
from grpo_origin.jobs.job import runtime
from grpo_origin.jobs.lease import Owner
from grpo_origin.jobs.provenance import content_fingerprint
from grpo_origin.training.numerics import choose_device
from helpers import REPO

TENSORS = {"weights": torch.ones(2**20)}  # 4 MiB


@pytest.fixture
def full_disk(tmp_path):
    """A file system with room for 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"can't mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_last_save(full_disk):
    state = Checkpoint(full_disk / "stage", {"seed": 0}, 0)
    small = {"weights": torch.ones(10)}
    state.save(small, [{"step": 1}])
    with pytest.raises(OSError, match=r"No space left on device.*stage"):
        state.save(TENSORS, [{"step": 2}])
    tensors, log = state.load()
    assert torch.equal(tensors["weights"], small["weights"])
    assert log == [{"step": 1}]
    assert [path.name for path in state.folder.iterdir()] == ["step-1"]


def test_a_full_disk_while_a_trainer_state_is_copied(full_disk, tmp_path):
    source = tmp_path / "checkpoint-3"
    source.mkdir()
    torch.save(TENSORS, source / "optimizer.pt")
    state = Checkpoint(full_disk / "stage", {"seed": 0}, 0)
    with pytest.raises(OSError, match="No space left on device"):
        state.save_folder(source, 3)
    assert state.load_folder() is None
    assert list(state.folder.iterdir()) == []


def test_a_gpu_that_was_allocated_but_is_not_usable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(DeviceError, match="SLURM gave this job a GPU"):
        choose_device(NumericsSettings(), 1)
    assert choose_device(NumericsSettings(device="cpu"), 1).type == "cpu"
    monkeypatch.delenv("SLURM_JOB_GPUS")
    assert choose_device(NumericsSettings(), 1).type == "cpu"
    with pytest.raises(DeviceError, match="sees no GPU"):
        choose_device(NumericsSettings(device="cuda"), 1)


def test_a_job_has_the_threads_that_snakemake_gave_it():
    before = torch.get_num_threads()
    try:
        config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
        given = runtime(SimpleNamespace(config=config, threads=2))
        choose_device(NumericsSettings(device="cpu"), given.threads)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_unreadable_input_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"pool\.parquet: can't be read"):
        content_fingerprint(tmp_path / "pool.parquet")


def test_a_log_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "logs").write_text("a file where a folder should be")
    log = str(tmp_path / "logs" / "sft.log")
    code = (
        "from types import SimpleNamespace; from grpo_origin.jobs.job import job\n"
        "names = dict(params={}, input=[], output=[], wildcards={})\n"
        f"with job(SimpleNamespace(log=[{log!r}], **names), 'sft'): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: sft: no log can be written")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("same", [True, False])
def test_the_result_of_the_job_waited_for_is_taken_if_it_is_the_same(tmp_path, monkeypatch, same):
    output, checkpoint = tmp_path / "pretrain", tmp_path / "checkpoints" / "pretrain"
    identity = {"settings": {"seed": 0}, "inputs": [], "code": "x"}
    checkpoint.parent.mkdir()
    orphan = replace(Owner.this("same"), token="orphan", machine="elsewhere", started=0.0)
    path = Path(f"{checkpoint}.lease")
    path.write_text(json.dumps(asdict(orphan)))

    def finish(_):
        output.mkdir()
        (output / "provenance.json").write_text(json.dumps({"identity": identity if same else {}}))
        path.unlink()

    monkeypatch.setattr("grpo_origin.jobs.lease.time.sleep", finish)
    with stage(output, checkpoint, identity, RuntimeSettings()) as state:
        assert (state is None) == same


def test_leftovers_of_killed_jobs_are_removed(tmp_path):
    left = tmp_path / f".pretrain.node-{os.getpid() + 1}.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    other = tmp_path / ".sft.node-1.tmp"
    other.mkdir()
    with module.stage(
        tmp_path / "pretrain", tmp_path / "checkpoints" / "pretrain", {}, RuntimeSettings()
    ):
        assert not left.exists()
        assert other.exists()
