"""Two ledgers side by side: where a run's verdicts agree with those of another, row by row.

Called by the registry of tables (against the shipped reference run) and by `grpo-origin compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from grpo_origin.analysis.claims import INCONCLUSIVE

KEY = ["method", "claim", "axis", "statement"]
SHOWN = ["verdict", "seeds", "effect"]
COLUMNS = (*KEY, "cells", *SHOWN, *(f"reference_{name}" for name in SHOWN), "agreement")
# Columns of COLUMNS as `comparison` calls them.
TOLD = {
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
UNDECIDED, MISSING = "undecided there", "not there"


def agreement(claims: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Every row of a ledger beside the same row of another one; columns of COLUMNS.

    agreement: `agrees` (the same verdict), `differs` (another one), `too few seeds` (this run
    decides nothing), `undecided there`, or `not there`.
    """
    tables = []
    for table in (claims, reference):  # a statement can be judged of several cells of an axis
        tables.append(table.assign(place=table.groupby(KEY, sort=False).cumcount()))
    own, other = tables
    other = other[[*KEY, "place", *SHOWN]].rename(
        columns={name: f"reference_{name}" for name in SHOWN}
    )
    both = own.merge(other, how="left", on=[*KEY, "place"])
    both["agreement"] = [
        _word(*verdicts)
        for verdicts in zip(both["verdict"], both["reference_verdict"], strict=True)
    ]
    return both[[*COLUMNS]]


def _word(verdict: str, reference: Any) -> str:
    if pd.isna(reference):
        return MISSING
    if verdict == INCONCLUSIVE:
        return TOO_FEW
    if reference == INCONCLUSIVE:
        return UNDECIDED
    return AGREES if verdict == reference else DIFFERS


def comparison(claims: pd.DataFrame, other: pd.DataFrame, differing: Sequence[str]) -> str:
    """Two runs in words: settings that differ, verdicts counted, rows without the same verdict."""
    rows = agreement(claims, other)
    lines = [f"settings that differ: {', '.join(differing) or 'none'}"]
    counts = rows["agreement"].value_counts()
    lines.append("rows: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    unlike = rows[rows["verdict"] != rows["reference_verdict"]]
    if len(unlike):
        shown = unlike[[*TOLD]].rename(columns=TOLD)
        text = {name: "{:+.3f}".format for name in ("effect", "effect there")}
        lines.append(shown.to_string(index=False, na_rep="-", formatters=text, justify="left"))
    return "\n".join(lines)
