"""The leaderboard: every method and control of a run, and of its variants, from the same bases.

Called by the registry of tables. How each is compared with the main method is that of `contrasts`,
at equal numbers of sampled completions too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.analysis.stages import entries, start_of
from grpo_origin.config.paths import BASE
from grpo_origin.config.schema import main_method

if TYPE_CHECKING:
    import pandas as pd

    from grpo_origin.analysis.sources import Sources

KEYS = ["axis", "ood_ratio", "method", "trained_on"]
SPENT = ["completions", "gold_tokens"]
VERDICTS = ["difference", "low", "high", "verdict"]
COLUMNS = (
    *("entry", *KEYS, "seeds", "before", "after", "after_low", "after_high", "id_change"),
    *("demonstrations", *SPENT, *VERDICTS, *(f"equal_{name}" for name in VERDICTS)),
)


def leaderboard(variants: Mapping[str, Sources]) -> pd.DataFrame:
    """A row an entry, axis, OOD ratio and split trained on; columns variant and COLUMNS.

    An entry is a method of the run, or `variant: method` of a variant. before, after: OOD mass
    where RL started and where it ended, mean over seeds, with the end's 95 % t interval; id_change:
    change of ID mass by RL; demonstrations: OOD samples in SFT; completions, gold_tokens: of RL, a
    seed. difference, low, high, verdict: of the final OOD mass against the main method of the run
    itself, as in `contrasts`; `equal_` at as many completions as the one that samples less drew,
    the same where both draw as many.
    """
    import pandas as pd

    base = variants[BASE]
    main = main_method(base.betas)
    reference = base.quantities[base.quantities["method"] == main]
    curves = None if base.curves is None else base.curves[base.curves["method"] == main]
    parts = [_entries(name, own, main, reference, curves, base) for name, own in variants.items()]
    return pd.concat(parts, ignore_index=True)[["variant", *COLUMNS]]


def _entries(
    name: str,
    own: Sources,
    main: str,
    reference: pd.DataFrame,
    curves: pd.DataFrame | None,
    base: Sources,
) -> pd.DataFrame:
    from grpo_origin.analysis.contrasts import (
        MASSES,
        contrasts,
        differences,
        equal_completions,
    )

    masses = own.quantities[own.quantities["method"].notna()]
    others = masses if name != BASE else masses[masses["method"] != main]
    judged = contrasts(differences(others, reference, ["trained_on"]), base.claims)
    table = _levels(own).merge(_verdicts(judged, MASSES["ood"]), how="left", on=KEYS)
    equal = judged
    if own.curves is not None and curves is not None:
        equal = contrasts(equal_completions(own.curves, curves, ["trained_on"]), base.claims)
    of_equal = _verdicts(equal, f"{MASSES['ood']} at equal completions")
    of_equal = of_equal.rename(columns={column: f"equal_{column}" for column in VERDICTS})
    table = table.merge(of_equal, how="left", on=KEYS)
    for column in VERDICTS:
        table[f"equal_{column}"] = table[f"equal_{column}"].where(
            table["equal_verdict"].notna(), table[column]
        )
    if own.signal is not None:
        spent = own.signal.groupby(KEYS)[SPENT].mean()
        table = table.join(spent, on=KEYS)
    label = entries(name, table["method"])
    table = table.assign(variant=name, entry=label, demonstrations=own.demonstrations)
    return table.reindex(columns=["variant", *COLUMNS])


def _levels(own: Sources) -> pd.DataFrame:
    """OOD mass before and after RL with interval, and change of ID mass; columns KEYS and these."""
    from grpo_origin.analysis.contrasts import MASSES
    from grpo_origin.analysis.intervals import t_interval

    table = own.quantities
    start = table[table["stage"] == start_of(table["stage"])]
    cell = ["axis", "ood_ratio", "seed", "quantity"]
    before = start.set_index(cell)["value"].rename("before")
    after = table[table["method"].notna() & table["quantity"].isin(MASSES.values())]
    after = after.join(before, on=cell)
    after = after.assign(id_change=after["value"] - after["before"])
    of_id = after[after["quantity"] == MASSES["id"]].groupby(KEYS)["id_change"].mean()
    groups = after[after["quantity"] == MASSES["ood"]].groupby(KEYS, sort=False)
    levels = groups.agg(
        seeds=("seed", "nunique"),
        before=("before", "mean"),
        after=("value", "mean"),
        spread=("value", "std"),
    )
    low, high = t_interval(levels["after"], levels.pop("spread"), levels["seeds"])
    bounds = {"after_low": np.clip(low, 0, 1), "after_high": np.clip(high, 0, 1)}
    return levels.assign(**bounds).join(of_id).reset_index()


def _verdicts(judged: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return judged.loc[judged["quantity"] == quantity, [*KEYS, *VERDICTS]]
