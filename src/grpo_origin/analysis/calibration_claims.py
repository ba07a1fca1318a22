"""Claims about overconfidence on stochastic outcomes (Bereket and Leskovec, arXiv 2508.11800).

The function gives the findings of one method; `ledger` lists and judges them.
"""

from __future__ import annotations

from grpo_origin.analysis.claims import Claim, Finding
from grpo_origin.analysis.evidence import Evidence
from grpo_origin.config.notation import SPLITS

# Half of the step between two answers: nearer than that no answer tells two confidences apart.
OVERCONFIDENT = 0.05
DIVIDES = ("grpo",)  # methods of which the paper says that they are overconfident
UNDIVIDED = ("dr_grpo", "rloo")  # those without division by the group's standard deviation


def overconfidence(e: Evidence) -> list[Finding]:
    """GRPO becomes overconfident; without the division by the standard deviation nothing does.

    No rows of other methods, and none where no answers are probabilities.
    """
    table = e.calibration
    if table is None or e.method not in (*DIVIDES, *UNDIVIDED):
        return []
    divides = e.method in DIVIDES
    claim = Claim(
        "overconfidence",
        f"{e.label} makes confidences overconfident on stochastic outcomes."
        if divides
        else f"{e.label} does not make confidences overconfident on stochastic outcomes.",
        "present" if divides else "absent",
        OVERCONFIDENT,
    )
    findings = []
    table = table[table["metric"] == "overconfidence"]
    for axis in dict.fromkeys(table["axis"]):
        for split in SPLITS:
            own = table[(table["axis"] == axis) & (table["split"] == split)]
            if split == "ood":  # without exposure there may be nothing to be calibrated about
                own = own[own["ood_ratio"].astype(float) > 0]
            values = own[own["stage"] == e.stage(split)].groupby("seed")["mean"].mean()
            before = own[own["stage"] == e.start].groupby("seed")["mean"].mean()
            if not len(values):
                continue
            ratios = "OOD ratios above 0" if split == "ood" else "every OOD ratio"
            cells = f"{ratios}; {split.upper()} prompts; {e.stage(split)}"
            note = f"mean overconfidence before RL: {before.mean():+.3f}" if len(before) else ""
            findings.append(Finding(claim, axis, cells, values, note))
    return findings
