"""Does it transcend? What RL makes of OOD prompts that started from about no mass.

A table of the run; the rules are those of `claims`, so their settings are too.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from grpo_origin.analysis.claims import CONTRADICTED, SUPPORTED, Claim, Row, hidden
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.schema import ClaimsSettings

ANSWERS = {SUPPORTED: "yes", CONTRADICTED: "no"}
COLUMNS = (
    *("method", "trained_on", "axis", "ood_ratio", "seeds", "prompts", "hidden"),
    *("before", "after", "gain", "low", "high", "raised", "raised_at_most", "transcends"),
)


def transcend(
    evaluations: pd.DataFrame, settings: ClaimsSettings, methods: Iterable[str]
) -> pd.DataFrame:
    """One row a method, training split, axis and ratio, on prompts that started from about none.

    About none is a mass below `zero_mass`, both in the pretrained model and after SFT, where RL
    starts. Seeds with fewer than `band_prompts` such prompts don't count. Columns:

    - seeds, prompts: those that count; hidden: prompts left out since the pretrained model had
      them (SFT took their mass);
    - before, after, gain: mean mass and its change, each the mean over seeds of the seeds' means;
      low, high: interval of the gain (level 1 - `significance`);
    - raised: share of prompts that end above the lower end of `partial`, mean over seeds;
      raised_at_most: the upper end of its interval (seeds are what varies; where they agree, as at
      zero, Clopper-Pearson over prompts);
    - transcends: yes if the whole interval of the gain lies above `negligible`, no if below,
      unclear otherwise or with fewer than two seeds.
    """
    pairs = prompt_gains(evaluations)
    pairs = pairs[(pairs["split"] == "ood") & (pairs["mass_before"] < settings.zero_mass)]
    pairs = pairs.assign(
        hidden=hidden(pairs, settings), raised=pairs["mass_after"] > settings.partial[0]
    )
    rows: list[Row] = []
    for method in methods:
        for split in SPLITS:
            stage = pairs[(pairs["method"] == method) & (pairs["trained_on"] == split)]
            cells = stage.groupby(["axis", "ood_ratio"], sort=False, observed=True)
            for (axis, ratio), started in cells:
                where = {"method": method, "trained_on": split, "axis": axis, "ood_ratio": ratio}
                effects = _effects(started, settings)
                if effects["prompts"] or effects["hidden"]:
                    rows.append(where | effects)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _effects(started: pd.DataFrame, settings: ClaimsSettings) -> Row:
    """The columns of one row from the prompts of its cells that started from about none."""
    new = started[~started["hidden"]]
    new = new[new.groupby("seed")["gain"].transform("size") >= settings.band_prompts]
    means = new.groupby("seed")[["mass_before", "mass_after", "gain", "raised"]].mean()
    gain = Claim("transcends", "", (-1.0, settings.negligible), inside=False)
    raised = Claim("raised", "", (-1.0, settings.partial[1]), floor=0.0, share=True)
    judged = gain.row("", "", means["gain"], len(new), settings)
    share = raised.row("", "", means["raised"], len(new), settings)
    return {
        "seeds": len(means),
        "prompts": len(new),
        "hidden": int(started["hidden"].sum()),
        "before": means["mass_before"].mean(),
        "after": means["mass_after"].mean(),
        "gain": judged["effect"],
        "low": judged["low"],
        "high": judged["high"],
        "raised": share["effect"],
        "raised_at_most": share["high"],
        "transcends": ANSWERS.get(judged["verdict"], "unclear"),
    }
