"""What signal RL had: exact masses of its prompts, counts of what was sampled, moved or not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from grpo_origin.config.paths import PROMPT_MASS, SIGNAL
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.exploration import expected_successes
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.errors import Interrupted
from grpo_origin.rl import callbacks, signal
from grpo_origin.rl import stage as stages
from grpo_origin.rl import trainer as module
from grpo_origin.tasks.tokenizer import THINK
from grpo_origin.training.model import load_model, save_model
from helpers import read, run_stage, strings, tiny, weights_hash

GROUP = tiny().rl.group_size
SAMPLES = tiny().rl.prompts * GROUP


def train(cell, folder, stage="grpo~ood", changes=None) -> dict:
    """Train a stage into a folder; the row of its signal."""
    run_stage(stage, cell, folder, folder.with_name(f"{folder.name}.checkpoint"), changes)
    return row_of(folder)


def row_of(folder) -> dict:
    (row,) = read(folder / SIGNAL)
    return row


@pytest.fixture(scope="module")
def mute(cell, tmp_path_factory):
    """The tiny study with an SFT model that never says THINK, so the OOD task can't be sampled."""
    root = tmp_path_factory.mktemp("mute")
    shutil.copytree(cell / "data", root / "data")
    model = load_model(cell / "sft")
    with torch.no_grad():
        model.lm_head.weight[THINK] *= -1
    save_model(model, strings(), root / "sft")
    return root


def test_masses_before_rl_are_those_of_the_sft_model_in_the_order_of_training(cell):
    rows = read(cell / "grpo~ood" / PROMPT_MASS)
    prompts = read_prompts(cell / "data" / "grpo.parquet", "ood").slice(0, tiny().rl.prompts)
    model = load_model(cell / "sft")
    expected = exact_mass(model, Sequences(prompts), 7, torch.device("cpu"))[0]
    assert [row["log_mass"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    for name in ("prompt_index", "task", "split"):
        assert [row[name] for row in rows] == prompts[name].to_pylist()
    assert [row["step"] for row in rows] == [1 + i // 4 for i in range(48)]
    assert {row["samples"] for row in rows} == {GROUP}


def test_counts_are_those_of_the_training_log(cell):
    row, log = row_of(cell / "grpo~ood"), read(cell / "grpo~ood" / "training_log.parquet")
    assert row["completions"] == SAMPLES
    assert row["rewarded"] == pytest.approx(sum(step["reward_mean"] for step in log) * 16)
    same = np.mean([step["zero_variance_share"] for step in log])
    assert row["contrast_share"] == pytest.approx(1 - same)
    assert 0 < row["contrast_share"] < 1
    assert row["moved"]


def test_what_was_to_be_expected_follows_from_the_masses(cell):
    row = row_of(cell / "grpo~ood")
    log_mass = np.array([line["log_mass"] for line in read(cell / "grpo~ood" / PROMPT_MASS)])
    assert row["expected_successes"] == pytest.approx(GROUP * np.exp(log_mass).sum())
    assert row["any_success"] == pytest.approx(1 - np.prod((1 - np.exp(log_mass)) ** GROUP))
    few = signal.summary(
        dict.fromkeys(("completions", "plain"), 8)
        | {"rewarded": 0, "groups": 2, "contrasts": 0, "gold_tokens": 0},
        np.log([0.001, 0.003]),
        from_mass=True,
        moved=False,
    ).to_pylist()[0]
    assert few["expected_successes"] == pytest.approx(4 * 0.004)
    assert few["any_success"] == pytest.approx(1 - 0.999**4 * 0.997**4)


@pytest.mark.parametrize(
    ("name", "changes", "completions"),
    [
        ("grpo", {"rl": {"iterations": 2}}, SAMPLES // 2),
        ("dapo", {}, None),
        ("igrpo", {}, SAMPLES),
        ("expert_iteration", {}, 2 * 5 * 4 * GROUP),
    ],
)
def test_whatever_a_method_samples_is_counted(
    cell, tmp_path, monkeypatch, name, changes, completions
):
    """Held against what the checker of completions was asked."""
    original, scores = module.TaskReward.__call__, []

    def checked(*arguments, **more):
        rewards = original(*arguments, **more)
        scores.extend(rewards)
        return rewards

    monkeypatch.setattr(module.TaskReward, "__call__", checked)
    row = train(cell, tmp_path / name, f"{name}~ood", changes)
    assert row["completions"] == len(scores)
    assert row["rewarded"] == sum(scores) > 0
    if completions is None:
        assert SAMPLES // 2 < len(scores) <= 3 * SAMPLES // 2  # draws again, on half the steps
    else:
        assert len(scores) == completions


def test_completions_of_other_prompts_are_not_expected_by_the_masses_of_these(cell, tmp_path):
    """Half of igrpo's follow a draft that was put before the prompt."""
    row = train(cell, tmp_path / "out", "igrpo~ood")
    log_mass = [line["log_mass"] for line in read(tmp_path / "out" / PROMPT_MASS)]
    assert row["expected_successes"] == pytest.approx(expected_successes(log_mass, GROUP / 2))


def test_at_another_temperature_masses_say_nothing_of_what_is_sampled(cell, tmp_path):
    row = train(cell, tmp_path / "out", changes={"rl": {"temperature": 0.5}})
    assert row["expected_successes"] is row["any_success"] is None
    assert row["rewarded"] > 0


class StopAfter(callbacks.Keeper):
    """Told to stop once 5 steps are done."""

    def on_step_end(self, args, state, control, **more):
        self.stopping = lambda: state.global_step >= 5
        super().on_step_end(args, state, control, **more)


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_an_interrupted_job_counts_everything_once(cell, tmp_path, monkeypatch, name):
    undisturbed = train(cell, tmp_path / "undisturbed", f"{name}~ood")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "Keeper", StopAfter)
        with pytest.raises(Interrupted):
            train(cell, tmp_path / "out", f"{name}~ood")
    assert train(cell, tmp_path / "out", f"{name}~ood") == undisturbed
    masses = [read(tmp_path / folder / PROMPT_MASS) for folder in ("undisturbed", "out")]
    assert masses[0] == masses[1]


@pytest.mark.parametrize(
    ("name", "changes"),
    {
        "KL": ("grpo", {"rl": {"beta": 1.0}}),
        "two iterations": ("grpo", {"rl": {"beta": 1.0, "iterations": 2}}),
        "bfloat16": ("grpo", {"rl": {"beta": 1.0}, "numerics": {"precision": "bfloat16"}}),
        "KL in the reward": ("rloo", {"rl": {"beta": 1.0}}),
    }.values(),
)
def test_without_a_reward_no_weight_moves_by_a_bit(mute, tmp_path, name, changes):
    """The KL term has no gradient at the reference, and neither Adam nor rounding makes one."""
    row = train(mute, tmp_path / "out", f"{name}~ood", changes)
    assert row["rewarded"] == row["contrast_share"] == 0
    assert row["any_success"] <= row["expected_successes"] < 1e-9
    assert not row["moved"]
    assert weights_hash(tmp_path / "out") == weights_hash(mute / "sft")


def test_with_rewards_the_same_model_moves(mute, tmp_path):
    row = train(mute, tmp_path / "out", "grpo~id")
    assert row["rewarded"] > 0
    assert row["moved"]
    assert weights_hash(tmp_path / "out") != weights_hash(mute / "sft")


def test_the_least_bit_counts_as_a_move(cell):
    models = [load_model(cell / "sft") for _ in range(2)]
    assert not signal.moved(*models)
    weight = models[0].lm_head.weight
    with torch.no_grad():
        weight[3, 3] = torch.nextafter(weight[3, 3], torch.tensor(9.0))
    assert signal.moved(*models)
