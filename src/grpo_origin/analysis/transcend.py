"""Does it transcend? What RL makes of OOD prompts that started from about no mass.

A table of the run; the rules are those of `claims`, so their settings are too. An absence counts
only where something that was shown right completions, a positive control, does rise.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from grpo_origin.analysis.claims import Claim, Row
from grpo_origin.analysis.evidence import alpha_of, hidden, look_of
from grpo_origin.analysis.inference import Look, excluded
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.schema import ClaimsSettings

COLUMNS = (
    *("method", "trained_on", "axis", "ood_ratio", "seeds", "prompts", "hidden"),
    *("before", "after", "gain", "low", "high", "raised", "raised_at_most", "transcends"),
)


def transcend(
    evaluations: pd.DataFrame,
    settings: ClaimsSettings,
    zero_masses: Mapping[str, float],
    demonstrated: bool = False,
) -> pd.DataFrame:
    """One row a method, training split, axis and ratio, on prompts that started from about none.

    `zero_masses` are the methods to show and the mass below which each counts it as about none,
    both in the pretrained model and after SFT, where RL starts. Where SFT was `demonstrated` OOD
    samples, it is part of what is judged, and the start is the pretrained model. Seeds with fewer
    than `band_prompts` such prompts don't count. Columns:

    - seeds, prompts: those that count; hidden: prompts left out since the pretrained model had
      them (SFT took their mass);
    - before, after, gain: mean mass and its change, each the mean over seeds of the seeds' means;
      low, high: one-sided bounds of the gain at the error of the look;
    - raised: share of prompts that end above the lower end of `partial`, mean over seeds;
      raised_at_most: its upper bound (where seeds agree: if those that could still differ raised
      all);
    - transcends: yes if the gain is above `negligible`, no if it is below, by the tests of the
      ledger, each row by itself; unclear otherwise.
    """
    pairs = prompt_gains(evaluations)
    pairs = pairs[pairs["split"] == "ood"]
    if demonstrated:
        gain = pairs["mass_after"] - pairs["mass_pretrained"]
        pairs = pairs.assign(mass_before=pairs["mass_pretrained"], gain=gain)
    look = look_of(evaluations["seed"].nunique(), settings)
    pairs = pairs.assign(raised=pairs["mass_after"] > settings.partial[0])
    rows: list[Row] = []
    for method, zero_mass in zero_masses.items():
        weak = pairs[(pairs["method"] == method) & (pairs["mass_before"] < zero_mass)]
        weak = weak.assign(hidden=hidden(weak, zero_mass))
        for split in SPLITS:
            stage = weak[weak["trained_on"] == split]
            cells = stage.groupby(["axis", "ood_ratio"], sort=False, observed=True)
            for (axis, ratio), started in cells:
                where = {"method": method, "trained_on": split, "axis": axis, "ood_ratio": ratio}
                effects = _effects(started, settings, look)
                if effects["prompts"] or effects["hidden"]:
                    rows.append(where | effects)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def assay(rows: pd.DataFrame, negligible: float) -> pd.Series:
    """Whether a rise would have been seen where each row of the table stands.

    `rows` are those of `transcend` of all variants, with a column `informed`: whether the model was
    shown right completions. On the row's axis and ratio: `sensitive` if the lower bound of some
    informed row's gain is above `negligible`, `not shown` if that of none is, `no control` if there
    is none.
    """
    controls = rows[rows["informed"]].groupby(["axis", "ood_ratio"], observed=True)["low"].max()
    best = {cell: low > negligible for cell, low in controls.items()}
    names = {True: "sensitive", False: "not shown", None: "no control"}
    cells = zip(rows["axis"], rows["ood_ratio"], strict=True)
    return pd.Series([names[best.get(cell)] for cell in cells], rows.index, dtype="str")


def _effects(started: pd.DataFrame, settings: ClaimsSettings, look: Look | None) -> Row:
    """The columns of one row from the prompts of its cells that started from about none."""
    alpha = alpha_of(look, settings)
    new = started[~started["hidden"]]
    new = new[new.groupby("seed")["gain"].transform("size") >= settings.band_prompts]
    means = new.groupby("seed")[["mass_before", "mass_after", "gain", "raised"]].mean()
    rises = Claim("transcends", "", "present", settings.negligible)
    raised = Claim("raised", "", "present", 0.0, (0.0, 1.0))
    gains, shares = (means[name].to_numpy(float) for name in ("gain", "raised"))
    gain, low, high = rises.effect(gains, alpha)
    share, _, most = raised.effect(shares, alpha)
    if len(shares) > 1 and most == share:
        most = share + (1 - share) * excluded(len(shares), alpha)
    above, absent = rises.p_values(gains, settings.rare) if look else (1.0, 1.0)
    return {
        "seeds": len(means),
        "prompts": len(new),
        "hidden": int(started["hidden"].sum()),
        "before": means["mass_before"].mean(),
        "after": means["mass_after"].mean(),
        "gain": gain,
        "low": low,
        "high": high,
        "raised": share,
        "raised_at_most": most,
        "transcends": "yes" if above <= alpha else "no" if absent <= alpha else "unclear",
    }
