"""What models write, as a table and in the report: which prompts, which tokens, how they look."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import make_table
from grpo_origin.analysis.tables import TABLES
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.evaluation.mass import evaluate
from grpo_origin.evaluation.written import chosen_prompts, write_completions
from grpo_origin.jobs.files import read_table
from grpo_origin.report.completions import SHADES, TITLE, legend, shown_cells
from grpo_origin.report.figures import figures_of
from grpo_origin.tasks.tokenizer import EOS, SPECIAL
from helpers import strings, tiny_study
from planted_page import written
from planted_tables import planted_settings
from planting import evaluations

HOW = {"numerics": NumericsSettings(device="cpu"), "runtime": RuntimeSettings()}
STAGES = ("pretrain", "sft", "grpo~ood")


def test_prompts_are_chosen_by_gain_and_by_task():
    before, after = [0.5, 0.1, 0.2, 0.2, 0.0], [0.4, 0.9, 0.3, 0.2, 0.1]
    rows = [
        evaluations(before, stage="sft"),
        evaluations(after, stage="grpo~ood"),
        evaluations([0.9, 0.9], stage="sft", split="id", task="shift;4;A"),
        evaluations([0.9, 0.9], stage="grpo~ood", split="id", task="shift;4;A"),
        evaluations([1.0] * 5, stage="grpo~id"),  # says nothing
    ]
    chosen = chosen_prompts(pd.concat(rows), "sft", "grpo~ood")
    assert chosen == {
        ("ood", 1): "best gain",
        ("ood", 2): "median gain",
        ("ood", 0): "worst gain, first of its task",
        ("id", 0): "first of its task",
    }


@pytest.mark.parametrize(
    ("ratios", "shown"),
    [
        (["0", "0.01", "0.25"], ["0", "0.01"]),
        (["0.25", "0"], ["0", "0.25"]),
        (["0.25"], ["0.25"]),
    ],
)
def test_two_cells_an_axis_and_the_main_method_are_shown(ratios, shown):
    grid = tiny_study(ratios=ratios, seeds=[3, 1], methods=["dapo", "grpo"]).grid
    assert [cell["ratio"] for cell in grid.shown_cells] == shown
    assert {cell["seed"] for cell in grid.shown_cells} == {3}
    assert grid.jobs["completions"] == grid.shown_cells
    assert grid.shown_stages == ["pretrain", "sft", "grpo~id", "grpo~ood"]


@pytest.fixture(scope="module")
def file(cell, tmp_path_factory):
    """What the tiny study's models write, as its job leaves it."""
    root = tmp_path_factory.mktemp("written")
    stages = {name: cell / name for name in STAGES}
    test, exact = cell / "data" / "test.parquet", root / "evaluation.parquet"
    where = {"axis": "mini", "ratio": "0.25"}
    evaluate(
        stages,
        test,
        exact,
        seed=0,
        tokens=strings().tokens,
        evaluation=EvaluationSettings(),
        **where,
        **HOW,
    )
    output = root / "completions.parquet"
    write_completions(stages, test, exact, output, domain=strings(), **where, **HOW)
    return output


@pytest.fixture(scope="module")
def table(file):
    return make_table("completions", Sources(completion_files=[file]))


def test_the_right_completions_have_the_exact_masses(file, table):
    exact = read_table(file.with_name("evaluation.parquet")).to_pandas()
    key = ["stage", "split", "prompt_index"]
    gold = table[table["kind"] == "gold"]
    parts = gold.assign(nats=np.log(gold["probability"])).groupby([*key, "part"])["nats"].sum()
    found = parts.unstack("part").join(exact.set_index(key))
    for part in ("marker", "content"):
        column = f"log_mass_{part}s".replace("contents", "content")
        np.testing.assert_allclose(found[part], found[column], rtol=1e-4, atol=1e-5)
    one = gold.drop_duplicates(key).set_index(key)
    np.testing.assert_allclose(one["log_mass"], exact.set_index(key)["log_mass"].loc[one.index])
    assert gold["right"].all()
    assert gold["first_wrong"].isna().all()


def test_every_stage_writes_greedily_and_three_times_on_every_chosen_prompt(file, table):
    prompts = table.drop_duplicates(["split", "prompt_index"])
    assert {"id", "ood", "mixed-1", "mixed-2"} == set(prompts["split"])
    assert any("best gain" in why for why in prompts["chosen"])
    kinds = table.groupby(["stage", "split", "prompt_index"])["kind"].unique()
    assert len(kinds) == len(STAGES) * len(prompts)
    assert {tuple(found) for found in kinds} == {
        ("gold", "greedy", "sample-1", "sample-2", "sample-3")
    }


def test_mistakes_are_where_the_tokens_differ(cell, table):
    whole = ["stage", "split", "prompt_index", "kind"]
    names = {i: name for i, name in enumerate(SPECIAL)}
    for (_, split, number, kind), rows in table.groupby(whole):
        gold = read_prompts(cell / "data" / "test.parquet", split)["completion_ids"].to_pylist()
        right = rows.set_index("position")["right"]
        first = rows["first_wrong"].iloc[0]
        assert rows["position"].tolist() == list(range(1, len(rows) + 1))
        assert pd.isna(first) == pd.isna(rows["failure"].iloc[0])
        if pd.isna(first):
            assert right.all()
            assert len(rows) == len(gold[number])
            assert rows["token"].iloc[-1] == names[EOS]
        else:
            assert kind != "gold"
            assert right.loc[: first - 1].all()
            assert first > len(rows) or not right.loc[first]


def test_the_page_shows_stages_side_by_side_and_marks_what_is_wrong(table):
    (cell,) = shown_cells(table)
    assert cell.title == "mini, OOD ratio 0.25, seed 0"
    assert len(cell.prompts) == len(table.drop_duplicates(["split", "prompt_index"]))
    for prompt in cell.prompts:
        assert prompt.stages == [*STAGES]
        assert len(prompt.masses) == 3
        assert [label for label, _ in prompt.rows][:3] == ["right one", "greedy", "sample 1"]
        for label, strips in prompt.rows:
            assert len(strips) == 3
            for strip in strips:
                marked = [token for token in strip.tokens if token.first]
                assert all(token.wrong for token in marked)
                if label == "right one":
                    assert strip.verdict.startswith("least likely: ")
                elif strip.verdict == "right":
                    assert not any(token.wrong for token in strip.tokens)
                else:
                    wrong = r"wrong at token \d+: (marker|content|length)( ends too early)?"
                    assert re.fullmatch(wrong, strip.verdict)
                    assert len(marked) == 1 or strip.verdict.endswith("ends too early")


def test_shades_are_by_probability(table):
    tokens = table[table["kind"] == "gold"].copy()
    chances = [0.95, 0.9, 0.6, 0.2, 0.05, 0.001]
    tokens = tokens.iloc[: len(chances)].assign(probability=chances, position=range(1, 7))
    tokens = tokens.assign(stage="sft", split="ood", prompt_index=0)
    ((_, (strip,)),) = shown_cells(tokens)[0].prompts[0].rows
    assert [token.shade for token in strip.tokens] == [0, 0, 1, 2, 3, 4]
    assert [shade for shade, _ in legend()] == list(range(len(SHADES) + 1))
    assert legend()[1] == (1, "0.5 to 0.9")


def test_a_run_without_completions_has_an_empty_table():
    empty = make_table("completions", Sources())
    assert empty.empty
    assert list(empty.columns) == list(TABLES["completions"].columns)
    assert shown_cells(empty) == []


def test_the_report_has_a_section_of_them(tmp_path, table):
    settings = planted_settings()
    figures = {}
    for name in figures_of(settings):
        figures[name] = tmp_path / f"{name}.png"
        Image.new("RGB", (2, 2)).save(figures[name])
    without, text = (
        written(tmp_path, settings, figures, **more) for more in ({}, {"completions": table})
    )
    heading = f"<h2>{TITLE}</h2>"
    assert heading not in without
    assert text.count(heading) == 1
    assert text.count("<details") == without.count("<details") + len(
        table.drop_duplicates(["split", "prompt_index"])
    )
    drawn = re.findall(r'<i class="p\d[^"]*" title="[^"]+">([^<]+)</i>', text)
    assert len(drawn) == len(table)
    assert {"&lt;think&gt;", "&lt;answer&gt;"} <= set(drawn)
    wrong = re.findall(r'<i class="p\d wrong', text)
    assert len(wrong) == (~table["right"]).sum()
