"""Documentation, settings and default configuration say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from grpo_origin.config.docs import reference
from grpo_origin.config.load import load_settings
from grpo_origin.config.notation import OPERATIONS
from grpo_origin.config.schema import Settings
from grpo_origin.tasks.task import OPERATIONS as FUNCTIONS

REPO = Path(__file__).parents[1]
DEFAULT = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
SECTIONS = [
    name for name, field in Settings.model_fields.items() if isinstance(field.default, BaseModel)
]


def test_configuration_page_is_up_to_date():
    assert (REPO / "docs" / "configuration.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_of_the_models_are_those_of_the_default_run(section):
    assert getattr(load_settings(DEFAULT), section) == Settings.model_fields[section].default


@pytest.mark.parametrize("name", [path.name for path in (REPO / "config").glob("*.yaml")])
def test_every_configuration_is_valid(name):
    def merge(base, changes):
        return {
            **base,
            **{
                k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
                for k, v in changes.items()
            },
        }

    settings = load_settings(merge(DEFAULT, yaml.safe_load((REPO / "config" / name).read_text())))
    assert settings.run == ("laptop" if name == "config.yaml" else name.removesuffix(".yaml"))


def test_every_setting_has_a_description():
    for section in [Settings, *(type(Settings.model_fields[name].default) for name in SECTIONS)]:
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_every_operation_that_may_be_named_has_a_function():
    assert set(OPERATIONS) == set(FUNCTIONS)
