"""Contrasts: a variant against the run's own settings, or a method against plain GRPO, in pairs.

Both have the same seeds, worlds and test prompts, so each seed gives one difference. Called by the
registry of tables. Each row is judged by itself: many rows hold some false verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from grpo_origin.analysis.claims import Claim
from grpo_origin.analysis.evidence import alpha_of, look_of
from grpo_origin.analysis.stages import start_of
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import BEFORE_RL
from grpo_origin.config.schema import ClaimsSettings

CELL = ["axis", "ood_ratio"]
STAGE = ["stage", "method", "trained_on"]
MASSES = {split: f"{split.upper()} mass" for split in SPLITS}
OVER_START, OVER_PRETRAINED = "OOD gain over its start", "OOD gain over the pretrained model"
EQUIVALENT, DIFFERS, UNDECIDED = "equivalent", "differs", "inconclusive"
JUDGED = (
    *("quantity", "seeds", "reference", "value", "difference", "low", "high"),
    *("spread", "p_value", "verdict", "seeds_needed"),
)


def quantities(evaluations: pd.DataFrame) -> pd.DataFrame:
    """What is contrasted, a row a cell, seed, stage and quantity.

    Columns axis, ood_ratio, seed, stage, method, trained_on, quantity, value: mean mass on ID and
    OOD test prompts, and for RL stages the OOD mass less that where RL started, and less that of
    the pretrained model.
    """
    table = evaluations[evaluations["split"].isin(SPLITS)]
    mass = np.exp(table["log_mass"].clip(upper=0.0)).rename("value")
    keys = [*CELL, "seed", *STAGE, "split"]
    means = mass.groupby([table[key] for key in keys], dropna=False).mean().reset_index()
    parts = [means.assign(quantity=means["split"].map(MASSES)).drop(columns="split")]
    ood = means[means["split"] == "ood"].drop(columns="split")
    trained = ood[ood["method"].notna()]
    for name, stage in ((OVER_START, start_of(ood["stage"])), (OVER_PRETRAINED, BEFORE_RL[0])):
        before = ood[ood["stage"] == stage].set_index([*CELL, "seed"])["value"].rename("before")
        gain = trained.join(before, on=[*CELL, "seed"])
        gain["value"] -= gain.pop("before")
        parts.append(gain.assign(quantity=name))
    return pd.concat(parts, ignore_index=True)


def contrasts(
    table: pd.DataFrame, reference: pd.DataFrame, on: Iterable[str], settings: ClaimsSettings
) -> pd.DataFrame:
    """`quantities` of one side against those of another, a row each cell, stage and quantity.

    They meet by cell, seed, quantity and the columns in `on`. Columns CELL, STAGE, JUDGED: means
    over the seeds that both have, their difference with bounds as of a two-sided claim, and the
    verdict: `equivalent` if it lies within `claims.equivalent` (two one-sided tests), `differs` if
    beyond, `inconclusive` with the number of seeds that would decide it.
    """
    keys = [*CELL, "seed", "quantity", *on]
    other = reference[[*keys, "value"]].rename(columns={"value": "reference"})
    both = table.merge(other, on=keys)
    if both.empty:
        return pd.DataFrame(columns=[*CELL, *STAGE, *JUDGED])
    both = both.assign(difference=both["value"] - both["reference"])
    look = look_of(both["seed"].nunique(), settings)
    alpha = alpha_of(look, settings)
    claim = Claim("contrast", "", "outside", settings.equivalent)
    rows = []
    groups = both.groupby([*CELL, *STAGE, "quantity"], sort=False, dropna=False)
    for (axis, ratio, stage, method, trained_on, quantity), pairs in groups:
        values = pairs["difference"].to_numpy(float)
        differs, equal = claim.p_values(values, settings.rare) if look else (1.0, 1.0)
        verdict = DIFFERS if differs <= alpha else EQUIVALENT if equal <= alpha else UNDECIDED
        needed = claim.seeds_needed(values, alpha, settings.rare)
        effect, low, high = claim.effect(values, alpha)
        rows.append(
            {
                "axis": axis,
                "ood_ratio": ratio,
                "stage": stage,
                "method": method,
                "trained_on": trained_on,
                "quantity": quantity,
                "seeds": len(values),
                "reference": pairs["reference"].mean(),
                "value": pairs["value"].mean(),
                "difference": effect,
                "low": low,
                "high": high,
                "spread": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
                "p_value": min(differs, equal),
                "verdict": verdict,
                "seeds_needed": np.nan if verdict != UNDECIDED or needed is None else needed,
            }
        )
    return pd.DataFrame(rows, columns=[*CELL, *STAGE, *JUDGED])
