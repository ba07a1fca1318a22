"""Documentation, settings and default configuration say the same."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import BaseModel

from grpo_origin.analysis.inference import p_absent
from grpo_origin.cli import main
from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import OPERATIONS
from grpo_origin.config.schema import Settings
from grpo_origin.rl.method import names
from grpo_origin.study import read_study
from grpo_origin.tasks.task import OPERATIONS as FUNCTIONS
from helpers import REPO

DEFAULT = REPO / "config" / "config.yaml"
SECTIONS = [
    name for name, field in Settings.model_fields.items() if isinstance(field.default, BaseModel)
]


def test_configuration_page_is_up_to_date(capsys):
    main(["docs"])
    page = capsys.readouterr().out
    assert (REPO / "docs" / "configuration.md").read_text() == page, "run `make docs`"
    assert all(f"## methods.{name}\n" in page for name in names())
    assert "| `rl.steps` | `60` | ≥ 1, ≤ 1e+09 | Optimiser steps (paper: about 60). |" in page
    assert "| `numerics.precision` | `float32` | `float32`, `bfloat16` |" in page


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_of_the_models_are_those_of_the_default_run(section):
    assert getattr(read_settings(DEFAULT), section) == Settings.model_fields[section].default


@pytest.mark.parametrize("name", [path.name for path in (REPO / "config").glob("*.yaml")])
def test_every_configuration_is_valid(name):
    path = REPO / "config" / name
    if "domain: reasoning_gym" in path.read_text():
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: make text")
    settings = read_study(DEFAULT, path).settings
    assert settings.run == ("laptop" if name == "config.yaml" else name.removesuffix(".yaml"))


def test_the_cell_at_the_papers_width_has_the_papers_model_and_the_default_runs_data():
    """So docs/paper-scale.md may set it beside the default run's cell."""
    paper, cell = (
        read_settings(DEFAULT, REPO / "config" / name) for name in ("paper.yaml", "paper-cpu.yaml")
    )
    default = read_settings(DEFAULT)
    assert cell.model == paper.model
    assert set(cell.seeds) <= set(default.seeds)
    assert set(cell.axis_ratios("depth")) <= set(default.axis_ratios("depth"))
    same = {"world": {}, "evaluation": {"prompts"}, "sft": {"samples"}}
    same["pretrain"] = {"samples", "ood_pool"}
    for section, keys in same.items():
        ours, theirs = (getattr(run, section).model_dump() for run in (cell, default))
        assert all(ours[key] == theirs[key] for key in keys or ours), section
    tasks = [(run.axes["depth"].id, run.axes["depth"].ood) for run in (cell, default)]
    assert tasks[0] == tasks[1]


@pytest.mark.parametrize("name", ["config", "reference"])
def test_an_absence_on_every_axis_can_be_supported_with_the_seeds_of_a_run(name):
    """All seeds agreeing: 2^-n, times the rows of the family (docs/protocol.md)."""
    settings = read_settings(DEFAULT, REPO / "config" / f"{name}.yaml")
    values = np.zeros(len(settings.seeds))
    p_value = p_absent(values, settings.claims.negligible, settings.claims.rare)
    assert p_value * len(settings.axes) <= settings.claims.significance


def test_every_setting_has_a_description():
    for section in [Settings, *(type(Settings.model_fields[name].default) for name in SECTIONS)]:
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_every_operation_that_may_be_named_has_a_function():
    assert set(OPERATIONS) == set(FUNCTIONS)
