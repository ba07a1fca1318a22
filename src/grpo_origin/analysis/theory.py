"""Tables of how far runs to convergence are from theory, and of sampling as a check.

The closed forms are in `evaluation.law`, the runs in `rl.converge`, the samples in
`evaluation.sampling`. Called by the registry of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grpo_origin.analysis.intervals import binomial_agrees
from grpo_origin.analysis.statistics import pass_at_k, unbiased_pass_at_k
from grpo_origin.evaluation.law import mass_bound, optimal_mass
from grpo_origin.jobs.files import read_table

CELL = ["axis", "seed", "ood_ratio"]
PROMPT_COLUMNS = (
    *("method", "beta", *CELL, "pool", "split", "prompt_index", "task"),
    *("log_mass_before", "log_mass_after", "log_mass_fixed_point"),
)
SAMPLE_COLUMNS = (*CELL, "split", "task", "prompt_index", "log_mass", "samples", "successes")


def _read(paths: Iterable[str | Path], columns: Sequence[str] | None) -> pd.DataFrame:
    tables = [read_table(path, columns).to_pandas() for path in paths]
    return pd.concat(tables, ignore_index=True)


def read_prompts_table(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All runs to convergence, one row a prompt: masses, the law and the bound.

    Raises ArtefactError if a file can't be used.
    """
    table = _read(paths, PROMPT_COLUMNS)
    for name in ("before", "after", "fixed_point"):
        table[f"mass_{name}"] = np.exp(table.pop(f"log_mass_{name}"))
    by_beta = table.groupby("beta")["mass_before"]
    for name, function in (("law", optimal_mass), ("bound", mass_bound)):
        table[name] = by_beta.transform(lambda q, function=function: function(q.clip(0, 1), q.name))
    return table


def read_traces(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The course of all runs to convergence; raises ArtefactError if a file can't be used."""
    return _read(paths, None)


def summarise(prompts: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """One row a run and pool: mean masses, mean distances to the law and to the fixed point.

    A prompt is above the bound if it is so by more than `tolerance`; prompts whose bound exceeds 1
    can't be.
    """
    off_law = prompts["mass_after"] - prompts["law"]
    rows = prompts.assign(
        difference=off_law,
        distance=off_law.abs(),
        fixed_point_distance=(prompts["mass_after"] - prompts["mass_fixed_point"]).abs(),
        above_bound=(prompts["mass_after"] > prompts["bound"] + tolerance).astype(float),
        bound_below_1=(prompts["bound"] < 1).astype(float),
    )
    columns = [
        *("mass_before", "mass_after", "law", "mass_fixed_point"),
        *("difference", "distance", "fixed_point_distance", "above_bound", "bound_below_1"),
    ]
    grouped = rows.groupby(["method", "beta", *CELL, "pool"], sort=True)
    return grouped[columns].mean().assign(prompts=grouped.size()).reset_index()


def sampling_agreement(samples: pd.DataFrame, k: int = 8) -> pd.DataFrame:
    """Sampled against exact, one row a cell and split, with pass@k by both ways."""
    rows: list[dict[str, Any]] = []
    for key, part in samples.groupby([*CELL, "split"]):
        n, q = int(part["samples"].iloc[0]), np.exp(part["log_mass"])
        successes, drawn = part["successes"].to_numpy(), min(k, n)
        frequency = successes / n
        row = dict(zip([*CELL, "split"], key, strict=True)) | {
            "prompts": len(part),
            "samples": n,
            "exact": q.mean(),
            "sampled": frequency.mean(),
            "standard_error": np.sqrt((q * (1 - q) / n).sum()) / len(part),
            "largest_difference": (frequency - q).abs().max(),
            "k": drawn,
            "exact_pass_at_k": pass_at_k(part["log_mass"], drawn).mean(),
            "sampled_pass_at_k": unbiased_pass_at_k(n, successes, drawn).mean(),
            "agrees": binomial_agrees(successes, n, q),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def read_samples(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All sampling checks, one row a prompt; raises ArtefactError if a file can't be used."""
    return _read(paths, SAMPLE_COLUMNS)
