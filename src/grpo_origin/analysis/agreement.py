"""Two ledgers side by side: where a run's verdicts agree with those of another, row by row.

Called by the registry of tables (against the shipped reference run) and by `grpo-origin compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from grpo_origin.analysis.claims import INCONCLUSIVE
from grpo_origin.analysis.intervals import t_interval

CELL = ["axis", "ood_ratio", "stage", "split"]
KEY = ["method", "claim", "axis", "statement"]
SHOWN = ["verdict", "seeds", "effect"]
COLUMNS = (*KEY, "cells", *SHOWN, *(f"reference_{name}" for name in SHOWN), "agreement")
# Columns of COLUMNS as `comparison` calls them.
HEADINGS = {
    "method": "method",
    "claim": "claim",
    "axis": "axis",
    "verdict": "verdict",
    "reference_verdict": "verdict there",
    "effect": "effect",
    "reference_effect": "effect there",
    "cells": "cells",
}
AGREES, DIFFERS, TOO_FEW = "agrees", "differs", "too few seeds"
UNDECIDED, UNDECIDED_THERE, MISSING = "undecided here", "undecided there", "not there"
NO_PAIRS = (
    "no cell and seed in common, or other worlds, or no table seed_means of one run: "
    "masses are not compared in pairs"
)


def agreement(claims: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Every row of a ledger beside the same row of another one; columns of COLUMNS.

    The same row is that of the same claim, judged of the same cells but for their seeds. agreement:
    `agrees` (the same verdict), `differs` (another one), `too few seeds` (more would decide it
    here), `undecided here`, `undecided there`, or `not there`. Methods that the other ledger lacks
    are left out.
    """
    own, other = (
        table.assign(what=table["cells"].str.partition("; seeds ")[0])
        for table in (claims, reference)
    )
    other = other[[*KEY, "what", *SHOWN]].rename(
        columns={name: f"reference_{name}" for name in SHOWN}
    )
    own = own[own["method"].isin(other["method"].unique())]
    both = own.merge(other, how="left", on=[*KEY, "what"])
    columns = (both[name] for name in ("verdict", "reference_verdict", "seeds_needed"))
    both["agreement"] = [_agreement(*values) for values in zip(*columns, strict=True)]
    return both[[*COLUMNS]]


def _agreement(verdict: str, reference: Any, seeds_needed: float) -> str:
    if pd.isna(reference):
        return MISSING
    if verdict == INCONCLUSIVE:
        return UNDECIDED if pd.isna(seeds_needed) else TOO_FEW
    if reference == INCONCLUSIVE:
        return UNDECIDED_THERE
    return AGREES if verdict == reference else DIFFERS


def paired(means: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Mean masses of two runs where both have the same cell and seed, so the same world; in pairs.

    `means` are tables `seed_means`. A row an axis, OOD ratio, stage and split: columns CELL, seeds,
    here, there, difference (here minus there) with its 95 % t interval low and high.
    """
    own, theirs = (
        table[table["metric"] == "mass"][[*CELL, "seed", "mean"]] for table in (means, other)
    )
    both = own.merge(theirs, on=[*CELL, "seed"], suffixes=("_here", "_there"))
    both["difference"] = both["mean_here"] - both["mean_there"]
    groups = both.groupby(CELL, sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"),
        here=("mean_here", "mean"),
        there=("mean_there", "mean"),
        difference=("difference", "mean"),
    )
    spread = groups["difference"].std()
    table["low"], table["high"] = t_interval(table["difference"], spread, table["seeds"])
    return table.reset_index()


def comparison(
    claims: pd.DataFrame,
    other: pd.DataFrame,
    differing: Sequence[str],
    masses: pd.DataFrame | None = None,
) -> str:
    """Two runs in words: settings that differ, verdicts counted, rows without the same verdict.

    With `masses`, as `paired` has them, also where these differ; None where worlds are others or
    the masses of one run are not at hand.
    """
    rows = agreement(claims, other)
    lines = [f"settings that differ: {', '.join(differing) or 'none'}"]
    counts = rows["agreement"].value_counts()
    lines.append("rows: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    unlike = rows[rows["verdict"] != rows["reference_verdict"]]
    if len(unlike):
        shown = unlike[[*HEADINGS]].rename(columns=HEADINGS)
        text = {name: "{:+.3f}".format for name in ("effect", "effect there")}
        lines.append(shown.to_string(index=False, na_rep="-", formatters=text, justify="left"))
    return "\n".join([*lines, *_masses(masses)])


def _masses(masses: pd.DataFrame | None) -> list[str]:
    """Lines on masses in pairs: how many differ, and those."""
    if masses is None or masses.empty:
        return [NO_PAIRS]
    unlike = masses[masses["difference"] != 0]
    lines = [
        f"masses of {len(masses)} stages and splits, up to {masses['seeds'].max()} seeds in pairs: "
        f"{len(masses) - len(unlike)} equal, {len(unlike)} differ"
    ]
    if len(unlike):
        signed = dict.fromkeys(("difference", "low", "high"), "{:+.4f}".format)
        text = signed | dict.fromkeys(("here", "there"), "{:.4f}".format)
        lines.append(unlike.to_string(index=False, na_rep="-", formatters=text, justify="left"))
    return lines
