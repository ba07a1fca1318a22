"""The price of leaving zero: gold tokens against OOD mass, on planted masses, and its figure."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from grpo_origin.analysis.price import price, seed_price
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.table_files import make_table
from grpo_origin.analysis.tables import TABLES
from grpo_origin.report import plotting
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.rl import method, methods
from grpo_origin.study import open_study
from planted_tables import CONFIG, planted_settings
from planting import plant, spread

SEEDS, RATIOS, AXIS = 3, ("0", "0.1"), "any name"
STAGES = ("pretrain", "sft", "grpo~id", "grpo~ood", "luffy~ood")
MASS = {"grpo~ood": 0.05, "luffy~ood": 0.9}  # on OOD prompts at ratio 0
T_TWO_SIDED = 4.303  # 97.5 % quantile of Student's t with two degrees of freedom


def planted(stages=STAGES, shift=0.0, **more) -> Sources:
    """Pretraining shows 1,000 tokens at ratio 0.1, SFT `more`, luffy 640 and 40 for each seed."""

    def mass(seed, ratio, stage, split, task, prompts):
        level = MASS.get(stage, 0.01) + shift if ratio == "0" else 0.6
        return level + spread(0.0, SEEDS, 0.01)[seed] if split == "ood" else 0.9

    shown = more.pop("sft_tokens", 0.0)
    tokens = {r: {"pretrain": 1000.0 * (r != "0"), "sft": shown} for r in RATIOS}
    sources = Sources(gold_tokens={AXIS: tokens}, **more)
    rows = [
        {"axis": AXIS, "ood_ratio": ratio, "seed": seed, "stage": stage}
        | {"gold_tokens": (640 + 40 * seed) * (stage == "luffy~ood")}
        for ratio in RATIOS
        for seed in range(SEEDS)
        for stage in stages[2:]
    ]
    evaluations = plant(mass, seeds=SEEDS, ratios=RATIOS, stages=stages)
    sources.__dict__.update(evaluations=evaluations, signal=with_method(pd.DataFrame(rows)))
    return sources


@pytest.fixture(scope="module")
def run():
    """The run and a variant whose SFT sees OOD samples."""
    demos = planted((*STAGES[:2], "grpo~ood"), 0.5, sft_tokens=320.0, demonstrations=16)
    return {"base": planted(), "demos": demos}


def test_tokens_of_all_stages_up_to_a_mass_are_added(run):
    table = price(run).set_index(["entry", "ood_ratio"])
    assert {"entry", "ood_ratio", *table.columns} == {*TABLES["price"].columns}
    tokens = table["gold_tokens"]
    assert tokens["pretrain"].tolist() == tokens["sft"].tolist() == [0, 1000]
    assert tokens["grpo"].tolist() == [0, 1000]
    assert tokens["luffy"].tolist() == [680, 1680]
    assert tokens["demos: sft"].tolist() == tokens["demos: grpo"].tolist() == [320, 1320]
    assert table.loc["luffy", "rl_tokens"].tolist() == [680, 680]
    # ID prompts as RL trains on them, and models of a variant that the run has too, are no ways.
    assert not (table["trained_on"] == "id").any()
    assert "demos: pretrain" not in table.index


def test_masses_have_their_intervals_over_seeds_and_every_seed(run):
    table = price(run).set_index(["entry", "ood_ratio"])
    row = table.loc[("luffy", "0")]
    seeds = seed_price(run)
    own = seeds[(seeds["entry"] == "luffy") & (seeds["ood_ratio"] == "0")]
    assert own["mass"].tolist() == pytest.approx([0.89, 0.9, 0.91])
    assert own["gold_tokens"].tolist() == [640, 680, 720]
    assert row["mass"] == pytest.approx(0.9)
    half = T_TWO_SIDED * own["mass"].std() / np.sqrt(SEEDS)
    assert row["high"] - row["mass"] == pytest.approx(half, rel=1e-3)
    assert row["seeds"] == SEEDS


def test_what_was_shown_is_missing_where_nothing_says_so(run):
    bare = planted()
    bare.__dict__.update(signal=None, gold_tokens={})
    table = make_table("price", bare).set_index("entry")
    assert table["gold_tokens"].isna().all()
    assert table.loc["pretrain", "rl_tokens"].tolist() == [0, 0]


def test_a_study_knows_what_its_stages_before_rl_are_shown():
    """Completions of two steps and four elements have 2 x (1 + 4) + 1 tokens."""
    change = {"sft": {"samples": 64, "epochs": 3, "ood_share": "0.25"}}
    study = open_study(CONFIG | {"pretrain": {"samples": 500}, "variants": {"shown": change}})
    assert study.gold_tokens["many"]["0.02"] == {"pretrain": 10 * 11, "sft": 0}
    assert study.variants[0].gold_tokens["single"]["0"] == {"pretrain": 0, "sft": 3 * 16 * 11}


def drawn(run):
    tables = {name: make_table(name, run) for name in ("price", "seed_price")}
    with plotting.style():
        return ENTRIES["price"].figure(tables)


def test_the_figure_has_ways_from_nothing_alone_beside_pretraining(run):
    (axes,) = drawn(run).axes
    series = {bars.get_label(): bars.lines[0].get_xydata() for bars in axes.containers}
    assert series["pretraining"] == pytest.approx(np.array([[0, 0.01], [1000, 0.6]]))
    assert series["pretraining, SFT and GRPO"] == pytest.approx(np.array([[0, 0.05], [1000, 0.6]]))
    assert series["luffy"] == pytest.approx(np.array([[680, 0.9]]))
    assert series["demos: grpo"] == pytest.approx(np.array([[320, 0.55]]))
    assert len(series) == 4
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    places = np.concatenate([part.get_offsets().data[:, 0] for part in dots])
    assert sorted(places) == [*[0] * 6, *[320] * 3, 640, 680, 720, *[1000] * 6]


def test_it_is_drawn_for_runs_that_show_gold_tokens_alone():
    assert "price" not in figures_of(planted_settings())
    shown = {"deep": {"sft": {"ood_share": "0.1"}}}
    assert "price" in figures_of(planted_settings(variants=shown))
    controls = {"deep": {"methods": [{"luffy": {"gamma": 0.2}}]}}
    assert "price" in figures_of(planted_settings(variants=controls))
    assert "price" in figures_of(planted_settings(methods=["grpo", "hints"]))
    assert "price" not in figures_of(planted_settings(variants={"deep": {"sft": None}}))


def test_methods_that_are_shown_gold_tokens_are_known_as_such():
    files = Path(methods.__file__).parent.glob("*.py")
    shows = re.compile(r"trainer\.show\(|\bgiven\(")
    informed = {name for name in method.names() if method.find(name).informed}
    assert {file.stem for file in files if shows.search(file.read_text())} == informed
