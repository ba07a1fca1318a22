"""The forecast of where RL ends: planted courses are found again, left-out stages stay unseen."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from grpo_origin.analysis import outcome
from grpo_origin.analysis.outcome import (
    LOG_RATES,
    PATHS,
    Budget,
    OutcomeModel,
    courses,
    features,
    masses_of,
    mixture,
    quantiles,
    read_model,
)
from grpo_origin.analysis.outcome_check import (
    auc,
    errors,
    folds,
    held_out,
    naive_forecasts,
    orderings,
)
from grpo_origin.analysis.outcome_fit import Candidate, Prepared, conformal_margin, fit
from grpo_origin.analysis.outcome_stages import Ran, outcome_table, stages_that_ran
from grpo_origin.evaluation.amplification import amplified
from grpo_origin.evaluation.exploration import any_success
from grpo_origin.evaluation.law import optimal_mass
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.report.figures import ENTRIES

BUDGET = Budget(8, 16, 60)
PLAIN = Candidate("none", by_task=False)
LIKE = {"exponent": 1.0, "log_rate": -2.0, "slope": 0.0, "scatter": 0.7, "ceiling": 0.985}
ENDS = {"lowest": 0.0, "highest": 9.0}


def model(**changes) -> OutcomeModel:
    known = {"feature": "none", "by_task": False, "margin": 0.0} | LIKE | ENDS | changes
    return OutcomeModel(**known)


def log_odds_to_mass(odds: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -odds)


def planted(count: int, seed: int, *, shifts=None, scatter=0.7, log_rate=-2.0) -> list[Ran]:
    """Stages whose log-odds rise as the model says, at rates scattered about e^log_rate.

    `shifts` by axis are added to its log rate. Written apart from the code under test: groups are
    drawn one by one, every prompt by itself.
    """
    random = np.random.default_rng(seed)
    axes = list(shifts or dict.fromkeys(("one", "two", "three", "four"), 0.0))
    found = []
    for number in range(count):
        axis = axes[number % len(axes)]
        start = random.normal(random.uniform(-9, 3), random.uniform(0.3, 3), 160)
        rate = np.exp(log_rate + (shifts or {}).get(axis, 0.0) + scatter * random.normal())
        odds = start.copy()
        for _ in range(BUDGET.steps):
            hits = random.binomial(BUDGET.group_size, expit(random.choice(odds, 16)))
            teach = ((hits > 0) & (hits < BUDGET.group_size)).mean()
            odds = np.minimum(odds + rate * teach, np.maximum(start, np.log(0.985 / 0.015)))
        before, after = (float(expit(x).mean()) for x in (start, odds))
        place = axis, number // len(axes), "0.1", "grpo~ood", "grpo", "ood"
        tasks = np.array(["task"] * len(start))
        found.append(Ran(*place, log_odds_to_mass(start), tasks, BUDGET, before, after))
    return found


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared(planted(80, 0), [0.5, 1.0], [False])


# The model


def test_atoms_keep_the_mean_mass_that_a_single_prompt_holds():
    log_mass = np.append(np.full(999, -60.0), np.log(0.5))
    assert masses_of(log_mass).mean == pytest.approx(0.5 / 1000)
    assert masses_of([-1e-9, -800.0, -np.inf, 0.0]).mean == pytest.approx(0.5)


def test_tasks_are_kept_apart_and_weighted_by_their_prompts():
    log_mass = np.log([0.1, 0.1, 0.1, 0.7])
    masses = masses_of(log_mass, ["a", "a", "a", "b"])
    assert masses.shares.tolist() == [0.75, 0.25]
    assert expit(masses.log_odds).mean(1) == pytest.approx([0.1, 0.7])
    assert masses.mean == pytest.approx(masses_of(log_mass).mean) == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [[], [np.nan, -1.0]])
def test_masses_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="at least one prompt"):
        masses_of(bad)


def test_overdispersion_is_that_of_the_beta_distribution():
    """1 / (a + b + 1) of Beta(a, b)."""
    mass = np.random.default_rng(0).beta(0.5, 1.5, 20_000)
    assert np.exp(features(masses_of(np.log(mass)))["overdispersion"]) == pytest.approx(
        1 / 3 + 0.01, rel=0.05
    )
    same = features(masses_of(np.full(100, -2.0)))
    assert same["overdispersion"] == pytest.approx(np.log(0.01))
    assert same["spread"] == pytest.approx(0.0, abs=1e-9)


def test_nothing_moves_before_a_group_teaches_and_that_is_as_likely_as_masses_say(monkeypatch):
    """The share of courses that end where they began is the exact chance of no such group."""
    monkeypatch.setattr(outcome, "PATHS", 4000)
    log_mass = np.full(960, np.log(1e-4))
    finals = courses(masses_of(log_mass), BUDGET, 1.0, 0.985, [1.0])[-1, 0]
    expected = 1 - any_success(log_mass, 8)
    assert np.isclose(finals, 1e-4).mean() == pytest.approx(expected, abs=0.02)


def test_courses_rise_and_end_at_the_ceiling_or_where_they_began_above_it():
    start = np.array([-3.0, 0.0, 6.0])
    found = courses(masses_of(log_odds_to_mass(start)), BUDGET, 1.0, 0.985, LOG_RATES)
    assert found.shape == (61, len(LOG_RATES), PATHS)
    assert (np.diff(found, axis=0) >= 0).all()
    assert found[-1, -1] == pytest.approx((2 * 0.985 + expit(6.0)) / 3)
    assert found[0] == pytest.approx(expit(start).mean())


@pytest.mark.parametrize("groups", [1, 16, 64, 1000])
def test_numbers_of_groups_are_binomial(groups):
    from scipy.stats import binom

    random = np.random.default_rng(0)
    uniform, chance = random.random(3000), random.random(3000) ** 3
    found, exact = outcome._binomial(uniform, groups, chance), binom.ppf(uniform, groups, chance)
    assert np.abs(found - exact).max() <= 2
    assert (found != exact).mean() < 0.2
    assert outcome._binomial(uniform, groups, np.ones(3000)).tolist() == [groups] * 3000
    assert not outcome._binomial(uniform, groups, np.zeros(3000)).any()


def test_the_mixture_is_the_normal_distribution_of_log_rates():
    weights = mixture(-1.0, 0.8)
    assert weights.sum() == pytest.approx(1)
    assert weights @ LOG_RATES == pytest.approx(-1.0, abs=0.01)
    assert np.sqrt(weights @ (LOG_RATES + 1) ** 2) == pytest.approx(0.8, abs=0.03)
    values = np.repeat(LOG_RATES, PATHS).reshape(-1, PATHS)
    low, middle, high = quantiles(values, weights)
    assert middle == pytest.approx(-1.0, abs=0.2)
    assert (high - low) / 2 == pytest.approx(1.28 * 0.8, abs=0.15)


def test_several_starts_count_alike():
    low, high = (masses_of(np.full(50, np.log(q))) for q in (1e-12, 0.97))
    (both,) = model().course([low, high], BUDGET, [60])
    assert both[0] < 1e-6
    assert both[2] > 0.97


# Its file


def test_the_shipped_model_is_in_step_with_the_code_and_says_what_it_was_fitted_on():
    shipped = read_model()
    of = shipped.provenance
    assert json.loads(shipped.as_json())["provenance"] == dict(of)
    assert of["run"] == "reference"
    assert len(of["axes"]) > 1
    assert of["stages"] >= of["in_doubt"] > 10
    assert {"date", "steps", "learning_rate", "group_size", "prompts_per_step"} <= set(of)
    hopeless = shipped.forecast(masses_of(np.full(100, -60.0)), BUDGET)
    learned = shipped.forecast(masses_of(np.full(100, np.log(0.9))), BUDGET)
    assert hopeless[2] < 0.1 < 0.8 < learned[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"feature": "hope"}, "feature is one of"),
        ({"by_task": 1}, "by_task true or false"),
        ({"scatter": 0}, "scatter is positive"),
        ({"ceiling": 1.0}, "ceiling in"),
        ({"log_rate": "fast"}, "log_rate must be a number"),
        ({"slope": float("nan")}, "slope must be a number"),
        ({"more": 1}, "holds not just"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path, change, word):
    path = tmp_path / "outcome.json"
    path.write_text(json.dumps(dataclasses.asdict(model()) | change))
    with pytest.raises(ArtefactError, match=word) as error:
        read_model(path)
    assert str(path) in str(error.value)
    path.write_text("{")
    with pytest.raises(ArtefactError, match="can't be read"):
        read_model(path)


def test_a_model_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "outcome.json"
    path.write_text(model(margin=-0.01).as_json())
    assert read_model(path) == model(margin=-0.01)


# The fit


def test_planted_rates_are_found_again(prepared):
    found = fit(prepared, PLAIN, np.arange(80))
    assert found.exponent == 1.0
    assert found.log_rate == pytest.approx(-2.0, abs=0.3)
    assert found.scatter == pytest.approx(0.7, abs=0.3)


def test_left_out_stages_lie_within_four_times_in_five(prepared):
    table = held_out(prepared, "axis", [PLAIN], naive_forecasts({"grpo": 0.001}))
    (row,) = errors(table[table["forecast"] == PLAIN.name]).to_dict("records")
    assert 0.7 <= row["coverage"] <= 0.9
    mae = errors(table).set_index("forecast")["mae"]
    assert row["mae"] < 0.7 * mae[["no change", "full recovery", "mean of the other stages"]].min()
    assert row["r2"] > 0.7


def test_an_axis_that_learns_otherwise_shows_as_error_when_it_is_left_out_and_not_before():
    """No leak: what an axis does is not known to the forecast of it; it makes others' wider."""
    shifts = {"one": 0.0, "two": 0.0, "three": 0.0, "slow": -5.0}
    table = Prepared(planted(48, 1, shifts=shifts, scatter=0.2), [1.0], [False])
    by_axis = errors(held_out(table, "axis", [PLAIN], {}), ["axis"]).set_index("axis")
    left = by_axis["mae"]
    assert left["slow"] > 0.25
    assert left["slow"] > 1.5 * left.drop("slow").mean()
    assert by_axis["coverage"]["slow"] < 0.3 < 0.8 < by_axis["coverage"].drop("slow").min()


def test_what_is_left_out_cannot_change_its_own_forecast(prepared):
    """Other masses after RL of the stages left out: the same forecast of them."""
    left = folds(prepared.stages, "axis")[0]
    changed = [
        dataclasses.replace(ran, after=0.5) if i in set(left) else ran
        for i, ran in enumerate(prepared.stages)
    ]
    naive = naive_forecasts({"grpo": 0.001})
    first, second = (
        held_out(Prepared(stages[:40], [1.0], [False]), "axis", [PLAIN], naive)
        for stages in (prepared.stages, changed)
    )
    own = first["axis"] == prepared.stages[left[0]].axis
    names = ["low", "middle", "high"]
    pd.testing.assert_frame_equal(first.loc[own, names], second.loc[own, names])


def test_folds_part_the_stages_and_keep_seeds_whole(prepared):
    for by, count in (("axis", 4), ("seeds", 5)):
        parts = folds(prepared.stages, by)
        assert len(parts) == count
        assert sorted(np.concatenate(parts)) == list(range(80))
    seeds = [{prepared.stages[i].seed for i in part} for part in folds(prepared.stages, "seeds")]
    assert not set.intersection(*seeds)
    with pytest.raises(ValueError, match="axis or seeds, not ratio"):
        folds(prepared.stages, "ratio")


def test_a_fit_needs_stages(prepared):
    with pytest.raises(ValueError, match="at least 5 stages, not 2"):
        fit(prepared, PLAIN, np.arange(2))


def test_the_margin_covers_four_fifths():
    after = np.linspace(0, 1, 99)
    found = np.tile([0.5, 0.5, 0.5], (99, 1))
    margin = conformal_margin(found, after)
    assert np.mean(np.abs(after - 0.5) <= margin + 1e-9) == pytest.approx(0.8, abs=0.02)
    assert conformal_margin(np.tile([0.0, 0.5, 1.0], (99, 1)), after) < 0


# Summaries and the recursion


def test_auc_counts_ties_half_and_needs_both_kinds():
    assert auc(np.array([1, 2, 3, 4]), np.array([False, False, True, True])) == 1.0
    assert auc(np.array([1, 1, 1, 1]), np.array([False, True, False, True])) == 0.5
    assert np.isnan(auc(np.array([1.0]), np.array([True])))


def test_orderings_find_the_summary_that_decides():
    """Masses after RL that are the mean before in another scale."""
    stages = [dataclasses.replace(ran, after=np.sqrt(ran.before)) for ran in planted(40, 2)]
    more = [{"noise": float(i % 7)} for i in range(40)]
    table = orderings(stages, 0.1, more).set_index("summary")
    assert table["spearman"].idxmax() in ("mean Q", "mean Q of the best task")
    assert table.loc["mean Q", "spearman"] > 0.99
    assert abs(table.loc["noise", "spearman"]) < 0.5
    assert {"LQ at 0.5", "prompts above 1/(G steps)"} <= set(table.index)


def test_stages_in_doubt_may_find_something_and_have_room():
    ran = planted(1, 0)[0]
    hopeless, open_, done = (
        dataclasses.replace(ran, log_mass=np.full(160, np.log(q))) for q in (1e-9, 1e-4, 0.95)
    )
    assert [x.in_doubt for x in (hopeless, open_, done)] == [False, True, False]


def test_one_iteration_towards_the_reference_is_the_law_with_a_tilted_weight():
    """w / beta in place of 1 / beta, w = 1 / sqrt(p (1 - p))."""
    p = np.array([0.1, 0.5, 0.9])
    by_law = [float(optimal_mass(x, 2.0 * np.sqrt(x * (1 - x)))) for x in p]
    assert amplified(p, 2.0, 1) == pytest.approx(by_law, rel=1e-5)


def test_the_recursion_amplifies_to_a_fixed_point_or_to_one():
    p = np.array([0.0, 0.02, 0.3, 1.0])
    towards_start = amplified(p, 5.0, 400)
    assert towards_start[[0, 3]].tolist() == [0.0, 1.0]
    assert (towards_start[1:3] > p[1:3]).all()
    assert towards_start == pytest.approx(amplified(p, 5.0, 401))
    assert amplified(p, 5.0, 400, mirror=True)[1:3] == pytest.approx([1, 1], abs=1e-6)
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        amplified(p, 0, 1)


# Table and figure


def run_tables():
    """A stage of two steps with two prompts each, as a run has it."""
    place = {"axis": "depth", "seed": 0, "ood_ratio": "0.1", "stage": "grpo~ood"}
    masses = pd.DataFrame(
        {"log_mass": np.log([0.1, 0.2, 0.3, 0.4]), "task": "t", "step": [1, 1, 2, 2], "samples": 8}
    ).assign(**place)
    steps = pd.DataFrame({"step": [1, 2]}).assign(**place)
    signal = pd.DataFrame(
        [place | {"method": "grpo", "trained_on": "ood", "any_success": 1.0, "completions": 32}]
    )
    gains = pd.DataFrame(
        {"split": ["ood", "ood", "id"], "mass_before": [0.1, 0.3, 0.9], "mass_after": [0.5, 0.7, 0]}
    ).assign(**place, trained_on="ood")
    return masses, steps, signal, gains


def test_a_run_is_read_as_its_budget_masses_and_outcome():
    (ran,) = stages_that_ran(*run_tables())
    assert ran.budget == Budget(8, 2, 2)
    assert [ran.before, ran.after] == pytest.approx([0.2, 0.6])
    assert np.exp(ran.log_mass) == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("change", ["sampled again", "other reward", "uneven", "not evaluated"])
def test_stages_of_another_kind_are_left_out(change):
    masses, steps, signal, gains = run_tables()
    if change == "sampled again":
        signal["completions"] = 64
    if change == "other reward":
        signal["any_success"] = np.nan
    if change == "uneven":
        masses["step"] = [1, 1, 1, 2]
    if change == "not evaluated":
        gains = gains[gains["split"] == "id"]
    assert stages_that_ran(masses, steps, signal, gains) == []


def test_the_table_has_the_forecast_beside_what_was_measured():
    stages = planted(12, 3)
    table = outcome_table(stages, model())
    assert table["after"].tolist() == [ran.after for ran in stages]
    expected = [model().forecast(masses_of(ran.log_mass), BUDGET) for ran in stages]
    assert table[["low", "forecast", "high"]].to_numpy() == pytest.approx(np.array(expected))
    within = (table["low"] <= table["after"]) & (table["after"] <= table["high"])
    assert table["within"].tolist() == within.tolist()


def test_the_figure_has_a_point_and_an_interval_for_every_stage():
    table = outcome_table(planted(12, 3), model())
    (axes,) = ENTRIES["outcome"].figure({"outcome": table}).axes
    assert [bars.get_label() for bars in axes.containers] == ["four", "one", "three", "two"]
    for bars, (_, part) in zip(axes.containers, table.groupby("axis"), strict=True):
        points, _, (lines,) = bars
        assert points.get_xdata() == pytest.approx(part["forecast"].to_numpy())
        assert points.get_ydata() == pytest.approx(part["after"].to_numpy())
        ends = np.array([segment[:, 0] for segment in lines.get_segments()])
        assert ends == pytest.approx(part[["low", "high"]].to_numpy())
