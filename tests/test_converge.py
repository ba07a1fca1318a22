"""RL to convergence: its tables, its method's hooks, exact masses whatever training uses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, log_expit, logit

from grpo_origin.analysis.theory import PROMPT_COLUMNS, read_prompts_table, summarise
from grpo_origin.config.schema import RuntimeSettings, TheorySettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.law import optimal_mass
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.errors import NotFinite
from grpo_origin.rl import converge as module
from grpo_origin.rl.method import Method
from grpo_origin.rl.trainer import MethodHooks
from grpo_origin.training.model import build_model, load_model
from helpers import read, strings, tiny

FLOAT32 = NumericsSettings(device="cpu")


def prompts_of(cell):
    return cell / "data" / "grpo.parquet"


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
    inputs = (cell / "sft", prompts_of(cell), cell / "data" / "test.parquet")
    module.converge(
        *inputs,
        *files,
        method=method,
        beta=beta,
        axis="mini",
        ratio="0.25",
        domain=strings(),
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


def gaps(log_odds: np.ndarray, masses: tuple[float, float]) -> np.ndarray:
    """Distances in log-odds between neighbours, the ends of the range among them."""
    return np.diff(np.sort([*np.clip(log_odds, *logit(masses)), *logit(masses)]))


RANGE, POOL = (0.05, 0.9), 16
SPACING = (logit(0.9) - logit(0.05)) / (POOL - 1)


@pytest.mark.parametrize("centre", [-4.0, 0.0, 3.0])
def test_the_pool_covers_the_range_wherever_most_masses_lie(centre):
    log_odds = np.random.default_rng(0).normal(centre, 2.5, 1000)
    chosen = module.covering(log_expit(log_odds), np.ones(1000, bool), RANGE, POOL)
    assert len(set(chosen)) == POOL
    assert chosen.tolist() == sorted(chosen)
    assert ((expit(log_odds[chosen]) >= 0.05) & (expit(log_odds[chosen]) <= 0.9)).all()
    assert gaps(log_odds[chosen], RANGE).max() < 2 * SPACING


def test_the_other_split_fills_what_the_split_trained_on_lacks():
    """All OOD prompts are hardly ever right or hardly ever wrong, some ID prompts partly."""
    log_odds = np.concatenate([np.linspace(-30, -1, 400), np.linspace(-3, 8, 400)])
    preferred = np.arange(800) < 400
    chosen = module.covering(log_expit(log_odds), preferred, RANGE, POOL)
    assert gaps(log_odds[chosen], RANGE).max() < 3 * SPACING
    assert (log_odds[chosen[preferred[chosen]]] <= -1).all()
    assert preferred[chosen].sum() >= 4  # as many as lie below -1
    assert (~preferred[chosen]).sum() >= 8


def test_the_other_split_is_left_alone_where_it_is_not_needed():
    log_odds = np.tile(np.linspace(-4, 4, 300), 2)
    preferred = np.arange(600) < 300
    assert preferred[module.covering(log_expit(log_odds), preferred, RANGE, POOL)].all()


def test_with_too_few_partial_masses_the_nearest_are_taken(capsys, cell):
    log_odds = np.array([-40.0, -9.0, 0.0, 1.0, 9.0, 40.0])
    log_mass = np.append(log_expit(log_odds), [-np.inf, 1e-7])  # nothing, and rounded above 1
    chosen = module.covering(log_mass, np.ones(8, bool), RANGE, 4)
    assert chosen.tolist() == [1, 2, 3, 4]
    assert len(module.covering(log_mass, np.ones(8, bool), RANGE, 9)) == 8
    theory = TheorySettings(pool=8, masses=(1e-9, 1e-8))
    pool = module.choose_pool(load_model(cell / "sft"), prompts_of(cell), theory, 512)
    assert pool.num_rows == 8
    assert "warning: 0 prompts, fewer than theory.pool (8), start from a mass" in (
        capsys.readouterr().out
    )


def test_the_pool_of_the_tiny_study_lies_in_the_range_asked_for(cell, tmp_path, capsys):
    candidates = Sequences(read_prompts(prompts_of(cell)))
    log_mass, _ = exact_mass(load_model(cell / "sft"), candidates, 512, torch.device("cpu"))
    low, high = np.quantile(np.exp(log_mass), (0.2, 0.9))
    path, _ = run(cell, tmp_path, "rloo", masses=(low, high))
    table = pd.read_parquet(path)
    pool = table[table["pool"] == "train"]
    assert np.exp(pool["log_mass_before"]).between(low, high).all()
    assert set(table.loc[table["pool"] == "heldout", "split"]) == {"ood"}
    numbers = {(row["split"], row["prompt_index"]): row["task"] for row in read(prompts_of(cell))}
    for row in pool.itertuples():
        assert numbers[row.split, row.prompt_index] == row.task
    assert "warning" not in capsys.readouterr().out


def test_masses_out_of_order_are_refused():
    with pytest.raises(ValueError, match="masses: both must be in rising order"):
        TheorySettings(masses=(0.9, 0.05))


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
            plain = build_model(tiny().model, strings().tokens, 0)
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
