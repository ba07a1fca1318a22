"""Variants: what they may change, which cells they have, and what they share with the run."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from grpo_origin.cli import main
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import place_of
from grpo_origin.lineage import family, jobs, maker
from helpers import (
    REPO,
    TINY,
    assert_same_results,
    copy_code,
    kill_again_and_again,
    planned,
    snakemake,
    tiny_study,
    write_config,
)

CELL = {"axis": "mini", "seed": 0, "ratio": "0.25"}
STAGES = ("pretrain", "sft", "grpo~id", "grpo~ood")


def with_variants(**variants):
    return tiny_study(variants=variants)


def own(study, variant: str) -> Counter:
    """Jobs of a variant by rule."""
    place = place_of(variant)
    return Counter(
        rule for rule, cells in jobs(study).items() for cell in cells if cell.get("place") == place
    )


CELLS = len(TINY["ratios"]) * len(TINY["seeds"])
KINDS = {
    "rl": ({"rl": {"beta": 0.5}}, {"rl": 2}),
    "prompts of rl": (
        {"rl": {"steps": 13}},
        {"rl": 2, "prompts": 1, "data_summary": 1},
    ),
    "fewer prompts of rl": ({"rl": {"prompts_per_step": 3}}, {"rl": 2}),
    "sft": ({"sft": {"epochs": 3}}, {"sft": 1, "rl": 2}),
    "model": ({"model": {"layers": 2}}, {"pretrain": 1, "sft": 1, "rl": 2}),
    "pretraining data": (
        {"pretrain": {"samples": 4000}},
        {"pretraining_data": 1, "data_summary": 1, "pretrain": 1, "sft": 1, "rl": 2},
    ),
    "one split more than the run": ({"trained_on": ["ood"]}, {}),
}
A_GROUP = ("prompts", "data_summary", "pretraining_data")


@pytest.mark.parametrize(("changes", "made"), KINDS.values(), ids=KINDS)
def test_a_variant_makes_what_it_changes_and_what_follows(changes, made):
    study = with_variants(other=changes)
    groups = len(study.grid.groups)
    expected = {rule: n * (groups if rule in A_GROUP else CELLS) for rule, n in made.items()}
    assert own(study, "other") == expected | {"evaluate": CELLS}


def test_a_method_may_come_twice_with_other_settings():
    """Under a name of its own it is a variant of `rl` and the method's settings."""
    entries = ["grpo", {"wide": {"method": "dapo", "high": 0.4, "rl": {"steps": 6}}}, "dapo"]
    study = tiny_study(methods=entries)
    variant = {"methods": [{"dapo": {"high": 0.4}}], "rl": {"steps": 6}}
    assert study == tiny_study(methods=["grpo", "dapo"], variants={"wide": variant})
    assert own(study, "wide") == {"rl": 2 * CELLS, "evaluate": CELLS}
    with pytest.raises(ConfigError, match=r"^methods: wide is the name of a variant or method"):
        tiny_study(methods=entries, variants={"wide": {"rl": {"steps": 5}}})
    with pytest.raises(ConfigError, match=r"^variants.slow: .*method dapo has no setting 'hgih'"):
        tiny_study(methods=["grpo", {"slow": {"method": "dapo", "hgih": 0.4}}])
    with pytest.raises(ConfigError, match=r"^variants.slow: it changes nothing, it is base"):
        tiny_study(methods=["grpo", {"slow": {"method": "grpo"}}])


def test_a_file_is_made_by_the_first_that_has_its_cell_and_settings():
    study = with_variants(
        longer={"sft": {"epochs": 3}},
        longer_and_softer={"sft": {"epochs": 3}, "rl": {"beta": 0.5}},
    )
    who = {name: maker(study, "longer_and_softer", CELL, name).variant for name in STAGES}
    assert who == {
        "pretrain": "base",
        "sft": "longer",
        "grpo~id": "longer_and_softer",
        "grpo~ood": "longer_and_softer",
    }
    elsewhere = with_variants(
        longer={"sft": {"epochs": 3}, "ratios": ["0"]},
        longer_and_softer={"sft": {"epochs": 3}, "rl": {"beta": 0.5}},
    )
    assert maker(elsewhere, "longer_and_softer", CELL, "sft").variant == "longer_and_softer"
    assert maker(elsewhere, "longer_and_softer", CELL | {"ratio": "0"}, "sft").variant == "longer"


def test_a_variant_has_the_cells_that_it_is_limited_to():
    study = with_variants(some={"rl": {"beta": 0.5}, "ratios": ["0.25"], "seeds": [0]})
    assert family(study)["some"].grid.cells == [CELL]
    assert own(study, "some") == {"rl": 2, "evaluate": 1}


BAD = {
    "no change": ({}, "variants.v: write what it changes"),
    "a word": ("rl", "variants.v"),
    "unknown section": ({"reward": {}}, r"variants\.v\.reward: unknown key \(allowed: model, "),
    "unknown key": ({"rl": {"stepz": 3}}, r"variants\.v: rl\.stepz: unknown key.*'steps'"),
    "bad value": ({"model": {"layers": 0}}, r"variants\.v: model\.layers: .*not 0"),
    "the run's own value": ({"rl": {"steps": 12}}, "it changes nothing, it is base"),
    "unknown axis": ({"rl": {"beta": 1}, "axes": ["wide"]}, r"axes: 'wide' is none of the run's"),
    "unknown seed": ({"rl": {"beta": 1}, "seeds": [9]}, r"variants\.v\.seeds: 9 is none"),
    "no cell": ({"rl": {"beta": 1}, "ratios": ["0.5"]}, r"variants\.v\.ratios: none of its axes"),
    "no list": ({"rl": {"beta": 1}, "axes": "mini"}, r"variants\.v\.axes: write a list"),
    "worlds": ({"world": {"nodes": 9}}, r"variants\.v\.world: unknown key"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_variant_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        with_variants(v=changes)
    assert len(str(error.value).splitlines()) == 1


def test_two_variants_that_are_the_same_and_reserved_names_are_refused():
    with pytest.raises(ConfigError, match=r"variants\.b: it changes nothing, it is a"):
        with_variants(a={"rl": {"beta": 0.5}}, b={"rl": {"beta": 0.5}})
    with pytest.raises(ConfigError, match=r"variants\.base: this name is taken"):
        with_variants(base={"rl": {"beta": 0.5}})


# --- a real sweep

VARIANTS = {
    "soft": {"rl": {"beta": 0.5}},
    "no_sft": {"sft": None, "ratios": ["0.25"]},
    "free": {
        "ratios": ["0.25"],
        "model": {"positions": "alibi"},
        "rl": {"reward": "answer", "steps": 10, "reset_reference_every": 4, "evaluate_every": 5},
    },
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished tiny sweep with three variants."""
    tree = copy_code(tmp_path_factory.mktemp("sweep"))
    config = write_config(tree, "variants.yaml", variants=VARIANTS)
    result = snakemake(tree, "--cores", "2", "--configfile", config)
    assert result.returncode == 0, result.stdout + result.stderr
    return tree / "results" / "tiny"


def test_a_variant_has_folders_for_what_it_makes_alone(sweep):
    cell = "mini/seed~0/ood~0.25"
    alone = {"evaluation.parquet", "grpo~id", "grpo~ood"}
    for variant in VARIANTS:
        place = sweep / "variants" / variant / cell
        made = alone | ({"answers.parquet", "pretrain", "sft"} if variant == "free" else set())
        assert {path.name for path in place.iterdir() if path.name[0] != "."} == made
    assert not (sweep / "variants" / "no_sft" / "mini" / "seed~0" / "ood~0").exists()
    assert not list((sweep / "variants").rglob("data"))


def test_every_table_says_whose_its_rows_are(sweep):
    for path in (sweep / "tables").glob("*.parquet"):
        assert pd.read_parquet(path).columns[0] == "variant", path.name
    summary = pd.read_parquet(sweep / "tables" / "summary.parquet")
    stages = summary.groupby("variant")["stage"].agg(lambda names: sorted(set(names))).to_dict()
    everything = ["grpo~id", "grpo~ood", "pretrain", "sft"]
    assert stages == {
        "base": everything,
        "soft": everything,
        "no_sft": ["grpo~id", "grpo~ood", "pretrain"],
        "free": everything,
    }


def test_contrasts_are_differences_of_the_same_prompts(sweep):
    table = pd.read_parquet(sweep / "tables" / "contrasts.parquet").set_index(
        ["variant", "stage", "ood_ratio", "quantity"]
    )
    for variant, stage in (("soft", "grpo~ood"), ("no_sft", "grpo~id"), ("no_sft", "pretrain")):
        masses = []
        for place in ("", f"variants/{variant}/"):
            file = sweep / f"{place}mini/seed~0/ood~0.25/evaluation.parquet"
            rows = pd.read_parquet(file).query("stage == @stage and split == 'ood'")
            masses.append(np.exp(rows["log_mass"]).mean())
        row = table.loc[variant, stage, "0.25", "OOD mass"]
        assert [row["reference"], row["value"]] == pytest.approx(masses)
        assert row["difference"] == pytest.approx(masses[1] - masses[0])
        assert row["verdict"] == "inconclusive"  # of one seed
    assert table.loc["no_sft", "pretrain", "0.25", "OOD mass"]["difference"] == 0


def test_right_answers_are_sampled_where_they_count_and_in_the_run_to_compare_with(sweep):
    """Any trace may lead to them, so there are no fewer than the right trace leads to."""
    table = pd.read_parquet(sweep / "tables" / "answers.parquet")
    assert set(table["variant"]) == {"base", "free"}
    assert set(table["ood_ratio"]) == {"0.25"}
    assert (table["high"] >= table["trace_mass"]).mean() > 0.9
    assert ((table["low"] <= table["answer_mass"]) & (table["answer_mass"] <= table["high"])).all()
    assert table.groupby(["variant", "stage"])["answer_mass"].max().min() > 0.2
    means = table.set_index(["variant", "stage", "split"])["answer_mass"]
    contrasts = pd.read_parquet(sweep / "tables" / "contrasts.parquet")
    row = contrasts.query("quantity == 'OOD answers, sampled' and stage == 'grpo~ood'").iloc[0]
    own, base = (means[variant, "grpo~ood", "ood"] for variant in ("free", "base"))
    assert [row["value"], row["reference"]] == [own, base]


def test_masses_are_contrasted_at_equal_completions_too(sweep):
    """The variant trains for ten steps, the run for twelve."""
    contrasts = pd.read_parquet(sweep / "tables" / "contrasts.parquet")
    rows = contrasts[contrasts["quantity"] == "OOD mass at equal completions"]
    assert set(rows["variant"]) == {"free"}
    curves = pd.read_parquet(sweep / "tables" / "learning_curves.parquet")
    cell = "stage == 'grpo~ood' and ood_ratio == '0.25' and split == 'ood'"
    own, base = (curves.query(f"{cell} and variant == '{name}'") for name in ("free", "base"))
    assert own["step"].tolist() == [0, 5, 10]
    assert base["step"].tolist() == [0, 10, 12]
    expected = own["mass"].iloc[-1] - base["mass"].iloc[1]
    assert rows.set_index("stage")["difference"]["grpo~ood"] == pytest.approx(expected)


def test_a_part_of_it_is_reported_with_its_variants(sweep, tmp_path, capsys):
    """A variant's cell counts where it and the same cell of the run are evaluated."""
    shutil.copytree(sweep, tmp_path / "tiny")
    for cell in ("mini/seed~0/ood~0", "variants/free/mini/seed~0/ood~0.25"):
        (tmp_path / "tiny" / cell / "evaluation.parquet").unlink()
    files = [REPO / "config" / "config.yaml", sweep.parents[1] / "variants.yaml"]
    configs = [part for file in files for part in ("--config", str(file))]
    main(["report", *configs, "--results", str(tmp_path)])
    partial = tmp_path / "tiny" / "partial"
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{partial}/report.html: 1 of 2 cells, 2 of 4 of variants"
    for name in ("contrasts", "signal"):
        whole = pd.read_parquet(sweep / "tables" / f"{name}.parquet")
        there = (whole["ood_ratio"] == "0.25") & (whole["variant"] != "free")
        part = pd.read_parquet(partial / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(part, whole[there].reset_index(drop=True))
    assert (partial / "figures" / "contrasts-mini.png").exists()


def test_a_finished_sweep_has_nothing_to_do_and_a_new_variant_only_its_own(sweep):
    tree = sweep.parents[1]
    assert planned(tree, "--configfile", "variants.yaml") == {}
    more = VARIANTS | {"softer": {"rl": {"beta": 0.9}}}
    config = write_config(tree, "more.yaml", variants=more)
    after = dict.fromkeys(("tables", "claims", "figures", "report"), 1)
    assert planned(tree, "--configfile", config) == {"rl": 4, "evaluate": 2} | after


def test_a_sweep_with_variants_may_be_killed(sweep, tmp_path):
    """Once while stages train that variants share, once while they train their own."""
    config = write_config(
        copy_code(tmp_path), "variants.yaml", variants=VARIANTS, runtime={"checkpoint_seconds": 0}
    )
    kill_again_and_again(tmp_path, (9, 12), "--configfile", config)
    assert_same_results(sweep, tmp_path / "results" / "tiny")


def test_a_cell_of_a_variant_without_snakemake_has_the_same_evaluation(sweep, tmp_path):
    where = ["--axis", "mini", "--seed", "0", "--ratio", "0.25", "--results", str(tmp_path)]
    config = str(sweep.parents[1] / "variants.yaml")
    main(["cell", "--config", config, *where, "--variant", "no_sft"])
    path = "variants/no_sft/mini/seed~0/ood~0.25/evaluation.parquet"
    own = pd.read_parquet(tmp_path / "tiny" / path)
    pd.testing.assert_frame_equal(own, pd.read_parquet(sweep / path), check_exact=True)
    assert set(own["variant"]) == {"no_sft"}
    with pytest.raises(SystemExit, match=r"variant: this run has no 'x' \(it has: base, free, no_"):
        main(["cell", "--config", config, *where, "--variant", "x"])
