"""Each method's learning rate, by one rule over the rates that it was run at on pilot seeds.

The rule: the rate with the largest mean gain of OOD mass, which is what the leaderboard compares;
the smaller of equal ones. All methods are tried at the same number of rates. Called by
`grpo-origin rates` with the table `leaderboard` of a run whose variants differ in their rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

COLUMNS = ("method", "learning_rate", "gain", "id_change", "rates")


def chosen_rates(board: pd.DataFrame, rates: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """A row a method of the run, in its order; columns COLUMNS.

    `board` are rows of table `leaderboard` trained on OOD prompts, `rates` the learning rate by
    variant and method. gain, id_change: changes of mean OOD and ID mass at the rate chosen, mean
    over axes; rates: how many were tried.
    """
    table = board.assign(gain=board["after"] - board["before"])
    own = zip(table["variant"], table["method"], strict=True)
    table = table.assign(learning_rate=[rates[variant][method] for variant, method in own])
    keys = ["method", "learning_rate"]
    by_axis = table.groupby([*keys, "axis"], sort=False)[["gain", "id_change"]].mean()
    means = by_axis.groupby(keys, sort=False).mean().reset_index()
    ranked = means.sort_values(["gain", "learning_rate"], ascending=[False, True])
    best = ranked.drop_duplicates("method").set_index("method")
    best["rates"] = means.groupby("method").size()
    return best.loc[means["method"].unique()].reset_index()[[*COLUMNS]]


def as_methods(chosen: pd.DataFrame) -> str:
    """The `methods` of a configuration with the rates chosen, and why, as YAML."""
    lines = ["methods:"]
    for row in chosen.to_dict("records"):
        why = f"OOD {row['gain']:+.3f}, ID {row['id_change']:+.3f}"
        lines.append(f"  - {row['method']}: {{learning_rate: {row['learning_rate']!r}}}  # {why}")
    return "\n".join(lines)
