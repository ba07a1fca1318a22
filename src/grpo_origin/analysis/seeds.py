"""How many more seeds a run needs: the plan that `grpo-origin seeds` prints from its ledger."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from grpo_origin.analysis.claims import INCONCLUSIVE
from grpo_origin.analysis.inference import look_at

SHOWN = ["method", "claim", "axis", "effect", "spread", "seeds", "seeds_needed", "cells"]


def seed_plan(claims: pd.DataFrame, looks: Sequence[tuple[int, float]]) -> str:
    """The rows of a ledger without a verdict, the seeds they need, and the next planned look."""
    seeds = int(claims["seeds"].max())  # of the ledger: a run may have grown since
    rows = claims[claims["verdict"] == INCONCLUSIVE]
    lines = [f"{len(rows)} of {len(claims)} rows undecided after {seeds} seeds"]
    if len(rows):
        shown = rows[SHOWN].sort_values("seeds_needed", kind="stable")
        text = {"effect": "{:+.3f}".format, "spread": "{:.3f}".format}
        text["seeds_needed"] = "{:.0f}".format
        lines.append(shown.to_string(index=False, na_rep="-", formatters=text, justify="left"))
    return "\n".join([*lines, _next_look(seeds, looks)])


def _next_look(seeds: int, looks: Sequence[tuple[int, float]]) -> str:
    if not looks:
        return (
            "claims.looks is empty: all seeds are one look, which is taken. To add seeds where "
            "undecided plan looks before the first (docs/protocol.md)"
        )
    reached = look_at(seeds, looks)
    number = reached.number if reached else 0
    if number == len(looks):
        return f"the last of {number} looks is taken: no more seeds are planned"
    needed, alpha = looks[number]
    return f"next look: {number + 1} of {len(looks)}, at {needed} seeds, alpha {alpha:g}"
