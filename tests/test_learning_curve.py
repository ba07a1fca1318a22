"""What happens between RL steps: learning curves, and the model as its own new reference."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from grpo_origin.config.notation import SPLITS
from grpo_origin.data.prompt_sets import curve_prompts, read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.errors import Interrupted
from grpo_origin.rl import callbacks
from grpo_origin.rl import stage as stages
from grpo_origin.training.model import load_model
from helpers import run_stage, source_of, tiny, weights_hash
from rl_trainer import STAGE, run

CPU = torch.device("cpu")
CURVE = "learning_curve.parquet"


def test_a_curve_has_exact_masses_before_every_few_steps_and_at_the_end(cell, tmp_path):
    run(cell, tmp_path / "out", {"rl": {"evaluate_every": 5, "evaluate_prompts": 6}})
    curve = pd.read_parquet(tmp_path / "out" / CURVE)
    assert list(curve) == [*callbacks.CURVE_TYPES]
    for split in SPLITS:
        rows = curve[curve["split"] == split]
        assert rows["step"].tolist() == [0, 5, 10, 12]
        assert rows["completions"].tolist() == [0, 80, 160, 192]  # 4 prompts x 4 a step
    prompts = curve_prompts(source_of(tiny()), 6)
    for step, folder in ((0, cell / "sft"), (12, tmp_path / "out")):
        log_mass, greedy = exact_mass(load_model(folder), Sequences(prompts), 64, CPU)
        for split in SPLITS:
            of_split = [value == split for value in prompts["split"].to_pylist()]
            row = curve[(curve["step"] == step) & (curve["split"] == split)].iloc[0]
            assert row["log_mass_mean"] == pytest.approx(log_mass[of_split].mean())
            assert row["greedy_accuracy"] == greedy[of_split].mean()


def test_measuring_a_curve_changes_no_weight(cell, tmp_path):
    often = run(cell, tmp_path / "out", {"rl": {"evaluate_every": 1, "evaluate_prompts": 3}})
    assert often == weights_hash(cell / STAGE)


def test_prompts_of_curves_are_never_trained_on(cell):
    prompts = {
        tuple(ids) for ids in curve_prompts(source_of(tiny()), 100)["prompt_ids"].to_pylist()
    }
    assert prompts
    for name in ("sft", "grpo"):
        trained = read_prompts(cell / "data" / f"{name}.parquet")["prompt_ids"].to_pylist()
        assert not prompts & {tuple(ids) for ids in trained}


class StopAfter(callbacks.Keeper):
    """Told to stop once 7 steps are done."""

    def on_step_end(self, args, state, control, **more):
        self.stopping = lambda: state.global_step >= 7
        super().on_step_end(args, state, control, **more)


def test_curve_and_new_reference_survive_an_interruption(cell, tmp_path, monkeypatch):
    """Stopped after the first of two resets: the reference is no longer the SFT model."""
    changes = {"rl": {"reset_reference_every": 5, "evaluate_every": 3, "beta": 1.0}}
    undisturbed = run(cell, tmp_path / "undisturbed", changes)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "Keeper", StopAfter)
        with pytest.raises(Interrupted):
            run_stage(STAGE, cell, tmp_path / "out", tmp_path / "checkpoint", changes)
    run_stage(STAGE, cell, tmp_path / "out", tmp_path / "checkpoint", changes)
    assert weights_hash(tmp_path / "out") == undisturbed
    curves = [pq.read_table(tmp_path / name / CURVE) for name in ("out", "undisturbed")]
    assert curves[0] == curves[1]
    assert undisturbed != run(cell, tmp_path / "plain", {"rl": {"beta": 1.0}})


def test_after_a_reset_the_model_is_its_own_reference(cell, tmp_path):
    """TRL's estimate of the KL divergence starts from zero again, and the optimiser too."""
    changes = {"rl": {"reset_reference_every": 4, "beta": 0.1}}
    run(cell, tmp_path / "out", changes)
    kl = pd.read_parquet(tmp_path / "out" / "training_log.parquet")["kl"].tolist()
    assert max(kl[step - 1] for step in (1, 5, 9)) < 1e-6
    assert min(kl[step - 1] for step in (2, 3, 4)) > 1e-6


def test_without_a_kl_term_only_the_optimiser_starts_anew(cell, tmp_path):
    runs = {
        every: run(
            cell, tmp_path / str(every), {"rl": {"reset_reference_every": every, "beta": 0.0}}
        )
        for every in (0, 4)
    }
    assert runs[0] != runs[4]
