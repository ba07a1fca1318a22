"""The exploration law: when an RL stage finds its first success, forecast before it starts.

Until the first rewarded completion all advantages are 0 and the KL term has no gradient at its
reference, so no weight moves and every completion is a draw of the model that RL started from.
With the exact masses Q_x of the training prompts in their order and G completions a prompt,
P(none by step t) = prod over the prompts of steps 1..t of (1 - Q_x)^G. Called by the registry of
tables and by the figure of this law.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from grpo_origin.evaluation.exploration import log_miss

STAGE = ["axis", "seed", "ood_ratio", "stage"]
COLUMNS = (
    *("axis", "seed", "ood_ratio", "stage", "method", "trained_on", "steps", "first", "median"),
    *("before", "by", "any", "surest", "moved"),
)
CERTAIN = 0.99  # a stage that is as sure of what will come tells nothing of the law


def first_successes(masses: pd.DataFrame, logs: pd.DataFrame, signal: pd.DataFrame) -> pd.DataFrame:
    """A row an RL stage that samples each prompt once, as it is, under a reward that Q is of.

    `masses` are the training prompts with `log_mass`, the `step` that samples each and how many
    `samples` it draws, `logs` the steps with `reward_mean`, `signal` the stages' counts, each with
    the columns of STAGE. Columns COLUMNS:
    `first`, the step of the first rewarded completion (missing if there was none); `median`, the
    first step by which one was to be expected with a chance of one half (missing if none was);
    `by`, the chance of one by step `first` (1 if none came), `before` that by the step before it
    (by the last one if none came); `any`, that by the last step; `surest`, that of what was
    likeliest to come, a first success in some step or none at all; `moved`, whether a weight did.
    """
    known = signal[signal["any_success"].notna()]
    of_stage = dict(iter(masses.groupby(STAGE, sort=False)))
    steps_of = dict(iter(logs.groupby(STAGE, sort=False)))
    rows = []
    for row in known.to_dict("records"):
        place = tuple(row[name] for name in STAGE)
        log, prompts = steps_of[place].sort_values("step"), of_stage[place]
        if prompts["samples"].sum() != row["completions"]:
            continue  # it drafts, or samples more where it found no contrast
        reward = log["reward_mean"].to_numpy(float)
        missed = prompts["samples"] * log_miss(prompts["log_mass"])
        none = missed.groupby(prompts["step"]).sum().reindex(log["step"], fill_value=0.0)
        none = none.to_numpy(float).cumsum()
        hits = np.flatnonzero(reward > 0)
        likely = np.flatnonzero(none <= np.log(0.5))
        chance = np.concatenate([[0.0], -np.expm1(none)])
        first = int(hits[0]) + 1 if hits.size else None
        found = {
            "steps": len(log),
            "first": first,
            "median": int(likely[0]) + 1 if likely.size else None,
            "before": chance[first - 1] if first else chance[-1],
            "by": chance[first] if first else 1.0,
            "any": chance[-1],
            "surest": max(np.diff(chance).max(), 1 - chance[-1]),
        }
        rows.append({name: row[name] for name in COLUMNS if name in row} | found)
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    return table.astype({"first": float, "median": float})


def in_doubt(table: pd.DataFrame) -> pd.DataFrame:
    """The stages of which it was not all but certain what would come: the others test nothing.

    Chosen by their forecast alone, so that their first successes are still distributed as that.
    """
    return table[table["surest"] < CERTAIN]


def uniforms(table: pd.DataFrame) -> np.ndarray:
    """Where in its forecast distribution each stage's first success fell, shape (stages,).

    If the law holds these are uniform on [0, 1]: a place between `before` and `by`, drawn at random
    from a fixed seed since steps are whole.
    """
    draws = np.random.default_rng(0).random(len(table))
    before, by = table["before"].to_numpy(float), table["by"].to_numpy(float)
    return before + draws * (by - before)


def law_tests(table: pd.DataFrame) -> pd.DataFrame:
    """The law tested, a row a method: Kolmogorov and Smirnov's test of `uniforms` of `in_doubt`.

    Columns method, stages, in_doubt (how many), none (without a success), none_expected,
    moved_without (of these those whose weights moved; the law says 0), statistic, p_value (missing
    if no stage was in doubt).
    """
    rows = []
    for method, part in table.groupby("method", sort=False):
        missed = part["first"].isna()
        tested = in_doubt(part)
        test = stats.kstest(uniforms(tested), "uniform") if len(tested) else None
        rows.append(
            {
                "method": method,
                "stages": len(part),
                "in_doubt": len(tested),
                "none": int(missed.sum()),
                "none_expected": float((1 - part["any"]).sum()),
                "moved_without": int(part.loc[missed, "moved"].sum()),
                "statistic": test.statistic if test else np.nan,
                "p_value": test.pvalue if test else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=[*TESTED])


TESTED = (
    *("method", "stages", "in_doubt", "none", "none_expected", "moved_without"),
    *("statistic", "p_value"),
)
