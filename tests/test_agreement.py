"""A run's ledger beside that of the reference run."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from grpo_origin.analysis.agreement import COLUMNS, agreement, paired
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import make_table
from grpo_origin.cli import main
from grpo_origin.config.load import differing


def ledger(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Rows of claim, axis and verdict."""
    table = pd.DataFrame(rows, columns=["claim", "axis", "verdict"])
    texts = dict.fromkeys(("look", "note", "kind"), "-")
    numbers = dict.fromkeys(
        ("low", "high", "closure", "spread", "p_value", "p_adjusted", "edge"), 0.5
    )
    table = table.assign(method="grpo", statement=table["claim"] + " holds", **texts, **numbers)
    return table.assign(cells="some; seeds 0, 1", seeds=7, effect=0.5, seeds_needed=9.0)


def words(own, other) -> list[str]:
    return agreement(ledger(*own), ledger(*other))["agreement"].tolist()


@pytest.mark.parametrize(
    ("verdict", "reference", "word"),
    [
        ("supported", "supported", "agrees"),
        ("contradicted", "contradicted", "agrees"),
        ("supported", "contradicted", "differs"),
        ("inconclusive", "supported", "too few seeds"),
        ("inconclusive", "inconclusive", "too few seeds"),
        ("supported", "inconclusive", "undecided there"),
    ],
)
def test_verdicts_are_compared(verdict, reference, word):
    assert words([("exposure", "depth", verdict)], [("exposure", "depth", reference)]) == [word]


def test_rows_meet_by_claim_axis_statement_and_cells_whatever_the_seeds():
    """Foreign tokens are judged at every ratio with one statement."""
    own = ledger(("foreign", "token", "supported"), ("foreign", "token", "contradicted"))
    own["cells"] = ["ratio 0; seeds 0, 1", "ratio 0.1; seeds 0, 1"]
    other = own.iloc[::-1].assign(cells=["ratio 0.1; seeds 5", "ratio 0; seeds 6"])
    assert agreement(own, other)["agreement"].tolist() == ["agrees", "agrees"]
    assert agreement(own, other.iloc[:1])["agreement"].tolist() == ["not there", "agrees"]
    assert agreement(own.assign(method="raft"), other).empty


def test_what_no_number_of_seeds_decides_does_not_lack_seeds():
    own = ledger(("exposure", "depth", "inconclusive")).assign(seeds_needed=float("nan"))
    other = ledger(("exposure", "depth", "supported"))
    assert agreement(own, other)["agreement"].tolist() == ["undecided here"]


def test_both_runs_numbers_stand_beside_each_other():
    reference = ledger(("exposure", "depth", "supported")).assign(seeds=10, effect=0.25)
    row = agreement(ledger(("exposure", "depth", "supported")), reference).iloc[0]
    assert [row["seeds"], row["reference_seeds"]] == [7, 10]
    assert [row["effect"], row["reference_effect"]] == [0.5, 0.25]


def test_without_a_reference_the_table_is_empty():
    assert make_table("agreement", Sources()).columns.tolist() == ["variant", *COLUMNS]
    assert make_table("agreement", Sources()).empty


def test_settings_that_differ_are_named_with_their_section():
    before = {"run": "a", "rl": {"steps": 60, "beta": 0.1}, "axes": {"depth": {"ratios": [0]}}}
    now = {"run": "a", "rl": {"steps": 60, "beta": 0.2}, "axes": {"depth": None}, "seeds": [1]}
    assert list(differing(before, now)) == ["rl.beta", "axes.depth", "seeds"]
    assert not list(differing(before, before))


def test_compare_tells_which_settings_and_verdicts_differ(tmp_path, capsys):
    run, reference = tmp_path / "run", tmp_path / "reference"
    (run / "tables").mkdir(parents=True)
    reference.mkdir()
    own = ledger(("exposure", "depth", "supported"), ("exposure", "token", "supported"))
    unlike = own.assign(variant="other", verdict="contradicted")
    pd.concat([own.assign(variant="base"), unlike]).to_parquet(run / "tables" / "claims.parquet")
    other = ledger(("exposure", "depth", "supported"), ("exposure", "token", "inconclusive"))
    other.assign(variant="base").to_parquet(reference / "claims.parquet")
    for folder, steps in ((run, 60), (reference, 30)):
        (folder / "settings.json").write_text(json.dumps({"rl": {"steps": steps}}))
    main(["compare", str(run), str(reference)])
    settings, counts, header, *rows, masses = capsys.readouterr().out.splitlines()
    assert masses.startswith("no cell and seed in common")
    assert "no table seed_means" in masses  # as here
    assert settings == "settings that differ: rl.steps"
    assert counts == "rows: 1 agrees, 1 undecided there"
    assert "verdict there" in header
    (row,) = rows
    assert "token" in row
    assert "inconclusive" in row


def seed_means(*rows: tuple[int, float]) -> pd.DataFrame:
    """Mean OOD masses after GRPO by seed, of one cell."""
    table = pd.DataFrame(rows, columns=["seed", "mean"])
    place = {"axis": "depth", "ood_ratio": "0.1", "stage": "grpo~ood", "split": "ood"}
    return table.assign(metric="mass", prompts=8, method="grpo", trained_on="ood", **place)


def test_masses_are_compared_where_both_have_the_cell_and_seed():
    table = paired(seed_means((0, 0.5), (1, 0.7), (2, 0.9)), seed_means((1, 0.6), (2, 0.6), (9, 0)))
    (row,) = table.to_dict("records")
    assert (row["seeds"], row["here"], row["there"]) == (2, pytest.approx(0.8), pytest.approx(0.6))
    assert row["difference"] == pytest.approx(0.2)
    half = 12.706204736432095 * 0.1  # the 97.5 % point of t with one degree of freedom
    assert [row["low"], row["high"]] == pytest.approx([0.2 - half, 0.2 + half])
    assert paired(seed_means((0, 0.5)), seed_means((1, 0.5))).empty


def test_compare_prints_masses_of_equal_worlds_in_pairs(tmp_path, capsys):
    means = {"a": seed_means((0, 0.5), (1, 0.7)), "b": seed_means((0, 0.5), (1, 0.6))}
    for name, table in means.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        tables = {"seed_means": table, "claims": ledger(("exposure", "depth", "supported"))}
        for kind, rows in tables.items():
            rows.assign(variant="base").to_parquet(tmp_path / name / "tables" / f"{kind}.parquet")
        settings = {"world": {"nodes": 26 if name == "a" else 8}}
        (tmp_path / name / "settings.json").write_text(json.dumps(settings))
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    said = capsys.readouterr().out
    assert "no cell and seed in common" in said
    assert "other worlds" in said  # as here: cell and seeds are the same
    (tmp_path / "b" / "settings.json").write_text(json.dumps({"world": {"nodes": 26}}))
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    *_, counts, _, row = capsys.readouterr().out.splitlines()
    assert counts == "masses of 1 stages and splits, up to 2 seeds in pairs: 0 equal, 1 differ"
    assert "+0.0500" in row


def test_compare_names_the_file_that_a_folder_lacks(tmp_path):
    with pytest.raises(SystemExit, match=r"claims.parquet: missing"):
        main(["compare", str(tmp_path), str(tmp_path)])
    full = ledger(("exposure", "depth", "supported")).assign(variant="base")
    old = full.drop(columns="look")
    old.to_parquet(tmp_path / "claims.parquet")
    with pytest.raises(SystemExit, match=r"error: .*claims.parquet: .*without column look"):
        main(["compare", str(tmp_path), str(tmp_path)])
    full.to_parquet(tmp_path / "claims.parquet")
    with pytest.raises(SystemExit, match=r"error: .*settings.json: can't be read"):
        main(["compare", str(tmp_path), str(tmp_path)])
