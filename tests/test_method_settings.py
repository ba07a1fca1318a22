"""Methods in the configuration: bad entries, what they must declare, a method of a user's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from grpo_origin.config.fields import ConfigError
from grpo_origin.rl import method as module
from grpo_origin.rl.method import Method, find, names
from helpers import REPO, planned, read, snakemake, tiny_study, write_config

CELL = Path("results/tiny/mini/seed~0/ood~0.25")
CONFIG = ("--configfile", "tiny.yaml")


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["grop"], ["unknown method 'grop'", "grpo"]),
        (["grpo", "grpo"], ["grpo", "twice"]),
        ([], ["list of method names"]),
        ("grpo", ["list of method names"]),
        ([{"dapo": {"hgih": 0.3}}], ["dapo", "'hgih'", "high"]),
        ([{"dapo": {"high": 3}}], ["dapo", "high", "less than 1"]),
        ([{"dapo": {}, "gspo": {}}], ["{name: {...}}"]),
        ([{"dapo": 3}], ["{name: {...}}"]),
        ([{"unlikeliness": {"iterations": 1}}], ["unlikeliness", "iterations"]),
        ([{"unlikeliness": {"iterations": True}}], ["unlikeliness", "iterations", "number"]),
        ([{"sgpo": {"slope": True}}], ["sgpo", "slope", "number"]),
        ([{"ha_dw": {"scale": True}}], ["ha_dw", "scale", "number"]),
        ([{"grpo": {"beta": True}}], ["grpo", "beta", "number"]),
    ],
)
def test_bad_methods_are_one_line_errors(methods, words):
    with pytest.raises(ConfigError) as error:
        tiny_study(methods=methods)
    message = str(error.value)
    assert message.startswith("methods")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_method_that_needs_more_of_the_rl_section_says_so():
    with pytest.raises(ConfigError, match=r"methods: igrpo .*group_size"):
        tiny_study(methods=["igrpo"], rl={"group_size": 3})


def test_every_method_needs_room_for_the_tasks():
    with pytest.raises(
        ConfigError,
        match=r"axes\.mini: task 'trav shift trav;2;A' needs 17 tokens under grpo, more than",
    ):
        tiny_study(model={"context": 15})
    assert tiny_study(model={"context": 17}).methods


def test_igrpo_needs_room_for_the_draft():
    with pytest.raises(
        ConfigError,
        match=r"axes\.mini: task 'trav shift trav;2;A' needs 34 tokens under igrpo, more than",
    ):
        tiny_study(methods=["grpo", "igrpo"], model={"context": 33})
    assert tiny_study(methods=["igrpo"], model={"context": 34}).methods


def test_prompts_are_enough_for_every_method():
    assert (
        tiny_study(methods=["dapo"]).rl_prompts == tiny_study().rl_prompts == 48
    )  # so that adding grpo later changes no prompt
    rounds = [{"expert_iteration": {"round_steps": 7, "iterations": 1}}]
    assert tiny_study(methods=rounds).rl_prompts == 2 * 7 * 4  # 12 steps are two rounds of seven


def test_a_method_is_one_new_file_and_one_line_of_configuration(sweep, tmp_path):
    """The worked example of docs/methods.md, on top of a finished run: only its own stages are
    trained.
    """
    copy = tmp_path / "copy"
    shutil.copytree(sweep, copy, symlinks=True)
    example = re.search(
        r"```python\n# src/(\S+)\n(.*?)```", (REPO / "docs" / "methods.md").read_text(), re.DOTALL
    )
    (copy / "src" / example[1]).write_text(example[2])
    write_config(copy, methods=["grpo", {"first_step": {"bonus": 0.2}}])
    kept = copy / CELL / "grpo~ood" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    plan = planned(copy, *CONFIG)
    assert {
        rule: plan[rule] for rule in plan.keys() & {"pretrain", "sft", "rl", "evaluate", "prompts"}
    } == {"rl": 4, "evaluate": 2}
    result = snakemake(copy, "--cores", "2", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert kept.stat().st_mtime_ns == before
    stages = {row["stage"] for row in read(copy / CELL / "evaluation.parquet")}
    assert stages == {"pretrain", "sft", "grpo~id", "grpo~ood", "first_step~id", "first_step~ood"}
    tables = copy / "results" / "tiny" / "tables"
    assert {row["method"] for row in read(tables / "claims.parquet")} == {"grpo", "first_step"}
    assert (
        (tables / "transcend.csv").read_text().startswith('"variant","method"')
    )  # empty: too few prompts for a row
    assert (copy / "results" / "tiny" / "figures" / "methods-mini.png").exists()
    assert "first_step" in (copy / "results" / "tiny" / "report.html").read_text()


def test_every_method_is_documented():
    table = (REPO / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in names():
        assert f"| `{name}` |" in table, name
        assert find(name).__doc__
        assert tiny_study(methods=[name]).methods == {name: find(name)()}


def rewards(self, rollout):
    return rollout.rewards


UNDECLARED = {
    "rewards": ({"rewards": rewards, "objective": "other"}, ["custom_rewards = True", "rewards"]),
    "no rewards": ({"custom_rewards": True, "objective": "other"}, ["custom_rewards", "rewards"]),
    "objective": (
        {"advantages": lambda self, rollout: rollout.batch["advantages"]},
        ["advantages", "declare `objective`"],
    ),
    "advantages of RLOO": (
        {
            "rewards": rewards,
            "custom_rewards": True,
            "objective": "other",
            "trainer": "RLOOTrainer",
        },
        ["override `advantages` too"],
    ),
    "advantages over the batch": (
        {
            "rewards": rewards,
            "custom_rewards": True,
            "objective": "other",
            "arguments": lambda self: {"scale_rewards": "batch"},
        },
        ["override `advantages` too"],
    ),
}


@pytest.mark.parametrize(("body", "words"), UNDECLARED.values(), ids=UNDECLARED)
def test_a_method_that_does_not_declare_what_its_hooks_do_is_refused(monkeypatch, body, words):
    kind = type("Mine", (Method,), {"__module__": __name__, **body})
    monkeypatch.setattr(module, "find", lambda name: kind)
    with pytest.raises(ConfigError, match=r"^methods: method mine: Mine .*$") as error:
        tiny_study(methods=["mine"])
    assert all(word in str(error.value) for word in words)


def test_a_method_may_have_its_own_rate():
    study = tiny_study(methods=["grpo", {"raft": {"learning_rate": 1e-4}}])
    rates = {n: m.settings(study.settings.rl).learning_rate for n, m in study.methods.items()}
    assert rates == {"grpo": study.settings.rl.learning_rate, "raft": 1e-4}


def test_methods_whose_papers_have_no_kl_term_have_none():
    rl = tiny_study(rl={"beta": 0.01}).settings.rl
    without = {name for name in names() if find(name)().settings(rl).beta == 0}
    no_kl = {"cispo", "dapo", "dr_grpo", "expert_iteration", "grpo_kl_free", "luffy", "outcome_sft"}
    assert no_kl == without


def test_law_and_bound_speak_of_methods_that_optimise_reward_less_kl_only():
    speak = {name for name in names() if find(name).objective == "reward-kl"}
    assert {"grpo", "rloo", "dr_grpo", "gspo", "cispo", "curriculum"} <= speak
    assert not speak & {"raft", "process", "random_reward", "dapo", "igrpo", "expert_iteration"}
