"""The exploration law: forecast chances of a first success, tests that notice where they fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.first_success import (
    COLUMNS,
    first_successes,
    in_doubt,
    law_tests,
    uniforms,
)
from grpo_origin.report.figures import ENTRIES

STEPS, PROMPTS, GROUP = 20, 4, 8


def stages(count: int, draws, *, masses=(1e-4, 1e-2), true=1.0, iterations=1, stop=True):
    """Made-up RL stages that sample from `true` times their masses: masses, logs, signal."""
    parts: tuple[list, list, list] = ([], [], [])
    for seed in range(count):
        place = {"axis": "depth", "seed": seed, "ood_ratio": "0.1", "stage": "grpo~ood"}
        batches = STEPS // iterations
        log_mass = np.log(draws.uniform(*masses, size=(batches, PROMPTS)))
        hits = draws.binomial(GROUP, np.clip(true * np.exp(log_mass), 0, 1)).sum(1)
        steps = np.repeat(np.arange(batches) * iterations + 1, PROMPTS)
        prompts = {"log_mass": log_mass.ravel(), "step": steps, "samples": GROUP}
        parts[0].append(pd.DataFrame(prompts).assign(**place))
        rewards = np.repeat(hits / (PROMPTS * GROUP), iterations)
        log = {"step": np.arange(1, STEPS + 1), "reward_mean": rewards}
        parts[1].append(pd.DataFrame(log).assign(**place))
        row = place | {"method": "grpo", "trained_on": "ood", "any_success": 0.5}
        row |= {"completions": batches * PROMPTS * GROUP, "moved": bool(hits.any()) and stop}
        parts[2].append(row)
    return pd.concat(parts[0]), pd.concat(parts[1]), pd.DataFrame(parts[2])


def test_chances_by_hand():
    """Two steps of one prompt and two samples each: 1 - (1 - Q)^2, then both steps."""
    place = {"axis": "depth", "seed": 0, "ood_ratio": "0.1", "stage": "grpo~ood"}
    masses = pd.DataFrame({"log_mass": np.log([0.1, 0.5]), "step": [1, 2], "samples": 2})
    signal = {"method": "grpo", "trained_on": "ood", "any_success": 0.8, "completions": 4}

    def row(*rewards):
        log = pd.DataFrame({"step": [1, 2], "reward_mean": rewards}).assign(**place)
        counts = pd.DataFrame([place | signal | {"moved": any(rewards)}])
        (row,) = first_successes(masses.assign(**place), log, counts).to_dict("records")
        assert list(row) == [*COLUMNS]
        return row

    late = row(0.0, 0.5)
    both = 1 - 0.81 * 0.25
    assert late["surest"] == pytest.approx(0.81 * 0.75)  # a success in the second step
    assert (late["first"], late["median"], late["steps"]) == (2, 2, 2)
    assert [late["before"], late["by"], late["any"]] == pytest.approx([0.19, both, both])
    early = row(0.5, 0.0)
    assert [early["first"], early["before"], early["by"]] == pytest.approx([1, 0.0, 0.19])
    never = row(0.0, 0.0)
    assert np.isnan(never["first"])
    assert [never["before"], never["by"]] == pytest.approx([both, 1.0])


def test_steps_on_the_same_rollouts_sample_nothing_new():
    masses, logs, signal = stages(1, np.random.default_rng(0), iterations=2)
    table = first_successes(masses, logs, signal)
    expected = 1 - np.prod((1 - np.exp(masses["log_mass"])) ** GROUP)
    assert table["any"].item() == pytest.approx(expected)


def test_stages_that_sample_otherwise_are_left_out():
    masses, logs, signal = stages(3, np.random.default_rng(0))
    signal.loc[0, "completions"] += 8  # sampled again
    signal.loc[1, "any_success"] = np.nan  # rewards that Q is not of
    assert first_successes(masses, logs, signal)["seed"].tolist() == [2]


@pytest.mark.parametrize("iterations", [1, 2])
def test_the_law_is_kept_where_it_holds(iterations):
    """One in twenty would be rejected: of 12 runs seldom more than two."""
    draws = np.random.default_rng(1)
    rejected = 0
    for _ in range(12):
        table = first_successes(*stages(100, draws, masses=(1e-5, 2e-3), iterations=iterations))
        (row,) = law_tests(table).to_dict("records")
        rejected += row["p_value"] < 0.05
        assert row["moved_without"] == 0
        assert abs(row["none"] - row["none_expected"]) < 30
    assert rejected <= 2


@pytest.mark.parametrize("true", [0.4, 2.5])
def test_the_law_is_rejected_where_masses_are_wrong(true):
    table = first_successes(*stages(200, np.random.default_rng(2), masses=(1e-5, 2e-3), true=true))
    (row,) = law_tests(table).to_dict("records")
    assert row["p_value"] < 0.01
    assert row["in_doubt"] > 150


def test_stages_all_but_certain_to_succeed_or_not_test_nothing():
    draws = np.random.default_rng(5)
    sure = pd.concat(
        first_successes(*stages(5, draws, masses=masses)).assign(method=name)
        for name, masses in {"hopeless": (1e-12, 1e-11), "easy": (0.9, 0.99)}.items()
    )
    assert law_tests(sure)["in_doubt"].tolist() == [0, 0]
    assert law_tests(sure)["p_value"].isna().all()
    assert law_tests(sure)["none"].tolist() == [5, 0]


def test_places_in_the_forecast_are_the_same_every_time():
    table = first_successes(*stages(50, np.random.default_rng(3)))
    assert (uniforms(table) == uniforms(table)).all()


def test_figure_has_every_stage_in_both_panels():
    table = first_successes(*stages(30, np.random.default_rng(4), masses=(1e-5, 2e-3)))
    left, right = ENTRIES["first_success"].figure({"first_success": table}).axes
    shown = left.lines[1].get_ydata()
    assert sorted(shown) == pytest.approx(sorted(uniforms(in_doubt(table))))
    places = np.asarray(right.collections[0].get_offsets())
    expected = table["first"].fillna(1.6 * STEPS)
    assert places[:, 1] == pytest.approx(expected.to_numpy())
