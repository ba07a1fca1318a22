"""Contrasts: a variant against the run's own settings, or a method against plain GRPO, in pairs.

Both have the same seeds, worlds and test prompts, so each seed gives one difference. Called by the
registry of tables, and by the figures for the names of quantities. Each row is judged by itself:
many rows hold some false verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

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
PAIRS = (*CELL, "seed", *STAGE, "quantity", "reference", "value", "difference")
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


def differences(table: pd.DataFrame, reference: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """`quantities` of one side beside those of another, a row a seed; columns PAIRS.

    They meet by cell, seed, quantity and the columns in `on`.
    """
    keys = [*CELL, "seed", "quantity", *on]
    other = reference[[*keys, "value"]].rename(columns={"value": "reference"})
    both = table.merge(other, on=keys)
    return both.assign(difference=both["value"] - both["reference"])[[*PAIRS]]


def equal_completions(
    curves: pd.DataFrame, reference: pd.DataFrame, on: Sequence[str]
) -> pd.DataFrame:
    """As `differences` of masses on learning curves, where both have sampled as many completions.

    That is where the shorter of the two ends; the longer one is read between its two nearest
    points. Only RL stages whose number of completions differs have rows.
    """
    keys = [*CELL, "seed", "split", *on]
    others = dict(iter(reference.sort_values("step").groupby(keys)))
    rows = []
    for place, curve in curves.sort_values("step").groupby([*keys, *STAGE], sort=False):
        other = others.get(place[: len(keys)])
        if other is None:
            continue
        ends = [part["completions"].max() for part in (curve, other)]
        if ends[0] == ends[1]:
            continue
        value, theirs = (
            float(np.interp(min(ends), part["completions"], part["mass"]))
            for part in (curve, other)
        )
        row = curve.iloc[0][[*CELL, "seed", *STAGE]].to_dict()
        row["quantity"] = f"{MASSES[curve['split'].iloc[0]]} at equal completions"
        rows.append(row | {"reference": theirs, "value": value, "difference": value - theirs})
    return pd.DataFrame(rows, columns=[*PAIRS])


def contrasts(pairs: pd.DataFrame, settings: ClaimsSettings) -> pd.DataFrame:
    """Differences of seeds judged, a row each cell, stage and quantity.

    Columns CELL, STAGE, JUDGED: means over the seeds that both have, their difference with bounds
    as of a two-sided claim, and the verdict: `equivalent` if it lies within `claims.equivalent`
    (two one-sided tests), `differs` if beyond, `inconclusive` with the number of seeds that would
    decide it.
    """
    if pairs.empty:
        return pd.DataFrame(columns=[*CELL, *STAGE, *JUDGED])
    look = look_of(pairs["seed"].nunique(), settings)
    alpha = alpha_of(look, settings)
    claim = Claim("contrast", "", "outside", settings.equivalent)
    rows = []
    groups = pairs.groupby([*CELL, *STAGE, "quantity"], sort=False, dropna=False)
    for (axis, ratio, stage, method, trained_on, quantity), part in groups:
        values = part["difference"].to_numpy(float)
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
                "reference": part["reference"].mean(),
                "value": part["value"].mean(),
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
