"""Statistics of evaluations: means, exact pass@k, paired gains, each with a labelled interval.

Input is the table of `evaluations.read_evaluations`: one row a stage and test prompt. Seeds are the
unit of replication, each being a world, its data and its models; prompts stand in for them only
where a run has one seed or the seeds do not differ, and the interval's label says so. Called by the
registry of tables and by `claims`; knows nothing of models, claims or figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from grpo_origin.analysis.intervals import LEVEL, constant_interval, t_interval, wilson_interval
from grpo_origin.analysis.stages import start_of, with_method
from grpo_origin.config.paths import BEFORE_RL
from grpo_origin.evaluation.exploration import log_miss

PASS_AT = (8, 32, 128, 10_000, 1_000_000)
PAIR = ("axis", "seed", "ood_ratio", "split", "task", "prompt_index")
# Bins of starting mass. Decades below 0.1, because the theory's bound on the gain is proportional
# to the mass there; even steps in the middle, where the gain peaks; narrow ones at the top, where
# it vanishes.
MASS_BINS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
_ROUNDING = 1e-12  # values that differ relatively by no more than this are equal


def pass_at_k(log_mass: ArrayLike, k: float) -> np.ndarray:
    """Exact pass@k = 1 - (1 - Q)^k from ln Q: the chance that one of k samples is correct."""
    return -np.expm1(k * log_miss(log_mass))


def unbiased_pass_at_k(n: int, c: ArrayLike, k: int) -> np.ndarray:
    """Unbiased pass@k = 1 - C(n-c, k) / C(n, k) from c correct of n samples (arXiv 2107.03374).

    Raises ValueError if k is not from 1 to n or c not from 0 to n: with k > n there is no unbiased
    estimate.
    """
    c = np.asarray(c)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} can't be estimated from {n} samples: k must be from 1 to n")
    if c.size and (c.min() < 0 or c.max() > n):
        raise ValueError(f"c must be from 0 to {n}, the number of samples")
    # ln(1 - k/i) for i = n .. k+1; the next factor is 0
    factors = np.log1p(-k / np.arange(n, k, -1.0))
    log_none = np.concatenate([[0.0], np.cumsum(factors), np.full(k, -np.inf)])
    return -np.expm1(log_none[c])


@dataclass(frozen=True)
class Metric:
    """What is averaged over prompts: a number in [0, 1] from one column of an evaluation."""

    column: str
    of: Callable[[np.ndarray], np.ndarray]
    meaning: str
    yes_or_no: bool = False  # each prompt's value is 0 or 1, so that the mean is a proportion


# The registry of metrics: an entry here is a metric in every table and in their README.
METRICS: dict[str, Metric] = {
    "accuracy": Metric("greedy_correct", np.asarray, "greedy accuracy", yes_or_no=True),
    "mass": Metric("log_mass", np.exp, "correct mass Q, which is pass@1"),
    "markers": Metric(
        "log_mass_markers",
        np.exp,
        "probability of the markers (`<think>`, `<answer>`, `<eos>`: how many steps) given the "
        "right beginning; times `content` it is Q, prompt by prompt",
    ),
    "content": Metric(
        "log_mass_content", np.exp, "probability of the states between the markers, likewise"
    ),
} | {f"pass@{k}": Metric("log_mass", partial(pass_at_k, k=k), f"exact pass@{k}") for k in PASS_AT}
VALUES = tuple(dict.fromkeys(metric.column for metric in METRICS.values()))


def _metrics(evaluations: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """Every metric of every row, shape (rows, metrics)."""
    columns = {name: evaluations[name + suffix].to_numpy(dtype=float) for name in VALUES}
    for name in set(VALUES) - {"greedy_correct"}:
        columns[name] = np.minimum(columns[name], 0.0)  # rounding can make a mass more than 1
    values = {name: metric.of(columns[metric.column]) for name, metric in METRICS.items()}
    return pd.DataFrame(values, index=evaluations.index)


def _moments(values: pd.DataFrame, by: list[pd.Series]) -> pd.DataFrame:
    """Mean, sum of squares about it, extremes and number of prompts of every column and group."""
    names = [str(key.name) for key in by]
    table = values.groupby(by, observed=True).agg(["mean", "var", "min", "max", "count"])
    table = table.stack(level=0, future_stack=True).rename_axis([*names, "metric"]).reset_index()
    table["squares"] = table.pop("var").fillna(0.0) * (table["count"] - 1)
    return table.rename(columns={"count": "prompts"})


def _pool(moments: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Moments of the groups' prompts taken together, one row a combination of `keys`."""
    moments = moments.assign(total=moments["mean"] * moments["prompts"])
    groups = moments.groupby(keys, observed=True)
    mean = groups["total"].transform("sum") / groups["prompts"].transform("sum")
    moments["squares"] += moments["prompts"] * (moments["mean"] - mean) ** 2
    pooled = moments.groupby(keys, observed=True).agg(
        total=("total", "sum"),
        prompts=("prompts", "sum"),
        squares=("squares", "sum"),
        min=("min", "min"),
        max=("max", "max"),
    )
    pooled["mean"] = (pooled.pop("total") / pooled["prompts"]).clip(pooled["min"], pooled["max"])
    return pooled.reset_index()


def _seed_moments(values: pd.DataFrame, keys: pd.DataFrame, by_task: bool) -> pd.DataFrame:
    """Moments of every seed of every cell: over all prompts of a split, or of each of its tasks."""
    names = ["axis", "seed", "ood_ratio", "stage", "split"]
    tasks = _moments(values, [keys[name] for name in (*names, "task")])
    return tasks if by_task else _pool(tasks, [*names, "metric"])


def _equal(ranges: pd.DataFrame) -> np.ndarray:
    """Which rows, of columns `min` and `max`, are of values that differ by rounding alone."""
    largest = ranges[["min", "max"]].abs().max(axis=1)
    return (ranges["max"] - ranges["min"] <= _ROUNDING * largest).to_numpy()


def _over_seeds(
    moments: pd.DataFrame, keys: Sequence[str], floor: float, level: float = LEVEL
) -> pd.DataFrame:
    """Mean over seeds and its interval, one row a combination of `keys`; values in [floor, 1].

    1. Two or more seeds that differ: t interval over the seed means.
    2. Otherwise prompts, pooled over seeds: Wilson for a proportion, t for everything else.
    3. Prompts that are all equal but for rounding, as zero counts are: `constant_interval`.
    """
    keys = list(keys)
    table = _pool(moments, keys).drop(columns="mean")
    over_seeds = moments.groupby(keys, observed=True)["mean"]
    seeds = over_seeds.agg(["mean", "std", "count", "min", "max"]).reset_index(drop=True)
    mean, count = seeds["mean"].to_numpy(), seeds["count"].to_numpy()
    n = table["prompts"].to_numpy()
    differ, constant = ~_equal(seeds), _equal(table)
    yes_or_no = table["metric"].map(
        {name: metric.yes_or_no and floor == 0 for name, metric in METRICS.items()}
    )
    proportion = yes_or_no.fillna(False).to_numpy(bool) & ~differ & ~constant
    wilson = np.full((2, len(n)), np.nan)
    for i in np.flatnonzero(proportion):
        wilson[:, i] = wilson_interval(round(float(mean[i] * n[i])), int(n[i]), level)
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(table["squares"] / np.maximum(n - 1, 1)).to_numpy()
        over_prompts = t_interval(mean, std, n, level)
        between_seeds = t_interval(mean, seeds["std"].to_numpy(), count, level)
    methods = (
        ("t interval over {seeds} seeds", differ, between_seeds),
        (
            "Clopper-Pearson bound over {prompts} prompts, all equal",
            constant,
            constant_interval(mean, n, floor, level),
        ),
        ("Wilson interval over {prompts} prompts", proportion, wilson),
        ("t interval over {prompts} prompts", np.ones(len(n), bool), over_prompts),
    )
    chosen = [choose for _, choose, _ in methods]
    bounds = [
        np.select(chosen, [interval[side] for *_, interval in methods]).clip(floor, 1.0)
        for side in (0, 1)
    ]
    names = [methods[i][0] for i in np.argmax(chosen, axis=0)]
    labels = [
        f"{100 * level:g} % " + name.format(seeds=s, prompts=p)
        for name, s, p in zip(names, count, n, strict=True)
    ]
    return table[keys].assign(
        mean=mean,
        low=np.minimum(bounds[0], mean),
        high=np.maximum(bounds[1], mean),
        interval=labels,
        seeds=count,
        prompts=n,
    )


def _by_seed(moments: pd.DataFrame) -> pd.DataFrame:
    task = ["task"] if "task" in moments else []
    columns = ["axis", "seed", "ood_ratio", "stage", "split", *task, "metric", "mean", "prompts"]
    return with_method(moments[columns])


def _by_cell(moments: pd.DataFrame, floor: float, level: float) -> pd.DataFrame:
    task = ["task"] if "task" in moments else []
    keys = ["axis", "ood_ratio", "stage", "split", *task, "metric"]
    return with_method(_over_seeds(moments, keys, floor, level))


def seed_means(evaluations: pd.DataFrame, by_task: bool = False) -> pd.DataFrame:
    """Mean of every metric in every seed.

    Columns axis, seed, ood_ratio, stage, method, trained_on, split, (task,) metric, mean, prompts.
    """
    return _by_seed(_seed_moments(_metrics(evaluations), evaluations, by_task))


def summarise(
    evaluations: pd.DataFrame, level: float = LEVEL, by_task: bool = False
) -> pd.DataFrame:
    """Mean over seeds of every metric with its interval, clipped to [0, 1].

    Columns axis, ood_ratio, stage, method, trained_on, split, (task,) metric, mean, low, high,
    interval, seeds, prompts. `interval` names the method (see `_over_seeds`), `prompts` counts
    those of all seeds.
    """
    return _by_cell(_seed_moments(_metrics(evaluations), evaluations, by_task), 0.0, level)


def later_stages(evaluations: pd.DataFrame, baseline: str) -> list[str]:
    """Stages that come after the baseline: after `sft`, those of RL."""
    before = [*BEFORE_RL, baseline]
    before = before[: before.index(baseline) + 1]
    return [stage for stage in sorted(evaluations["stage"].unique()) if stage not in before]


def _pairs(evaluations: pd.DataFrame, baseline: str | None, columns: Iterable[str]) -> pd.DataFrame:
    """Every row of a later stage beside the baseline's of the same prompt (suffix `_before`).

    The baseline is where RL starts unless one is named.
    """
    baseline = baseline or start_of(evaluations["stage"])
    cell = ["axis", "seed", "ood_ratio"]
    values = [*PAIR, *columns]
    before = evaluations.loc[evaluations["stage"] == baseline, values]
    later = evaluations["stage"].isin(later_stages(evaluations, baseline))
    after = evaluations.loc[later, [*values, "stage"]]
    if before.duplicated([*PAIR]).any() or after.duplicated([*PAIR, "stage"]).any():
        raise ValueError("a prompt occurs twice in a stage: gains need one row a stage and prompt")
    pairs = after.merge(before, how="left", on=list(PAIR), suffixes=("", "_before"))
    sizes = before.groupby(cell).size().rename("rows").reset_index()
    wanted = after[[*cell, "stage"]].drop_duplicates().merge(sizes, on=cell)
    if pairs["log_mass_before"].isna().any() or wanted["rows"].sum() != len(pairs):
        raise ValueError(
            f"unpaired prompts: every stage must have the same prompts as {baseline} of its cell"
        )
    return pairs


def _gain_moments(evaluations: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    pairs = _pairs(evaluations, baseline, VALUES)
    return _seed_moments(_metrics(pairs) - _metrics(pairs, "_before"), pairs, by_task=False)


def seed_gains(evaluations: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Mean paired difference, later stage minus baseline, in every seed; columns as `seed_means`.

    Raises ValueError if a stage and the baseline do not have the same prompts.
    """
    return _by_seed(_gain_moments(evaluations, baseline))


def gains(
    evaluations: pd.DataFrame, baseline: str | None = None, level: float = LEVEL
) -> pd.DataFrame:
    """Paired differences, later stage minus baseline, over seeds; columns as `summarise`.

    Intervals are clipped to [-1, 1]. Raises ValueError if a stage and the baseline do not have the
    same prompts.
    """
    return _by_cell(_gain_moments(evaluations, baseline), -1.0, level)


def prompt_gains(evaluations: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Mass of every prompt before and after, one row a later stage and prompt.

    Columns axis, seed, ood_ratio, stage, method, trained_on, split, task, prompt_index,
    log_mass_before, log_mass_after (nats), mass_before, mass_after, gain, mass_pretrained (in the
    pretrained model; NaN without one: SFT can hide mass that pretraining put there). Raises
    ValueError if a stage and the baseline do not have the same prompts.
    """
    pairs = _pairs(evaluations, baseline, ["log_mass"])
    pairs = pairs.rename(columns={"log_mass": "log_mass_after"})
    first = evaluations.loc[evaluations["stage"] == BEFORE_RL[0], [*PAIR, "log_mass"]]
    first = first.rename(columns={"log_mass": "log_mass_pretrained"})
    pairs = pairs.merge(first, how="left", on=list(PAIR))
    masses: dict[str, Any] = {
        f"mass_{when}": np.exp(pairs[f"log_mass_{when}"].clip(upper=0.0))
        for when in ("before", "after", "pretrained")
    }
    table = pairs[[*PAIR[:3], "stage", *PAIR[3:], "log_mass_before", "log_mass_after"]]
    gain = masses["mass_after"] - masses["mass_before"]
    return with_method(table.assign(**masses, gain=gain))


def _bin_moments(
    table: pd.DataFrame, by: Sequence[str], bins: Sequence[float], fewest: int
) -> pd.DataFrame:
    """Moments of gain and starting mass of every seed and bin.

    Columns `by`, seed, bin_low, bin_high, bin, metric, ...
    """
    edges = np.asarray(bins, dtype=float)
    places = np.searchsorted(edges, table["mass_before"], side="right") - 1
    lower = edges[places.clip(0, len(edges) - 2)]
    keys = [*(table[name] for name in (*by, "seed"))]
    keys.append(pd.Series(lower, index=table.index, name="bin_low"))
    moments = _moments(table[["gain", "mass_before"]], keys)
    moments = moments[moments["prompts"] >= fewest].reset_index(drop=True)
    moments["bin_high"] = edges[np.searchsorted(edges, moments["bin_low"]) + 1]
    moments["bin"] = [
        f"{low:g}-{high:g}"
        for low, high in zip(moments["bin_low"], moments["bin_high"], strict=True)
    ]
    return moments


def _gain_by_bin(table: pd.DataFrame, keys: list[str], columns: Iterable[str]) -> pd.DataFrame:
    starts = table.loc[table["metric"] == "mass_before", [*keys, "mean"]]
    starts = starts.rename(columns={"mean": "mass_before"})
    merged = table[table["metric"] == "gain"].merge(starts, on=keys)
    merged = merged[[*keys, "mass_before", *columns]]
    return with_method(merged) if "stage" in keys else merged


def seed_binned_gains(
    table: pd.DataFrame,
    by: Sequence[str] = ("axis", "stage", "split"),
    bins: Sequence[float] = MASS_BINS,
    fewest: int = 1,
) -> pd.DataFrame:
    """Mean gain in every bin of starting mass in every seed with at least `fewest` prompts there.

    Columns `by`, seed, bin_low, bin_high, bin, mass_before, mean, prompts; `stage` brings `method`
    and `trained_on`.
    """
    keys = [*by, "seed", "bin_low", "bin_high", "bin"]
    return _gain_by_bin(_bin_moments(table, by, bins, fewest), keys, ["mean", "prompts"])


def binned_gains(
    table: pd.DataFrame,
    by: Sequence[str] = ("axis", "stage", "split"),
    bins: Sequence[float] = MASS_BINS,
    level: float = LEVEL,
    fewest: int = 1,
) -> pd.DataFrame:
    """Mean gain in every bin of starting mass, over seeds, from the rows of `prompt_gains`.

    Columns `by`, bin_low, bin_high, bin (its label), mass_before (mean over seeds), mean, low,
    high, interval, seeds, prompts; `stage` brings `method` and `trained_on`. A seed's mean is over
    all its prompts in the bin, whatever their ratio unless `by` has `ood_ratio`; a seed with fewer
    than `fewest` does not count, and a bin without seeds has no row. Bins are closed below, the
    last one also above.
    """
    keys = [*by, "bin_low", "bin_high", "bin"]
    result = _over_seeds(_bin_moments(table, by, bins, fewest), [*keys, "metric"], -1.0, level)
    return _gain_by_bin(result, keys, ["mean", "low", "high", "interval", "seeds", "prompts"])
