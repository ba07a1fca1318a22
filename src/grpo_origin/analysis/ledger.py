"""The claims ledger: each claim of the study with its effect, bounds, p-values and verdict.

The claims are in `exposure_claims` and `gain_claims`, how they are judged in `claims`. Called by
the registry of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from grpo_origin.analysis.calibration_claims import overconfidence
from grpo_origin.analysis.claims import Finding, judge
from grpo_origin.analysis.evidence import Evidence
from grpo_origin.analysis.exposure_claims import (
    beyond_pretraining,
    composition,
    exposure,
    foreign_tokens,
    no_exposure,
    transfer,
)
from grpo_origin.analysis.gain_claims import (
    faithful_trace,
    mass_bound,
    prompts_matter,
    saturation,
    sharpening,
    sweet_spot,
)
from grpo_origin.analysis.representation import mass_of_heads
from grpo_origin.config.schema import ClaimsSettings, main_method

# The registry of claims, in the order of the study.
CLAIMS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    no_exposure,
    exposure,
    beyond_pretraining,
    transfer,
    sweet_spot,
    saturation,
    foreign_tokens,
    composition,
    mass_bound,
    prompts_matter,
    sharpening,
    mass_of_heads,
    faithful_trace,
    overconfidence,
)


def ledger(evidence: Evidence) -> pd.DataFrame:
    """Judge every claim on one method, one row a claim and axis, in the order of CLAIMS.

    A claim whose cells the run lacks gives an inconclusive row, or none where no axis is of its
    kind. Raises ValueError on unpaired prompts.
    """
    findings = [finding for claim in CLAIMS for finding in claim(evidence)]
    table = pd.DataFrame(judge(findings, evidence.settings, evidence.look))
    table.insert(0, "method", evidence.method)
    return table


def ledgers(
    evaluations: pd.DataFrame,
    settings: ClaimsSettings,
    zero_masses: Mapping[str, float],
    betas: Mapping[str, float],
    theory: pd.DataFrame | None = None,
    signal: pd.DataFrame | None = None,
    heads: pd.DataFrame | None = None,
    faithfulness: pd.DataFrame | None = None,
    calibration: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The ledgers of every method; `betas` are the methods' KL weights, in their order.

    `zero_masses` are the masses below which the budget of each finds nothing. A weight of 0 leaves
    the bound untested: it is that of methods with another objective. The runs to convergence in
    `theory` are of the theorem's objective and of plain GRPO, and `heads` of no RL method: they go
    with `grpo`, or with the first method of a run that lacks it.
    """
    main = main_method(betas)
    tables = [
        ledger(
            Evidence(
                evaluations,
                settings,
                zero_masses[method],
                method,
                beta,
                theory if method == main else None,
                signal,
                heads if method == main else None,
                faithfulness,
                calibration,
            )
        )
        for method, beta in betas.items()
    ]
    return pd.concat(tables, ignore_index=True)
