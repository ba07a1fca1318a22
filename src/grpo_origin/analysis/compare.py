"""RL methods on the same terms: the claims ledger for each, and the table "does it transcend?".

A method's stages are `{method}~id` and `{method}~ood`. The rules are those of `claims`, so their settings are too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from grpo_origin.analysis.claims import CONTRADICTED, SUPPORTED, Claim, hidden, ledger
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.config.paths import BEFORE_RL, rl_stage
from grpo_origin.config.schema import ClaimsSettings

RAISED = Claim("raised", "", (-1.0, 0.5), floor=0.0, share=True)


TRANSCENDS = {SUPPORTED: "yes", CONTRADICTED: "no"}


def of_method(evaluations: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of the stages before RL and of one method, its stages under the names of plain GRPO's."""
    own = {f"{method}~{prompts}": rl_stage(prompts) for prompts in ("id", "ood")}
    stages = {name: name for name in BEFORE_RL} | own
    stage = evaluations["stage"].map(stages)
    return evaluations.assign(stage=stage)[stage.notna()]


def ledgers(
    evaluations: pd.DataFrame,
    settings: ClaimsSettings,
    theory: pd.DataFrame | None,
    betas: Mapping[str, float],
) -> pd.DataFrame:
    """The claims ledger of every method, as `claims.ledger` with a column `method`; `betas` are their KL weights in order.

    The runs to convergence in `theory` are of the theorem's objective and of plain GRPO: they go with `grpo`, or with the first
    method of a run that lacks it. A weight of 0 leaves the bound untested: it is that of methods with another objective.
    """
    tables, judged = [], "grpo" if "grpo" in betas else next(iter(betas))
    for method, beta in betas.items():
        table = ledger(
            of_method(evaluations, method),
            settings,
            theory if method == judged else None,
            beta or None,
        )
        if method != "grpo":
            for column in ("statement", "cells", "note"):
                table[column] = (
                    table[column].str.replace("grpo~", f"{method}~").str.replace("GRPO", method)
                )
        table.insert(0, "method", method)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def transcend(
    evaluations: pd.DataFrame, settings: ClaimsSettings, methods: Iterable[str]
) -> pd.DataFrame:
    """Does it transcend? Mass of OOD prompts that started from about none, one row a method, training prompts, axis and ratio.

    About none is a mass below `zero_mass`, both in the pretrained model and after SFT, where RL starts. Columns method, trained_on,
    axis, ood_ratio, seeds, prompts (those, over seeds), hidden (prompts left out, over seeds: SFT took their mass, but the pretrained
    model had it), before and after (mean mass), gain (mean over seeds of the seeds' mean gains) with its interval (level 1 -
    `significance`) low, high, raised (share of prompts that end above the lower end of `partial`, mean over seeds) with the upper end
    of its interval raised_at_most (seeds are what varies; where they agree, as at zero, Clopper-Pearson over prompts), and transcends:
    yes if the whole interval of the gain lies above `negligible`, no if below, unclear otherwise or with fewer than two seeds.
    Seeds with fewer than `band_prompts` such prompts don't count.
    """
    pairs = prompt_gains(evaluations)
    pairs = pairs[(pairs["split"] == "ood") & (pairs["mass_before"] < settings.zero_mass)]
    pairs = pairs.assign(
        hidden=hidden(pairs, settings), raised=pairs["mass_after"] > settings.partial[0]
    )
    claim = Claim("transcends", "", (-1.0, settings.negligible), inside=False)
    rows = []
    for method in methods:
        for prompts in ("id", "ood"):
            own = pairs[pairs["stage"] == rl_stage(prompts, method)]
            for (axis, ratio), started in own.groupby(
                ["axis", "ood_ratio"], sort=False, observed=True
            ):
                table = started[~started["hidden"]]
                table = table[
                    table.groupby("seed")["gain"].transform("size") >= settings.band_prompts
                ]
                seeds = table.groupby("seed")
                found = claim.row(axis, "", seeds["gain"].mean(), len(table), settings)
                share = RAISED.row(axis, "", seeds["raised"].mean(), len(table), settings)
                if table.empty and not started["hidden"].any():
                    continue
                rows.append(
                    {
                        "method": method,
                        "trained_on": prompts,
                        "axis": axis,
                        "ood_ratio": ratio,
                        "seeds": len(seeds),
                        "prompts": len(table),
                    }
                    | {
                        "hidden": int(started["hidden"].sum()),
                        "before": table["mass_before"].mean(),
                        "after": table["mass_after"].mean(),
                    }
                    | {"gain": found["effect"], "low": found["low"], "high": found["high"]}
                    | {"raised": share["effect"], "raised_at_most": share["high"]}
                    | {"transcends": TRANSCENDS.get(found["verdict"], "unclear")}
                )
    columns = [
        "method",
        "trained_on",
        "axis",
        "ood_ratio",
        "seeds",
        "prompts",
        "hidden",
        "before",
        "after",
        "gain",
        "low",
        "high",
    ]
    return pd.DataFrame(rows, columns=[*columns, "raised", "raised_at_most", "transcends"])
