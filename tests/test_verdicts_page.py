"""What a page says first, of planted ledgers: sentences, grid and cards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.ledger import CLAIMS
from grpo_origin.report.verdicts import cards, number, places, query, signed, summary
from grpo_origin.report.words import GLOSSARY, RULES, WORDINGS
from planted_tables import planted_settings
from planting import confidences, heads, judged, plant, shifted, theory

SETTINGS = planted_settings()
EMPTY = {"effect": np.nan, "low": np.nan, "high": np.nan, "seeds": 0}


def row(claim="exposure", kind="present", **more):
    given = {"method": "grpo", "claim": claim, "axis": "many", "statement": f"{claim} {kind}."}
    given |= {"kind": kind, "edge": 0.01, "effect": 0.25, "low": 0.1, "high": 0.4, "seeds": 7}
    given |= {"cells": "OOD ratios above 0; OOD prompts; grpo~ood; seeds 0, 1, 2", "note": ""}
    given |= {"p_adjusted": 0.01, "verdict": "supported", "seeds_needed": np.nan}
    return given | {"look": "1 of 1, alpha 0.05"} | more


def table(*rows):
    return pd.DataFrame(rows)


def settings(seeds=7):
    return planted_settings(seeds=list(range(seeds)))


def test_five_sentences_say_what_the_rows_say():
    claims = table(
        row(),
        row(axis="single", verdict="inconclusive", effect=0.02, seeds_needed=31.0),
        row("no exposure", "few", effect=0.0),
        row("no exposure", "absent", effect=-0.0001),
        row("no exposure", "absent", axis="single", effect=0.7, verdict="contradicted"),
        row("beyond pretraining", "present", axis="single", **EMPTY, verdict="inconclusive"),
    )
    question, exposed, without, beyond, caveat = summary(claims, settings())
    assert question.startswith("Can GRPO take a language model beyond what it was pretrained on?")
    assert "35 small models pretrained along 2 axes (many, single), 7 seeds each" in question
    assert exposed.endswith(
        "it gained OOD mass on many (+0.250); "
        "it is undecided whether it gained OOD mass on single (+0.020)."
    )
    assert "it gained nothing on many (0.000); it did gain OOD mass on single (+0.700)." in without
    assert without.endswith("On 1 axis its samples could hold no right answer to begin with.")
    assert beyond.endswith("undecided whether it ended higher on single (nothing to test).")
    assert "Of 6 verdicts 3 supported, 1 contradicted, 2 undecided; up to about 31 seeds" in caveat


def test_sentences_of_a_run_that_decides_nothing_or_lacks_cells():
    claims = table(row(verdict="inconclusive", seeds=2))
    sentences = summary(claims, settings(2))
    assert len(sentences) == 5
    assert "with fewer than 6 seeds nothing can be decided" in sentences[-1]
    assert sentences[2] == "Without any: this run has no cells to tell."


def test_a_card_holds_the_rows_of_a_statement_and_says_what_was_found():
    claims = table(
        row(),
        row(axis="single", verdict="inconclusive", seeds_needed=12.0, p_adjusted=np.nan),
        row("sharpening", "absent", edge=0.02),
    )
    references = claims.assign(reference_verdict=["contradicted", None, None], reference_seeds=10.0)
    figures = {"axis-many": ("axis", "Many"), "pass_at_k": ("pass_at_k", "Tries")}
    exposure, sharpening = cards(claims, SETTINGS, references, figures)
    assert exposure.tally == {"supported": 1, "inconclusive": 1}
    assert exposure.found == (
        "Supported on many (+0.250 [+0.100, +0.400]); undecided on single "
        "(+0.250 [+0.100, +0.400]); about 12 seeds would decide."
    )
    assert {axis: [r.verdict for r in rows] for axis, rows in exposure.marks.items()} == {
        "many": ["supported"],
        "single": ["inconclusive"],
    }
    first, second = exposure.rows
    assert (first.reference, first.p_value) == ("contradicted (10 seeds)", "0.01")
    assert (second.reference, second.p_value, second.needed) == ("", "", "about 12 seeds")
    assert "above 0.01 (one-sided t test)" in exposure.rule
    assert exposure.figures == (("axis-many", "Many"),)
    assert sharpening.figures == (("pass_at_k", "Tries"),)
    assert "below 0.02" in sharpening.rule
    assert exposure.wording.paper != sharpening.wording.paper != ""


def test_bars_share_a_scale_that_holds_zero_and_the_edge():
    rows = row(effect=0.5, low=0.25, high=0.75), row(axis="single", effect=-0.25, low=np.nan)
    (card,) = cards(table(*rows), SETTINGS)
    first, second = (row.bar for row in card.rows)
    assert (first.low, first.mean, first.high) == (50.0, 75.0, 100.0)
    assert (second.low, second.mean) == (0.0, 0.0)
    assert first.zero == second.zero == 25.0
    assert 25 < first.edge < 27
    (empty,) = cards(table(row(**EMPTY)), SETTINGS)
    assert empty.rows[0].bar is None


def test_a_claim_without_words_is_shown_by_its_statement():
    (card,) = cards(table(row("new", statement="It {is} new.")), SETTINGS)
    assert (card.wording.title, card.wording.plain) == ("new", "It {is} new.")


def test_rows_that_share_an_axis_are_told_apart():
    cells = [
        f"{ratios}; {split} prompts; grpo~{split.lower()} - other; seeds 0"
        for ratios, split in (("OOD ratios above 0", "OOD"), ("every OOD ratio", "ID"))
    ]
    rows = [SimpleNamespace(axis="many", cells=text) for text in cells]
    assert places(rows) == ["many, OOD prompts", "many, ID prompts"]
    assert places([SimpleNamespace(axis="all", cells="c; seeds 0")]) == ["all axes together"]


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ("OOD ratio 0; OOD prompts; s", "axis=many&ratio=0&split=ood&method=grpo"),
        ("OOD ratio 0.1; ID minus mixed-1, mixed-3; s", "axis=many&ratio=0.1&split=mixed-1"),
        ("OOD ratios above 0; OOD prompts; s", "axis=many&ratio=0.02&split=ood"),
        ("every OOD ratio; ID prompts; s", "axis=many&ratio=0.02&split=id"),
    ],
)
def test_rows_lead_to_their_cells(cells, wanted):
    for axis in ("many", "all"):
        given = SimpleNamespace(axis=axis, cells=cells, method="grpo")
        assert query(given, SETTINGS).startswith(wanted)


def test_numbers_have_a_sign_unless_they_round_to_nothing():
    assert [signed(x) for x in (0.25, -0.0001, 0.0004, -0.5)] == [
        *("+0.250", "0.000", "0.000", "-0.500")
    ]
    share = SimpleNamespace(kind="few", effect=0.25, low=0.01, high=0.75)
    assert number(share) == "25% of seeds [1%, 75%]"


def test_every_claim_of_the_ledger_has_words_and_every_kind_a_rule():
    traces = pd.DataFrame(
        {"axis": "any name", "seed": seed, "ood_ratio": "0.1", "stage": stage}
        | {"split": "ood", "measure": "causal_use", "mean": 0.5}
        for seed in range(8)
        for stage in ("sft", "grpo~ood")
    )
    full = {"splits": ("id", "ood", "mixed-1")}
    ledger = judged(
        plant(shifted(0.3, {("grpo~ood",): 0.1}), **full),
        theory=theory(0.0),
        beta=0.001,
        heads=heads({"grpo_rm": 0.9}),
        faithfulness=traces,
        calibration=confidences({"grpo~ood": 0.2}),
    )
    found = set(ledger[["claim", "kind"]].itertuples(index=False, name=None))
    assert len({claim for claim, _ in found}) == len(CLAIMS)
    assert found - {("composition", "absent")} <= set(WORDINGS)
    assert set(ledger["kind"]) <= set(RULES)
    assert len(cards(ledger, SETTINGS)) == len(ledger["statement"].unique())
    assert len(GLOSSARY) == 10
