"""The rule that gives each method its learning rate, and the command that applies it to a run."""

import json

import pandas as pd
import pytest
import yaml

from grpo_origin.analysis.rates import COLUMNS, as_methods, chosen_rates
from grpo_origin.analysis.tables import TABLES
from grpo_origin.cli import main
from grpo_origin.config.load import read_settings
from grpo_origin.config.places import run_at
from grpo_origin.study import read_study
from helpers import REPO

RATES = {"base": 2e-4, "half": 1e-4, "twice": 4e-4}
# Gain of OOD mass and change of ID mass by rate; seen from 0.1.
TRIED = {
    "grpo": {"half": (0.1, 0.0), "base": (0.2, -0.05), "twice": (0.5, -0.3)},
    "dapo": {"half": (0.3, -0.1), "base": (0.3, -0.1), "twice": (0.2, -0.1)},
    "raft": {"half": (0.3, -0.4), "base": (0.4, -0.2), "twice": (0.5, -0.9)},
}


def board(tried=TRIED, axis="token"):
    rows = [
        {"variant": variant, "method": method, "trained_on": "ood", "axis": axis}
        | {"before": 0.1, "after": 0.1 + gain, "id_change": lost}
        for method, by_rate in tried.items()
        for variant, (gain, lost) in by_rate.items()
    ]
    return pd.DataFrame(rows)


def by_variant(methods=TRIED):
    return {variant: dict.fromkeys(methods, rate) for variant, rate in RATES.items()}


def test_the_rate_with_the_largest_gain_is_chosen():
    table = chosen_rates(board(), by_variant())
    assert [*table.columns] == [*COLUMNS]
    assert table["method"].tolist() == [*TRIED]
    table = table.set_index("method")
    assert table["learning_rate"].tolist() == [4e-4, 1e-4, 4e-4]  # equal ones: the smaller
    assert table["rates"].tolist() == [3, 3, 3]
    assert table.loc["grpo", ["gain", "id_change"]].tolist() == pytest.approx([0.5, -0.3])


def test_axes_are_averaged_before_the_rule():
    other = {"grpo": {"half": (0.9, 0.0), "base": (0.1, 0.0), "twice": (0.0, 0.0)}}
    several = [board(), board(other, "depth"), board(other, "depth")]  # two cells of one axis
    first = chosen_rates(pd.concat(several), by_variant()).iloc[0]
    assert first["learning_rate"] == 1e-4
    assert (first["gain"], first["id_change"]) == pytest.approx((0.5, 0.0))


def test_what_is_printed_is_a_list_of_methods():
    text = as_methods(chosen_rates(board(), by_variant()))
    assert text.splitlines()[1].endswith("# OOD +0.500, ID -0.300")
    entries = yaml.safe_load(text)["methods"]
    assert {**entries[0], **entries[2]} == {
        "grpo": {"learning_rate": 4e-4},
        "raft": {"learning_rate": 4e-4},
    }


def test_the_command_reads_rates_from_the_settings_of_the_run(tmp_path, capsys):
    study = read_study(REPO / "config" / "config.yaml", REPO / "config" / "rates.yaml")
    run = run_at(tmp_path / "rates")
    names = list(study.methods)
    tried = {name: {"base": (0.1, 0.0), "half": (0.0, 0.0), "twice": (0.2, 0.0)} for name in names}
    table = board(tried).reindex(columns=[*TABLES["leaderboard"].columns])
    (tmp_path / "rates" / "tables").mkdir(parents=True)
    table.to_parquet(run.table("leaderboard", "parquet"))
    settings = study.settings.model_dump(mode="json")
    (tmp_path / "rates" / "settings.json").write_text(json.dumps(settings))
    main(["rates", str(tmp_path / "rates")])
    entries = yaml.safe_load(capsys.readouterr().out)["methods"]
    assert {next(iter(entry)) for entry in entries} == {*names}
    assert all(next(iter(entry.values())) == {"learning_rate": 4e-4} for entry in entries)


def test_every_method_of_the_leaderboard_is_tried_at_three_rates_on_pilot_seeds():
    default = REPO / "config" / "config.yaml"
    rates, board = (
        read_settings(default, REPO / "config" / f"{name}.yaml")
        for name in ("rates", "leaderboard")
    )
    assert [*rates.methods] == [*board.methods]
    assert all(seed >= 1000 for seed in rates.seeds)
    study = read_study(default, REPO / "config" / "rates.yaml")
    tried = {member.settings.rl.learning_rate for member in (study, *study.variants)}
    assert tried == {*RATES.values()}
