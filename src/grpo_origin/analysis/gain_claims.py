"""Claims about what RL gains: where on the scale of starting mass, within theory's bound, by what,
and what it does to the use of the trace.

Each function gives the findings of one claim; `ledger` lists and judges them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.claims import Claim, Finding
from grpo_origin.analysis.evidence import Evidence, hidden, listed
from grpo_origin.analysis.exposure_claims import ALL
from grpo_origin.analysis.faithfulness import USE
from grpo_origin.analysis.inference import MIN_SEEDS, bounds
from grpo_origin.analysis.stages import start_of
from grpo_origin.analysis.statistics import pass_at_k
from grpo_origin.evaluation import law

WIDE_AT = 128  # k at which pass@k would show that RL widens what can be reached


def sweet_spot(e: Evidence) -> list[Finding]:
    """Closure against starting mass rises, then falls.

    A share of the room, since near 1 the gain itself can't exceed what little there is.
    """
    s = e.settings
    claim = Claim(
        "sweet spot",
        "Prompts that are partly right gain a larger share of their room than those near zero and "
        "those near one.",
        "present",
        s.negligible,
        (-np.inf, 1.0),
    )
    table = e.matched()
    table = table.assign(room=1 - table["mass_before"])
    limits = {
        "near 0": (-np.inf, e.zero_mass),
        "partly right": s.partial,
        "near 1": (s.saturated, np.inf),
    }
    closures = {name: e.closure_in(table, *ends) for name, ends in limits.items()}
    bands = pd.DataFrame(closures).dropna()
    values = bands["partly right"] - bands[["near 0", "near 1"]].max(axis=1)
    note = ""
    if len(bands):
        note = f"mean closure: {listed(bands.mean())}"
        zero = table["mass_before"] < e.zero_mass
        share = hidden(table[zero], e.zero_mass).mean()
        note += f"; of the prompts near 0, the pretrained model had mass on {share:.0%}"
    cells = (
        f"OOD ratios above 0; {e.label} on the split's own prompts; starting mass "
        f"< {e.zero_mass:.2g}, {s.partial[0]:g}-{s.partial[1]:g}, >= {s.saturated:g}"
    )
    return [Finding(claim, ALL, cells, values, note)]


def saturation(e: Evidence) -> list[Finding]:
    """RL on ID prompts gains nothing on ID prompts that are saturated."""
    s = e.settings
    claim = Claim(
        "saturation",
        f"{e.label} on ID prompts gains nothing on ID prompts that are saturated.",
        "absent",
        s.negligible,
    )
    table = e.pairs[(e.pairs["split"] == "id") & (e.pairs["trained_on"] == "id")]
    rest = e.band(table, -np.inf, s.saturated)
    note = f"mean gain of the other ID prompts: {rest.mean():+.3f}" if len(rest) else ""
    values = e.band(table, s.saturated, np.inf)
    if bounds(values, e.alpha)[1] < -s.negligible:
        note = "; ".join(filter(None, ["no gain, but a loss", note]))
    cells = f"every OOD ratio; ID prompts of starting mass >= {s.saturated:g}; {e.stage('id')}"
    return [Finding(claim, ALL, cells, values, note)]


def mass_bound(e: Evidence) -> list[Finding]:
    """Mass after RL stays below the bound: in runs to convergence and in the run's own RL.

    What can't be decided has no row: runs of too few seeds, and weights at which the bound exceeds
    1 and so says nothing of nearly all prompts.
    """
    findings = []
    if e.theory is not None and len(e.theory):
        with np.errstate(divide="ignore"):
            theory = e.theory.assign(log_mass_before=np.log(e.theory["mass_before"]))
        for (method, _), table in theory.groupby(["method", "beta"]):
            beta = float(table["beta"].iloc[0])
            predicted = law.optimal_mass(table["mass_before"].clip(0, 1), beta)
            error = (table["mass_after"] - predicted).abs().groupby(table["pool"]).mean()
            distances = ", ".join(f"{pool} {value:.3f}" for pool, value in error.items())
            trained = table[table["pool"] == "train"]
            cells = f"{method}, beta {beta:g}, to convergence"
            note = f"mean distance from the law: {distances}"
            findings.append(_bound(e, cells, trained, beta, note))
    if e.beta > 0 and len(e.pairs):
        note = f"{e.label} stops long before the optimum that the theorem is about"
        cells = f"the run's {e.label}, beta {e.beta:g}; every cell and split"
        findings.append(_bound(e, cells, e.pairs, e.beta, note))
    return [finding for finding in findings if len(finding.numbers) >= MIN_SEEDS]


def _bound(e: Evidence, cells: str, table: pd.DataFrame, beta: float, note: str) -> Finding:
    """The bound on rows with log_mass_before and mass_after: share of prompts above it.

    Where it exceeds 1 it says nothing; such prompts are left out and their share is noted. Axes of
    one seed count as one.
    """
    s = e.settings
    claim = Claim(
        "mass bound",
        f"Fewer than {s.bound_exceptions:.0%} of prompts end above the bound "
        "Q + (e^(1/beta) - 1) Q.",
        "absent",
        s.bound_exceptions,
        (0.0, 1.0),
    )
    log_bound = law.log_mass_bound(table["log_mass_before"], beta)
    tested = table[log_bound < 0]
    above = tested["mass_after"] > np.exp(log_bound[log_bound < 0]) + s.bound_tolerance
    vacuous = 1 - len(tested) / len(table)
    note = f"the bound exceeds 1, so says nothing, for {vacuous:.1%} of prompts; {note}"
    values = above.astype(float).groupby(tested["seed"]).mean()
    return Finding(claim, ALL, cells, values, note)


def prompts_matter(e: Evidence) -> list[Finding]:
    """It matters whether RL trains on ID or OOD prompts: gain from a split's own or the other's."""
    claim = Claim(
        "prompts",
        f"It matters on which prompts {e.label} trains: the split's own or the other's.",
        "outside",
        e.settings.negligible,
    )
    findings = []
    for axis in e.axes:
        for split, other, exposed in (("ood", "id", True), ("id", "ood", None)):
            table = e.gains(axis, split, exposed)
            ratios = "OOD ratios above 0" if exposed else "every OOD ratio"
            cells = f"{ratios}; {split.upper()} prompts; {e.stage(split)} - {e.stage(other)}"
            values = table[split] - table[other]
            findings.append(Finding(claim, axis, cells, values, e.gain_note(table)))
    return findings


def sharpening(e: Evidence) -> list[Finding]:
    """RL sharpens without widening: where Q was about zero, pass@k at a large k doesn't grow.

    About zero in the pretrained model too: mass that only SFT hid is not new.
    """
    s, k = e.settings, WIDE_AT
    claim = Claim(
        "sharpening",
        f"{e.label} sharpens but does not widen: pass@{k} does not grow where the mass was "
        "about zero.",
        "absent",
        s.negligible,
    )
    findings, matched = [], e.matched(["ood"])
    for axis in e.axes:
        table = matched[matched["axis"] == axis]
        change = pass_at_k(table["log_mass_after"], k) - pass_at_k(table["log_mass_before"], k)
        table = table.assign(change=change)
        partly = e.band(table, *s.partial)
        note = "no prompts that are partly right"
        if len(partly):
            note = f"mean gain of mass where partly right: {partly.mean():+.3f}"
        cells = (
            f"OOD ratios above 0; OOD prompts of mass < {e.zero_mass:.2g} after pretraining and "
            f"SFT; {e.stage('ood')}"
        )
        new = table[~hidden(table, e.zero_mass)]
        values = e.band(new, -np.inf, e.zero_mass, "change")
        findings.append(Finding(claim, axis, cells, values, note))
    return findings


def faithful_trace(e: Evidence) -> list[Finding]:
    """RL does not make answers depend less on their traces: causal use after it less that before.

    A row an axis where it was measured.
    """
    edge = e.settings.negligible
    claim = Claim(
        "faithful trace",
        f"{e.label} on OOD prompts does not lessen the causal use of the trace there.",
        "present",
        -edge,
    )
    if e.faithfulness is None:
        return []
    table = e.faithfulness[(e.faithfulness["measure"] == USE) & (e.faithfulness["split"] == "ood")]
    findings, stages = [], (start_of(table["stage"]), e.stage("ood"))
    for axis in e.axes:
        cells = table[(table["axis"] == axis) & table["stage"].isin(stages)]
        means = cells.pivot_table("mean", ["seed", "ood_ratio"], "stage").reindex(columns=stages)
        use = means.groupby("seed").mean()
        values = use[stages[1]] - use[stages[0]]
        note = f"mean causal use by stage: {listed(use.mean())}" if len(values.dropna()) else ""
        what = f"every OOD ratio; OOD prompts with a trace; {stages[1]} - {stages[0]}"
        findings.append(Finding(claim, axis, what, values, note))
    return findings
