"""Cost: jobs, hours and disk of a tiny plan, computed by hand, and that missing rates are named."""

from __future__ import annotations

import json

import pytest

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import ModelSettings
from grpo_origin.cost import (
    Rates,
    disk,
    find_rates,
    jobs,
    main,
    matmul_parameters,
    merged,
    parameters,
    plan,
    read_settings,
    work_seconds,
)
from grpo_origin.tasks.world import World
from grpo_origin.training.model import build_model
from helpers import REPO, tiny

RATES = Rates(
    pretrain_samples_per_s=1000,
    sft_samples_per_s=100,
    grpo_step_s=2,
    evaluate_prompts_per_s=16,
    data_samples_per_s=4000,
    summary_samples_per_s=8000,
    pool_bytes_per_sample=10,
    startup_s=3600,
)
# Width 32, 1 layer, inner size 64, 8 nodes: V = 8 + 2 x 8 = 24.
MATMUL = 4 * 32 * 32 + 3 * 32 * 64 + 24 * 32
ALL = MATMUL + 24 * 32 + 3 * 32


def study(**changes):
    """Two seeds, ratios 0 and 0.25: 2 groups, 4 cells; theory at one ratio, one seed."""
    theory = {
        "betas": ["1", "3"],
        "pool": 2,
        "steps": 8,
        "group_size": 4,
        "sampled_prompts": 3,
        "samples": 16,
    }
    axis = {"mini": {"id": ["trav;2;A"], "ood": ["shift;2;A"], "mixed": [1], "theory": ["0.25"]}}
    return tiny(**({"seeds": [0, 1], "axes": axis, "theory": theory} | changes))


def test_parameters_by_hand_and_of_the_model():
    settings = tiny()
    assert matmul_parameters(settings.model, 24) == MATMUL == 11008
    assert parameters(settings.model, 24) == ALL == 11872
    model = build_model(ModelSettings(layers=2, width=16, heads=2, feed_forward=24), World(8, 0), 0)
    assert (
        parameters(ModelSettings(layers=2, width=16, heads=2, feed_forward=24), 24)
        == model.num_parameters()
    )


def test_jobs_by_hand():
    expected = {
        "data": 10,
        "pretrain": 4,
        "sft": 4,
        "grpo": 8,
        "evaluate": 4,
        "theory": 5,
        "figures": 5,
    }
    assert (
        jobs(study()) == expected
    )  # theory: 1 ratio x 1 seed x 2 methods x 2 betas, and 1 sampling check


def test_jobs_of_the_default_sweep():
    assert (
        sum(jobs(read_settings(REPO / "config" / "config.yaml")).values()) == 375
    )  # `snakemake -n` counts rule `all` too


def test_methods_and_prompts_decide_the_rl_stages():
    settings = study(methods=["grpo", "dapo", "rloo"], prompts=["ood"])
    assert jobs(settings)["grpo"] == 4 * 3
    assert work_seconds(settings, RATES)["grpo"] == 4 * 3 * 12 * 2
    assert work_seconds(settings, RATES)["evaluate"] == 4 * 5 * 3 * 8 / 16


def test_seconds_by_hand():
    assert work_seconds(study(), RATES) == {
        "data": 2 * 16000 / 4000
        + 2 * 16000 / 8000,  # 2 groups, an OOD pool as large as the ID pool
        "pretrain": 4 * 8000 / 1000,
        "sft": 4 * 2 * 40 / 100,
        "grpo": 4 * 2 * 12 * 2,
        "evaluate": 4 * 4 * 3 * 8 / 16,  # cells, models, splits id, ood and mixed-1, prompts
        "theory": (4 * 8 * 2 * 4 + 2 * 3 * 16) / 16 * 2,  # completions, of 16 a step
        "figures": 0,
    }


def test_disk_by_hand():
    size = 4 * ALL
    assert disk(study(), RATES, at_once=3) == {
        "models": 16 * size,
        "pools": 2 * 16000 * 10,
        "checkpoints": 3 * 3 * size,
    }
    assert (
        disk(study(), RATES, at_once=100)["checkpoints"] == 8 * 3 * size
    )  # no more than there are jobs


def test_hours_are_of_gpus_where_a_stage_has_them():
    settings = study(resources={"pretrain": {"gpus": 2}}, runtime={"threads": 4})
    result = plan(settings, RATES)
    assert result["stages"]["pretrain"]["unit"] == "GPU"
    assert (
        result["gpu_hours"]
        == result["stages"]["pretrain"]["hours"]
        == pytest.approx((32 / 3600 + 4) * 2)
    )
    assert result["stages"]["sft"]["hours"] == pytest.approx((3.2 / 3600 + 4) * 4)
    assert result["stages"]["data"]["hours"] == pytest.approx(12 / 3600 + 10)
    assert result["jobs"] == 40
    assert result["disk_bytes"]["all"] == sum(disk(settings, RATES, 100).values())


def test_missing_rates_are_named_in_one_line(tmp_path):
    file = tmp_path / "rates.json"
    file.write_text(
        json.dumps({"tiny": {"device": "a core", **RATES.model_dump()}, "half": {"grpo_step_s": 1}})
    )
    assert find_rates({"grpo_step_s": None}, file, "tiny") == RATES
    assert find_rates({"grpo_step_s": 3.0}, file, "tiny").grpo_step_s == 3
    with pytest.raises(
        ConfigError, match="--pretrain-samples-per-s --sft-samples-per-s --evaluate"
    ) as error:
        find_rates({}, file, "half")
    assert "\n" not in str(error.value)
    assert "--grpo-step-s" not in str(error.value)
    with pytest.raises(ConfigError, match="--startup-s"):
        find_rates({}, tmp_path / "none.json", "tiny")
    with pytest.raises(ConfigError, match="--grpo-step-s: Input should be greater than 0"):
        find_rates({"grpo_step_s": 0.0}, file, "tiny")


@pytest.mark.parametrize("content", ['{"tiny": 5}', '{"tiny": [1]}', "[1]", "5", "null"])
def test_a_rates_file_of_another_form_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(ConfigError, match=r"rates\.json: must hold an entry") as error:
        find_rates({}, tmp_path / "rates.json", "tiny")
    assert "\n" not in str(error.value)


def test_default_scale_has_measured_rates():
    assert (
        find_rates({}, REPO / "benchmarks" / "rates.json", "laptop").startup_s == 0
    )  # local jobs are forked


def test_files_are_merged_section_by_section(tmp_path):
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {
        "a": {"b": 3, "c": 2},
        "d": [2],
    }
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match=r"list\.yaml"):
        read_settings(REPO / "config" / "config.yaml", tmp_path / "list.yaml")
    assert (
        read_settings(REPO / "config" / "config.yaml", REPO / "config" / "paper.yaml").model.heads
        == 15
    )


def test_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPO)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in RATES.model_dump().items()]
    main(["--configfile", "config/paper.yaml", "--json", str(tmp_path / "plan.json"), *options])
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["stages"]["pretrain"]["jobs"] == 72
    assert "GPU-hours" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: no rate for 'paper'"):
        main(["--configfile", "config/paper.yaml", "--rates", str(tmp_path / "none.json")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at-once", "-5"], "--at-once: must be at least 1, not -5"),
        (["--at-once", "0"], "--at-once: must be at least 1, not 0"),
        (["--json", "/nope/x.json"], "/nope/x.json"),
    ],
)
def test_bad_options_are_refused_in_one_line(monkeypatch, capsys, options, words):
    monkeypatch.chdir(REPO)
    with pytest.raises(SystemExit) as error:
        main(options)
    assert str(error.value).startswith("error: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not capsys.readouterr().out
