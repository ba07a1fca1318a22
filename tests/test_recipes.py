"""docs/recipes.md: every recipe runs on the tiny study, alone after the block that all need."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo_origin.config.paths import LEARNING_CURVE
from grpo_origin.evaluation.table import COLUMNS
from grpo_origin.rl import methods
from grpo_origin.rl.method import Method
from grpo_origin.study import read_study
from helpers import REPO, weights_hash

TEXT = (REPO / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PARTS = re.split(r"^## (?=\d+\. )", TEXT, flags=re.MULTILINE)
RECIPES = {part.splitlines()[0]: BLOCK.findall(part) for part in PARTS[1:]}
CELL = "results/tiny/mini/seed~0/ood~0.25"
# The tiny study in place of the default run's.
SETUP = {
    'files = ["config/config.yaml"]': 'files = ["config/config.yaml", "tiny.yaml"]',
    'Paths("reference")': "Paths(study.settings.run)",
    'axis, seed, ratio = "depth", 0, "0.003"': 'axis, seed, ratio = "mini", 0, "0.25"',
}


def test_there_are_ten_recipes_of_one_block_each():
    assert [title.split(".")[0] for title in RECIPES] == [str(i) for i in range(1, 11)]
    assert {len(blocks) for blocks in RECIPES.values()} == {1}


def test_the_first_block_is_of_the_default_run(monkeypatch):
    monkeypatch.chdir(REPO)
    names: dict = {}
    exec(BLOCK.findall(PARTS[0])[0], names)
    settings = names["study"].settings
    assert names["paths"].root == "results/laptop"
    assert names["ratio"] in settings.axis_ratios(names["axis"])
    assert names["seed"] in settings.seeds
    assert settings == read_study("config/config.yaml").settings


@pytest.fixture
def followed(sweep, tmp_path, monkeypatch, capsys):
    """Run a recipe in a folder that sees the tiny run's files; its names and what it printed."""
    for name in ("config", "tiny.yaml", "results"):
        (tmp_path / name).symlink_to(sweep / name)
    monkeypatch.chdir(tmp_path)
    (setup,) = BLOCK.findall(PARTS[0])
    for old, new in SETUP.items():
        assert setup.count(old) == 1, old
        setup = setup.replace(old, new)

    def follow(number: int) -> tuple[dict, str]:
        (code,) = next(code for title, code in RECIPES.items() if title.startswith(f"{number}. "))
        names: dict = {"__name__": "recipe"}
        exec(compile(setup + code, f"recipe {number}", "exec"), names)
        return names, capsys.readouterr().out

    before = {path: path.stat().st_mtime_ns for path in (sweep / "results").rglob("*")}
    yield follow
    assert {path: path.stat().st_mtime_ns for path in (sweep / "results").rglob("*")} == before


def test_a_completion_is_decoded(followed):
    names, said = followed(1)
    assert re.match(r"(<think>|<answer>) ?[A-H]", names["text"])
    assert said.strip() == names["text"]


def test_the_mass_is_exact(followed):
    names, said = followed(2)
    assert names["rows"].to_pylist()[0]["completion_ids"][-1] == 3  # <eos>
    assert 0 <= names["mass"][0] <= 1
    assert re.search(r"^Q [\d.e-]+, of it markers [\d.e-]+$", said, re.MULTILINE)


def test_tokens_have_probabilities_that_multiply_to_the_mass(followed):
    names, said = followed(3)
    found = names["found"]
    assert sum(found.gold.log_probs) == pytest.approx(found.log_mass)
    assert [line.split()[0] for line in said.splitlines()] == [*found.by_kind]


def test_a_stage_stops_at_the_breakpoint_of_every_step(followed, sweep, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: seen.append(sys._getframe(1).f_locals))
    names, _ = followed(4)
    steps = names["study"].settings.rl.steps
    assert len(seen) == steps
    assert set(seen[0]) == {"self", "rollout", "made"}
    assert Method.advantages is names["original"]
    assert weights_hash(Path("elsewhere/debugged")) == weights_hash(sweep / CELL / "grpo~ood")


def test_a_figure_has_a_point_for_every_seed_and_stage(followed):
    names, _ = followed(5)
    assert len(names["rows"]) == 2 * 4  # ratios, stages; one seed
    points = sum(len(dots.get_offsets()) for dots in names["plot"].collections)
    assert points == len(names["rows"])
    assert Path("mine.png").stat().st_size > 5000


def test_a_method_of_three_lines_trains(followed, sweep, monkeypatch):
    monkeypatch.setattr(methods, "__path__", [*methods.__path__])
    followed(6)
    trained = weights_hash(Path("elsewhere/unscaled"))
    assert trained not in {weights_hash(sweep / CELL / stage) for stage in ("sft", "grpo~ood")}


def test_a_learning_curve_is_read(followed, sweep):
    names, said = followed(7)
    curve = pd.read_parquet(sweep / CELL / "grpo~ood" / LEARNING_CURVE).query("split == 'ood'")
    assert names["last"] == curve.loc[curve["step"].idxmax(), "mass"]
    assert f"half way after {names['reached']['completions'].iloc[0]} completions" in said


def test_a_claim_is_judged_by_the_rules_of_the_ledger(followed):
    names, _ = followed(8)
    assert names["judged"][["axis", "seeds", "verdict"]].values.tolist() == [
        ["mini", 1, "inconclusive"]
    ]
    rows = names["evaluations"]
    assert set(COLUMNS) == set(rows.columns)
    mass = np.exp(rows["log_mass"])
    own = rows["split"].eq("id")
    after = mass[own & rows["stage"].eq("grpo~ood")].mean()
    before = mass[own & rows["stage"].eq("sft")].mean()
    assert names["judged"]["effect"].item() == pytest.approx(after - before, abs=1e-6)


def test_a_run_does_not_differ_from_itself(followed):
    names, _ = followed(9)
    assert len(names["both"]) == 2 * 4
    assert (names["both"]["difference"] == 0).all()


def test_a_stage_goes_on_from_a_model_folder(followed, sweep):
    followed(10)
    more = Path("elsewhere/more")
    assert (more / LEARNING_CURVE).exists()
    assert weights_hash(more) != weights_hash(sweep / CELL / "grpo~ood")
