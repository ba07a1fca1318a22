"""RL to convergence: its tables, its method's hooks, exact masses whatever training uses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from grpo_origin.analysis.theory import PROMPT_COLUMNS, read_prompts_table, summarise
from grpo_origin.config.schema import RuntimeSettings, TheorySettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.evaluation.law import optimal_mass
from grpo_origin.jobs.errors import NotFinite
from grpo_origin.rl import converge as module
from grpo_origin.rl.method import Method
from grpo_origin.rl.trainer import MethodHooks
from grpo_origin.tasks.world import World
from grpo_origin.training.model import build_model
from helpers import TINY, tiny

FLOAT32 = NumericsSettings(device="cpu")


def run(cell, folder, method: str, beta: str = "1", numerics=FLOAT32, **changes):
    """A short run of the experiment on the tiny study; its two files."""
    theory = TheorySettings(**{"pool": 4, "steps": 4, "group_size": 4, "trace_every": 2, **changes})
    files = (folder / f"{method}~{beta}.parquet", folder / f"{method}~{beta}~trace.parquet")
    more = {
        "theory": theory,
        "evaluation": EvaluationSettings(prompts=8),
        "numerics": numerics,
        "runtime": RuntimeSettings(),
    }
    inputs = (cell / "sft", cell / "data" / "grpo.parquet", cell / "data" / "test.parquet")
    module.converge(
        *inputs,
        *files,
        method=method,
        beta=beta,
        axis="mini",
        ratio="0.25",
        world=World(TINY["world"]["nodes"], 0),
        **more,
    )
    return files


def test_experiment_writes_masses_and_its_course(cell, tmp_path):
    files = {method: run(cell, tmp_path, method) for method in ("rloo", "grpo")}
    for method, (path, trace) in files.items():
        table = pd.read_parquet(path)
        assert set(table) == set(PROMPT_COLUMNS)
        assert table["pool"].value_counts().to_dict() == {"heldout": 8, "train": 4}
        assert set(table["method"]) == {method}
        assert (table["log_mass_after"] != table["log_mass_before"]).any()
        assert np.isfinite(table.select_dtypes("number").to_numpy(dtype=float)).all()
        course = pd.read_parquet(trace)
        assert course["step"].tolist() == [2, 4]
        assert course["train_mass"].iloc[-1] == pytest.approx(
            np.exp(table["log_mass_after"][table["pool"] == "train"]).mean()
        )
    prompts = read_prompts_table([path for path, _ in files.values()])
    assert prompts["law"].to_numpy() == pytest.approx(optimal_mass(prompts["mass_before"], 1.0))
    fixed = prompts.set_index(["method", "pool"])["mass_fixed_point"]
    assert fixed["rloo"].to_numpy() == pytest.approx(
        prompts.loc[prompts["method"] == "rloo", "law"].to_numpy()
    )
    summary = summarise(prompts, 0.01)
    assert len(summary) == 4
    assert summary["prompts"].tolist() == [8, 4, 8, 4]


@pytest.mark.slow
@pytest.mark.parametrize("beta", ["0.3", "1", "3"])
def test_rloo_to_convergence_obeys_the_law(cell, tmp_path, beta):
    path, _ = run(
        cell, tmp_path, "rloo", beta, pool=8, steps=150, group_size=16, learning_rate=1e-3
    )
    summary = summarise(read_prompts_table([path]), 0.01).set_index("pool")
    assert summary.loc["train", "distance"] < 0.05


def test_the_hooks_of_the_method_are_asked(cell, tmp_path, monkeypatch):
    calls = []

    class Silent(Method):
        objective = "other"

        def advantages(self, rollout):
            calls.append(len(rollout.inputs))
            return torch.zeros_like(rollout.rewards)

        def loss(self, trainer, model, batch):
            return 0 * super().loss(trainer, model, batch)

    monkeypatch.setattr(module, "find", lambda name: Silent)
    path, _ = run(cell, tmp_path, "grpo")
    assert calls == [16] * 4
    table = pd.read_parquet(path)  # its loss is nothing, so nothing moves
    assert (table["log_mass_after"] == table["log_mass_before"]).all()


def test_masses_are_float32s_in_the_middle_of_bfloat16_training(cell, tmp_path, monkeypatch):
    """accelerate patches the forward pass of a model that it trains under autocast."""
    original, checked = module.exact_mass, []

    def exact_mass(model, rows, *more):
        log_mass, greedy = original(model, rows, *more)
        with torch.random.fork_rng():
            plain = build_model(tiny().model, World(TINY["world"]["nodes"], 0), 0)
        plain.load_state_dict(model.state_dict())
        checked.append(np.array_equal(log_mass, original(plain, rows, *more)[0]))
        return log_mass, greedy

    monkeypatch.setattr(module, "exact_mass", exact_mass)
    numerics = NumericsSettings(device="cpu", precision="bfloat16")
    path, trace = run(cell, tmp_path, "rloo", numerics=numerics)
    assert len(checked) > 4
    assert all(checked)
    assert len(pd.read_parquet(trace)) == 2
    other, _ = run(cell, tmp_path, "rloo", "1.0")
    after = [pd.read_parquet(file)["log_mass_after"].to_numpy() for file in (path, other)]
    assert not np.array_equal(*after)  # the training itself was bfloat16's


def test_a_gradient_that_is_no_number_writes_nothing(cell, tmp_path, monkeypatch):
    original = MethodHooks.loss_of

    def loss_of(trainer, model, batch):
        loss = original(trainer, model, batch)
        if trainer.state.global_step == 3:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(MethodHooks, "loss_of", loss_of)
    with pytest.raises(NotFinite, match="converge rloo: gradient norm not finite at step 4;"):
        run(cell, tmp_path, "rloo")
    assert not list(tmp_path.glob("*.parquet"))
