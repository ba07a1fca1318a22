"""What theory predicts for KL-regularised RL with a binary reward: closed forms, and tables of how far runs are from them.

Masses Q are probabilities of the one correct completion under the reference model. docs/theory.md derives every formula
here. Knows neither models nor trainers (`converge` runs the experiment).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from grpo_origin.analysis.statistics import binomial_agrees, pass_at_k, unbiased_pass_at_k
from grpo_origin.evaluation.law import (
    mass_bound,
    optimal_mass,
)
from grpo_origin.jobs.files import read_table

CELL = ["axis", "seed", "ood_ratio"]


PROMPT_COLUMNS = (
    *("method", "beta", *CELL, "pool", "prompt_index", "task"),
    *("log_mass_before", "log_mass_after", "log_mass_fixed_point"),
)


SAMPLE_COLUMNS = (*CELL, "split", "task", "prompt_index", "log_mass", "samples", "successes")


def read_prompts_table(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All runs to convergence, one row a prompt, with masses instead of their logarithms, the law and the bound."""
    table = pd.concat(
        [read_table(path, PROMPT_COLUMNS).to_pandas() for path in paths], ignore_index=True
    )
    for name in ("before", "after", "fixed_point"):
        table[f"mass_{name}"] = np.exp(table.pop(f"log_mass_{name}"))
    by_beta = table.groupby("beta")["mass_before"]
    for name, function in (("law", optimal_mass), ("bound", mass_bound)):
        table[name] = by_beta.transform(lambda q, function=function: function(q.clip(0, 1), q.name))
    return table


def summarise(prompts: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """One row a run and pool: mean masses, mean distance to the law and to the method's own fixed point, share above the bound.

    A prompt is above the bound if it is so by more than `tolerance`; prompts whose bound exceeds 1 can't be.
    """
    rows = prompts.assign(
        difference=prompts["mass_after"] - prompts["law"],
        distance=(prompts["mass_after"] - prompts["law"]).abs(),
        fixed_point_distance=(prompts["mass_after"] - prompts["mass_fixed_point"]).abs(),
        above_bound=(prompts["mass_after"] > prompts["bound"] + tolerance).astype(float),
        bound_below_1=(prompts["bound"] < 1).astype(float),
    )
    columns = [
        "mass_before",
        "mass_after",
        "law",
        "mass_fixed_point",
        "difference",
        "distance",
        "fixed_point_distance",
        "above_bound",
    ]
    grouped = rows.groupby(["method", "beta", *CELL, "pool"], sort=True)
    return grouped[[*columns, "bound_below_1"]].mean().assign(prompts=grouped.size()).reset_index()


def sampling_agreement(samples: pd.DataFrame, k: int = 8) -> pd.DataFrame:
    """Sampled against exact, one row an axis and split: frequency and Q, pass@k by both ways, binomial agreement."""
    rows = []
    for (axis, seed, ratio, split), part in samples.groupby([*CELL, "split"]):
        n, q = int(part["samples"].iloc[0]), np.exp(part["log_mass"])
        frequency = part["successes"] / n
        row = {
            "axis": axis,
            "seed": seed,
            "ood_ratio": ratio,
            "split": split,
            "prompts": len(part),
            "samples": n,
        }
        row |= {
            "exact": q.mean(),
            "sampled": frequency.mean(),
            "standard_error": np.sqrt((q * (1 - q) / n).sum()) / len(part),
        }
        row |= {"largest_difference": (frequency - q).abs().max(), "k": min(k, n)}
        row["exact_pass_at_k"] = pass_at_k(part["log_mass"], row["k"]).mean()
        row["sampled_pass_at_k"] = unbiased_pass_at_k(
            n, part["successes"].to_numpy(), row["k"]
        ).mean()
        rows.append(row | {"agrees": binomial_agrees(part["successes"], n, q)})
    return pd.DataFrame(rows)


def read_samples(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All sampling checks, one row a prompt."""
    return pd.concat(
        [read_table(path, SAMPLE_COLUMNS).to_pandas() for path in paths], ignore_index=True
    )
