"""The forecast's numbers: posteriors of masses, and what RL can find and use before it learns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta as beta_distribution

from grpo_origin.evaluation.law import optimal_mass
from grpo_origin.forecast import words
from grpo_origin.forecast.outlook import (
    Budget,
    contrast_share,
    dead_mass,
    outlook,
    silence,
    steps_until,
)
from grpo_origin.forecast.posterior import (
    STRENGTHS,
    posterior_of,
    samples_to_see,
    single_bounds,
    unseen_bound,
)
from grpo_origin.forecast.tally import Passes

UNIFORM = (1.0, 1.0)


def passes(*counts: tuple[int, int]) -> Passes:
    """Prompts with (samples, correct)."""
    samples, correct = np.array(counts).T
    return Passes(tuple(f"prompt {i}" for i in range(len(counts))), samples, correct)


def drawn(random: np.random.Generator, a: float, b: float, prompts: int, samples: int):
    """Masses from Beta(a, b), and counts of so many samples of each."""
    mass = random.beta(a, b, prompts)
    counts = random.binomial(samples, mass)
    return mass, passes(*((samples, int(count)) for count in counts))


# Posteriors


def test_two_prompts_under_a_known_prior():
    """Beta(1, 1) and counts 0 of 2, 1 of 2: Beta(1, 3) and Beta(2, 2)."""
    posterior = posterior_of(passes((2, 0), (2, 1)), UNIFORM)
    assert posterior.mean()[posterior.place] == pytest.approx([1 / 4, 1 / 2])
    square, miss = np.exp(posterior.log_all_right(2)), np.exp(posterior.log_all_wrong(2))
    # E[Q^2] = a (a + 1) / (s (s + 1)) with s = a + b = 4
    assert square[0][posterior.place] == pytest.approx([2 / 20, 6 / 20])
    assert miss[0][posterior.place] == pytest.approx([12 / 20, 6 / 20])


def test_contrast_of_groups_of_two_is_twice_the_mean_of_q_times_1_minus_q():
    posterior = posterior_of(passes((2, 0), (2, 1)), UNIFORM)
    by_hand = [2 * (1 / 4 - 2 / 20), 2 * (1 / 2 - 6 / 20)]
    assert contrast_share(posterior, 2) == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize(("a", "b", "samples"), [(0.3, 0.9, 16), (2.0, 5.0, 8), (0.1, 0.1, 32)])
def test_the_prior_is_found_again_from_many_prompts(a, b, samples):
    _, counted = drawn(np.random.default_rng(3), a, b, 4000, samples)
    posterior = posterior_of(counted)
    assert not posterior.stated
    assert posterior.fitted == pytest.approx((a, b), rel=0.1)
    assert np.mean(posterior.a) == pytest.approx(a, rel=0.1)
    assert np.std(posterior.a) < 0.1 * a


def test_equal_prompts_are_pulled_together_and_unequal_ones_are_not():
    same = posterior_of(passes(*[(10, 5)] * 30, (10, 2)))
    other = posterior_of(passes(*[(10, 0), (10, 10)] * 15, (10, 2)))
    assert same.mean()[same.place][-1] > 0.4
    assert other.mean()[other.place][-1] < 0.25


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ([(8, 0)] * 50, "No completion is right"),
        ([(8, 8)] * 50, "All completions are right"),
        ([(8, 0), (8, 8)] * 25, "always or never"),
        ([(1, 0), (1, 1), (1, 0)] * 10, "One sample a prompt"),
        ([(8, 3)], "One prompt"),
    ],
    ids=["none", "all", "all or none", "single samples", "one prompt"],
)
def test_counts_that_fix_no_prior_are_answered_and_it_is_said(counts, word):
    counted = passes(*counts)
    posterior = posterior_of(counted)
    assert word in posterior.stated
    assert "Jeffreys" in posterior.stated
    mean = posterior.mean()
    assert ((mean > 0) & (mean < 1)).all()
    rate = counted.correct.sum() / counted.samples.sum()
    assert posterior.over_prompts(mean) == pytest.approx(rate, abs=0.06)
    found = outlook(counted, posterior, Budget(8, 4, 10, 0.01))
    assert 0 <= found.contrast.low <= found.contrast.high <= 1


def test_one_prompt_has_jeffreys_prior():
    posterior = posterior_of(passes((8, 3)))
    assert posterior.mean() == pytest.approx([3.5 / 9])


def test_without_any_success_the_pooled_samples_count_and_not_each_prompt_alone():
    """Jeffreys' prior prompt by prompt would expect 3 % right where 1,600 samples say 0.2 %."""
    counted = passes(*[(16, 0)] * 100)
    mean = posterior_of(counted).over_prompts(posterior_of(counted).mean())
    assert 0 < mean < unseen_bound(counted) == pytest.approx(1 - 0.05 ** (1 / 1600))


def test_the_same_counts_give_the_same_forecast():
    counted = passes((8, 0), (8, 3), (4, 4), (16, 1))
    first, second = (
        outlook(counted, posterior_of(counted), Budget(8, 2, 5, 0.1)) for _ in range(2)
    )
    assert first.contrast == second.contrast
    assert first.ceilings == second.ceilings


@pytest.mark.parametrize(("prior", "prompts", "samples"), [((0.3, 0.9), 100, 8), ((2, 5), 40, 4)])
def test_ninety_percent_intervals_hold_the_true_share_in_about_ninety_percent(
    prior, prompts, samples
):
    random, held, repeats, size = np.random.default_rng(11), 0, 60, 8
    for _ in range(repeats):
        mass, counted = drawn(random, *prior, prompts, samples)
        found = outlook(counted, posterior_of(counted), Budget(size, 4, 10, 0.0))
        truth = np.mean(1 - mass**size - (1 - mass) ** size)
        held += found.contrast.low <= truth <= found.contrast.high
    # a right procedure leaves this range with a chance below 1e-3 (binomial, 60 at 0.9)
    assert 46 <= held <= 60


# Bounds without a prior


def test_bounds_of_single_prompts_are_clopper_and_pearsons():
    assert single_bounds(np.array([1, 8])) == pytest.approx([0.95, 1 - 0.05 ** (1 / 8)])


def test_prompts_picked_for_having_no_success_are_not_pooled():
    """All prompts at 0.1: of 8 samples 43 % show none, and pooling those would bound Q by 0.2 %."""
    random = np.random.default_rng(5)
    counted = passes(*((8, int(c)) for c in random.binomial(8, 0.1, 500)))
    never = int((counted.correct == 0).sum())
    assert 1 - 0.05 ** (1 / (8 * never)) < 0.002
    assert 0.1 < unseen_bound(counted) < 0.2


def test_the_bound_of_unseen_mass_holds_in_nearly_all_repeats():
    random, held, repeats = np.random.default_rng(7), 0, 200
    for _ in range(repeats):
        mass, counted = drawn(random, 0.3, 0.9, 60, 8)
        held += unseen_bound(counted) >= mass[counted.correct == 0].mean()
    assert held >= 0.95 * repeats - 3 * np.sqrt(0.05 * 0.95 * repeats)


@pytest.mark.parametrize(("possible", "doubtful"), [(0.5, True), (1.0, False)])
def test_a_part_of_impossible_prompts_is_told_from_a_beta_distribution(possible, doubtful):
    """Mass 0 for a half and Beta(2, 2) for the others: no Beta distribution is like that."""
    random = np.random.default_rng(1)
    mass = random.beta(2, 2, 400) * (random.random(400) < possible)
    counted = passes(*((16, int(count)) for count in random.binomial(16, mass)))
    posterior, budget = posterior_of(counted), Budget(8, 64, 200, 0.0)
    found = outlook(counted, posterior, budget)
    text = words.terminal(words.lines(counted, posterior, budget, found))
    assert ("doubtful" in text) == doubtful


def test_no_prompt_without_success_needs_no_bound():
    assert unseen_bound(passes((8, 1), (8, 8))) is None


@pytest.mark.parametrize(("mass", "samples"), [(0.5, 5), (0.95, 1), (1.0, 1), (0.01, 299)])
def test_samples_that_show_a_mass(mass, samples):
    assert samples_to_see(mass) == samples
    assert 1 - (1 - mass) ** samples >= 0.95 > 1 - (1 - mass) ** (samples - 1) - 1e-12


# What a budget finds


def test_silence_at_the_end_of_an_epoch_by_hand():
    """Beta(1, 3), Beta(2, 2), one group of two each: E[(1 - Q)^2] = 12/20 and 6/20."""
    posterior = posterior_of(passes((2, 0), (2, 1)), UNIFORM)
    assert silence(posterior, Budget(2, 2, 1, 0.0), 1) == pytest.approx(12 / 20 * 6 / 20)
    # half an epoch: each is visited with a chance of one half
    half = (0.5 + 0.5 * 12 / 20) * (0.5 + 0.5 * 6 / 20)
    assert silence(posterior, Budget(2, 1, 1, 0.0), 1) == pytest.approx(half)


def test_within_an_epoch_silence_is_never_understated():
    """Against all orders of visiting: one step of two prompts among four."""
    mass = np.array([0.0, 0.1, 0.5, 0.9])
    strong = 1e7  # so many samples that Q is known
    counted = passes(*((int(strong), int(strong * q)) for q in mass))
    posterior = posterior_of(counted, (1e-6, 1e-6))
    miss = (1 - mass) ** 4
    pairs = [miss[i] * miss[j] for i in range(4) for j in range(i)]
    found = silence(posterior, Budget(4, 2, 1, 0.0), 1)
    assert np.mean(pairs) <= found <= np.mean(pairs) + 0.15
    assert silence(posterior, Budget(4, 2, 2, 0.0), 2) == pytest.approx(miss.prod(), rel=1e-3)


counts = st.lists(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(
    counts,
    st.integers(2, 32),
    st.integers(1, 20),
    st.integers(1, 200),
    st.sampled_from([0.0, 0.001, 0.3, 5.0]),
)
def test_probabilities_lie_in_0_1_and_move_the_right_way(
    counted, group_size, prompts_per_step, steps, beta
):
    counted = passes(*counted)
    posterior = posterior_of(counted)
    budget = Budget(group_size, prompts_per_step, steps, beta)
    found = outlook(counted, posterior, budget)
    for value in (found.silent, found.all_right, found.all_wrong, found.contrast.value):
        assert 0 <= value <= 1
    assert found.contrast.value + found.all_right + found.all_wrong == pytest.approx(1)
    assert ((found.chance >= 0) & (found.chance <= 1)).all()
    assert 0 <= found.rewarded.value <= budget.completions
    assert all(0 <= x.low <= x.high <= 1 for x in found.ceilings.values())
    ordered = [found.ceilings[x].value for x in sorted(found.ceilings)]
    assert ordered == sorted(ordered, reverse=True)
    chances = [silence(posterior, budget, step) for step in (0, 1, 2, 3, 50, 51)]
    assert chances[0] == pytest.approx(1)
    assert all(x >= y - 1e-12 for x, y in pairwise(chances))
    assert contrast_share(posterior, 2 * group_size) >= contrast_share(posterior, group_size)
    first = steps_until(posterior, budget, 0.5)
    if first is not None:
        assert silence(posterior, budget, first) <= 0.5
        assert silence(posterior, budget, first - 1) > 0.5 or first == 1
    text = words.terminal(words.lines(counted, posterior, budget, found))
    assert "nan" not in text


def test_the_ceiling_is_the_law_averaged_over_the_posterior():
    posterior = posterior_of(passes((4, 1)), UNIFORM)
    found = outlook(passes((4, 1)), posterior, Budget(8, 1, 1, 0.5))
    density = beta_distribution(2, 4).pdf
    expected, _ = quad(lambda q: optimal_mass([q], 0.5)[0] * density(q), 0, 1)
    assert found.ceilings[0.5].value == pytest.approx(expected, abs=0.01)
    assert found.ceilings[0.001].value == pytest.approx(1, abs=1e-6)


def test_dead_prompts_are_told_by_the_end_they_are_at():
    counted = passes((1000, 0), (1000, 1000), (1000, 400))
    found = outlook(counted, posterior_of(counted), Budget(8, 1, 1, 0.0))
    assert found.dead.tolist() == [0, 1, -1]


def test_few_samples_make_no_dead_prompt():
    """Zero of four is not zero: such a group may well teach."""
    _, counted = drawn(np.random.default_rng(2), 0.5, 1.0, 100, 4)
    found = outlook(counted, posterior_of(counted), Budget(8, 1, 1, 0.0))
    assert (counted.correct == 0).any()
    assert (found.dead == -1).all()


@pytest.mark.parametrize(("size", "below"), [(2, 0.05), (8, 0.05), (64, 0.3)])
def test_the_dead_zone_ends_where_contrast_is_the_bound(size, below):
    edge = dead_mass(size, below)
    assert 1 - edge**size - (1 - edge) ** size == pytest.approx(below)
    assert dead_mass(size, 1.0) == 0.5
    assert dead_mass(size, 0.0) == 0.0


def test_strengths_reach_from_all_or_nothing_to_all_alike():
    """Variance of Beta at mean m as a share of m (1 - m): 1 / (1 + a + b)."""
    assert 1 / (1 + STRENGTHS[0]) > 0.95
    assert 1 / (1 + STRENGTHS[1]) < 0.001


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.123456, "12.3 %"),
        (1e-7, "1.0e-05 %"),
        (0.9996, "99.96 %"),
        (1 - 1e-9, "more than 99.99 %"),
    ],
)
def test_shares_are_not_rounded_to_certainty(value, text):
    assert words.share(value) == text
