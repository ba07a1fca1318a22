"""Each method's learning rate, by one rule over the rates that it was run at on pilot seeds.

The rule, stated before any such run: of the rates at which the mean ID mass falls by at most
`most_lost` on every axis, the one with the largest mean gain of OOD mass, the smaller of equal
ones; if there is none, the one that loses least. All methods are tried at the same number of
rates. Called by `grpo-origin rates` with the table `leaderboard` of a run whose variants differ in
their rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

MOST_LOST = 0.1  # ID mass; as much OOD mass, gained, counts as a take-off (claims.takeoff)
COLUMNS = ("method", "learning_rate", "gain", "id_change", "rates", "within")


def chosen_rates(
    board: pd.DataFrame, rates: Mapping[str, Mapping[str, float]], most_lost: float = MOST_LOST
) -> pd.DataFrame:
    """A row a method of the run, in its order; columns COLUMNS.

    `board` are rows of table `leaderboard` trained on OOD prompts, `rates` the learning rate by
    variant and method. gain: change of mean OOD mass at the rate chosen, mean over axes; id_change:
    that of mean ID mass on the axis that loses most; rates: how many were tried; within: whether
    the loss is within the bound there.
    """
    table = board.assign(gain=board["after"] - board["before"])
    own = zip(table["variant"], table["method"], strict=True)
    table = table.assign(learning_rate=[rates[variant][method] for variant, method in own])
    keys = ["method", "learning_rate"]
    by_axis = table.groupby([*keys, "axis"], sort=False)[["gain", "id_change"]].mean()
    over_axes = by_axis.groupby(keys, sort=False)
    means = over_axes.agg({"gain": "mean", "id_change": "min"}).reset_index()
    rows = []
    for method, tried in means.groupby("method", sort=False):
        kept = tried[tried["id_change"] >= -most_lost]
        order = ["gain", "learning_rate"] if len(kept) else ["id_change", "learning_rate"]
        ranked = (kept if len(kept) else tried).sort_values(order, ascending=[False, True])
        found = ranked.iloc[0][["learning_rate", "gain", "id_change"]].to_dict()
        rows.append({"method": method, "rates": len(tried), "within": len(kept) > 0} | found)
    return pd.DataFrame(rows, columns=[*COLUMNS])


def as_methods(chosen: pd.DataFrame) -> str:
    """The `methods` of a configuration with the rates chosen, and why, as YAML."""
    lines = ["methods:"]
    for row in chosen.to_dict("records"):
        why = f"OOD {row['gain']:+.3f}, ID {row['id_change']:+.3f}"
        why += "" if row["within"] else ", more ID mass lost than allowed at every rate"
        lines.append(f"  - {row['method']}: {{learning_rate: {row['learning_rate']!r}}}  # {why}")
    return "\n".join(lines)
