"""Whole ledgers: every claim, every method, runs that lack something."""

import json

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.inference import MIN_SEEDS
from grpo_origin.analysis.ledger import CLAIMS, ledgers
from grpo_origin.analysis.table_files import write
from grpo_origin.analysis.tables import TABLES
from grpo_origin.cli import main
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import load_settings
from planting import (
    SETTINGS,
    STAGES,
    ZERO_MASS,
    confidences,
    heads,
    judged,
    plant,
    rows,
    shifted,
    theory,
    verdict,
)

FULL = {"splits": ("id", "ood", "mixed-1")}


def test_ledger_has_every_claim_in_order():
    heads_of = heads({"grpo_rm": 0.9})
    table = judged(
        plant(shifted(0.3, {("grpo~ood",): 0.1}), **FULL),
        theory=theory(0.0),
        beta=0.001,
        heads=heads_of,
        calibration=confidences({"grpo~ood": 0.2}),
    )
    assert {"variant", *table.columns} == set(TABLES["claims"].columns)
    names = (
        "no exposure, exposure, beyond pretraining, transfer, sweet spot, saturation, "
        "foreign tokens, composition, mass bound, prompts, sharpening, mass of a head, "
        "overconfidence"
    )
    assert list(table["claim"].drop_duplicates()) == names.split(", ")
    assert len(CLAIMS) == 14  # faithful trace has rows only where it was measured
    assert table["verdict"].isin(["supported", "contradicted", "inconclusive"]).all()


@pytest.mark.parametrize("seeds", [1, MIN_SEEDS - 1])
def test_few_seeds_decide_nothing(seeds):
    table = judged(
        plant(shifted(0.3, {("grpo~ood",): 0.1}, seeds=seeds), seeds=seeds, **FULL),
        theory=theory(0.0, seeds=seeds),
        beta=1.0,
    )
    assert set(table["verdict"]) == {"inconclusive"}
    tested = table[table["effect"].notna()]
    assert tested["note"].str.contains("at least 6 are needed").all()
    assert tested["low"].isna().all() == (seeds == 1)
    assert tested["p_value"].isna().all()


@pytest.mark.parametrize(
    "missing",
    [
        {"ratios": ("0.1",)},
        {"ratios": ("0",)},
        {"stages": ("sft", "grpo~id")},
        {"stages": ("sft", "grpo~ood")},
        {"stages": ("pretrain", "sft")},
        {"stages": (*STAGES, "new~ood")},
        {"splits": ("id",)},
        {"splits": ("ood",)},
        {"splits": ("mixed-1", "ood")},
    ],
    ids=str,
)
def test_missing_cells_are_no_crash(missing):
    table = judged(plant(shifted(0.3, {("grpo~ood",): 0.1}), **(FULL | missing)), beta=0.001)
    assert {"variant", *table.columns} == set(TABLES["claims"].columns)
    empty = table[table["effect"].isna()]
    assert (empty["verdict"] == "inconclusive").all()
    assert empty["note"].str.contains("nothing to test|no record of what was sampled").all()


def test_other_methods_do_not_count():
    table = plant(shifted(0.3, {("new~ood",): 0.5}), stages=(*STAGES, "new~ood"))
    assert verdict(table, "no exposure", cells="did not rise") == "supported"


def test_every_method_is_judged_by_its_own_rows_and_named_in_its_texts():
    """A planted gain of one method alone: the texts of its rows say so, whatever its name holds."""
    stages = ("pretrain", *STAGES, "igrpo~id", "igrpo~ood", "dr_GRPO~id", "dr_GRPO~ood")
    table = plant(
        shifted(0.3, {("igrpo~ood",): 0.25}), stages=stages, splits=("id", "ood", "mixed-1")
    )
    betas = {"grpo": 1.0, "igrpo": 1.0, "dr_GRPO": 0.0}
    table = ledgers(table, SETTINGS, dict.fromkeys(betas, ZERO_MASS), betas, theory(0.0))
    exposure = table[table["claim"] == "exposure"].set_index("method")["effect"]
    assert exposure.to_dict() == pytest.approx({"grpo": 0, "igrpo": 0.25, "dr_GRPO": 0}, abs=1e-9)
    for method, rows_of in table.groupby("method"):
        others = {f"{other}~" for other in betas} - {f"{method}~"}
        texts = rows_of[["statement", "cells", "note"]].stack()
        mentioned = {word for text in texts for word in text.replace(",", " ").split()}
        assert not {word for word in mentioned for other in others if word.startswith(other)}
        assert ("GRPO" in mentioned) == (method == "grpo")
        assert method == "grpo" or method in mentioned
    assert table[table["claim"] == "mass bound"].groupby("method").size().to_dict() == {
        "grpo": 2,  # its own RL and the runs to convergence
        "igrpo": 1,
    }


def test_law_and_bound_of_the_ledger_are_those_of_the_law(monkeypatch):
    """What `evaluation.law` says is what the ledger says, for masses that underflow too."""
    from grpo_origin.evaluation import law

    table = plant(shifted(0.2, {("grpo~ood",): 0.2, ("grpo~id",): 0.2}))
    assert verdict(table, "mass bound", beta=1.0) == "supported"  # 0.2 e = 0.54
    monkeypatch.setattr(law, "log_mass_bound", lambda log_q, beta: np.asarray(log_q) + 0.1)
    monkeypatch.setattr(law, "optimal_mass", lambda q, beta: np.asarray(q) + 0.125)
    assert verdict(table, "mass bound", beta=1.0) == "contradicted"
    note = rows(plant(shifted(0.3, {})), "mass bound", theory=theory(0.0)).iloc[0]["note"]
    assert "train 0.085" in note  # 0.2 * 1.2 after, 0.325 predicted
    monkeypatch.undo()
    tiny = table.assign(log_mass=-800.0)  # times e^1000 is more than 1, times e^500 is not
    assert rows(tiny, "mass bound", beta=0.001).empty
    assert verdict(tiny, "mass bound", beta=0.002) == "supported"


def test_a_bound_that_says_nothing_has_no_row():
    table = plant(shifted(0.3, {("grpo~ood",): 0.3}))
    assert rows(table, "mass bound", beta=0.001).empty
    assert rows(table, "mass bound", beta=0.0).empty  # no KL weight, no bound
    runs = theory(0.0, beta=0.3, start=0.5)  # 0.5 e^{1/0.3} > 1
    assert rows(table, "mass bound", theory=runs).empty
    some = pd.concat([runs, theory(0.0, beta=0.3, start=0.01)])
    assert "for 50.0% of prompts" in rows(table, "mass bound", theory=some).iloc[0]["note"]


def test_settings_are_checked():
    axis = {"id": ["trav;4;A"], "ood": ["shift;4;A"]}
    config = {
        "run": "x",
        "seeds": [0],
        "ratios": ["0"],
        "axes": {"a": axis},
        "claims": {"negligible": 0.02},
    }
    assert load_settings(config).claims.negligible == 0.02
    with pytest.raises(ConfigError, match=r"claims.*rising order"):
        load_settings(config | {"claims": {"saturated": 0.5}})
    with pytest.raises(ConfigError, match=r"looks: they spend 0\.06, more than significance"):
        load_settings(config | {"claims": {"looks": [[4, 0.01], [8, 0.05]]}})
    with pytest.raises(ConfigError, match=r"looks: each must have more seeds"):
        load_settings(config | {"claims": {"looks": [[8, 0.01], [8, 0.02]]}})
    plan = [[4, 0.01], [8, 0.015], [12, 0.025]]
    assert load_settings(config | {"claims": {"looks": plan}}).claims.looks[2] == (12, 0.025)
    with pytest.raises(ConfigError, match=r"claims\.neglible.*negligible"):
        load_settings(config | {"claims": {"neglible": 0.02}})


def test_whole_ledgers_of_runs_without_effect_support_no_presence():
    """Seeds are noise about their edge: a claim of presence is supported in few of 50 ledgers."""
    draws, false = np.random.default_rng(0), 0
    for _ in range(50):
        gains = draws.normal(SETTINGS.negligible, 0.05, 6)

        def mass(seed, ratio, stage, split, task, prompts, gains=gains):
            return 0.4 + gains[seed] * (stage == "grpo~ood")

        table = plant(mass, seeds=6, ratios=("0.1",), stages=("pretrain", "sft", "grpo~ood"))
        ledger = judged(table)
        ledger = ledger[ledger["claim"].isin(["exposure", "beyond pretraining"])]
        assert len(ledger) == 2
        false += (ledger["verdict"] == "supported").any()
    assert false <= 8  # 50 of 5 % each: 8 or fewer in 999 of 1000


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ([], "claims.looks is empty"),
        ([[8, 0.01], [12, 0.04]], "next look: 2 of 2, at 12 seeds, alpha 0.04"),
        ([[9, 0.01]], "next look: 1 of 1, at 9 seeds, alpha 0.01"),
        ([[4, 0.01], [8, 0.04]], "the last of 2 looks is taken"),
    ],
)
def test_seeds_command_prints_what_is_undecided_and_the_next_look(tmp_path, capsys, looks, words):
    changes = {("0.1", "grpo~ood", "ood"): 0.03, ("0", "grpo~ood", "ood"): 0.2}
    table = judged(plant(shifted(0.3, changes, width=0.1)))
    write(table.assign(variant="base"), tmp_path / "tables" / "claims.parquet")
    settings = {"seeds": list(range(8)), "claims": {"looks": looks}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    main(["seeds", str(tmp_path)])
    first, header, *lines, last = capsys.readouterr().out.splitlines()
    undecided = table[table["verdict"] == "inconclusive"]
    assert first == f"{len(undecided)} of {len(table)} rows undecided after 8 seeds"
    assert (len(lines), words in last) == (len(undecided), True)
    row = undecided[undecided["claim"] == "exposure"].iloc[0]
    line = next(line for line in lines if " exposure " in line and "OOD ratios above 0" in line)
    numbers = [f"{row['effect']:+.3f}", f"{row['spread']:.3f}", "8", f"{row['seeds_needed']:.0f}"]
    assert [word for word in line.split() if word in numbers] == numbers
    assert "seeds_needed" in header


def test_seeds_command_says_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match=r"claims\.parquet"):
        main(["seeds", str(tmp_path)])


def test_closure_is_gain_over_room():
    def mass(seed, ratio, stage, split, task, prompts):
        start = np.where(prompts < 32, 0.2, 0.6)
        return start + (0.1 + 0.01 * seed) * (stage == "grpo~ood")

    row = rows(plant(mass), "exposure").iloc[0]
    assert row["effect"] == pytest.approx(0.135)
    assert row["closure"] == pytest.approx(0.135 / 0.6)
    assert np.isnan(rows(plant(mass), "saturation").iloc[0]["closure"])
