"""How verdicts are reached: tests, families, looks, and their errors in simulated families."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grpo_origin.analysis.claims import Claim, Finding, decide, judge
from grpo_origin.analysis.evidence import look_of
from grpo_origin.analysis.inference import Look
from grpo_origin.config.schema import ClaimsSettings
from planting import SETTINGS

PRESENT = Claim("x", "x", "present", 0.01)
ABSENT = Claim("x", "x", "absent", 0.01)
OUTSIDE = Claim("x", "x", "outside", 0.01)
FEW = Claim("x", "x", "few", 0.01)
ONE_LOOK = Look(1, 0.05)


def finding(claim, values, axis="all", **more):
    return Finding(claim, axis, "cells", pd.Series(values, dtype=float), **more)


def row(claim, values, settings=SETTINGS):
    return judge([finding(claim, values)], settings, ONE_LOOK)[0]


HIGH, ZERO, MIXED = np.linspace(0.3, 0.4, 8), np.linspace(0, 1e-6, 8), np.tile([0.0, 0.9], 4)


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        (PRESENT, HIGH, "supported"),
        (PRESENT, ZERO, "contradicted"),
        (PRESENT, np.linspace(-0.5, 0.6, 8), "inconclusive"),
        (ABSENT, ZERO, "supported"),
        (ABSENT, -HIGH, "supported"),
        (ABSENT, HIGH, "contradicted"),
        (ABSENT, MIXED - 0.6, "inconclusive"),  # half of the seeds rise
        (OUTSIDE, -HIGH, "supported"),
        (OUTSIDE, HIGH, "supported"),
        (OUTSIDE, ZERO, "contradicted"),
        (OUTSIDE, MIXED - 0.45, "inconclusive"),
        (FEW, ZERO, "supported"),
        (FEW, HIGH, "contradicted"),
        (FEW, MIXED, "inconclusive"),
    ],
)
def test_rule(claim, values, expected):
    judged = row(claim, values)
    assert judged["verdict"] == expected
    assert np.isnan(judged["seeds_needed"]) or expected == "inconclusive"
    assert judged["low"] <= judged["effect"] <= judged["high"]


@given(
    st.lists(st.floats(-1, 1), min_size=6, max_size=12),
    st.sampled_from([PRESENT, ABSENT, OUTSIDE]),
    st.floats(0.01, 0.4),
)
def test_p_value_and_verdict_agree_and_a_verdict_has_its_bound_beyond_the_edge(
    values, claim, alpha
):
    judged = judge([finding(claim, values)], SETTINGS, Look(1, alpha))[0]
    decided = judged["verdict"] != "inconclusive"
    assert decided == (judged["p_adjusted"] <= alpha)
    if np.ptp(values) > 1e-6 and judged["verdict"] == "supported":
        beyond = {
            "present": judged["low"] >= 0.01 - 1e-9,
            "absent": judged["high"] <= 0.01 + 1e-9,
            "outside": judged["low"] >= 0.01 - 1e-9 or judged["high"] <= -0.01 + 1e-9,
        }
        assert beyond[claim.kind]


def test_row_by_hand():
    judged = row(PRESENT, [0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    sd = np.sqrt(0.04 / 5)
    assert judged["effect"] == pytest.approx(0.2)
    assert judged["spread"] == pytest.approx(sd)
    half = 2.015048372669157 * sd / np.sqrt(6)  # the 95 % point of t with 5 degrees of freedom
    assert (judged["low"], judged["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert judged["p_value"] == pytest.approx(stats.t.sf(0.19 / (sd / np.sqrt(6)), 5))
    assert (judged["verdict"], judged["look"]) == ("supported", "1 of 1, alpha 0.05")


def test_axes_of_a_statement_are_a_family_and_other_statements_are_not():
    """p = 1/64 alone supports, and one of four does not."""
    quiet = np.full(6, 1e-9)
    other = Claim("x", "another statement", "absent", 0.01)
    axes = [finding(ABSENT, quiet, axis) for axis in "abcd"]
    family = judge([*axes, finding(other, quiet)], SETTINGS, ONE_LOOK)
    assert [r["verdict"] for r in family] == ["inconclusive"] * 4 + ["supported"]
    assert {r["p_value"] for r in family} == {1 / 64}
    assert family[0]["p_adjusted"] == 4 / 64
    assert {r["seeds_needed"] for r in family[:4]} == {7}  # 4 / 128 is below 0.05
    assert "about 7 seeds would decide it" in family[0]["note"]


def test_rows_of_few_seeds_are_no_part_of_a_family():
    axes = [finding(ABSENT, np.full(6, 1e-9)), finding(ABSENT, [0.0] * 5), finding(ABSENT, [])]
    decided, few, none = judge(axes, SETTINGS, ONE_LOOK)
    assert (decided["verdict"], decided["p_adjusted"]) == ("supported", 1 / 64)
    assert (few["verdict"], few["seeds"]) == ("inconclusive", 5)
    assert "5 seeds: at least 6 are needed" in few["note"]
    assert few["seeds_needed"] == 6
    assert none["note"] == "nothing to test on in this run"


def test_seeds_needed_count_the_whole_family_before_it_can_be_judged():
    axes = [finding(ABSENT, [0.0] * 5, axis) for axis in "abcd"]
    assert {r["seeds_needed"] for r in judge(axes, SETTINGS, ONE_LOOK)} == {7}


def test_agreeing_seeds_say_what_they_exclude():
    judged = row(ABSENT, np.zeros(8))
    most = 1 - 0.05 ** (1 / 8)
    assert f"0 of 8 seeds exceed 0.01, so at most {most:.0%} of seeds do" in judged["note"]
    few = row(FEW, np.zeros(8))
    assert (few["effect"], few["low"], few["high"]) == pytest.approx((0, 0, most))


def test_a_finding_that_requires_another_is_open_without_it():
    for values, expected in ((HIGH, "supported"), (ZERO, "inconclusive")):
        first = finding(PRESENT, values)
        rest = finding(ABSENT, ZERO, requires=first, otherwise="nothing to repair")
        judged = judge([first, rest], SETTINGS, ONE_LOOK)[1]
        assert judged["verdict"] == expected
        assert judged["note"].startswith("nothing to repair") == (expected == "inconclusive")


def test_looks_set_the_error_of_a_run():
    plan = ClaimsSettings(looks=((8, 0.001), (12, 0.049)))
    values = {seed: 0.01 + 0.01 * (seed % 4) for seed in range(12)}

    def judged(seeds):
        chosen = pd.Series(values).loc[: seeds - 1]
        return judge([finding(PRESENT, chosen)], plan, look_of(seeds, plan))[0]

    assert 0.001 < judged(8)["p_value"] < 0.049
    assert judged(8)["verdict"] == "inconclusive"
    assert (judged(12)["verdict"], judged(12)["look"]) == ("supported", "2 of 2, alpha 0.049")
    assert "before the first look, at 8 seeds" in judged(7)["note"]
    assert judged(7)["look"] == "0 of 2, alpha 0.001"


# Errors of families, 5,000 each, all at the edge of their null hypothesis


def draw_normal(draws, shape, edge, share):
    return draws.normal(edge, 0.1, shape)


def draw_all_or_none(draws, shape, edge, share):
    return (draws.random(shape) < share) * 0.9 + draws.normal(0, 1e-9, shape)


@pytest.mark.parametrize("seeds", [6, 12])
@pytest.mark.parametrize(
    ("claim", "draw", "share"),
    [
        (PRESENT, draw_normal, 0),
        (PRESENT, draw_all_or_none, 0.01 / 0.9),
        (ABSENT, draw_normal, 0),
        (ABSENT, draw_all_or_none, 0.5),
        (FEW, draw_all_or_none, 0.5),
        (OUTSIDE, draw_normal, 0),
        (OUTSIDE, draw_all_or_none, 0.01 / 0.9),
    ],
)
def test_families_are_falsely_supported_in_one_of_twenty_at_most(claim, draw, share, seeds):
    draws, families, axes = np.random.default_rng(seeds), 5000, 4
    values = draw(draws, (families, axes, seeds), claim.edge, share)
    false = 0
    for family in values:
        raw = np.transpose([claim.p_values(axis, SETTINGS.rare) for axis in family])
        false += "supported" in decide(raw[0], raw[1], 0.05)[0]
    assert false / families <= stats.binom.isf(1e-4, families, 0.05) / families
