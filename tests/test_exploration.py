"""What sampling can find, against simulation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_origin.evaluation import exploration

masses = st.lists(st.floats(1e-30, 1.0), min_size=1, max_size=20)


@given(masses, st.integers(1, 64))
def test_the_chance_of_a_success_obeys_the_union_bound(values, samples):
    log_mass = np.log(values)
    chance = exploration.any_success(log_mass, samples)
    assert 0 <= chance <= min(1.0, exploration.expected_successes(log_mass, samples)) * (1 + 1e-12)


def test_tiny_masses_keep_their_digits():
    log_mass = np.full(960, -41.4)
    expected = 960 * 8 * np.exp(-41.4)
    assert exploration.any_success(log_mass, 8) == pytest.approx(expected, rel=1e-9)
    assert exploration.expected_successes(log_mass, 8) == pytest.approx(expected, rel=1e-12)


def test_against_simulation():
    draws = np.random.default_rng(0)
    q, samples, runs = np.array([0.001, 0.01, 0.05]), 8, 20_000
    successes = draws.binomial(samples, q, (runs, 3))
    log_mass = np.log(q)
    found = (successes.sum(1) > 0).mean()
    assert exploration.any_success(log_mass, samples) == pytest.approx(found, abs=0.015)
    mixed = ((successes > 0) & (successes < samples)).mean(0)
    assert exploration.contrast(log_mass, samples) == pytest.approx(mixed, abs=0.015)


def test_ends():
    assert exploration.any_success([0.0], 1) == 1
    assert exploration.any_success([-np.inf], 10**6) == 0
    assert exploration.contrast([0.0, -np.inf], 8).tolist() == [0, 0]
    assert exploration.contrast([np.log(0.5)], 2) == pytest.approx([0.5])


def test_the_mass_of_a_budget_is_found_with_that_chance():
    limit = exploration.budget_mass(7680, 0.01)
    assert exploration.any_success([np.log(limit)], 7680) == pytest.approx(0.01, rel=0.01)
