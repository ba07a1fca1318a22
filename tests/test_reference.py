"""The shipped reference run: whole, in step with today's tables and settings, and small."""

import json

import pandas as pd
import pytest

from grpo_origin.analysis.agreement import agreement
from grpo_origin.analysis.inference import MIN_SEEDS
from grpo_origin.analysis.tables import TABLES
from grpo_origin.config.load import differing, load_settings, read_settings
from grpo_origin.config.paths import REFERENCE_LEDGER, REFERENCE_SETTINGS
from helpers import REPO

FOLDER = (REPO / REFERENCE_LEDGER).parent
FILES = sorted(FOLDER.glob("*.parquet"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_table_has_todays_columns_and_is_small(path):
    table = pd.read_parquet(path)
    assert [*table.columns] == [*TABLES[path.stem].columns]
    assert path.stat().st_size < 300_000


def test_its_settings_are_those_of_its_configuration():
    shipped = load_settings(json.loads((REPO / REFERENCE_SETTINGS).read_text(encoding="utf-8")))
    config = read_settings(REPO / "config" / "config.yaml", REPO / "config" / "reference.yaml")
    of_machine = {"runtime", "resources"}  # changes no result, and is not kept
    there, here = (x.model_dump(mode="json", exclude=of_machine) for x in (shipped, config))
    assert not list(differing(there, here))


def test_every_axis_is_judged_on_enough_seeds_that_the_default_run_does_not_have():
    claims = pd.read_parquet(REPO / REFERENCE_LEDGER)
    default = read_settings(REPO / "config" / "config.yaml")
    reference = read_settings(REPO / "config" / "config.yaml", REPO / "config" / "reference.yaml")
    assert set(default.axes) <= set(claims["axis"])
    assert not set(default.seeds) & set(reference.seeds)
    main = claims[claims["claim"].isin(["exposure", "beyond pretraining", "no exposure"])]
    assert (main["seeds"] >= MIN_SEEDS).all()
    assert claims["verdict"].isin(["supported", "contradicted"]).mean() > 0.5
    undecided = claims[claims["verdict"] == "inconclusive"]
    assert undecided["note"].str.contains("seeds|nothing").all()


def test_it_agrees_with_itself():
    claims = pd.read_parquet(REPO / REFERENCE_LEDGER).drop(columns="variant")
    found = set(agreement(claims, claims)["agreement"])
    assert "agrees" in found
    assert not found & {"differs", "not there"}
