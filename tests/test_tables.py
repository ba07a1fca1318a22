"""The registry of tables: what is made, described and written is the same."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.table_files import make_table, readme, write_readme, write_tables
from grpo_origin.analysis.tables import TABLES, names_of
from grpo_origin.analysis.theory import PROMPT_COLUMNS
from grpo_origin.config.schema import ClaimsSettings
from grpo_origin.evaluation.table import COLUMNS, evaluation_schema
from grpo_origin.evaluation.trace_file import MASSES
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import write_table
from planting import STAGES, plant

SAMPLED = {
    "completions": 7680,
    "rewarded": 3,
    "contrast_share": 0.01,
    "expected_successes": 2.5,
    "any_success": 0.9,
    "gold_tokens": 5,
    "moved": True,
}
LEDGER_ROW = [
    {"method": "grpo", "claim": "exposure", "axis": "any name", "statement": "other"}
    | {"cells": "those", "verdict": "supported", "seeds": 10, "effect": 0.4}
]
WROTE = [
    {"axis": "any name", "seed": 0, "ood_ratio": "0.10", "stage": stage, "method": method}
    | {"trained_on": method and "ood", "split": "ood", "task": "trav;4;A", "prompt_index": 1}
    | {"chosen": "best gain", "prompt": "<bos> A <trav> <solve>", "kind": "greedy"}
    | dict.fromkeys(("log_mass", "log_mass_markers", "log_mass_content"), -0.5)
    | {"first_wrong": None if method else 1.0, "failure": None if method else "content"}
    | {"position": 1, "token": "B", "part": "content", "probability": 0.5, "right": bool(method)}
    for stage, method in (("sft", None), ("grpo~ood", "grpo"))
]
CELL = {"axis": "any name", "seed": 0, "ood_ratio": "0.10"}
READ = [
    CELL
    | {"stage": stage, "method": method, "trained_on": method and "ood", "layer": 1}
    | {"fitted_on": "both", "split": "ood", "step": "answer", "position": position, "prompts": 9}
    | {"accuracy": 0.1 * position, "control": 0.04, "from_prompt": 0.5}
    for stage, method in (("sft", None), ("grpo~ood", "grpo"))
    for position in (1, 2)
]
HEADS = [
    CELL
    | {"head": "grpo_rm", "trained_on": "ood", "split": split, "prompts": 9, "without": 4}
    | dict.fromkeys(("accuracy", "mass", "guess", "alignment"), 0.25)
    | {"uniformity": -1.5, "without_before": 0.0, "without_after": 0.5}
    for split in ("id", "ood")
]
WITH_PRETRAINING = ("pretrain", *STAGES, "raft~ood")


def frame(path, rows) -> str:
    write_table(path, pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False))
    return str(path)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Sources:
    """Files of a made-up run with one weak cell, two methods and one run to convergence."""
    root = tmp_path_factory.mktemp("run")

    def mass(seed, ratio, stage, split, task, prompts):
        if ratio == "0" and split == "ood":
            return 1e-7 * (1 + seed + prompts / 32)
        weak = ratio == "0.10" and seed == 1
        level = 0.2 if weak and split == "id" else 0.7
        return level + 0.002 * prompts / 64 + (0.1 + 0.01 * seed) * stage.endswith("ood")

    table = plant(mass, seeds=2, ratios=("0", "0.10"), stages=WITH_PRETRAINING)
    table = table.assign(variant="base")
    evaluations = root / "evaluation.parquet"
    arrow = pa.Table.from_pandas(table[[*COLUMNS]], evaluation_schema(), preserve_index=False)
    write_table(evaluations, arrow)
    logged = [name for name, column in TABLES["training"].columns.items() if name not in COLUMNS]
    training = []
    for seed in (0, 1):
        folder = root / f"grpo~ood-{seed}"
        log = [{name: float(step) for name in logged} | {"step": step} for step in (1, 2)]
        frame(folder / "training_log.parquet", [row | {"seconds": 1.5} for row in log])
        unknown = {"expected_successes": None if seed else 2.5}
        frame(folder / "signal.parquet", [SAMPLED | unknown])
        course_of = {"mass": 0.5, "log_mass_mean": -0.7, "greedy_accuracy": 0.5}
        points = [
            {"step": step, "completions": 128 * step, "split": split} | course_of
            for step in (0, 2)
            for split in ("id", "ood")
        ]
        frame(folder / "learning_curve.parquet", points)
        asked = {"log_mass": -9.0, "task": "trav;4;A", "samples": 3840}
        prompts = [asked | {"step": step} for step in (1, 2)]
        frame(folder / "prompt_mass.parquet", prompts)
        training.append(("any name", seed, "0.10", "grpo~ood", folder))
    run = {"method": "rloo", "beta": 1.0, "axis": "any name", "seed": 0, "ood_ratio": "0.10"}
    prompt = {"pool": "train", "split": "ood", "prompt_index": 3, "task": "trav;4;A"}
    masses = dict.fromkeys(PROMPT_COLUMNS[-3:], -0.5)
    course = ["objective", "optimal_objective"]
    course += [f"{pool}_{what}" for pool in ("train", "heldout") for what in ("mass", "distance")]
    sample = {"axis": "any name", "seed": 0, "ood_ratio": "0.10", "split": "ood"}
    sample |= {"task": "trav;4;A", "log_mass": np.log(0.5), "samples": 8, "successes": 4}
    drawn = {"seed": 0, "variant": "base", "stage": "grpo~ood"} | sample
    drawn |= {"method": "grpo", "trained_on": "ood", "prompt_index": 0}
    traces = {name: value for name, value in drawn.items() if name not in ("log_mass", "successes")}
    traces |= dict.fromkeys(("consistent", "right", "wrong_traces"), 4) | dict.fromkeys(
        MASSES, -0.5
    )
    traces |= {"gold_after_wrong": 1.5}
    said = {name: drawn[name] for name in ("seed", "ood_ratio", "stage", "method")}
    said |= {
        "axis": "chances",
        "trained_on": "ood",
        "split": "ood",
        "task": "trav;4;A",
        "prompt_index": 0,
    }
    said |= {"truth": 0.5, "probabilities": [0.25, 0.5, 0.25]}
    reference = frame(root / "reference.parquet", LEDGER_ROW)
    return Sources(
        evaluation_files=[evaluations],
        answer_files=[frame(root / "answers.parquet", [drawn])],
        calibration_files=[frame(root / "calibration.parquet", [said])],
        completion_files=[frame(root / "completions.parquet", WROTE)],
        faithfulness_files=[frame(root / "faithfulness.parquet", [traces])],
        probe_files=[frame(root / "probes.parquet", READ)],
        head_files=[frame(root / "heads.parquet", HEADS)],
        training=training,
        runs=[frame(root / "runs.parquet", [run | prompt | masses])],
        traces=[frame(root / "trace.parquet", [run | {"step": 10} | dict.fromkeys(course, 0.5)])],
        samples=[frame(root / "samples.parquet", [sample | {"prompt_index": i} for i in (0, 1)])],
        claims=ClaimsSettings(),
        betas={"grpo": 1.0, "raft": 0.0},
        budget=7680,
        reference=reference,
    )


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory):
    """The tables of the made-up run."""
    root = tmp_path_factory.mktemp("tables")
    paths = [root / f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")]
    variants = {"base": sources, "other": sources}
    write_tables(reversed(paths), variants)  # in whatever order: files are matched by name
    write_readme(root / "README.md", TABLES)
    return root


@pytest.mark.parametrize("name", TABLES)
def test_csv_and_parquet_hold_the_same_values_and_types(folder, name):
    parquet = pd.read_parquet(folder / f"{name}.parquet")
    table = pd.read_csv(
        folder / f"{name}.csv", dtype=TABLES[name].types, float_precision="round_trip"
    )
    pd.testing.assert_frame_equal(table, parquet, check_exact=True)
    assert parquet.dtypes.astype(str).to_dict() == TABLES[name].types
    if "ood_ratio" in parquet:
        assert set(parquet["ood_ratio"]) <= {"0", "0.10"}


@pytest.mark.parametrize("name", TABLES)
def test_text_is_quoted_in_csv_and_numbers_are_not(folder, name):
    """So that a reader which minds quotes tells the text "0.10" from the number 0.1."""
    lines = (folder / f"{name}.csv").read_text().splitlines()
    assert len(lines) > 1
    assert next(csv.reader(lines[:1])) == list(TABLES[name].columns)
    for (column, kind), value in zip(TABLES[name].types.items(), raw_values(lines[1]), strict=True):
        if value:
            assert value.startswith('"') == (kind == "str"), column


def raw_values(line: str) -> list[str]:
    """Fields of a CSV line with their quotes."""
    fields, quoted = [""], False
    for letter in line:
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            fields.append("")
        else:
            fields[-1] += letter
    return fields


def test_the_readme_describes_every_column_of_every_table_and_nothing_else(folder):
    described: dict[str, list[str]] = {}
    for line in (folder / "README.md").read_text().splitlines():
        if line.startswith("## "):
            name = line.removeprefix("## ")
        elif line.startswith("| `"):
            column, kind, meaning = line.strip("| ").split(" | ", 2)
            assert kind
            assert meaning
            described.setdefault(name, []).append(column.strip("`"))
    made = {path.stem: list(pd.read_parquet(path).columns) for path in folder.glob("*.parquet")}
    assert described == made
    assert set(made) == set(TABLES)


def test_a_run_without_convergence_describes_only_its_tables():
    groups = ("evaluation", "theory", "claims")
    assert [name for group in groups for name in names_of(group, converged=True)] == list(TABLES)
    text = readme(name for group in groups for name in names_of(group, converged=False))
    assert "## sampling" in text
    assert "## theory" not in text


@pytest.mark.parametrize("name", ["summary", "seed_means", "gains", "seed_gains"])
def test_totals_and_tasks_are_not_rows_of_one_table(folder, name):
    totals = pd.read_parquet(folder / f"{name}.parquet")
    assert "task" not in totals
    keys = [
        key
        for key in ("variant", "axis", "seed", "ood_ratio", "stage", "split", "metric")
        if key in totals
    ]
    assert not totals.duplicated(keys).any()
    if not name.endswith("gains"):
        tasks = pd.read_parquet(folder / f"task_{name}.parquet")
        assert set(tasks["task"]) == {"trav;4;A", "shift;4;A", "trav shift;4;A", "shift trav;4;A"}
        together = tasks.groupby(keys)["prompts"].sum().reset_index()
        assert together["prompts"].tolist() == totals.sort_values(keys)["prompts"].tolist()


@pytest.mark.parametrize(
    "name", [name for name, table in TABLES.items() if "stage" in table.columns]
)
def test_method_and_training_prompts_are_columns_of_every_table_with_stages(folder, name):
    table = pd.read_parquet(folder / f"{name}.parquet")
    expected = with_method(table[["stage"]])
    pd.testing.assert_frame_equal(table[["stage", "method", "trained_on"]], expected)
    before = table["stage"].isin(["pretrain", "sft"])
    assert (table["method"].isna() == before).all()
    assert set(table.loc[~before, "method"]) <= {"grpo", "raft"}


def test_the_signal_of_a_stage_of_an_older_version_is_asked_for_clearly(sources, tmp_path):
    place = sources.training[0][:-1]
    with pytest.raises(ArtefactError, match=rf"{tmp_path}: holds no signal.parquet.*delete it and"):
        make_table("signal", Sources(training=[(*place, tmp_path)]))
    with pytest.raises(ArtefactError, match=r"elsewhere/signal.parquet: missing"):
        make_table("signal", Sources(training=[(*place, tmp_path / "elsewhere")]))
    assert Sources().signal is None


def test_a_model_that_learnt_nothing_is_a_row_of_warnings(sources):
    table = make_table("warnings", sources)
    assert table[["axis", "seed", "ood_ratio"]].values.tolist() == [["any name", 1, "0.10"]]
    assert table["mass"].item() == pytest.approx(0.2, abs=0.01)
    assert "below claims.learnt (0.5)" in table["warning"].item()


def test_a_table_with_other_columns_than_described_is_refused(sources, monkeypatch):
    short = {name: column for name, column in TABLES["theory"].columns.items() if name != "law"}
    monkeypatch.setitem(
        TABLES,
        "theory",
        type(TABLES["theory"])("theory", "a row", short, TABLES["theory"].make, converged=True),
    )
    with pytest.raises(ValueError, match="table theory: columns made and described differ: law"):
        make_table("theory", sources)


def test_zero_mass_follows_from_the_budget(sources):
    """A mass below it leaves 7,680 completions without a success in 99 of 100 runs."""
    masses = replace(sources, training=(), budget=3840).zero_masses  # nothing was recorded
    assert 1 - (1 - masses["grpo"]) ** 3840 == pytest.approx(0.01, abs=1e-4)
    sampled = sources.zero_masses
    assert sampled["grpo"] == 0.01 / SAMPLED["completions"]
    assert f"mass < {sampled['grpo']:.2g}" in " ".join(make_table("claims", sources)["cells"])


def test_a_control_of_one_variant_is_that_of_all(sources):
    """Informed are stages that were shown gold tokens, and variants whose SFT saw OOD samples."""
    informed = sources.informed
    assert informed.values.tolist() == [["any name", "0.10", "grpo"]]
    assert Sources().informed.empty
    quiet = replace(sources, training=())
    table = make_table("transcend", {"base": quiet, "shown": replace(quiet, demonstrations=4)})
    assert set(table["variant"]) == {"base", "shown"}
    assert (table["informed"] == (table["variant"] == "shown")).all()
    assert set(table["assay"]) == {"not shown"}
    assert set(make_table("transcend", quiet)["assay"]) == {"no control"}


def test_the_summary_of_the_signal_is_over_seeds(tmp_path):
    places = []
    for seed, moved in ((0, True), (1, False)):
        folder = tmp_path / str(seed)
        frame(folder / "signal.parquet", [SAMPLED | {"moved": moved, "any_success": 0.5}])
        places.append(("any name", seed, "0", "grpo~ood", folder))
    row = make_table("signal_summary", Sources(training=places)).iloc[0]
    assert row[["seeds", "completions", "rewarded", "moved"]].tolist() == [2, 2 * 7680, 6, 1]
    assert row["expected_successes"] == 5.0
    assert row["gold_tokens"] == 2 * 5
    assert row["any_success"] == pytest.approx(0.75)
    assert row["contrast_share"] == pytest.approx(0.01)
