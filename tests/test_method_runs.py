"""Every method in a short real run, other settings of methods, interruption and resume."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.rl import callbacks
from grpo_origin.rl.method import names
from helpers import read, run_stage, weights_hash

METHODS = [name for name in names() if name != "grpo"]
STEPS = {"rl": {"steps": 6, "group_size": 8, "learning_rate": 1e-3}}
# Plain GRPO under other settings, and no hook: method -> these settings.
ONLY_SETTINGS = {"grpo_off_policy": {"iterations": 2}, "grpo_kl_free": {"beta": 0.0}}


def train(cell: Path, output: Path, stage: str, methods: list) -> str:
    changes = STEPS | {"methods": methods}
    run_stage(stage, cell, output, output.with_name(f"{output.name}.checkpoint"), changes)
    return weights_hash(output)


@pytest.mark.parametrize("name", METHODS)
def test_a_short_real_run(cell, tmp_path, name):
    train(cell, tmp_path / name, f"{name}~ood", [name])
    log = read(tmp_path / name / "training_log.parquet")
    assert [row["step"] for row in log] == list(range(1, 7))
    assert all(math.isfinite(row["loss"]) and 0 <= row["reward_mean"] <= 1 for row in log)
    assert f'"{name}"' in (tmp_path / name / "provenance.json").read_text()


@pytest.mark.parametrize("name", ONLY_SETTINGS)
def test_a_method_of_other_settings_is_plain_grpo_under_them(cell, tmp_path, name):
    weights = train(cell, tmp_path / name, f"{name}~ood", [name])
    assert weights == train(cell, tmp_path / "grpo", "grpo~ood", [{"grpo": ONLY_SETTINGS[name]}])
    assert weights != train(cell, tmp_path / "plain", "grpo~ood", ["grpo"])


RESUMED = ["ha_dw", "dapo", "random_reward", "expert_iteration", "igrpo", "curriculum", "rloo"]
RESUMED += ["hints", "luffy", "reverse_curriculum", "dpo"]


@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_run_ends_with_the_same_weights(cell, tmp_path, monkeypatch, name):
    settings = {"expert_iteration": {"round_steps": 2, "iterations": 1}, "dpo": {"round_steps": 3}}
    settings = settings.get(name, {})
    changes = {
        "rl": STEPS["rl"] | {"steps": 8},
        "methods": [{name: settings}],
        "runtime": {"checkpoint_seconds": 0},
    }
    whole = tmp_path / "whole"
    run_stage(f"{name}~ood", cell, whole, tmp_path / "whole.checkpoint", changes)
    keep = callbacks.Keeper.on_step_end

    def dying(self, args, state, control, **more):
        if state.global_step == 5:
            raise ConnectionError("killed")
        return keep(self, args, state, control, **more)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Keeper, "on_step_end", dying)
        with pytest.raises(ConnectionError):
            run_stage(f"{name}~ood", cell, tmp_path / "part", tmp_path / "part.checkpoint", changes)
    assert not (tmp_path / "part").exists()
    run_stage(f"{name}~ood", cell, tmp_path / "part", tmp_path / "part.checkpoint", changes)
    assert weights_hash(tmp_path / "part") == weights_hash(whole)


def test_a_run_that_ends_early_is_an_error(cell, tmp_path):
    with pytest.raises(ArtefactError, match=r"grpo\.parquet.* too few ood prompts"):
        run_stage(
            "expert_iteration~ood",
            cell,
            tmp_path / "x",
            tmp_path / "c",
            {"methods": [{"expert_iteration": {"round_steps": 13, "iterations": 1}}]},
        )
    assert not (tmp_path / "x").exists()
