"""The price of leaving zero: gold tokens that a model was shown against the OOD mass it reached.

Gold tokens are those of right completions of OOD prompts, each as often as it was trained on:
samples of pretraining, demonstrations in SFT, and what informed RL methods are shown. Called by the
registry of tables, for a run and its variants together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.analysis.stages import entries
from grpo_origin.config.paths import BASE, BEFORE_RL

if TYPE_CHECKING:
    import pandas as pd

    from grpo_origin.analysis.sources import Sources

CELL = ["axis", "ood_ratio"]
STAGE = ["variant", "entry", *CELL, "stage", "method", "trained_on"]
TOKENS = ["pretrain_tokens", "sft_tokens", "rl_tokens", "gold_tokens"]
SEED_COLUMNS = (*STAGE[1:4], "seed", *STAGE[4:], *TOKENS, "mass")
COLUMNS = (*STAGE[1:], "seeds", *TOKENS, "mass", "low", "high")


def seed_price(variants: Mapping[str, Sources]) -> pd.DataFrame:
    """A row a seed and way to an OOD mass; columns variant and SEED_COLUMNS.

    A way is an RL stage on OOD prompts, of the run or a variant, or the models before RL: those of
    the run, and the SFT models of variants whose SFT saw OOD samples. The tokens are of all stages
    up to it, `gold_tokens` their sum.
    """
    import pandas as pd

    parts = [_ways(name, own) for name, own in variants.items()]
    return pd.concat(parts, ignore_index=True)[["variant", *SEED_COLUMNS]]


def price(variants: Mapping[str, Sources]) -> pd.DataFrame:
    """`seed_price` over seeds: mean tokens, and mean mass with its 95 % t interval."""
    from grpo_origin.analysis.intervals import t_interval

    groups = seed_price(variants).groupby(STAGE, sort=False, dropna=False)
    table = groups[TOKENS].mean()
    mass, seeds = groups["mass"].mean(), groups["seed"].nunique()
    ends = t_interval(mass, groups["mass"].std(), seeds)
    low, high = (np.clip(end, 0, 1) for end in ends)
    table = table.assign(seeds=seeds, mass=mass, low=low, high=high).reset_index()
    return table[["variant", *COLUMNS]]


def _ways(name: str, own: Sources) -> pd.DataFrame:
    """Those of one variant, or of the run itself."""
    from grpo_origin.analysis.contrasts import MASSES

    table = own.quantities[own.quantities["quantity"] == MASSES["ood"]]
    wanted = table["trained_on"] == "ood"
    if name == BASE:
        wanted |= table["method"].isna()
    elif own.demonstrations:
        wanted |= table["stage"] == BEFORE_RL[-1]
    table = table[wanted].rename(columns={"value": "mass"})
    table = _with_tokens(table, own)
    return table.assign(variant=name, entry=entries(name, table["method"].fillna(table["stage"])))


def _with_tokens(table: pd.DataFrame, own: Sources) -> pd.DataFrame:
    """The rows with TOKENS; missing where nothing says what was shown."""
    import pandas as pd

    seen = [
        {"axis": axis, "ood_ratio": ratio}
        | {f"{stage}_tokens": count for stage, count in of.items()}
        for axis, ratios in own.gold_tokens.items()
        for ratio, of in ratios.items()
    ]
    before = [f"{stage}_tokens" for stage in BEFORE_RL]
    table = table.merge(pd.DataFrame(seen, columns=[*CELL, *before]), how="left", on=CELL)
    table.loc[table["stage"] == BEFORE_RL[0], f"{BEFORE_RL[-1]}_tokens"] = 0.0
    trained, keys = table["method"].notna(), [*CELL, "seed", "stage"]
    shown = np.full(len(table), np.nan)
    if own.signal is not None:
        counts = own.signal.set_index(keys)["gold_tokens"].rename("rl_tokens")
        shown = table.join(counts, on=keys)["rl_tokens"].to_numpy(float)
    table["rl_tokens"] = np.where(trained, shown, 0.0)
    return table.assign(gold_tokens=table[TOKENS[:-1]].sum(axis=1, skipna=False))
