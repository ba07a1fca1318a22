"""The law and the bound, checked against exact maximisation; the sampling check."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_origin.analysis.intervals import binomial_agrees
from grpo_origin.analysis.theory import (
    read_samples,
    sampling_agreement,
)
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.law import (
    gain_bound,
    group_contrast,
    grpo_mass,
    log_mass_bound,
    mass_bound,
    optimal_mass,
    optimal_objective,
    token_tilt,
)
from grpo_origin.evaluation.mass import exact_mass, gold_log_probs
from grpo_origin.evaluation.sampling import sampled_successes, sampling
from grpo_origin.training.model import load_model
from helpers import copy_code, snakemake, write_config

masses = st.floats(0, 1)
betas = st.floats(1e-3, 1e3)
CPU = torch.device("cpu")


@given(masses, betas)
def test_law_is_a_mass_between_the_reference_and_the_bound(q, beta):
    mass = float(optimal_mass(q, beta))
    assert q - 1e-12 <= mass <= 1
    assert mass <= float(mass_bound(q, beta)) * (1 + 1e-9)
    assert mass - q <= float(gain_bound(q, beta)) * (1 + 1e-9) + 1e-15


@given(st.floats(1e-12, 1), st.floats(0.01, 1e3))
def test_bound_is_the_same_from_the_logarithm(q, beta):
    assert np.exp(log_mass_bound(np.log(q), beta)) == pytest.approx(mass_bound(q, beta), rel=1e-9)


def test_bound_of_a_mass_that_underflows_is_exact_from_its_logarithm():
    assert mass_bound(np.exp(-800.0), 0.001) == 0
    assert log_mass_bound([-800.0], 0.001).tolist() == [200.0]
    with pytest.raises(ValueError, match="beta must be positive"):
        log_mass_bound(-1.0, 0.0)


@given(masses, masses, betas)
def test_law_rises_with_the_mass(a, b, beta):
    low, high = sorted((a, b))
    assert optimal_mass(low, beta) <= optimal_mass(high, beta) + 1e-12


@given(masses, betas, betas)
def test_law_falls_with_beta(q, a, b):
    low, high = sorted((a, b))
    assert optimal_mass(q, low) >= optimal_mass(q, high) - 1e-12


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 100))
def test_law_is_the_formula_of_the_paper(q, beta):
    weight = math.exp(1 / beta)
    assert float(optimal_mass(q, beta)) == pytest.approx(
        q * weight / (1 - q + q * weight), rel=1e-9
    )


@given(betas)
def test_zero_stays_zero_and_one_stays_one(beta):
    assert optimal_mass([0.0, 1.0], beta).tolist() == [0.0, 1.0]
    assert gain_bound(0.0, beta) == 0


@pytest.mark.parametrize("beta", [1e-320, 1e-300, 1e-5, 1e-3])
def test_tiny_beta_neither_overflows_nor_gives_nan(beta):
    assert optimal_mass([0.0, 0.5, 1.0], beta).tolist() == [0.0, 1.0, 1.0]
    assert gain_bound([0.0, 0.5], beta).tolist() == [0.0, math.inf]


def test_large_beta_changes_nothing():
    assert optimal_mass([0.1, 0.9], 1e9) == pytest.approx([0.1, 0.9])


@given(st.floats(0.1, 10))
def test_gain_peaks_at_one_over_one_plus_root_of_the_weight(beta):
    q = np.linspace(0, 1, 20001)
    gain = optimal_mass(q, beta) - q
    assert q[gain.argmax()] == pytest.approx(1 / (1 + math.exp(0.5 / beta)), abs=1e-3)
    assert gain.max() == pytest.approx(math.tanh(0.25 / beta), abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_without_a_kl_term_there_is_no_law(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        optimal_mass(0.5, beta)


def test_a_mass_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        optimal_mass(1.5, 1.0)


def test_contrast_of_a_large_group_is_that_of_the_true_standard_deviation():
    q = np.array([0.2, 0.5, 0.9])
    assert group_contrast(q, 2000) == pytest.approx(1 / np.sqrt(q * (1 - q)), rel=1e-2)
    assert group_contrast(np.array([0.3]), 4) == pytest.approx(simulated_contrast(0.3, 4), rel=0.02)


def simulated_contrast(q: float, size: int) -> float:
    rewards = (np.random.default_rng(0).random((200_000, size)) < q).astype(float)
    advantages = (rewards - rewards.mean(1, keepdims=True)) / (
        rewards.std(1, ddof=1, keepdims=True) + 1e-4
    )
    return advantages[rewards == 1].mean() - advantages[rewards == 0].mean()


class Tree:
    """A policy with free logits at every prefix: 3 tokens of 4, one right completion.

    Expectations are by enumeration.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        sequences = list(itertools.product(range(4), repeat=3))
        prefixes = {sequence[:t]: None for t in range(3) for sequence in sequences}
        number = {prefix: i for i, prefix in enumerate(prefixes)}
        self.states = torch.tensor(
            [[number[sequence[:t]] for t in range(3)] for sequence in sequences]
        )  # (64, 3)
        self.tokens = torch.tensor(sequences)  # (64, 3)
        self.reference = torch.randn(len(number), 4, dtype=torch.float64)
        self.gold = sequences.index((1, 2, 3))
        self.reward = torch.zeros(64, dtype=torch.float64)
        self.reward[self.gold] = 1

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each token of each sequence, (64, 3)."""
        return logits.log_softmax(-1)[self.states, self.tokens]

    def maximise(self, objective) -> torch.Tensor:
        logits = self.reference.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1500)
        for _ in range(1500):
            optimiser.zero_grad()
            (-objective(self.log_probs(logits))).backward()
            optimiser.step()
            schedule.step()
        return self.log_probs(logits.detach())


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree()


@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_exact_maximiser_of_reward_minus_beta_kl_is_the_law(tree, beta):
    reference = tree.log_probs(tree.reference).sum(1)

    def objective(log_probs: torch.Tensor) -> torch.Tensor:
        log_mass = log_probs.sum(1)
        return (log_mass.exp() * (tree.reward - beta * (log_mass - reference))).sum()

    maximiser = tree.maximise(objective)
    q = float(reference[tree.gold].exp())
    assert 0.001 < q < 0.5
    assert float(maximiser[tree.gold].sum().exp()) == pytest.approx(
        float(optimal_mass(q, beta)), abs=1e-3
    )
    assert float(objective(maximiser)) == pytest.approx(float(optimal_objective(q, beta)), abs=1e-5)


@pytest.mark.parametrize("beta", [1.0, 3.0])
@pytest.mark.parametrize("group", [None, 8], ids=["unscaled", "over-std"])
def test_exact_expected_update_of_grpo_rests_at_its_own_fixed_point(tree, beta, group):
    reference = tree.log_probs(tree.reference)

    def objective(log_probs: torch.Tensor) -> torch.Tensor:
        """Its gradient is TRL's expected update: a token's KL term weighs on that token alone."""
        fixed = log_probs.detach()
        contrast = (
            1.0
            if group is None
            else float(group_contrast(fixed[tree.gold].sum().exp().numpy(), group)[0])
        )
        weight = contrast * tree.reward[:, None] - beta * (fixed - reference)
        return (fixed.sum(1).exp()[:, None] * weight * log_probs).sum()

    mass = float(tree.maximise(objective)[tree.gold].sum().exp())
    gold = reference[tree.gold].numpy()[None]
    expected = (
        token_tilt(gold, np.array([1 / beta])) if group is None else grpo_mass(gold, beta, group)
    )
    assert mass == pytest.approx(expected.item(), abs=2e-3)


@pytest.fixture(scope="module")
def sft(cell):
    return load_model(cell / "sft"), Sequences(read_prompts(cell / "data" / "test.parquet"))


def test_log_probabilities_of_gold_tokens_sum_to_the_log_mass(sft):
    model, rows = sft
    log_mass, _ = exact_mass(model, rows, 16, CPU)
    assert [row.sum() for row in gold_log_probs(model, rows, 16, CPU)] == pytest.approx(
        log_mass.tolist()
    )


def test_sampled_frequency_agrees_with_exact_mass(sft):
    model, rows = sft
    q = np.exp(exact_mass(model, rows, 64, CPU)[0])
    assert ((q > 0.05) & (q < 0.95)).any(), "the check is empty if no prompt has partial mass"
    samples = 400
    successes = sampled_successes(model, rows, samples, 512, CPU, seed=0)
    assert binomial_agrees(successes, samples, q)
    z = (successes.sum() - samples * q.sum()) / np.sqrt((samples * q * (1 - q)).sum())
    assert abs(z) < 4
    assert not binomial_agrees(successes, samples, np.clip(q + 0.1, 0, 1)), (
        "it would notice a tenth"
    )


def test_sampling_table(cell, tmp_path):
    more = {
        "evaluation": EvaluationSettings(),
        "numerics": NumericsSettings(device="cpu"),
        "runtime": RuntimeSettings(),
    }
    path = tmp_path / "sampling.parquet"
    inputs = (cell / "sft", cell / "data" / "test.parquet", path)
    sampling(*inputs, axis="mini", seed=0, ratio="0.25", prompts=4, samples=64, **more)
    table = sampling_agreement(read_samples([path]))
    assert table["split"].tolist() == ["id", "ood"]
    assert table["agrees"].all()
    assert (table["exact_pass_at_k"] - table["sampled_pass_at_k"]).abs().max() < 0.2


THEORY = {
    "pool": 4,
    "steps": 2,
    "group_size": 4,
    "betas": ["0.5"],
    "sampled_prompts": 4,
    "samples": 8,
}


def test_target_makes_each_run_once(tmp_path):
    tree = copy_code(tmp_path)
    name = write_config(
        tree, axes={"mini": {"theory": ["0.25"]}}, theory=THEORY | {"betas": ["0.5", "2"]}
    )
    result = snakemake(tree, "theory", "--cores", "1", "--dry-run", "--configfile", name)
    assert result.returncode == 0, result.stdout + result.stderr
    planned = result.stdout + result.stderr
    counts = [
        line.split() for line in planned.splitlines() if line.startswith(("converge ", "sampling "))
    ]
    assert {name: int(count) for name, count in counts} == {"converge": 4, "sampling": 1}, planned


@pytest.mark.slow
def test_target_makes_the_tables(tmp_path):
    tree = copy_code(tmp_path)
    name = write_config(tree, axes={"mini": {"theory": ["0.25"]}}, theory=THEORY)
    result = snakemake(tree, "theory", "--cores", "1", "--configfile", name)
    assert result.returncode == 0, result.stdout + result.stderr
    tables = {path.stem for path in (tree / "results" / "tiny" / "tables").glob("*.parquet")}
    assert tables == {"theory", "theory_prompts", "theory_trace", "sampling"}
