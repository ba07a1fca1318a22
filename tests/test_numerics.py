"""Arithmetic of a job: one device, labelled, and no trace of training's precision in evaluation."""

from __future__ import annotations

import json
import os

import pytest
import torch

from grpo_origin.config.stages import NumericsSettings
from grpo_origin.jobs.errors import Interrupted
from grpo_origin.rl.method import find
from grpo_origin.training import loop
from grpo_origin.training.numerics import (
    choose_device,
    exact_arithmetic,
    training_arithmetic,
    training_passes,
)
from helpers import run_stage, weights_hash
from rl_trainer import trainer_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STAGES = ("pretrain", "sft", "grpo~ood")


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, numbers 2 and 3, as torch reports it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "device_count", lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    )


def test_a_job_sees_one_of_two_gpus(two_gpus):
    assert choose_device(NumericsSettings(), 1) == CUDA
    assert torch.cuda.device_count() == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_a_job_on_the_cpu_hides_no_gpu(two_gpus):
    assert choose_device(NumericsSettings(device="cpu"), 1) == CPU
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_trainer_uses_one_of_two_gpus(cell, tmp_path, monkeypatch):
    """TRL refuses to train when transformers counts two, after all earlier stages are done."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    trainer = trainer_of(cell, tmp_path, find("grpo")(), CUDA)
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == 16


def test_tf32_is_on_only_while_training_and_only_if_asked(two_gpus):
    choose_device(NumericsSettings(), 1)
    assert torch.get_float32_matmul_precision() == "highest"
    with training_arithmetic(NumericsSettings(), CUDA):
        assert torch.get_float32_matmul_precision() == "highest"
    with training_arithmetic(NumericsSettings(tf32=True), CUDA):
        assert torch.get_float32_matmul_precision() == "high"
        with exact_arithmetic(CUDA):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_exact_arithmetic_turns_autocast_off():
    x = torch.randn(4, 4)
    with training_passes(NumericsSettings(precision="bfloat16"), CPU):
        assert (x @ x).dtype == torch.bfloat16
        with exact_arithmetic(CPU):
            assert (x @ x).dtype == torch.float32
    with training_passes(NumericsSettings(), CPU):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("stage", ["sft", "grpo~ood"])
def test_deterministic_algorithms_while_a_stage_trains(cell, tmp_path, monkeypatch, stage):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    seen = []
    original = loop.Progress.step
    monkeypatch.setattr(
        loop.Progress,
        "step",
        lambda *args, **values: (
            seen.append(torch.are_deterministic_algorithms_enabled()) or original(*args, **values)
        ),
    )
    run_stage(stage, cell, tmp_path / "plain", tmp_path / "plain.checkpoint")
    assert set(seen) == {False}
    seen.clear()
    changes = {"numerics": {"deterministic": True}}
    run_stage(stage, cell, tmp_path / "out", tmp_path / "checkpoint", changes)
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert weights_hash(tmp_path / "out") == weights_hash(cell / stage)  # so are they on a CPU


@pytest.mark.parametrize("stage", STAGES)
def test_provenance_tells_a_bfloat16_model_and_the_device_it_was_made_on(cell, tmp_path, stage):
    records = {}
    few = {"pretrain": {"samples": 320}}
    for precision in ("float32", "bfloat16"):
        changes = few | {"numerics": {"precision": precision, "device": "auto"}}
        run_stage(stage, cell, tmp_path / precision, tmp_path / f"{precision}.ck", changes)
        records[precision] = json.loads((tmp_path / precision / "provenance.json").read_text())
        for settings in (
            records[precision]["settings"],
            records[precision]["identity"]["settings"],
        ):
            assert settings["numerics"]["precision"] == precision
            assert settings["numerics"]["device"] == (
                "cuda" if torch.cuda.is_available() else "cpu"
            )
    assert weights_hash(tmp_path / "float32") != weights_hash(tmp_path / "bfloat16")


@pytest.mark.parametrize("stage", ["sft", "grpo~ood"])
def test_a_checkpoint_goes_on_under_the_same_numerics_only(
    cell, tmp_path, monkeypatch, capsys, stage
):
    def interrupted(progress, done, **_):
        if done == 2:
            os.kill(os.getpid(), 15)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "step", interrupted)
        with pytest.raises(Interrupted):
            run_stage(stage, cell, tmp_path / "out", tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").exists()
    changes = {"numerics": {"precision": "bfloat16"}}
    run_stage(stage, cell, tmp_path / "out", tmp_path / "checkpoint", changes)
    assert "other settings" in capsys.readouterr().out
    run_stage(stage, cell, tmp_path / "fresh", tmp_path / "fresh.checkpoint", changes)
    assert weights_hash(tmp_path / "out") == weights_hash(tmp_path / "fresh")
