"""Probes and heads over a fixed set: from files of cells to tables, and the claim on heads.

Called by the registry of tables and by `ledger`.
"""

from __future__ import annotations

import pandas as pd

from grpo_origin.analysis.claims import Claim, Finding
from grpo_origin.analysis.evidence import Evidence, listed

PROBE = ["axis", "seed", "ood_ratio", "stage", "method", "trained_on", "layer"]
PROBE += ["fitted_on", "split", "step"]
READ = ["accuracy", "control", "from_prompt"]
# Heads trained by rewards, and what a statement calls the group that each reward is relative to.
GROUPS = {"grpo_rm_sampled": "groups sampled from the head", "grpo_rm": "the whole set as a group"}
UNBOUNDED = (-1.0, 1.0)


def probe_means(probes: pd.DataFrame) -> pd.DataFrame:
    """Mean over positions, a row a stage, layer, kind of fit, split and step of a cell.

    Columns PROBE, positions (how many), READ.
    """
    groups = probes.groupby(PROBE, sort=False, dropna=False)
    return groups[READ].mean().assign(positions=groups.size()).reset_index()


def mass_of_heads(e: Evidence) -> list[Finding]:
    """A head does not learn OOD prompts to whose right output it gave no mass.

    Judged against guessing, since a head that loses all it knew gives each output that much.
    """
    if e.heads is None:
        return []
    heads = e.heads[(e.heads["split"] == "ood") & (e.heads["trained_on"] == "ood")]
    heads = heads[heads["without"] > 0]
    findings = []
    for kind, group in GROUPS.items():
        claim = Claim(
            "mass of a head",
            f"By GRPO on OOD prompts, {group}, a head gets no further than guessing on OOD prompts "
            "to which it gave no correct mass.",
            "absent",
            e.settings.negligible,
            UNBOUNDED,
        )
        for axis in e.axes:
            table = heads[(heads["axis"] == axis) & (heads["head"] == kind)]
            over = (table["without_after"] - table["guess"]) * table["without"]
            sums = table.assign(over=over).groupby("seed")[["over", "without"]].sum()
            sums = sums[sums["without"] >= e.settings.band_prompts]
            means = table.groupby("ood_ratio")["without_after"].mean()
            note = f"mean mass after by ratio: {listed(means)}" if len(means) else ""
            cells = f"all OOD ratios; OOD prompts without mass in the linear head; {kind}"
            findings.append(Finding(claim, axis, cells, sums["over"] / sums["without"], note))
    return findings
