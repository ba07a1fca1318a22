"""How good the forecast of outcomes is on stages that it was not fitted on, beside naive ones.

Whole axes, or blocks of seeds, are left out in turn: everything that is fitted is fitted on the
others. Also which summary of the masses before RL orders the outcomes. Called by the script that
fits the forecast (`benchmarks/outcome.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import rankdata, spearmanr

from grpo_origin.analysis.intervals import t_interval
from grpo_origin.analysis.outcome import features, masses_of
from grpo_origin.analysis.outcome_fit import CEILING, Candidate, Prepared, fit
from grpo_origin.analysis.outcome_stages import Ran
from grpo_origin.evaluation.amplification import amplified
from grpo_origin.evaluation.exploration import any_success, contrast
from grpo_origin.evaluation.law import optimal_mass

BLOCKS = 5  # of seeds, left out one at a time
BETAS = np.geomspace(0.1, 1e4, 41)  # weights that a recursion is fitted with
FAR = 0.1  # an error that matters
SMALLEST = 1e-12  # masses in log-odds
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the masses of prompts, as summaries

Forecast = Callable[[Sequence[Ran], Sequence[Ran]], np.ndarray]


def _each(function: Callable[[Ran], float]) -> Forecast:
    return lambda fitted, asked: np.array([function(ran) for ran in asked])


def _mean_of_others(fitted: Sequence[Ran], asked: Sequence[Ran]) -> np.ndarray:
    return np.full(len(asked), np.mean([ran.after for ran in fitted]))


def _line(fitted: Sequence[Ran], asked: Sequence[Ran]) -> np.ndarray:
    """Log-odds of the mass after RL as a straight line in those of the mean mass before."""
    odds = logit(np.clip([ran.start for ran in fitted], SMALLEST, 1 - SMALLEST))
    after = np.array([ran.after for ran in fitted])

    def loss(x: np.ndarray) -> float:
        return float(np.mean((CEILING * expit(x[0] + x[1] * odds) - after) ** 2))

    intercept, slope = minimize(loss, [3.0, 1.0], method="Nelder-Mead").x
    asked_odds = logit(np.clip([ran.start for ran in asked], SMALLEST, 1 - SMALLEST))
    return CEILING * expit(intercept + slope * asked_odds)


def _recursion(fitted: Sequence[Ran], asked: Sequence[Ran]) -> np.ndarray:
    """Mroueh's recursion from the mean mass, an iteration a step, towards the model before each;
    its one weight fitted to least absolute error."""

    def after(stages: Sequence[Ran], beta: float) -> np.ndarray:
        mass, steps = np.array([(x.start, x.budget.steps) for x in stages]).T
        found = np.empty(len(mass))
        for count in np.unique(steps):
            same = steps == count
            found[same] = amplified(mass[same], beta, int(count), mirror=True)
        return found

    measured = np.array([ran.after for ran in fitted])
    errors = [np.abs(after(fitted, beta) - measured).mean() for beta in BETAS]
    return after(asked, float(BETAS[int(np.argmin(errors))]))


def naive_forecasts(betas: Mapping[str, float]) -> dict[str, Forecast]:
    """Forecasts that know little, by name: each takes fitted and asked stages.

    `betas` is the KL weight of each method, of which ceiling and recursion need one that is not 0.
    """
    known: dict[str, Forecast] = {
        "no change": _each(lambda ran: ran.before),
        "full recovery": _each(lambda ran: 1.0),
        "mean of the other stages": _mean_of_others,
        "line in log-odds": _line,
        "recursion, weight fitted": _recursion,
    }
    if all(betas.values()):
        known["KL ceiling"] = _each(
            lambda ran: float(optimal_mass(np.exp(ran.log_mass), betas[ran.method]).mean())
        )
        known["recursion, weight of the run"] = _each(
            lambda ran: float(amplified(ran.start, betas[ran.method], ran.budget.steps))
        )
    return known


def folds(stages: Sequence[Ran], by: str) -> list[np.ndarray]:
    """Which stages are left out together (arrays of numbers): an `axis`, or a block of `seeds`."""
    if by == "axis":
        labels = np.array([ran.axis for ran in stages])
    elif by == "seeds":
        seeds = sorted({ran.seed for ran in stages})
        block = {seed: i * BLOCKS // len(seeds) for i, seed in enumerate(seeds)}
        labels = np.array([block[ran.seed] for ran in stages])
    else:
        raise ValueError(f"what is left out is axis or seeds, not {by}")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def held_out(
    prepared: Prepared,
    by: str,
    candidates: Sequence[Candidate],
    naive: Mapping[str, Forecast],
) -> pd.DataFrame:
    """A row a forecast and stage, forecast while it was left out.

    Columns axis, seed, ood_ratio, stage, trained_on, doubt, after, forecast (its name), low,
    middle, high; low and high are missing where a forecast has no interval.
    """
    everything = np.arange(len(prepared.stages))
    parts = []
    for left in folds(prepared.stages, by):
        kept = np.setdiff1d(everything, left)
        asked = [prepared.stages[i] for i in left]
        place = _places(asked)
        for candidate in candidates:
            found = prepared.forecasts(fit(prepared, candidate, kept), left)
            ends = dict(zip(("low", "middle", "high"), found.T, strict=True))
            parts.append(place.assign(forecast=candidate.name, **ends))
        fitted = [prepared.stages[i] for i in kept]
        for name, function in naive.items():
            middle = function(fitted, asked)
            parts.append(place.assign(forecast=name, low=np.nan, middle=middle, high=np.nan))
    return pd.concat(parts, ignore_index=True)


def _places(stages: Sequence[Ran]) -> pd.DataFrame:
    names = ("axis", "seed", "ood_ratio", "stage", "trained_on", "after")
    rows = [{name: getattr(ran, name) for name in names} for ran in stages]
    return pd.DataFrame(rows).assign(doubt=[ran.in_doubt for ran in stages])


def errors(table: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Errors of forecasts, a row a forecast and value of `by`; rows of `held_out`.

    stages; mae, with `mae_low` and `mae_high`, its 95 % interval over seeds; r2, 1 - squared error
    / variance; bias, the mean of forecast minus mass; far, the share of stages that are off by more
    than FAR; coverage, the share of stages within the interval.
    """
    rows = []
    for key, part in table.groupby(["forecast", *by], sort=False):
        off = part["middle"] - part["after"]
        seeds = off.abs().groupby(part["seed"]).mean()
        low, high = t_interval(seeds.mean(), seeds.std(), len(seeds))
        within = part["after"].between(part["low"], part["high"])
        spread = ((part["after"] - part["after"].mean()) ** 2).sum()
        found: dict[str, Any] = dict(zip(["forecast", *by], key, strict=True)) | {
            "stages": len(part),
            "mae": off.abs().mean(),
            "mae_low": float(low),
            "mae_high": float(high),
            "r2": 1 - (off**2).sum() / spread if spread else np.nan,
            "bias": (part["middle"] - part["after"]).mean(),
            "far": (off.abs() > FAR).mean(),
            "coverage": within.mean() if part["low"].notna().all() else np.nan,
        }
        rows.append(found)
    return pd.DataFrame(rows)


def summaries(ran: Ran) -> dict[str, float]:
    """Summaries of the masses before RL, by name; larger is thought to be better.

    `LQ` is the likelihood quantile: the largest mass that all but a share of prompts reach, thus a
    quantile of Q over prompts (Mousavi-Hosseini and Erdogdu, arXiv 2603.06957, after the abstract).
    """
    mass, budget = np.exp(ran.log_mass), ran.budget
    seen = mass >= 1 / (budget.group_size * budget.steps)
    differ = features(masses_of(ran.log_mass))
    found = {
        "mean Q": float(mass.mean()),
        "mean ln Q": float(ran.log_mass.mean()),
        "largest Q": float(mass.max()),
        "prompts above 1/(G steps)": float(seen.mean()),
        "groups that teach": float(contrast(ran.log_mass, budget.group_size).mean()),
        "chance of any success": any_success(ran.log_mass, budget.group_size),
        "spread of log-odds": differ["spread"],
        "overdispersion": differ["overdispersion"],
        "mean Q of the best task": max(
            float(mass[ran.tasks == task].mean()) for task in np.unique(ran.tasks)
        ),
        "mean Q of the worst task": min(
            float(mass[ran.tasks == task].mean()) for task in np.unique(ran.tasks)
        ),
    }
    return found | {f"LQ at {share:g}": float(np.quantile(mass, share)) for share in QUANTILES}


def orderings(
    stages: Sequence[Ran], takeoff: float, more: Sequence[Mapping[str, float]] | None = None
) -> pd.DataFrame:
    """How each summary orders outcomes: columns summary, spearman, auc, stages, taken_off.

    `spearman` is its rank correlation with the mass after RL, `auc` the chance that a stage whose
    mass rose by more than `takeoff` has more of it than one whose mass did not. `more` are further
    summaries of each stage.
    """
    found = [summaries(ran) for ran in stages]
    if more is not None:
        found = [one | dict(other) for one, other in zip(found, more, strict=True)]
    after = np.array([ran.after for ran in stages])
    rose = np.array([ran.after - ran.before > takeoff for ran in stages])
    rows = []
    for name in found[0]:
        values = np.array([row[name] for row in found])
        rows.append(
            {
                "summary": name,
                "spearman": float(spearmanr(values, after).statistic),
                "auc": auc(values, rose),
                "stages": len(stages),
                "taken_off": int(rose.sum()),
            }
        )
    return pd.DataFrame(rows)


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive one has the larger value, ties half; NaN if all are of one kind."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / count / (len(values) - count))
