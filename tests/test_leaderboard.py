"""The leaderboard: methods and variants side by side, on planted masses, and its page."""

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.leaderboard import COLUMNS, leaderboard
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.tables import TABLES
from grpo_origin.report.leaderboard import leaderboard_page
from planting import SEEDS, SETTINGS, plant, spread

STAGES = ("pretrain", "sft", "grpo~ood", "dapo~ood", "luffy~ood")
AFTER = {"grpo~ood": 0.4, "dapo~ood": 0.404, "luffy~ood": 0.9}
DRAWN = {"grpo~ood": 100, "dapo~ood": 200, "luffy~ood": 100}


class Planted(Sources):
    """Sources of tables that are at hand."""

    def __init__(self, shift=0.0, stages=STAGES, **more):
        super().__init__(claims=SETTINGS, betas=dict.fromkeys(("grpo", "dapo", "luffy"), 0), **more)
        cell = {"axis": "any name", "ood_ratio": "0.1"}

        def mass(seed, ratio, stage, split, task, prompts):
            if split == "id":
                return 0.95 - 0.2 * (stage == "luffy~ood")
            change = spread(shift, SEEDS)[seed] if stage in AFTER else 0.0
            return AFTER.get(stage, 0.1) + change

        rows = [
            cell | {"seed": seed, "stage": stage, "completions": DRAWN[stage]}
            for seed in range(SEEDS)
            for stage in stages[2:]
        ]
        signal = with_method(pd.DataFrame(rows))
        shown = np.where(signal["method"] == "luffy", 640, 0)
        # Curves that rise evenly from 0.1: half of dapo's completions bring half of its rise.
        curves = signal.merge(pd.DataFrame({"step": [0, 60], "split": "ood"}), how="cross")
        ends = curves["stage"].map(AFTER) + curves["seed"].map(spread(0, SEEDS))
        curves["mass"] = np.where(curves["step"] > 0, ends, 0.1)
        curves["completions"] *= curves["step"] > 0
        self.__dict__ |= {
            "evaluations": plant(mass, ratios=("0.1",), stages=stages),
            "signal": signal.assign(gold_tokens=shown),
            "curves": curves,
        }


@pytest.fixture(scope="module")
def board():
    """The run, and a variant in which SFT saw OOD samples."""
    shown = Planted(0.3, (*STAGES[:2], "grpo~ood"), demonstrations=64)
    table = leaderboard({"base": Planted(), "demos": shown}).set_index("entry")
    assert len(table) == 4
    return table.loc[["grpo", "dapo", "luffy", "demos: grpo"]]


def test_every_method_and_variant_is_an_entry_with_what_it_cost(board):
    assert {"entry", *board.columns} == {"variant", *COLUMNS} == {*TABLES["leaderboard"].columns}
    assert board["after"].to_numpy() == pytest.approx([0.4, 0.404, 0.9, 0.7])
    assert board["before"].to_numpy() == pytest.approx(0.1)
    assert board["id_change"].to_numpy() == pytest.approx([0, 0, -0.2, 0])
    assert board["gold_tokens"].tolist() == [0, 0, 640, 0]
    assert board["demonstrations"].tolist() == [0, 0, 0, 64]
    assert board["completions"].tolist() == [100, 200, 100, 100]
    assert (board["seeds"] == SEEDS).all()


def test_each_is_held_against_the_main_method_of_the_run(board):
    assert pd.isna(board.loc["grpo", "verdict"])
    assert board.loc["dapo", "verdict"] == "equivalent"
    assert board.loc[["luffy", "demos: grpo"], "verdict"].tolist() == ["differs", "differs"]
    assert board.loc["demos: grpo", "difference"] == pytest.approx(0.3)
    assert board.loc["luffy", "equal_difference"] == board.loc["luffy", "difference"]


def test_at_equal_completions_what_samples_twice_as_many_is_read_half_way(board):
    half = 0.1 + (0.404 - 0.1) / 2 - 0.4
    assert board.loc["dapo", "equal_difference"] == pytest.approx(half, abs=1e-3)
    assert board.loc["dapo", "equal_verdict"] == "differs"


def test_the_page_ranks_them_and_names_the_controls(board):
    page = leaderboard_page(board.reset_index(), "planted", "GRPO", 0.02)
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    names = [line.split("`")[1] for line in lines]
    assert names == ["luffy", "demos: grpo", "dapo", "grpo"]
    assert "640 tokens" in lines[0]
    assert "64 samples" in lines[1]
    assert "| + +0.500 [" in lines[0]
    assert lines[2].endswith("|")
    assert "| - -0.148 [" in lines[2]
    assert lines[3].endswith("| none | - |")
    assert "## any name, OOD ratio 0.1" in page


def test_a_run_without_records_of_what_was_sampled_has_masses_all_the_same():
    bare = Planted()
    bare.__dict__ |= {"signal": None, "curves": None}
    table = leaderboard({"base": bare})
    assert table["completions"].isna().all()
    assert table["equal_difference"].equals(table["difference"])
