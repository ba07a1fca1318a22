"""Settings: what is accepted, what is refused, and that a refusal is one line that helps."""

from __future__ import annotations

import copy

import pytest
import yaml
from pydantic import BaseModel

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import RENAMED, load_settings, merged, read_settings
from grpo_origin.config.schema import Settings
from grpo_origin.study import open_study
from helpers import REPO, TINY, changed, copy_code, snakemake

DEFAULT = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
LAPTOP_CELLS = 84


def axis(**changes):
    """A change of the tiny study's only axis."""
    return {"axes": {"mini": changes}}


# The change that breaks the tiny study, and what the message must contain: the key, then what is
# wrong or allowed.
BAD = {
    "ratio above 1": ({"ratios": ["0", "1.5"]}, "ratios", "[0, 1]"),
    "negative ratio": ({"ratios": ["-0.1"]}, "ratios", "0 to 1"),
    "negative ratio, a number": ({"ratios": [-0.1]}, "ratios", "0 to 1"),
    "ratio is no number": ({"ratios": ["many"]}, "ratios", "0 to 1"),
    "ratio is NaN": ({"ratios": [float("nan")]}, "ratios", "0 to 1"),
    "ratio is a truth value": ({"ratios": [True]}, "ratios", "0 to 1"),
    "ratio with exponent": ({"ratios": ["1e-2"]}, "ratios", "0 to 1"),
    "ratio in other digits": ({"ratios": ["٠.١"]}, "ratios", "0 to 1"),
    "ratio too long for a folder": ({"ratios": ["0." + "0" * 300]}, "ratios", "30 characters"),
    "ratio could leave the folder": ({"ratios": ["../0"]}, "ratios", "0 to 1"),
    "repeated ratio": ({"ratios": ["0.1", "0.1"]}, "ratios", "twice"),
    "equal ratios written differently": ({"ratios": ["0.5", "0.50"]}, "ratios", "0.50"),
    "equal ratios, text and number": ({"ratios": ["0.50", 0.5]}, "ratios", "twice"),
    "no ratios": ({"ratios": []}, "ratios", "at least 1"),
    "bad ratio of an axis": (axis(ratios=["2"]), "axes.mini.ratios", "[0, 1]"),
    "ratio that rounds to no sample": ({"ratios": ["0.00001"]}, "ratios", "rounds to none"),
    "ratio beyond the pool": ({"pretrain": {"ood_pool": "0.1"}}, "ratios", "ood_pool"),
    "unknown operation": (axis(id=["hop;2;A"]), "axes.mini.id", "trav, shift"),
    "no operation": (axis(id=[";2;A"]), "axes.mini.id", "trav, shift"),
    "unknown alphabet": (axis(id=["trav;2;C"]), "axes.mini.id", "A, B"),
    "task in another notation": (
        axis(id=["trav,2,A"]),
        "axes.mini.id",
        "operations;length;alphabet",
    ),
    "length 0": (axis(id=["trav;0;A"]), "axes.mini.id", "1 to 64"),
    "length is no number": (axis(id=["trav;two;A"]), "axes.mini.id", "1 to 64"),
    "length in other digits": (
        axis(id=["trav;²;A"]),
        "axes.mini.id",
        "length '²' in task 'trav;²;A' is not a whole number from 1 to 64",
    ),
    "length of 5000 digits": (axis(id=[f"trav;{'9' * 5000};A"]), "axes.mini.id", "1 to 64"),
    "length beyond the context": (axis(id=["trav trav;20;A"]), "axes.mini", "context"),
    "length too short for test prompts": (
        axis(id=["trav;1;A"], mixed=[]),
        "evaluation.prompts",
        "test strings",
    ),
    "unknown axis key": (axis(ratio=["0"]), "axes.mini.ratio", "did you mean 'ratios'"),
    "task both ID and OOD": (axis(ood=["trav;2;A"]), "axes.mini", "both id and ood"),
    "task listed twice": (axis(id=["trav;2;A", "trav; 2 ;A"]), "axes.mini.id", "twice"),
    "no ID tasks": (axis(id=[]), "axes.mini.id", "at least 1"),
    "no OOD tasks": (axis(ood=[]), "axes.mini.ood", "at least 1"),
    "OOD tasks missing": (axis(ood=...), "axes.mini.ood", "missing"),
    "more mixed positions than elements": (axis(mixed=[3]), "mixed", "trav;2;A"),
    "mixed twice": (axis(mixed=[1, 1]), "mixed", "twice"),
    "mixed none": (axis(mixed=[0]), "axes.mini.mixed", "greater than or equal to 1"),
    "no axes": ({"axes": {"mini": None}}, "axes", "at least 1"),
    "axis name with a slash": ({"axes": {"a/b": TINY["axes"]["mini"]}}, "axes", "pattern"),
    "axis name too long for a folder": (
        {"axes": {"a" * 101: TINY["axes"]["mini"]}},
        "axes",
        "at most 100",
    ),
    "misspelt key": ({"sedes": [0]}, "sedes", "did you mean 'seeds'"),
    "misspelt section key": ({"rl": {"groupsize": 4}}, "rl.groupsize", "group_size"),
    "misspelt model key": ({"model": {"depth": 4}}, "model.depth", "allowed: layers"),
    "one node": ({"world": {"nodes": 1}}, "world.nodes", "greater than or equal to 2"),
    "nodes not whole": ({"world": {"nodes": 2.5}}, "world.nodes", "integer"),
    "test fraction 0": ({"world": {"test_fraction": 0}}, "world.test_fraction", "greater than 0"),
    "test fraction 1": ({"world": {"test_fraction": 1}}, "world.test_fraction", "less than 1"),
    "group of one": ({"rl": {"group_size": 1}}, "rl.group_size", "greater than or equal to 2"),
    "negative beta": ({"rl": {"beta": -0.1}}, "rl.beta", "greater than or equal to 0"),
    "infinite beta": ({"rl": {"beta": float("inf")}}, "rl.beta", "finite"),
    "temperature 0": ({"rl": {"temperature": 0}}, "rl.temperature", "greater than 0"),
    "negative rate": ({"rl": {"learning_rate": -1e-4}}, "rl.learning_rate", "greater than 0"),
    "negative pretraining rate": (
        {"pretrain": {"learning_rate": -1e-4}},
        "pretrain.learning_rate",
        "greater than 0",
    ),
    "rate 0": ({"sft": {"learning_rate": 0}}, "sft.learning_rate", "greater than 0"),
    "rate is NaN": ({"sft": {"learning_rate": float("nan")}}, "sft.learning_rate", ""),
    "rate is text": ({"sft": {"learning_rate": "low"}}, "sft.learning_rate", "number"),
    "unknown schedule": ({"rl": {"schedule": "step"}}, "rl.schedule", "'cosine'"),
    "heads do not divide width": ({"model": {"heads": 3}}, "heads", "32"),
    "odd head size": ({"model": {"width": 6, "heads": 2}}, "heads", "even"),
    "no layers": ({"model": {"layers": 0}}, "model.layers", "greater than or equal to 1"),
    "seeds missing": ({"seeds": ...}, "seeds", "missing"),
    "no seeds": ({"seeds": []}, "seeds", "at least 1"),
    "seeds not a list": ({"seeds": 3}, "seeds", "tuple"),
    "repeated seeds": ({"seeds": [0, 1, 0]}, "seeds", "seed 0 is listed twice"),
    "negative seed": ({"seeds": [-1]}, "seeds", "greater than or equal to 0"),
    "seed is a truth value": ({"seeds": [True]}, "seeds", "a number, not True"),
    "seed too large for the generators": ({"seeds": [2**32]}, "seeds", "less than 4294967296"),
    "run with a slash": ({"run": "a/b"}, "run", "pattern"),
    "run is the parent folder": ({"run": ".."}, "run", "pattern"),
    "run too long for a folder": ({"run": "r" * 101}, "run", "at most 100"),
    "run missing": ({"run": ...}, "run", "missing"),
    "batch larger than the samples": (
        {"pretrain": {"batch_size": 9000}},
        "batch_size",
        "samples (8000)",
    ),
    "SFT batch larger than the samples": (
        {"sft": {"batch_size": 64}},
        "batch_size",
        "samples (40)",
    ),
    "GRPO prompts beyond the string space": (
        {"rl": {"steps": 100}},
        "rl.prompts_per_step",
        "train strings",
    ),
    "SFT samples beyond the string space": (
        {"sft": {"samples": 4000}},
        "sft.samples",
        "train strings",
    ),
    "test prompts beyond the string space": (
        {"evaluation": {"prompts": 512}},
        "evaluation.prompts",
        "test strings",
    ),
    "fewer test prompts than tasks": (
        {"evaluation": {"prompts": 1}},
        "evaluation.prompts",
        "can't cover the 2 tasks",
    ),
    "unknown device": ({"numerics": {"device": "tpu"}}, "numerics.device", "'cuda'"),
    "no threads": ({"runtime": {"threads": 0}}, "runtime.threads", "greater than or equal to 1"),
    "truth value for a whole number": (
        {"resources": {"rl": {"gpus": True}}},
        "resources.rl.gpus",
        "a number, not True",
    ),
    "truth value for a number": ({"rl": {"beta": True}}, "rl.beta", "a number, not True"),
    "truth value in a list": (axis(mixed=[True]), "axes.mini.mixed", "a number, not True"),
    "lease that ends between two heartbeats": (
        {"runtime": {"lease_seconds": 1e-6}},
        "runtime.lease_seconds",
        "or equal to 5",
    ),
    "lease beyond the clock": (
        {"runtime": {"lease_seconds": 1e300}},
        "runtime.lease_seconds",
        "or equal to 1000000",
    ),
    "absurd samples": (
        {"pretrain": {"samples": 1e23}},
        "pretrain.samples",
        "less than 1000000000",
    ),
    "absurd width": ({"model": {"width": 4 * 10**12}}, "model.width", "or equal to 65536"),
    "absurd layers": ({"model": {"layers": 10**6}}, "model.layers", "or equal to 1000"),
    "absurd context": ({"model": {"context": 10**30}}, "model.context", "or equal to 65536"),
    "absurd feed-forward": (
        {"model": {"feed_forward": 10**12}},
        "model.feed_forward",
        "or equal to 1000000",
    ),
    "absurd steps": ({"rl": {"steps": 10**30}}, "rl.steps", "or equal to 1000000000"),
    "absurd group": ({"rl": {"group_size": 10**30}}, "rl.group_size", "or equal to 1000000"),
    "absurd batch": (
        {"evaluation": {"batch_size": 10**30}},
        "evaluation.batch_size",
        "or equal to 1000000000",
    ),
    "absurd weight decay": (
        {"sft": {"weight_decay": 1e300}},
        "sft.weight_decay",
        "or equal to 1000",
    ),
    "absurd beta": ({"rl": {"beta": 1e300}}, "rl.beta", "or equal to 1000000"),
    "absurd threads": ({"runtime": {"threads": 10**15}}, "runtime.threads", "or equal to 4096"),
    "absurd memory": (
        {"resources": {"data": {"mem_mb": 1e30}}},
        "resources.data.mem_mb",
        "or equal to 100000000",
    ),
    "absurd time": (
        {"resources": {"data": {"minutes": 10**12}}},
        "resources.data.minutes",
        "or equal to 1000000",
    ),
    "KL weight too small for a file name": (
        {"theory": {"betas": [1e-300]}},
        "theory.betas",
        "30 characters",
    ),
    "absurd KL weight": ({"theory": {"betas": ["9" * 29]}}, "theory.betas", "up to 1000000"),
    "section is a number": ({"model": 3}, "model", "dictionary"),
    "section is empty": ({"model": None}, "model", "dictionary"),
}


@pytest.mark.parametrize(("changes", "key", "hint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line_that_names_the_key_and_what_is_allowed(
    changes, key, hint
):
    config = changed(TINY, changes)
    with pytest.raises(ConfigError) as caught:
        open_study(config)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert key in message
    assert hint in message


FILES = {
    "a key twice": ("run: one\nseeds: [0]\nrun: two\n", ["bad.yaml", "'run'", "line 3", "once"]),
    "a nested key twice": (
        "axes:\n  token: {mixed: [1]}\n  depth: null\n  token: null\n",
        ["bad.yaml", "'token'", "line 4", "once"],
    ),
    "a date that is none": ("run: 2024-13-45\n", ["bad.yaml", "month"]),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_a_bad_file_is_refused_in_one_line_by_the_workflow_as_by_the_cost_command(
    tmp_path, monkeypatch, text, words
):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    monkeypatch.setattr("sys.argv", ["snakemake", "--cores", "1", "--configfile", str(path)])
    monkeypatch.chdir(REPO)
    profile = yaml.safe_load((REPO / "profiles" / "default" / "config.yaml").read_text())
    with pytest.raises(SystemExit) as workflow:
        exec("\n".join(profile["__definitions__"]), {})
    with pytest.raises(ConfigError) as cost:
        read_settings(REPO / "config" / "config.yaml", path)
    assert str(workflow.value) == f"config error: {cost.value}"
    assert len(str(cost.value).splitlines()) == 1
    assert all(word in str(cost.value) for word in words)


def test_keys_merged_from_an_anchor_may_be_set_again(tmp_path):
    (tmp_path / "good.yaml").write_text(
        "sft: &both {batch_size: 32, samples: 100}\npretrain: {<<: *both, samples: 1000}\n"
    )
    settings = read_settings(REPO / "config" / "config.yaml", tmp_path / "good.yaml")
    assert (settings.pretrain.samples, settings.pretrain.batch_size) == (1000, 32)


REFUSED = {  # name -> the configuration, a file that is in the way, what the line must contain
    "a key twice": ("seeds: [0]\nseeds: [1]\n", None, "bad.yaml: key 'seeds' is set twice"),
    "run is a file": ("run: README.md\n", "results/README.md", "run: results/README.md is a file"),
    "results is a file": ("run: mine\n", "results", "run: results is a file"),
}


@pytest.mark.parametrize(("text", "file", "hint"), REFUSED.values(), ids=REFUSED)
def test_snakemake_refuses_before_it_creates_anything(tmp_path, text, file, hint):
    copy_code(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    result = snakemake(tmp_path, "--dry-run", "--configfile", "bad.yaml")
    assert result.returncode != 0
    lines = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if line.startswith("config error: ")
    ]
    assert len(lines) == 1, result.stdout + result.stderr
    assert hint in lines[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("results/**/*")] == (
        [file] if file and "/" in file else []
    )


def test_the_tiny_study_is_valid_so_that_each_bad_input_fails_for_its_own_reason():
    open_study(TINY)


@pytest.mark.parametrize("axes", [[], "depth", 3])
def test_axes_must_be_a_mapping(axes):
    with pytest.raises(ConfigError, match="axes"):
        load_settings(changed(TINY, {"axes": ...}) | {"axes": axes})


def test_a_word_in_place_of_an_axis():
    with pytest.raises(ConfigError, match=r"axes\.mini"):
        load_settings(changed(TINY, {"axes": ...}) | {"axes": {"mini": "trav;2;A"}})


def test_the_default_configuration_is_the_laptop_run():
    settings = open_study(DEFAULT).settings
    assert settings.run == "laptop"
    assert list(settings.axes) == ["depth", "length", "token", "composition"]
    assert (
        sum(len(settings.axis_ratios(name)) for name in settings.axes) * len(settings.seeds)
        == LAPTOP_CELLS
    )
    assert all(settings.axis_ratios(name)[0] == "0" for name in settings.axes)


@pytest.mark.parametrize("name", ["paper", "smoke"])
def test_an_override_merges_deeply_over_the_defaults(name):
    override = yaml.safe_load((REPO / "config" / f"{name}.yaml").read_text())
    settings, default = open_study(merged(DEFAULT, override)).settings, load_settings(DEFAULT)
    assert settings.run == name
    assert settings.pretrain.samples == override["pretrain"]["samples"]
    assert settings.axis_ratios("depth") == tuple(override["ratios"])
    assert settings.axes["depth"].id == default.axes["depth"].id  # not named by the override
    assert settings.world == default.world


def test_settings_left_out_take_their_defaults():
    config = {key: TINY[key] for key in ("run", "seeds", "ratios", "axes")}
    settings = load_settings(config)
    assert settings.model == Settings.model_fields["model"].default
    assert settings.rl.group_size >= 2


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_earlier_version_is_refused_in_one_line_that_names_the_new_one(old, new):
    config: dict = {}
    for part in reversed(old.split(".")):
        config = {part: config or "ood"}
    with pytest.raises(ConfigError) as error:
        load_settings(merged(DEFAULT, config))
    assert str(error.value) == f"{old}: this key is called {new} now"
    section: type[BaseModel] = Settings
    *sections, key = new.split(".")
    for part in sections:
        section = section.model_fields[part].annotation
    assert key in section.model_fields


def test_files_are_merged_key_by_key_and_lists_replaced(tmp_path):
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {
        "a": {"b": 3, "c": 2},
        "d": [2],
    }
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match=r"list\.yaml: must hold `key: value` pairs"):
        read_settings(REPO / "config" / "config.yaml", tmp_path / "list.yaml")


def test_an_axis_set_to_null_is_left_out():
    settings = load_settings(merged(DEFAULT, {"axes": {"depth": None, "token": None}}))
    assert list(settings.axes) == ["length", "composition"]


def test_validation_leaves_the_configuration_as_it_was():
    config = merged(DEFAULT, {"axes": {"depth": None}})
    before = copy.deepcopy(config)
    load_settings(config)
    assert config == before
