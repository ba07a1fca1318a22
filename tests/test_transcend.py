"""RL methods on the same terms: planted gains must flip the answer to "does it transcend?"."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.tables import of_method
from grpo_origin.analysis.transcend import assay, transcend
from grpo_origin.config.schema import ClaimsSettings

PROMPTS, SEEDS, ZERO_MASS = 200, 6, 1e-4
BOTH = {"grpo": ZERO_MASS, "raft": ZERO_MASS}
SETTINGS = ClaimsSettings()
STAGES = ("pretrain", "sft", "grpo~id", "grpo~ood", "raft~ood")


def planted(after: dict[str, tuple[float, ...]], start: float = 1e-6) -> pd.DataFrame:
    """Evaluations of six seeds at two ratios: OOD prompts at `start`, ID prompts at 0.9.

    `after` gives a stage's OOD mass in each seed.
    """
    rows = []
    for seed, ratio, stage, split in (
        (s, r, t, p)
        for s in range(SEEDS)
        for r in ("0", "0.1")
        for t in STAGES
        for p in ("id", "ood")
    ):
        mass = (
            0.9
            if split == "id"
            else after.get(stage, (start,) * SEEDS)[seed]
            if ratio == "0.1"
            else start
        )
        cell = {
            "axis": "depth",
            "seed": seed,
            "ood_ratio": ratio,
            "stage": stage,
            "split": split,
            "task": "trav;4;A",
        }
        rows += [
            cell | {"prompt_index": i, "log_mass": np.log(mass), "greedy_correct": mass > 0.5}
            for i in range(PROMPTS)
        ]
    return with_method(pd.DataFrame(rows))


def answers(table: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    return {
        (row.method, row.trained_on, row.ood_ratio): row.transcends for row in table.itertuples()
    }


@pytest.mark.parametrize(
    ("mass", "answer"),
    [
        ((0.5, 0.55, 0.6) * 2, "yes"),
        ((1e-6, 2e-6, 1e-6) * 2, "no"),
        ((0.9, 1e-6, 1e-6) * 2, "unclear"),
        ((0.0101, 0.0101, 0.0099) * 2, "unclear"),
    ],
)
def test_transcends(mass, answer):
    table = transcend(planted({"raft~ood": mass}), SETTINGS, BOTH)
    given = answers(table)
    assert given["raft", "ood", "0.1"] == answer
    assert {value for key, value in given.items() if key != ("raft", "ood", "0.1")} == {"no"}
    assert set(given) == {("grpo", p, r) for p in ("id", "ood") for r in ("0", "0.1")} | {
        ("raft", "ood", "0"),
        ("raft", "ood", "0.1"),
    }
    row = table[(table["method"] == "raft") & (table["ood_ratio"] == "0.1")].iloc[0]
    assert row["gain"] == pytest.approx(np.mean(mass) - 1e-6)
    assert row["prompts"] == SEEDS * PROMPTS
    assert row["raised"] == pytest.approx(np.mean(np.array(mass) > 0.1))
    assert row["raised"] <= row["raised_at_most"]
    assert row["low"] <= row["gain"] <= row["high"]


def test_only_prompts_that_start_from_about_nothing_count():
    assert transcend(
        planted({"raft~ood": (0.5, 0.5, 0.6) * 2}, start=1e-3),
        SETTINGS,
        BOTH,
    ).empty


def test_mass_that_only_sft_hid_is_no_transcending():
    table = planted({"pretrain": (0.4,) * SEEDS, "raft~ood": (0.5, 0.55, 0.6) * 2})
    row = transcend(table, SETTINGS, {"raft": ZERO_MASS}).query("ood_ratio == '0.1'").iloc[0]
    assert (row["prompts"], row["hidden"], row["transcends"]) == (0, SEEDS * PROMPTS, "unclear")
    assert np.isnan(row["gain"])


def test_a_seed_with_few_such_prompts_does_not_count():
    table = planted({"raft~ood": (0.5, 0.55, 0.6) * 2})
    few = (
        (table["seed"] == 2)
        & (table["split"] == "ood")
        & (table["prompt_index"] >= SETTINGS.band_prompts - 1)
    )
    table.loc[few, "log_mass"] = np.log(0.5)
    row = transcend(table, SETTINGS, {"raft": ZERO_MASS}).query("ood_ratio == '0.1'").iloc[0]
    assert row["seeds"] == SEEDS - 1
    assert row["prompts"] == (SEEDS - 1) * PROMPTS
    assert row["raised"] == 1


def test_before_after_and_gain_are_means_over_seeds():
    """Seeds of different numbers of prompts: means of seeds, not of prompts, and they add up."""
    table = planted({"raft~ood": (0.2, 0.4, 0.9) * 2})
    many = (table["seed"] == 2) & (table["split"] == "ood") & (table["prompt_index"] >= 30)
    row = transcend(table[~many], SETTINGS, {"raft": ZERO_MASS}).query("ood_ratio == '0.1'").iloc[0]
    assert row["prompts"] == (SEEDS - 1) * PROMPTS + 30
    assert row["before"] == pytest.approx(1e-6)
    assert row["after"] == pytest.approx(0.5)
    assert row["gain"] == pytest.approx(row["after"] - row["before"])


def test_an_absence_counts_only_where_something_informed_rises():
    table = transcend(planted({"raft~ood": (0.5, 0.55, 0.6) * 2}), SETTINGS, BOTH)

    def answer(method: str | None) -> dict[str, set[str]]:
        rows = table.assign(informed=table["method"] == method)
        rows["assay"] = assay(rows, SETTINGS.negligible)
        return {ratio: set(part["assay"]) for ratio, part in rows.groupby("ood_ratio")}

    assert answer(None) == {"0": {"no control"}, "0.1": {"no control"}}
    assert answer("raft") == {"0": {"not shown"}, "0.1": {"sensitive"}}
    assert answer("grpo") == {"0": {"not shown"}, "0.1": {"not shown"}}


def test_a_rise_on_average_that_the_lower_bound_does_not_show_is_none():
    table = transcend(planted({"raft~ood": (0.9, 1e-6, 1e-6) * 2}), SETTINGS, BOTH)
    rows = table.assign(informed=table["method"] == "raft")
    assert set(assay(rows, SETTINGS.negligible)) == {"not shown"}


def test_demonstrations_in_sft_are_judged_with_rl():
    """The start is then the pretrained model, though SFT has moved these prompts."""
    table = planted({"sft": (0.4,) * SEEDS, "raft~ood": (0.5, 0.55, 0.6) * 2})
    plain = transcend(table, SETTINGS, {"raft": ZERO_MASS}).query("ood_ratio == '0.1'")
    assert plain.empty
    row = transcend(table, SETTINGS, {"raft": ZERO_MASS}, demonstrated=True)
    row = row.query("ood_ratio == '0.1'").iloc[0]
    assert row["before"] == pytest.approx(1e-6)
    assert row["gain"] == pytest.approx(0.55 - 1e-6)
    assert (row["hidden"], row["transcends"]) == (0, "yes")


def test_rows_of_a_method_are_its_stages_and_those_before_rl():
    table = planted({})
    assert set(of_method(table, "raft")["stage"]) == {"pretrain", "sft", "raft~ood"}
    assert set(of_method(table, "grpo")["stage"]) == {"pretrain", "sft", "grpo~id", "grpo~ood"}
    without = pd.DataFrame({"method": ["rloo"], "beta": [1.0]})
    assert of_method(without, "grpo") is without
