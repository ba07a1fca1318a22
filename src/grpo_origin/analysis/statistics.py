"""Statistics of evaluations: means, exact pass@k, paired gains, each with an interval and the name of its method.

Input is the concatenation of evaluation files: one row a stage and test prompt. Seeds are the unit of replication, each
being a world, its data and its models; prompts stand in for them only where a run has one seed or the seeds do not
differ, and the interval's label says so. This module knows stages only as names: `pretrain`, `sft`, then any
`method~prompts`. It knows nothing of models, claims or figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from grpo_origin.config.paths import BEFORE_RL
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import read_table

LEVEL = 0.95  # coverage of every interval


ALL = "all"  # stands for all tasks of a split, pooled; no task has this name


PASS_AT = (8, 32, 128)


METRICS = ("accuracy", "mass", *(f"pass@{k}" for k in PASS_AT))  # pass@1 is the mass


CELL = ("axis", "ood_ratio", "stage", "split", "task", "metric")


PAIR = ("axis", "seed", "ood_ratio", "split", "task", "prompt_index")


COLUMNS = (*PAIR, "stage", "log_mass", "greedy_correct")


# Bins of starting mass. Decades below 0.1, because the theory's bound on the gain is proportional to the mass there; even
# steps in the middle, where the gain peaks; narrow ones at the top, where it vanishes.
MASS_BINS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


_ROUNDING = 1e-12  # values that differ relatively by no more than this are equal


def read_evaluations(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read evaluation files into one table, a row a (axis, seed, ratio, stage, prompt).

    Raises ArtefactError if a file is missing, truncated, foreign or empty, if a log mass is not the log of a probability,
    or if a row is there twice (in one file or in two).
    """
    import pyarrow as pa

    types = dict.fromkeys(COLUMNS, pa.string()) | {"seed": pa.int64(), "prompt_index": pa.int64()}
    schema = pa.schema(
        [*(types | {"log_mass": pa.float64(), "greedy_correct": pa.bool_()}).items()]
    )
    tables, cells = [], {}
    for path in paths:
        try:
            table = read_table(path, COLUMNS).cast(schema).to_pandas()
        except pa.ArrowException as error:
            raise ArtefactError(
                path, f"foreign parquet file ({str(error).splitlines()[0]})"
            ) from None
        if table.empty:
            raise ArtefactError(path, "holds no evaluations")
        if table.isna().any(axis=None) or table["log_mass"].max() > 1e-3:
            raise ArtefactError(path, "holds values that are missing or no log probability")
        if table.duplicated([*PAIR, "stage"]).any():
            raise ArtefactError(path, "holds the same stage and prompt twice")
        for cell in (
            table[["axis", "seed", "ood_ratio", "stage"]]
            .drop_duplicates()
            .itertuples(index=False, name=None)
        ):
            if cell in cells:
                raise ArtefactError(path, f"repeats the cell {cell} of {cells[cell]}")
            cells[cell] = path
        tables.append(table)
    if not tables:
        raise ValueError("no evaluation files given")
    return pd.concat(tables, ignore_index=True)


def pass_at_k(log_mass: ArrayLike, k: int) -> np.ndarray:
    """Exact pass@k = 1 - (1 - Q)^k from ln Q: the chance that k samples at temperature 1 hold the correct completion.

    Stable at both ends: ln(1 - Q) by expm1 near Q = 1 and by log1p elsewhere (Maechler 2012, log1mexp).
    """
    log_mass = np.minimum(np.asarray(log_mass, dtype=float), 0.0)
    with np.errstate(divide="ignore"):
        log_miss = np.where(
            log_mass > -np.log(2), np.log(-np.expm1(log_mass)), np.log1p(-np.exp(log_mass))
        )
    return -np.expm1(k * log_miss)


def unbiased_pass_at_k(n: int, c: ArrayLike, k: int) -> np.ndarray:
    """Unbiased pass@k = 1 - C(n-c, k) / C(n, k) from c correct of n samples (Chen et al. 2021, arXiv 2107.03374).

    Raises ValueError if k is not from 1 to n or c not from 0 to n: with k > n there is no unbiased estimate.
    """
    c = np.asarray(c)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} can't be estimated from {n} samples: k must be from 1 to n")
    if c.size and (c.min() < 0 or c.max() > n):
        raise ValueError(f"c must be from 0 to {n}, the number of samples")
    factors = np.log1p(
        -k / np.arange(n, k, -1.0)
    )  # ln(1 - k/i) for i = n .. k+1; the next factor is 0
    log_miss = np.concatenate([[0.0], np.cumsum(factors), np.full(k, -np.inf)])
    return -np.expm1(log_miss[c])


def binomial_agrees(
    successes: ArrayLike, samples: int, q: ArrayLike, significance: float = 1e-3
) -> bool:
    """Whether success counts of prompts fit the exact masses `q`, each count being Binomial(samples, q).

    Half of `significance` goes to single prompts (exact two-sided test, Bonferroni), half to their sum (Bernstein's
    inequality, which holds for any mix of q). So a true `q` is refused at most with probability `significance`.
    """
    successes, q = np.broadcast_arrays(
        np.atleast_1d(successes), np.clip(np.atleast_1d(q), 0.0, 1.0)
    )
    tails = np.minimum(
        stats.binom.cdf(successes, samples, q), stats.binom.sf(successes - 1, samples, q)
    )
    off = abs(float(np.sum(successes - samples * q)))
    spread = float(np.sum(samples * q * (1 - q))) + off / 3
    pooled = 2 * np.exp(-(off**2) / 2 / spread) if off > 0 else 1.0
    return bool(min(float(2 * tails.min()) * q.size, pooled) >= significance / 2)


def t_interval(
    mean: ArrayLike, std: ArrayLike, n: ArrayLike, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of a mean from the sample standard deviation of n values; NaN where n < 2."""
    n = np.asarray(n, dtype=float)
    half = (
        stats.t.ppf((1 + level) / 2, np.where(n > 1, n - 1, np.nan)) * np.asarray(std) / np.sqrt(n)
    )
    return mean - half, mean + half


def wilson_interval(
    share: ArrayLike, n: ArrayLike, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a proportion observed in n trials (Wilson 1927)."""
    share, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def clopper_pearson_upper(count: ArrayLike, n: ArrayLike, level: float = LEVEL) -> np.ndarray:
    """One-sided upper bound of a proportion from `count` of n (Clopper and Pearson 1934): 1 - (1 - level)^(1/n) at 0."""
    count, n = np.asarray(count), np.asarray(n)
    return np.where(count >= n, 1.0, stats.beta.ppf(level, count + 1, np.maximum(n - count, 1)))


def clopper_pearson_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a proportion from `count` of n (Clopper and Pearson 1934); one-sided where the count is 0 or n."""
    if count in (0, n):
        bound = float(clopper_pearson_upper(0, n, level))
        return (0.0, bound) if count == 0 else (1 - bound, 1.0)
    tail = (1 - level) / 2
    return float(stats.beta.ppf(tail, count, n - count + 1)), float(
        stats.beta.ppf(1 - tail, count + 1, n - count)
    )


def constant_interval(
    value: ArrayLike, n: ArrayLike, floor: float, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of values in [floor, 1] when all n prompts gave the same one, so that they show no variance.

    At most a share u of prompts is different, u being the Clopper-Pearson upper bound of 0 in n; the mean then lies between
    (1-u) value + u floor and (1-u) value + u. For 0 in [0, 1] that is [0, u].
    """
    share = clopper_pearson_upper(0, n, level)
    return (1 - share) * value + share * floor, (1 - share) * value + share


def _metrics(evaluations: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """Every metric of every row, shape (rows, metrics)."""
    log_mass = np.minimum(evaluations[f"log_mass{suffix}"].to_numpy(dtype=float), 0.0)
    values = {
        "accuracy": evaluations[f"greedy_correct{suffix}"].to_numpy(dtype=float),
        "mass": np.exp(log_mass),
    }
    values |= {f"pass@{k}": pass_at_k(log_mass, k) for k in PASS_AT}
    return pd.DataFrame(values, index=evaluations.index)


def _moments(values: pd.DataFrame, by: list[pd.Series]) -> pd.DataFrame:
    """Mean, sum of squares about it, minimum, maximum and number of prompts of every column of `values` in every group."""
    table = values.groupby(by, observed=True).agg(["mean", "var", "min", "max", "count"])
    table = (
        table.stack(level=0, future_stack=True)
        .rename_axis([*(key.name for key in by), "metric"])
        .reset_index()
    )
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


def _seed_moments(values: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """Moments of every seed of every cell, for each task and for all tasks of the split."""
    names = ["axis", "seed", "ood_ratio", "stage", "split", "task"]
    tasks = _moments(values, [keys[name] for name in names])
    pooled = _pool(tasks, [*(name for name in names if name != "task"), "metric"]).assign(task=ALL)
    return pd.concat([tasks, pooled], ignore_index=True)


def _equal(ranges: pd.DataFrame) -> np.ndarray:
    """Which rows, of columns `min` and `max`, are of values that differ by rounding alone."""
    return (
        ranges["max"] - ranges["min"] <= _ROUNDING * ranges[["min", "max"]].abs().max(axis=1)
    ).to_numpy()


def _over_seeds(
    moments: pd.DataFrame, keys: Sequence[str], floor: float, level: float = LEVEL
) -> pd.DataFrame:
    """Mean over seeds and its interval, one row a combination of `keys`; values lie in [floor, 1].

    1. Two or more seeds that differ: t interval over the seed means.
    2. Otherwise prompts, pooled over seeds: Wilson for the accuracy itself, t for everything else.
    3. Prompts that are all equal but for rounding, zero counts being the common case: `constant_interval`.
    """
    keys = list(keys)
    table = _pool(moments, keys).drop(columns="mean")
    seeds = (
        moments.groupby(keys, observed=True)["mean"]
        .agg(["mean", "std", "count", "min", "max"])
        .reset_index(drop=True)
    )
    n, mean, count = (
        table["prompts"].to_numpy(),
        seeds["mean"].to_numpy(),
        seeds["count"].to_numpy(),
    )
    differ, constant = ~_equal(seeds), _equal(table)
    proportion = (table["metric"] == "accuracy").to_numpy() & (floor == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        over_prompts = t_interval(
            mean, np.sqrt(table["squares"] / np.maximum(n - 1, 1)).to_numpy(), n, level
        )
        methods = {
            "t interval over {seeds} seeds": (
                differ,
                t_interval(mean, seeds["std"].to_numpy(), count, level),
            ),
            "Clopper-Pearson bound over {prompts} prompts, all equal": (
                constant,
                constant_interval(mean, n, floor, level),
            ),
            "Wilson interval over {prompts} prompts": (
                proportion,
                wilson_interval(mean.clip(0, 1), n, level),
            ),
            "t interval over {prompts} prompts": (np.ones(len(n), bool), over_prompts),
        }
    chosen = [choose for choose, _ in methods.values()]
    bounds = [
        np.select(chosen, [interval[side] for _, interval in methods.values()]).clip(floor, 1.0)
        for side in (0, 1)
    ]
    which = np.select(chosen, np.arange(len(methods)).tolist())
    labels = [
        f"{100 * level:g} % " + list(methods)[i].format(seeds=s, prompts=p)
        for i, s, p in zip(which, count, n, strict=True)
    ]
    table = table[keys].assign(
        mean=mean,
        low=np.minimum(bounds[0], mean),
        high=np.maximum(bounds[1], mean),
        interval=labels,
    )
    return table.assign(seeds=count, prompts=n)


def seed_means(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric in every seed: axis, seed, ood_ratio, stage, split, task, metric, mean, prompts.

    `task` is each task and `all`; `metric` is accuracy, mass (which is pass@1) and pass@8, 32 and 128, all exact.
    """
    return _seed_moments(_metrics(evaluations), evaluations)[
        [*PAIR[:3], "stage", "split", "task", "metric", "mean", "prompts"]
    ]


def summarise(evaluations: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """Mean over seeds of every metric with its interval, clipped to [0, 1].

    Columns axis, ood_ratio, stage, split, task, metric, mean, low, high, interval, seeds, prompts. `interval` names the
    method (see `_over_seeds`), `prompts` counts those of all seeds.
    """
    return _over_seeds(_seed_moments(_metrics(evaluations), evaluations), CELL, 0.0, level)


def later_stages(evaluations: pd.DataFrame, baseline: str) -> list[str]:
    """Stages that come after the baseline: after `sft`, those of RL."""
    before = (
        BEFORE_RL[: BEFORE_RL.index(baseline) + 1]
        if baseline in BEFORE_RL
        else (*BEFORE_RL, baseline)
    )
    return [stage for stage in sorted(evaluations["stage"].unique()) if stage not in before]


def _pairs(evaluations: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Every row of a later stage beside the baseline's row of the same prompt (suffix `_before`)."""
    cell = ["axis", "seed", "ood_ratio"]
    values = [*PAIR, "log_mass", "greedy_correct"]
    before = evaluations.loc[evaluations["stage"] == baseline, values]
    after = evaluations.loc[
        evaluations["stage"].isin(later_stages(evaluations, baseline)), [*values, "stage"]
    ]
    if before.duplicated(list(PAIR)).any() or after.duplicated([*PAIR, "stage"]).any():
        raise ValueError("a prompt occurs twice in a stage: gains need one row a stage and prompt")
    pairs = after.merge(before, how="left", on=list(PAIR), suffixes=("", "_before"))
    wanted = (
        after[[*cell, "stage"]]
        .drop_duplicates()
        .merge(before.groupby(cell).size().rename("rows").reset_index(), on=cell)
    )
    if pairs["log_mass_before"].isna().any() or wanted["rows"].sum() != len(pairs):
        raise ValueError(
            f"unpaired prompts: every stage must have the same prompts as {baseline} of its cell"
        )
    pairs["greedy_correct_before"] = pairs["greedy_correct_before"].astype(bool)
    return pairs


def _gain_moments(evaluations: pd.DataFrame, baseline: str) -> pd.DataFrame:
    pairs = _pairs(evaluations, baseline)
    return _seed_moments(_metrics(pairs) - _metrics(pairs, "_before"), pairs)


def seed_gains(evaluations: pd.DataFrame, baseline: str = "sft") -> pd.DataFrame:
    """Mean of the paired differences (later stage minus baseline) in every seed; columns as `seed_means`.

    Raises ValueError if a stage and the baseline do not have the same prompts.
    """
    return _gain_moments(evaluations, baseline)[
        [*PAIR[:3], "stage", "split", "task", "metric", "mean", "prompts"]
    ]


def gains(evaluations: pd.DataFrame, baseline: str = "sft", level: float = LEVEL) -> pd.DataFrame:
    """Paired differences, later stage minus baseline on the same prompts and seeds; columns as `summarise`.

    Intervals are clipped to [-1, 1]. Raises ValueError if a stage and the baseline do not have the same prompts.
    """
    return _over_seeds(_gain_moments(evaluations, baseline), CELL, -1.0, level)


def prompt_gains(evaluations: pd.DataFrame, baseline: str = "sft") -> pd.DataFrame:
    """Mass of every prompt before and after, one row a later stage and prompt.

    Columns axis, seed, ood_ratio, stage, split, task, prompt_index, log_mass_before, log_mass_after (nats), mass_before,
    mass_after, gain, mass_pretrained (in the pretrained model; NaN without one: SFT can hide mass that pretraining put there).
    Raises ValueError if a stage and the baseline do not have the same prompts.
    """
    pairs = _pairs(evaluations, baseline).rename(columns={"log_mass": "log_mass_after"})
    pretrained = evaluations.loc[evaluations["stage"] == BEFORE_RL[0], [*PAIR, "log_mass"]].rename(
        columns={"log_mass": "log_mass_pretrained"}
    )
    pairs = pairs.merge(pretrained, how="left", on=list(PAIR))
    when = ("before", "after", "pretrained")
    masses: dict[str, Any] = {
        f"mass_{name}": np.exp(pairs[f"log_mass_{name}"].clip(upper=0.0)) for name in when
    }
    table = pairs[[*PAIR[:3], "stage", *PAIR[3:], "log_mass_before", "log_mass_after"]]
    return table.assign(**masses, gain=masses["mass_after"] - masses["mass_before"])


def _bin_moments(
    table: pd.DataFrame, by: Sequence[str], bins: Sequence[float], fewest: int
) -> pd.DataFrame:
    """Moments of gain and starting mass of every seed and bin; columns `by`, seed, bin_low, bin_high, bin, metric, ..."""
    edges = np.asarray(bins, dtype=float)
    where = (np.searchsorted(edges, table["mass_before"], side="right") - 1).clip(0, len(edges) - 2)
    keys = [
        *(table[name] for name in (*by, "seed")),
        pd.Series(edges[where], index=table.index, name="bin_low"),
    ]
    moments = _moments(table[["gain", "mass_before"]], keys)
    moments = moments[moments["prompts"] >= fewest].reset_index(drop=True)
    moments["bin_high"] = edges[np.searchsorted(edges, moments["bin_low"]) + 1]
    moments["bin"] = [
        f"{low:g}-{high:g}"
        for low, high in zip(moments["bin_low"], moments["bin_high"], strict=True)
    ]
    return moments


def _gain_by_bin(table: pd.DataFrame, keys: list[str], columns: Sequence[str]) -> pd.DataFrame:
    starts = table.loc[table["metric"] == "mass_before", [*keys, "mean"]].rename(
        columns={"mean": "mass_before"}
    )
    return table[table["metric"] == "gain"].merge(starts, on=keys)[[*keys, "mass_before", *columns]]


def seed_binned_gains(
    table: pd.DataFrame,
    by: Sequence[str] = ("axis", "stage", "split"),
    bins: Sequence[float] = MASS_BINS,
    fewest: int = 1,
) -> pd.DataFrame:
    """Mean gain in every bin of starting mass in every seed with at least `fewest` prompts there.

    Columns `by`, seed, bin_low, bin_high, bin, mass_before, mean, prompts.
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
    """Gain of mass against starting mass from the rows of `prompt_gains`: mean in every bin, with an interval over seeds.

    Columns `by`, bin_low, bin_high, bin (its label), mass_before (mean over seeds), mean, low, high, interval, seeds,
    prompts. A seed's mean is over all its prompts in the bin, whatever their ratio unless `by` has `ood_ratio`; a seed with fewer
    than `fewest` does not count, and a bin without seeds has no row. Bins are closed below, the last one also above.
    """
    keys = [*by, "bin_low", "bin_high", "bin"]
    result = _over_seeds(_bin_moments(table, by, bins, fewest), [*keys, "metric"], -1.0, level)
    return _gain_by_bin(result, keys, ["mean", "low", "high", "interval", "seeds", "prompts"])
