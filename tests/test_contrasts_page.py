"""The page of a run's variants: sentences and tables say what planted differences hold."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from grpo_origin.analysis.contrasts import OVER_START, contrasts
from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.tables import TABLES
from grpo_origin.cli import main
from grpo_origin.config.paths import Paths
from grpo_origin.config.schema import ClaimsSettings
from grpo_origin.report.contrasts import contrasts_text
from planting import spread

CLAIMS = ClaimsSettings()
VARIANTS = {
    "reward_steps": {"rl": {"reward": "steps"}, "ratios": ["0"]},
    "no_sft": {"sft": None},
    "long": {"rl": {"steps": 600, "reset_reference_every": 60}},
}
SETTINGS = {"run": "planted", "variants": VARIANTS, "claims": CLAIMS.model_dump()}


def judged(variant, effect, width=0.002, seeds=6, **where) -> pd.DataFrame:
    """Rows of table `contrasts` of one cell, stage and quantity, planted a seed at a time."""
    cell = {"axis": "depth", "ood_ratio": "0", "stage": "grpo~ood", "quantity": "OOD mass"} | where
    changes = spread(effect, seeds, width)
    rows = [
        cell | {"seed": seed, "reference": 0.4, "value": 0.4 + by, "difference": by}
        for seed, by in changes.items()
    ]
    return contrasts(with_method(pd.DataFrame(rows)), CLAIMS).assign(variant=variant)


def page(*parts: pd.DataFrame) -> str:
    return contrasts_text(pd.concat(parts, ignore_index=True), SETTINGS)


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_a_sentence_says_where_a_variant_is_higher_lower_equivalent_or_undecided():
    text = page(
        judged("reward_steps", 0.3),
        judged("reward_steps", -0.2, ood_ratio="0.1"),
        judged("reward_steps", 0.001, axis="token"),
        judged("reward_steps", 0.1, 0.5, axis="token", ood_ratio="0.1"),
        judged("no_sft", 0.0, 0.0),
        judged("no_sft", 0.0, 0.0, axis="token"),
    )
    said = line_of(text, "- `reward_steps`")
    assert "(`rl.reward: steps`): OOD mass after GRPO on OOD prompts is higher" in said
    clauses = said.split("; ")
    assert "higher on depth at 0 (+0.300 [" in clauses[0]
    assert "lower on depth at 0.1 (-0.200 [" in clauses[1]
    assert "equivalent on token at 0 (+0.001 [" in clauses[2]
    assert "undecided on token at 0.1 (+0.100 [-" in clauses[3]
    assert clauses[4].endswith("seeds would decide)")
    assert clauses[-1] == "6 seeds."
    both = line_of(text, "- `no_sft`")
    assert "(`sft: null`)" in both
    assert "equivalent on depth at 0 (0.000 [0.000, 0.000]) and token at 0 (" in both


def test_before_six_seeds_a_sentence_says_that_nothing_is_decided():
    said = line_of(page(judged("long", 0.3, seeds=4)), "- `long`")
    assert "(`rl.steps: 600`, `rl.reset_reference_every: 60`)" in said
    assert "undecided on depth at 0 (+0.300" in said
    assert said.endswith("with 4 seeds, fewer than 6, nothing is decided.")


def test_tables_have_masses_signs_and_the_seeds_that_would_decide():
    open_one = judged("long", 0.1, 0.5)
    needed = open_one["seeds_needed"].iloc[0]
    assert needed > 6
    text = page(
        open_one,
        judged("long", -0.2, quantity="ID mass"),
        judged("long", 0.001, quantity=OVER_START),
        judged("no_sft", 0.3, ood_ratio="0.1"),
    )
    lines = text.partition("### depth, after GRPO on OOD prompts\n\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    long, no_sft = rows[2:4]
    assert long[:4] == ["`long`", "0", "0.400", "0.500"]
    assert long[4].startswith("? +0.100 [-")
    assert long[4].endswith(f"] ({needed:.0f})")
    assert long[5].startswith("= +0.001 [")
    assert long[6] == "-"
    assert long[7].startswith("- -0.200 [")
    assert no_sft[4].startswith("+ +0.300 [")
    assert {len(row) for row in rows[:4]} == {9}


def test_models_that_differ_before_rl_and_other_quantities_have_tables_of_their_own():
    plain = page(judged("long", 0.3), judged("long", 0.0, 0.0, stage="sft"))
    assert "Before RL" not in plain
    assert "equal numbers" not in plain
    text = page(
        judged("long", 0.3),
        judged("long", 0.4, stage="pretrain"),
        judged("long", 0.5, stage="sft"),
        judged("long", 0.2, quantity="OOD mass at equal completions"),
    )
    assert "| `long` | depth | 0 | SFT | OOD mass | 0.400 | 0.900 | + +0.500 [" in text
    assert "| pretrained |" not in text  # what RL started from is enough
    assert "| GRPO on OOD prompts | OOD mass at equal completions | 0.400 | 0.600 | + +" in text


def test_the_command_prints_it_of_a_run_and_refuses_one_without_variants(tmp_path, capsys):
    run = Paths("planted", str(tmp_path))
    table = judged("long", 0.3)
    for name, rows in (("contrasts", table), ("claims", pd.DataFrame())):
        file = tmp_path / "planted" / "tables" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        assert str(file) == run.table(name, "parquet")
        rows.reindex(columns=[*TABLES[name].columns]).to_parquet(file)
    (tmp_path / "planted" / "settings.json").write_text(json.dumps(SETTINGS))
    main(["contrasts", run.root])
    assert capsys.readouterr().out == contrasts_text(table, SETTINGS) + "\n"
    table[:0].reindex(columns=[*TABLES["contrasts"].columns]).to_parquet(
        run.table("contrasts", "parquet")
    )
    with pytest.raises(SystemExit, match="this run has no variants"):
        main(["contrasts", run.root])
