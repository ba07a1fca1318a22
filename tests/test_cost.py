"""Cost: jobs, hours and disk of a tiny plan, computed by hand, and that missing rates are named."""

from __future__ import annotations

import json

import pytest

from bases import string_base
from grpo_origin.cli import main
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import ModelSettings
from grpo_origin.cost import (
    Rates,
    disk,
    find_rates,
    jobs,
    matmul_parameters,
    parameters,
    plan,
    work_seconds,
)
from grpo_origin.lineage import jobs as planned_jobs
from grpo_origin.study import read_study
from grpo_origin.training.base import find_base
from grpo_origin.training.model import build_model
from helpers import REPO, TINY, copy_code, planned, strings, tiny, tiny_study

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
# Width 32, 1 layer, inner size 64, 8 nodes: V = 9 + 2 x 8 = 25.
MATMUL = 4 * 32 * 32 + 3 * 32 * 64 + 25 * 32
ALL = MATMUL + 25 * 32 + 3 * 32


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
    return tiny_study(**({"seeds": [0, 1], "axes": axis, "theory": theory} | changes))


def test_parameters_by_hand_and_of_the_model():
    settings = tiny()
    assert matmul_parameters(settings.model, 25) == MATMUL == 11040
    assert parameters(settings.model, 25) == ALL == 11936
    model = build_model(
        ModelSettings(layers=2, width=16, heads=2, feed_forward=24), strings().tokens, 0
    )
    assert (
        parameters(ModelSettings(layers=2, width=16, heads=2, feed_forward=24), 25)
        == model.num_parameters()
    )


def test_a_base_has_the_parameters_of_its_own_files(tmp_path):
    base = string_base(tmp_path / "base", "qwen2", nodes=8)
    settings = {"pretrain": {"base": str(base), "samples": 0}, "ratios": ["0"]}
    planned = plan(tiny_study(**settings), RATES)
    assert planned["parameters"] == find_base(str(base)).parameters
    models = 1 + 1 + 2  # pretraining, SFT, RL on either split
    assert planned["disk_bytes"]["models"] == models * 4 * planned["parameters"]
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"same": RATES.model_dump() | {"model": TINY["model"]}}))
    assert find_rates({}, file, tiny()) == RATES
    with pytest.raises(ConfigError, match="no rate"):  # that model is not the base
        find_rates({}, file, tiny_study(**settings).settings)


def test_jobs_by_hand():
    assert jobs(study()) == {
        "data": 10,
        "pretrain": 4,
        "sft": 4,
        "rl": 8,
        "evaluate": 4 + 2,  # what the models of two cells write
        "theory": 5,  # 1 ratio x 1 seed x 2 methods x 2 betas, and 1 sampling check
        "figures": 5,
    }


PLANNED = {"smoke": ["smoke"], "rates": ["rates"], "paper": ["paper"]}


@pytest.mark.parametrize("files", PLANNED.values(), ids=PLANNED)
def test_jobs_are_those_that_snakemake_plans(tree, files):
    paths = [f"config/{name}.yaml" for name in files]
    study = read_study(tree / "config" / "config.yaml", *(tree / path for path in paths))
    plan = planned(tree, "--configfile", *paths)
    assert {rule: len(jobs) for rule, jobs in planned_jobs(study).items() if jobs} == plan
    assert sum(jobs(study).values()) == sum(plan.values())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the workflow in which nothing has run."""
    return copy_code(tmp_path_factory.mktemp("tree"))


def test_methods_and_prompts_decide_the_rl_stages():
    many = study(methods=["grpo", "dapo", "rloo"], trained_on=["ood"])
    assert jobs(many)["rl"] == 4 * 3
    assert work_seconds(many, RATES)["rl"] == 4 * 3 * 12 * 2
    assert work_seconds(many, RATES)["evaluate"] == 4 * 5 * 3 * 8 / 16


def test_group_size_and_model_of_a_variant_count():
    changes = {"wide": {"rl": {"group_size": 8}}, "deep": {"model": {"layers": 2}}}
    fixed = RATES.model_copy(update={"grpo_step_fixed_s": 0.5, "grpo_step_completions": 8})
    run, both = work_seconds(study(), fixed), work_seconds(study(variants=changes), fixed)
    plain = 4 * 4  # completions of a step; 1.5 s of a step of 8 are theirs
    stages = 4 * 2 * 12
    assert run["rl"] == stages * (0.5 + plain / 8 * 1.5)
    deep = (2 * (4 * 32 * 32 + 3 * 32 * 64) + 25 * 32) / MATMUL
    added = stages * (0.5 + 2 * plain / 8 * 1.5) + stages * (0.5 + plain / 8 * 1.5) * deep
    assert both["rl"] - run["rl"] == pytest.approx(added)
    assert both["pretrain"] - run["pretrain"] == pytest.approx(run["pretrain"] * deep)
    assert both["data"] == run["data"]


def test_seconds_by_hand():
    assert work_seconds(study(), RATES) == {
        "data": 2 * 16000 / 4000
        + 2 * 16000 / 8000,  # 2 groups, an OOD pool as large as the ID pool
        "pretrain": 4 * 8000 / 1000,
        "sft": 4 * 2 * 40 / 100,
        "rl": 4 * 2 * 12 * 2,
        "evaluate": 4 * 4 * 3 * 8 / 16,  # cells, models, splits id, ood and mixed-1, prompts
        "theory": (4 * 8 * 2 * 4 + 2 * 3 * 16) / 16 * 2,  # completions, of 16 a step
        "figures": 0,
    }


def test_probes_and_heads_by_hand():
    heads = {"steps": 5, "prompts_per_step": 4, "linear_prompts": 100}
    asked = study(probes={"prompts": 100}, representation=heads)
    assert jobs(asked)["evaluate"] == jobs(study())["evaluate"] + 2 * 4
    probed = 2 * (2 * 100 + 2 * 8) * 4 / 16  # two evaluations; two tasks, two splits, 4 models
    trained = (100 + 3 * 2 * 5 * 4) / 100  # the linear head; three kinds on both splits
    added = work_seconds(asked, RATES)["evaluate"] - work_seconds(study(), RATES)["evaluate"]
    assert added == pytest.approx(4 * (probed + trained))


def test_sampled_answers_by_hand():
    """Of the run's cells too, to compare with those of the variant that rewards answers."""
    evaluation = {"prompts": 8, "answer_prompts": 4, "answer_samples": 2}
    free = {"free": {"rl": {"reward": "answer"}, "ratios": ["0.25"]}}
    asked, plain = (study(evaluation=evaluation, variants=x) for x in (free, {}))
    assert [len(planned_jobs(x)["answers"]) for x in (asked, plain)] == [2 * 2, 0]
    added = work_seconds(asked, RATES)["evaluate"] - work_seconds(plain, RATES)["evaluate"]
    evaluated = 2 * 4 * 3 * 8 / 16  # the variant's cells
    sampled = 2 * 2 * (4 * 2 * 4 * 2)  # cells, runs, models, splits, prompts, samples
    assert added == pytest.approx(evaluated + sampled / 16 * 2)


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
    wide = study(resources={"pretrain": {"gpus": 1}}, runtime={"threads": 4})
    result = plan(wide, RATES)
    assert result["stages"]["pretrain"]["unit"] == "GPU"
    hours = result["stages"]["pretrain"]["hours"]
    assert result["gpu_hours"] == hours == pytest.approx(32 / 3600 + 4)
    assert result["stages"]["sft"]["hours"] == pytest.approx((3.2 / 3600 + 4) * 4)
    assert result["stages"]["data"]["hours"] == pytest.approx(12 / 3600 + 10)
    assert result["jobs"] == 42
    assert result["disk_bytes"]["all"] == sum(disk(wide, RATES, 100).values())


def test_missing_rates_are_named_in_one_line(tmp_path):
    file = tmp_path / "rates.json"
    entries = {"tiny": {"device": "a core", **RATES.model_dump()}, "half": {"grpo_step_s": 1}}
    file.write_text(json.dumps(entries))
    assert find_rates({"grpo_step_s": None}, file, tiny()) == RATES
    assert find_rates({"grpo_step_s": 3.0}, file, tiny()).grpo_step_s == 3
    missing = "--pretrain-samples-per-s --sft-samples-per-s --evaluate"
    with pytest.raises(ConfigError, match=missing) as error:
        find_rates({}, file, tiny(), "half")
    assert "\n" not in str(error.value)
    assert "--grpo-step-s" not in str(error.value)
    with pytest.raises(ConfigError, match="--startup-s"):
        find_rates({}, tmp_path / "none.json", tiny())
    with pytest.raises(ConfigError, match="--grpo-step-s: Input should be greater than 0"):
        find_rates({"grpo_step_s": 0.0}, file, tiny())
    with pytest.raises(ConfigError, match="grpo_step_fixed_s: is more than the whole step"):
        find_rates({"grpo_step_fixed_s": 3.0}, file, tiny())


def test_a_run_of_any_name_takes_the_rates_of_a_scale_with_the_same_model(tmp_path):
    file = tmp_path / "rates.json"
    entry = {"model": tiny().model.model_dump(), **RATES.model_dump()}
    file.write_text(json.dumps({"other": {"grpo_step_s": 1}, "small": entry}))
    assert find_rates({}, file, tiny(run="shift-depth")) == RATES
    with pytest.raises(ConfigError, match=r"no rate for 'wide' .* --scale \(other, small\)"):
        find_rates({}, file, tiny(run="wide", model={"width": 64}))
    assert find_rates({}, file, tiny(run="wide", model={"width": 64}), "small") == RATES
    with pytest.raises(ConfigError, match="no rate for 'smal'"):
        find_rates({}, file, tiny(), "smal")


@pytest.mark.parametrize("content", ['{"tiny": 5}', '{"tiny": [1]}', "[1]", "5", "null"])
def test_a_rates_file_of_another_form_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(ConfigError, match=r"rates\.json: must hold an entry") as error:
        find_rates({}, tmp_path / "rates.json", tiny())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config", "leaderboard"])
def test_shipped_rates_serve_every_run_with_the_default_model(name, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("run: shift-depth\naxes: {token: null}\n")
    files = [str(REPO / "config" / f"{name}.yaml"), str(tmp_path / "mine.yaml")]
    main(["cost", *(part for file in files for part in ("--config", file))])
    assert capsys.readouterr().out.startswith("shift-depth: 0.21M parameters")


def test_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rates = RATES.model_dump(exclude_none=True)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in rates.items()]
    paper = ["cost", "--config", str(REPO / "config" / "paper.yaml")]
    main([*paper, "--json", "plan.json", *options])
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["stages"]["pretrain"]["jobs"] == 7 * 4 * 6
    assert "GPU-hours" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: no rate for 'paper'"):
        main([*paper, "--rates", "none.json"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at-once", "-5"], "--at-once: must be at least 1, not -5"),
        (["--at-once", "0"], "--at-once: must be at least 1, not 0"),
        (["--json", "/nope/x.json"], "/nope/x.json"),
        (["--config", "nope.yaml"], "nope.yaml: No such file or directory"),
    ],
)
def test_bad_options_are_refused_in_one_line(capsys, options, words):
    with pytest.raises(SystemExit) as error:
        main(["cost", *options])
    assert str(error.value).startswith("error: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not capsys.readouterr().out
