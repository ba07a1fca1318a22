"""Means, pass@k, gains and bins by hand; intervals of whole tables by simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from grpo_origin.analysis import statistics
from planting import covered, evaluations, parts_of

RNG = np.random.default_rng


def cell(table, metric="mass", **where):
    """The one row of a summary with these values."""
    for name, value in {"metric": metric, **where}.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


# pass@k


def test_pass_at_k_by_hand():
    assert statistics.pass_at_k(np.log([0.5, 0.1]), 3) == pytest.approx([1 - 0.5**3, 1 - 0.9**3])
    assert statistics.pass_at_k([-np.inf, 0.0, 1e-9], 8).tolist() == [0.0, 1.0, 1.0]


def test_pass_at_k_is_exact_at_both_ends():
    assert statistics.pass_at_k([-80.0], 128) == pytest.approx(128 * np.exp(-80.0), rel=1e-12)
    assert 1 - statistics.pass_at_k([np.log1p(-1e-3)], 2) == pytest.approx(1e-6, rel=1e-9)


def test_pass_at_k_is_exact_for_a_million_samples():
    million = statistics.pass_at_k(np.log([1e-6, 1e-12]), 1_000_000)
    assert million == pytest.approx([1 - np.exp(1e6 * np.log1p(-1e-6)), 1e-6], rel=1e-6)
    assert "pass@1000000" in statistics.METRICS


@given(st.floats(-60, 0), st.integers(1, 300))
def test_pass_at_k_grows_with_k(log_mass, k):
    now, more = (float(statistics.pass_at_k(log_mass, k)) for k in (k, k + 1))
    assert 0 <= now <= more <= 1


def test_unbiased_pass_at_k_by_hand():
    # 2 of 4 samples are right: C(2, 2) / C(4, 2) = 1/6 of the pairs miss
    assert statistics.unbiased_pass_at_k(4, [0, 2, 3, 4], 2) == pytest.approx([0, 5 / 6, 1, 1])
    assert statistics.unbiased_pass_at_k(5, 2, 1) == pytest.approx(0.4)


@given(st.integers(1, 60), st.data(), st.floats(0.001, 0.999))
def test_unbiased_pass_at_k_has_the_exact_one_as_expectation(n, data, q):
    k = data.draw(st.integers(1, n))
    counts = np.arange(n + 1)
    expected = (
        scipy_stats.binom.pmf(counts, n, q) * statistics.unbiased_pass_at_k(n, counts, k)
    ).sum()
    assert expected == pytest.approx(float(statistics.pass_at_k(np.log(q), k)), abs=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 1, 9), (8, 1, 0), (8, 9, 2), (8, -1, 2)])
def test_unbiased_pass_at_k_refuses_what_it_cannot_estimate(n, c, k):
    with pytest.raises(ValueError, match=r"pass@|c must"):
        statistics.unbiased_pass_at_k(n, [c], k)


# Intervals


def many_runs(runs, seeds, prompts, draw):
    """Evaluations of many independent runs, an OOD ratio each.

    draw(rng, runs, seeds, prompts) gives masses and greedy.
    """
    masses, greedy = draw(RNG(3), runs, seeds, prompts)
    run, seed, prompt = (index.ravel() for index in np.indices(masses.shape))
    names = {"axis": "depth", "stage": "sft", "split": "ood", "task": "trav;4;A"}
    with np.errstate(divide="ignore"):
        columns = {
            "seed": seed,
            "ood_ratio": run.astype(str),
            "prompt_index": prompt,
            "log_mass": np.log(masses.ravel()),
        }
    columns |= parts_of(columns["log_mass"])
    return pd.DataFrame({**columns, "greedy_correct": greedy.ravel()}).assign(**names)


def beta_prompts(rng, runs, seeds, prompts):
    level = rng.normal(0.5, 0.1, (runs, seeds, 1)).clip(
        0.02, 0.98
    )  # seeds differ, prompts differ within seeds
    masses = rng.beta(4 * level, 4 * (1 - level), (runs, seeds, prompts))
    return masses, rng.random(masses.shape) < masses


@pytest.mark.parametrize(
    ("seeds", "label"), [(3, "t interval over 3 seeds"), (1, "over 64 prompts")]
)
def test_intervals_of_a_summary_cover(seeds, label):
    def draw(rng, *shape):
        if seeds > 1:
            return beta_prompts(rng, *shape)
        masses = rng.beta(2, 2, shape)
        return masses, rng.random(shape) < masses

    table = statistics.summarise(many_runs(2500, seeds, 64, draw))
    for metric in ("accuracy", "mass"):
        rows = table[table["metric"] == metric]
        assert rows["interval"].str.contains(label).mean() > 0.99
        assert 0.93 < covered((rows["low"], rows["high"]), 0.5) < 0.97


def test_intervals_of_gains_cover():
    before = many_runs(2000, 3, 64, beta_prompts)
    rng = RNG(4)
    gain = np.repeat(rng.normal(0.1, 0.03, 2000 * 3), 64)
    mass = np.exp(before["log_mass"])
    after = before.assign(
        stage="grpo~ood",
        log_mass=np.log((mass + gain + rng.normal(0, 0.02, len(mass))).clip(1e-9, 1)),
    )
    both = pd.concat(
        [before[mass.between(0.25, 0.7)], after[mass.between(0.25, 0.7)]]
    )  # where clipping is out of reach
    rows = statistics.gains(both).query("metric == 'mass'")
    assert 0.93 < covered((rows["low"], rows["high"]), 0.1) < 0.97


# Summaries


def test_summary_by_hand():
    table = pd.concat(
        [
            evaluations([0.2, 0.4]),
            evaluations([0.5, 0.7], seed=1),
            evaluations([0.0, 0.0, 0.6], seed=2),
        ]
    )
    row = cell(statistics.summarise(table))
    assert (row["mean"], row["seeds"], row["prompts"]) == (
        pytest.approx((0.3 + 0.6 + 0.2) / 3),
        3,
        7,
    )  # of seeds, not of prompts
    half = 4.302652729911275 * np.std([0.3, 0.6, 0.2], ddof=1) / np.sqrt(3)  # t(0.975, 2)
    assert row["low"] == 0  # clipped
    assert row["high"] == pytest.approx(row["mean"] + half)
    assert row["interval"] == "95 % t interval over 3 seeds"
    assert cell(statistics.summarise(table), "pass@8")["mean"] == pytest.approx(
        np.mean(
            [np.mean(1 - (1 - np.array(q)) ** 8) for q in ([0.2, 0.4], [0.5, 0.7], [0, 0, 0.6])]
        )
    )


def test_a_split_pools_the_prompts_of_all_its_tasks():
    table = pd.concat([evaluations([0.2]), evaluations([0.8, 0.8, 0.6], task="trav trav;4;A")])
    table["prompt_index"] = np.arange(4)
    means = statistics.seed_means(table)
    assert cell(means)["mean"] == pytest.approx(0.6)
    by_task = statistics.seed_means(table, by_task=True)
    assert cell(by_task, task="trav trav;4;A")["mean"] == pytest.approx(2.2 / 3)
    assert cell(means, "accuracy")["mean"] == pytest.approx(0.75)
    assert cell(means)["prompts"] == 4
    direct = statistics.summarise(table)
    spread = np.std([0.2, 0.8, 0.8, 0.6], ddof=1)  # pooled from the tasks' moments
    assert cell(direct)["high"] == pytest.approx(
        min(1, 0.6 + scipy_stats.t.ppf(0.975, 3) * spread / 2)
    )


def test_one_seed_takes_prompts_and_says_so():
    summary = statistics.summarise(evaluations(np.r_[np.full(30, 0.9), np.full(70, 0.1)]))
    row = cell(summary, "accuracy")
    assert row["interval"] == "95 % Wilson interval over 100 prompts"
    assert (row["low"], row["high"]) == (
        pytest.approx(0.2189, abs=1e-4),
        pytest.approx(0.3959, abs=1e-4),
    )
    assert cell(summary)["interval"] == "95 % t interval over 100 prompts"


@pytest.mark.parametrize("seeds", [1, 3])
def test_zero_counts_get_an_upper_bound(seeds):
    table = pd.concat([evaluations(np.zeros(512), seed=seed) for seed in range(seeds)])
    for metric in ("accuracy", "mass", "pass@128"):
        row = cell(statistics.summarise(table), metric)
        assert (row["mean"], row["low"]) == (0, 0)
        assert row["high"] == pytest.approx(1 - 0.05 ** (1 / (512 * seeds)))
        assert (
            row["interval"] == f"95 % Clopper-Pearson bound over {512 * seeds} prompts, all equal"
        )
    ones = cell(statistics.summarise(table.assign(log_mass=0.0)))
    assert (ones["low"], ones["high"]) == (pytest.approx(0.05 ** (1 / (512 * seeds))), 1)


def test_seeds_of_equal_accuracy_fall_back_to_prompts():
    table = pd.concat([evaluations([0.9, 0.1, 0.1, 0.1], seed=seed) for seed in range(2)])
    row = cell(statistics.summarise(table), "accuracy")
    assert row["interval"] == "95 % Wilson interval over 8 prompts"
    assert row["low"] < 0.25 < row["high"]


@st.composite
def some_evaluations(draw):
    parts = []
    for seed in range(draw(st.integers(1, 4))):
        for stage in ("sft", "grpo~ood", "dpo~id"):
            masses = draw(
                st.lists(
                    st.sampled_from([0.0, 1e-12, 0.01, 0.5, 0.99, 1.0]) | st.floats(1e-9, 1),
                    min_size=4,
                    max_size=4,
                )
            )
            tasks = ["trav;4;A", "trav;4;A", "shift;4;A", "trav shift;4;A"]
            parts.append(evaluations(masses, seed=seed, stage=stage).assign(task=tasks))
    return pd.concat(parts, ignore_index=True)


@settings(max_examples=15, deadline=None)
@given(some_evaluations(), st.randoms(use_true_random=False))
def test_intervals_hold_the_mean_and_do_not_depend_on_order(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    for function, floor in ((statistics.summarise, 0), (statistics.gains, -1)):
        result = function(table)
        assert (result["low"] <= result["mean"]).all()
        assert (result["mean"] <= result["high"]).all()
        assert result[["low", "high"]].stack().between(floor, 1).all()
        assert (result["low"] < result["high"]).all()
        other = function(table.iloc[order])
        pd.testing.assert_frame_equal(
            result.drop(columns="interval"), other.drop(columns="interval"), atol=1e-9
        )


def test_prompts_that_differ_by_rounding_alone_count_as_equal():
    table = statistics.summarise(
        evaluations([0.25, 0.5], stage="sft")
    )  # pass@128 is 1 - 1e-16 and 1
    row = table[table["metric"] == "pass@128"].iloc[0]
    assert row["low"] < row["high"]
    assert "Clopper-Pearson" in row["interval"]


# Gains


def test_gains_are_paired():
    before = [evaluations([0.1, 0.5], seed=seed) for seed in (0, 1)]
    after = [
        evaluations([0.3, 0.5], seed=0, stage="grpo~ood").iloc[::-1],
        evaluations([0.2, 0.8], seed=1, stage="grpo~ood"),
        evaluations([0.0, 0.5], seed=0, stage="other~new"),
    ]
    table = pd.concat([*before, evaluations([0.0, 0.0], stage="pretrain"), *after])
    gains = statistics.gains(table)
    row = cell(gains, stage="grpo~ood")
    assert (row["mean"], row["seeds"], row["prompts"]) == (pytest.approx(0.15), 2, 4)
    assert row["interval"] == "95 % t interval over 2 seeds"
    assert set(gains["stage"]) == {"grpo~ood", "other~new"}
    seeds = statistics.seed_gains(table).query("metric == 'mass' and stage == 'grpo~ood'")
    assert seeds["mean"].tolist() == pytest.approx([0.1, 0.2])
    prompts = (
        statistics.prompt_gains(table)
        .query("stage == 'grpo~ood'")
        .sort_values(["seed", "prompt_index"])
    )
    assert prompts["gain"].tolist() == pytest.approx([0.2, 0, 0.1, 0.3])
    assert prompts["mass_before"].tolist() == pytest.approx([0.1, 0.5, 0.1, 0.5])
    base = statistics.gains(table[table["seed"] == 0], baseline="pretrain")
    assert set(base["stage"]) == {"sft", "grpo~ood", "other~new"}


def test_no_change_at_all_is_bounded_both_ways():
    table = pd.concat(
        [
            evaluations(np.zeros(100), seed=s, stage=stage)
            for s in (0, 1)
            for stage in ("sft", "grpo~id")
        ]
    )
    row = cell(statistics.gains(table))
    bound = 1 - 0.05 ** (1 / 200)
    assert (row["low"], row["mean"], row["high"]) == (
        pytest.approx(-bound),
        0,
        pytest.approx(bound),
    )


@pytest.mark.parametrize("spoil", ["missing before", "missing after", "no baseline", "twice"])
def test_unpaired_prompts_are_refused(spoil):
    before, after = evaluations([0.1, 0.5, 0.7]), evaluations([0.3, 0.5, 0.7], stage="grpo~ood")
    parts = {
        "missing before": [before.head(2), after],
        "missing after": [before, after.head(2)],
        "no baseline": [before, after, after.assign(seed=1)],
        "twice": [before, after, after.head(1)],
    }[spoil]
    for function in (statistics.gains, statistics.seed_gains, statistics.prompt_gains):
        with pytest.raises(ValueError, match=r"unpaired|twice"):
            function(pd.concat(parts))


def test_binned_gains_by_hand():
    parts = []
    for seed, gain in ((0, 0.1), (1, 0.3)):
        start = np.array([0.3, 0.4, 0.95, 1.0])
        parts += [
            evaluations(start, seed=seed),
            evaluations(start + np.array([gain, gain, 0, 0]), seed=seed, stage="grpo~ood"),
        ]
    prompts = statistics.prompt_gains(pd.concat(parts))
    table = statistics.binned_gains(prompts, fewest=2)
    assert table["bin"].tolist() == ["0.25-0.5", "0.95-1"]
    assert table["mass_before"].tolist() == pytest.approx([0.35, 0.975])
    assert table["mean"].tolist() == pytest.approx([0.2, 0])
    assert table["prompts"].tolist() == [4, 4]
    assert table["interval"][0] == "95 % t interval over 2 seeds"
    seeds = statistics.seed_binned_gains(prompts, by=("stage", "split"), fewest=2)
    assert seeds[seeds["bin"] == "0.25-0.5"]["mean"].tolist() == pytest.approx([0.1, 0.3])


def test_a_seed_with_few_prompts_in_a_bin_does_not_count():
    parts = []
    for seed, prompts, gain in ((0, 5, 0.1), (1, 5, 0.3), (2, 1, -0.3)):
        start = np.full(prompts, 0.3)
        parts += [
            evaluations(start, seed=seed),
            evaluations(start + gain, seed=seed, stage="grpo~ood"),
        ]
    prompts = statistics.prompt_gains(pd.concat(parts))
    row = statistics.binned_gains(prompts, fewest=5).iloc[0]
    assert (row["mean"], row["seeds"], row["prompts"]) == (pytest.approx(0.2), 2, 10)
    assert set(statistics.seed_binned_gains(prompts, fewest=5)["seed"]) == {0, 1}
    assert statistics.binned_gains(prompts, fewest=20).empty


def test_prompt_gains_know_the_pretrained_mass():
    table = pd.concat(
        [
            evaluations([q], stage=stage)
            for stage, q in (("pretrain", 0.4), ("sft", 0.1), ("grpo~ood", 0.5))
        ]
    )
    assert statistics.prompt_gains(table)["mass_pretrained"].tolist() == pytest.approx([0.4])
    assert (
        statistics.prompt_gains(table[table["stage"] != "pretrain"])["mass_pretrained"].isna().all()
    )


def test_a_large_run_takes_seconds():
    import time

    tables = [
        evaluations(
            RNG(seed).beta(0.3, 0.3, 5000), seed=seed, stage=stage, ratio=ratio, split=split
        )
        for seed in range(3)
        for stage in ("sft", "grpo~id", "grpo~ood")
        for ratio in ("0", "0.01", "0.1", "0.3", "0.5")
        for split in ("id", "ood", "mixed-1")
    ]
    table = pd.concat(tables, ignore_index=True)  # 675,000 rows
    started = time.process_time()
    statistics.summarise(table)
    statistics.gains(table)
    statistics.binned_gains(statistics.prompt_gains(table))
    assert time.process_time() - started < 10
