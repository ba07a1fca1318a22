"""Pretraining and SFT: right loss, right step, the same weights every time, interrupted or not."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

from grpo_origin.jobs.errors import ArtefactError, Interrupted, NotFinite
from grpo_origin.training import loop as module
from grpo_origin.training import stage as training_stage
from grpo_origin.training.loop import next_token_loss
from grpo_origin.training.model import build_model, load_model
from helpers import (
    assert_same_weights,
    interrupt_stage,
    make_data,
    read,
    run,
    run_stage,
    strings,
    tiny,
    tiny_study,
    weights_hash,
    without_seconds,
)

MANY_STEPS = {
    "pretrain": {},
    "sft": {"sft": {"epochs": 40}},
}  # enough steps to be interrupted between two of them


@pytest.fixture(scope="module")
def undisturbed(cell, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage, changes in MANY_STEPS.items():
        run(stage, cell, folder / stage, changes=changes)
    return {stage: folder / stage for stage in MANY_STEPS}


@pytest.mark.parametrize("stage", MANY_STEPS)
def test_the_same_job_gives_the_same_weights(cell, undisturbed, tmp_path, stage):
    assert run(stage, cell, tmp_path / stage, changes=MANY_STEPS[stage]) == weights_hash(
        undisturbed[stage]
    )


def test_another_ratio_gives_other_weights(cell, tmp_path):
    assert run("pretrain", cell, tmp_path / "pretrain", ratio="0") != weights_hash(
        cell / "pretrain"
    )


@pytest.mark.parametrize("stage", MANY_STEPS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_interrupted_in_a_process_of_its_own_ends_with_the_same_weights(
    cell, undisturbed, tmp_path, stage, how
):
    """SIGTERM saves at the next step; kill -9 leaves the last save, here of every step."""
    output, checkpoint = tmp_path / stage, tmp_path / "checkpoint"
    changes = MANY_STEPS[stage] | {
        "runtime": {"checkpoint_seconds": 0 if how == signal.SIGKILL else 300}
    }
    status, printed = interrupt_stage(how, 20, stage, cell, output, checkpoint, changes)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 1)
    assert how == signal.SIGKILL or "the same command resumes" in printed
    assert not output.exists()
    saved = [json.loads(file.read_text()) for file in checkpoint.glob("step-*/log.json")]
    assert max(map(len, saved)) >= 19
    run_stage(stage, cell, output, checkpoint, changes)
    assert weights_hash(output) == weights_hash(undisturbed[stage])
    assert without_seconds(output) == without_seconds(undisturbed[stage])
    assert [row["step"] for row in read(output / "training_log.parquet")] == list(
        range(1, len(without_seconds(output)) + 1)
    )
    assert not checkpoint.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [stage, f"{stage}.log"]


class StopAfter:
    """Makes a stage in this process believe that it was told to stop once some steps are done."""

    def __init__(self, monkeypatch, steps: int) -> None:
        original = module.Progress.step

        def step(progress, done, **values):
            if done == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            original(progress, done, **values)

        monkeypatch.setattr(module.Progress, "step", step)


def interrupted_state(cell, tmp_path, stage="sft") -> Path:
    """The checkpoint of a stage interrupted after 2 steps."""
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, 2)
        with pytest.raises(Interrupted, match="stopped after step 2 of"):
            run_stage(stage, cell, tmp_path / "out", tmp_path / "checkpoint")
    assert not (tmp_path / "out").exists()
    return tmp_path / "checkpoint"


def test_an_interrupted_stage_continues_where_it_stopped(cell, tmp_path, capsys):
    checkpoint = interrupted_state(cell, tmp_path)
    run_stage("sft", cell, tmp_path / "out", checkpoint)
    assert "resumed after step 2 of 6" in capsys.readouterr().out
    assert weights_hash(tmp_path / "out") == weights_hash(cell / "sft")


def test_a_stage_told_to_stop_during_its_last_step_ends_normally(cell, tmp_path, monkeypatch):
    StopAfter(monkeypatch, 6)
    run_stage("sft", cell, tmp_path / "out", tmp_path / "checkpoint")
    assert weights_hash(tmp_path / "out") == weights_hash(cell / "sft")


def test_a_stage_told_to_stop_while_it_is_put_in_place_ends_normally(cell, tmp_path, monkeypatch):
    """Here the lease's handler would end the process, and with it a trained model that is nowhere
    yet.
    """
    original = training_stage.save_model

    def save_model(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        original(*arguments)

    monkeypatch.setattr(training_stage, "save_model", save_model)
    run_stage("sft", cell, tmp_path / "out", tmp_path / "checkpoint")
    assert weights_hash(tmp_path / "out") == weights_hash(cell / "sft")


def test_signal_handlers_are_put_back(cell, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    interrupted_state(cell, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_checkpoint_of_other_settings_is_ignored(cell, tmp_path, capsys):
    checkpoint = interrupted_state(cell, tmp_path)
    changes = {"sft": {"learning_rate": 5e-4}}
    run_stage("sft", cell, tmp_path / "out", checkpoint, changes)
    assert "other settings" in capsys.readouterr().out
    assert weights_hash(tmp_path / "out") == run("sft", cell, tmp_path / "fresh", changes=changes)


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_a_checkpoint_of_other_inputs_is_ignored(cell, tmp_path, stage):
    """Killed, then an earlier stage or the data changed: going on from the old state would mix the
    two.
    """
    root = tmp_path / "root"
    shutil.copytree(cell, root, ignore=shutil.ignore_patterns("grpo*", "checkpoints"))
    checkpoint = interrupted_state(root, tmp_path, stage)
    if stage == "sft":
        shutil.rmtree(root / "pretrain")
        run("pretrain", root, root / "pretrain", ratio="0")
    else:
        make_data(root, tiny_study(), seed=1)
    run_stage(stage, root, tmp_path / "out", checkpoint)
    assert weights_hash(tmp_path / "out") == run(stage, root, tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["truncated", "missing", "text", "foreign"])
def test_a_damaged_checkpoint_is_ignored(cell, tmp_path, damage):
    checkpoint = interrupted_state(cell, tmp_path)
    state = checkpoint / "step-2" / "state.safetensors"
    content = state.read_bytes()
    state.unlink()
    if damage == "foreign":
        save_file({"x": torch.zeros(1)}, state)
    elif damage != "missing":
        state.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"hello")
    run_stage("sft", cell, tmp_path / "out", checkpoint)
    assert weights_hash(tmp_path / "out") == weights_hash(cell / "sft")


def test_a_loss_that_is_no_number_ends_the_job_with_advice(cell, tmp_path, monkeypatch):
    original = module.next_token_loss
    monkeypatch.setattr(module, "next_token_loss", lambda *args: original(*args) * float("nan"))
    with pytest.raises(NotFinite, match="sft: loss not finite at step 1; lower its learning_rate"):
        run("sft", cell, tmp_path / "sft")
    assert not (tmp_path / "sft").exists()


@pytest.mark.parametrize(("stage", "steps"), [("pretrain", 250), ("sft", 6)])
def test_a_gradient_that_is_no_number_at_the_last_step_leaves_no_model(
    cell, tmp_path, monkeypatch, stage, steps
):
    """All losses are finite: a model of NaN weights would be put in place."""
    done = [0]
    loss_of, report = module.next_token_loss, module.Progress.step

    def loss(*args):
        value = loss_of(*args)
        if done[0] == steps - 1:
            value.register_hook(lambda gradient: gradient * float("nan"))
        return value

    def step(progress, number, **values):
        done[0] = number
        report(progress, number, **values)

    monkeypatch.setattr(module, "next_token_loss", loss)
    monkeypatch.setattr(module.Progress, "step", step)
    with pytest.raises(NotFinite, match=f"{stage}: gradient norm not finite at step {steps};"):
        run(stage, cell, tmp_path / stage)
    assert not (tmp_path / stage).exists()


@pytest.mark.parametrize("bad", [3, 6])
def test_weights_that_are_no_numbers_become_neither_checkpoint_nor_model(
    cell, tmp_path, monkeypatch, bad
):
    """Gradients are finite, the optimiser overflows; step 6 is the last."""
    rate = module.learning_rate
    monkeypatch.setattr(
        module,
        "learning_rate",
        lambda settings, step, steps: math.inf if step == bad - 1 else rate(settings, step, steps),
    )
    changes = {"runtime": {"checkpoint_seconds": 0}}
    with pytest.raises(NotFinite, match=rf"sft: weights .* not finite at step {bad};"):
        run_stage("sft", cell, tmp_path / "sft", tmp_path / "checkpoint", changes)
    assert not (tmp_path / "sft").exists()
    (save,) = (tmp_path / "checkpoint").iterdir()
    state = load_file(save / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_missing_source_is_named(study, tmp_path):
    shutil.copytree(study / "data", tmp_path / "root" / "data")
    with pytest.raises(ArtefactError, match=r"root/pretrain"):
        run_stage("sft", tmp_path / "root", tmp_path / "out", tmp_path / "checkpoint")


def test_bfloat16_rounds_the_passes_and_leaves_the_weights_float32(study, tmp_path):
    """As far as a CPU shows it: nearly the same losses, and neither the same weights nor other
    types.
    """
    logs, weights = {}, {}
    for precision in ("float32", "bfloat16"):
        output, changes = (
            tmp_path / precision,
            {"numerics": {"precision": precision}, "pretrain": {"samples": 1600}},
        )
        run_stage("pretrain", study, output, tmp_path / f"{precision}.checkpoint", changes)
        logs[precision] = np.array([row["loss"] for row in read(output / "training_log.parquet")])
        weights[precision] = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in weights["bfloat16"].values()} == {torch.float32}
    difference = np.abs(logs["bfloat16"] - logs["float32"])
    assert 0 < difference[:5].max() < 0.02  # rounding, before it has grown
    assert difference[-1] < 0.05
    assert logs["bfloat16"][-1] < logs["bfloat16"][0] - 0.5
    assert any(
        not torch.equal(weights["bfloat16"][name], tensor)
        for name, tensor in weights["float32"].items()
    )


def test_pretraining_is_compiled_when_asked_and_sft_never(study, cell, tmp_path, monkeypatch):
    compiled, counter, original = [], CompileCounter(), torch.compile

    def compile_counting(model):
        compiled.append(model)
        return original(model, backend=counter)

    monkeypatch.setattr(torch, "compile", compile_counting)
    few = {"pretrain": {"samples": 320}}
    run("pretrain", study, tmp_path / "plain", changes=few)
    assert not compiled
    asked = {"numerics": {"compile": True}}
    run("pretrain", study, tmp_path / "compiled", changes=few | asked)
    assert len(compiled) == 1
    assert 1 <= counter.frame_count <= 4
    assert_same_weights(tmp_path / "plain", load_model(tmp_path / "compiled"))
    run("sft", cell, tmp_path / "sft", changes=asked)
    assert len(compiled) == 1
    assert weights_hash(tmp_path / "sft") == weights_hash(cell / "sft")


def test_a_compiled_model_takes_blocks_of_many_sizes_with_few_graphs():
    """The compiled forward pass of GPU runs, traced on the CPU: every step brings other block
    sizes, and each graph costs a compilation.

    Past torch's limit of recompilations it would go on uncompiled, without a word.
    """
    settings = tiny()
    model = build_model(settings.model, strings(settings.world.nodes).tokens, 0)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for rows, length in [
        (28, 12),
        (36, 18),
        (31, 12),
        (33, 18),
        (1, 24),
        (5, 24),
        (7, 30),
        (1, 12),
        (40, 17),
        (2, 9),
        (64, 28),
    ]:
        tokens = torch.randint(settings.world.nodes, (rows, length))
        logits = compiled(input_ids=tokens, use_cache=False).logits
        next_token_loss(logits, tokens, 1).backward()
        assert torch.allclose(logits, model(input_ids=tokens, use_cache=False).logits, atol=1e-5)
    assert counter.frame_count <= 4
