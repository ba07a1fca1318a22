"""The claims ledger: each claim of the study with its effect, interval, p-value and verdict.

One function a claim, listed in CLAIMS; how they are judged is in `claims`. Called by the registry
of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from grpo_origin.analysis.claims import (
    INCONCLUSIVE,
    SUPPORTED,
    Claim,
    Evidence,
    Row,
    hidden,
    listed,
)
from grpo_origin.analysis.statistics import PASS_AT, pass_at_k
from grpo_origin.config.notation import SPLITS, TaskSpec
from grpo_origin.config.paths import BEFORE_RL
from grpo_origin.config.schema import ClaimsSettings
from grpo_origin.evaluation import law

ALL = "all"  # the axis of a claim on all axes together


def no_exposure(e: Evidence) -> list[Row]:
    """Without OOD data in pretraining RL gains nothing on OOD prompts (the best stage counts)."""
    claim = Claim(
        "no exposure",
        f"Without OOD pretraining {e.label} gains no OOD mass, on whatever prompts.",
        (-np.inf, e.settings.negligible),
    )
    rows = []
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=False)
        cells = f"OOD ratio 0; OOD prompts; better {e.label} stage"
        best = table.max(axis=1)
        rows.append(claim.row(axis, cells, best, prompts, e.settings, e.gain_note(table)))
    return rows


def exposure(e: Evidence) -> list[Row]:
    """With OOD data in pretraining RL on OOD prompts gains there: mean over all positive ratios."""
    claim = Claim(
        "exposure",
        f"With OOD pretraining {e.label} on OOD prompts gains OOD mass.",
        (e.settings.negligible, np.inf),
    )
    rows = []
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=True)
        cells = e.cells[(e.cells["axis"] == axis) & e.cells["exposed"]]
        cells = cells[(cells["split"] == "ood") & (cells["trained_on"] == "ood")]
        means = cells.groupby("ood_ratio")["gain"].mean()
        means = means.sort_index(key=lambda ratios: ratios.astype(float))
        note = f"mean gain by ratio: {listed(means)}" if len(means) else ""
        what = f"OOD ratios above 0; OOD prompts; {e.stage('ood')}"
        rows.append(claim.row(axis, what, table["ood"], prompts, e.settings, note))
    return rows


def beyond_pretraining(e: Evidence) -> list[Row]:
    """RL on OOD prompts ends above the pretrained model.

    SFT on ID data can hide OOD mass, and to get that back is no gain here.
    """
    claim = Claim(
        "beyond pretraining",
        f"With OOD pretraining {e.label} on OOD prompts ends with more OOD mass than the "
        "pretrained model had.",
        (e.settings.negligible, np.inf),
    )
    rows, stage = [], e.stage("ood")
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=True, over="over_pretrained")
        levels = e.levels[(e.levels["axis"] == axis) & e.levels["exposed"]]
        by_stage = levels[levels["split"] == "ood"].groupby("stage")["mean"].mean()
        means = by_stage.reindex([*BEFORE_RL, stage]).dropna()
        masses = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        note = f"mean mass: {masses}" if masses else ""
        cells = f"OOD ratios above 0; OOD prompts; {stage} - pretrain"
        rows.append(claim.row(axis, cells, table["ood"], prompts, e.settings, note))
    return rows


def sweet_spot(e: Evidence) -> list[Row]:
    """Gain against starting mass rises, then falls: partly right prompts gain most."""
    s = e.settings
    claim = Claim(
        "sweet spot",
        "Prompts that are partly right gain more than those near zero and those near one.",
        (s.negligible, np.inf),
    )
    table = e.matched()
    limits = {
        "near 0": (-np.inf, s.zero_mass),
        "partly right": s.partial,
        "near 1": (s.saturated, np.inf),
    }
    bands = pd.DataFrame({name: e.band(table, *ends) for name, ends in limits.items()}).dropna()
    values = bands["partly right"] - bands[["near 0", "near 1"]].max(axis=1)
    note = ""
    if len(bands):
        room = f"near 1 the gain can't exceed {1 - s.saturated:.2g}"
        note = f"mean gain: {listed(bands.mean())}; {room}"
        zero = table["mass_before"] < s.zero_mass
        if zero.any():
            share = hidden(table[zero], s).mean()
            note += f"; of the prompts near 0, the pretrained model had mass on {share:.0%}"
    cells = (
        f"OOD ratios above 0; {e.label} on the split's own prompts; starting mass "
        f"< {s.zero_mass:g}, {s.partial[0]:g}-{s.partial[1]:g}, >= {s.saturated:g}"
    )
    return [claim.row(ALL, cells, values, len(table), s, note)]


def saturation(e: Evidence) -> list[Row]:
    """RL on ID prompts gains nothing on ID prompts that are saturated."""
    s = e.settings
    claim = Claim(
        "saturation",
        f"{e.label} on ID prompts gains nothing on ID prompts that are saturated.",
        (-np.inf, s.negligible),
    )
    table = e.pairs[(e.pairs["split"] == "id") & (e.pairs["trained_on"] == "id")]
    rest = e.band(table, -np.inf, s.saturated)
    note = f"mean gain of the other ID prompts: {rest.mean():+.3f}" if len(rest) else ""
    prompts = int((table["mass_before"] >= s.saturated).sum())
    cells = f"every OOD ratio; ID prompts of starting mass >= {s.saturated:g}; {e.stage('id')}"
    row = claim.row(ALL, cells, e.band(table, s.saturated, np.inf), prompts, s, note)
    if row["high"] < -s.negligible:
        row["note"] = f"no gain, but a loss; {row['note']}"
    return [row]


def foreign_tokens(e: Evidence) -> list[Row]:
    """Foreign tokens break ID prompts, and RL doesn't repair them; for axes with mixed splits."""
    repaired = 1 - e.settings.broken
    breaks = Claim(
        "foreign tokens",
        "Foreign tokens take most of the mass of ID prompts after SFT.",
        (e.settings.broken, np.inf),
    )
    stays = Claim(
        "foreign tokens",
        f"{e.label} gives back less than {repaired:.0%} of the mass that foreign tokens took, "
        "on whatever prompts it trained.",
        (-np.inf, repaired),
    )
    rows = []
    levels = e.levels.assign(mixed=e.levels["split"].str.startswith("mixed-"))
    for axis in dict.fromkeys(levels.loc[levels["mixed"], "axis"]):
        for exposed, name in ((False, "OOD ratio 0"), (True, "OOD ratios above 0")):
            table = levels[(levels["axis"] == axis) & (levels["exposed"] == exposed)]
            if len(table):
                rows += _broken_and_repaired(e, axis, name, table, breaks, stays)
    return rows


def _broken_and_repaired(
    e: Evidence, axis: str, ratios: str, levels: pd.DataFrame, breaks: Claim, stays: Claim
) -> list[Row]:
    """Both rows on foreign tokens of an axis, from its `levels` at some ratios."""
    after_sft = levels[levels["stage"] == "sft"]
    whole = after_sft[after_sft["split"] == "id"].groupby("seed")["mean"].mean()
    stages = ["sft", *e.stages]
    mixed = levels[levels["mixed"] & levels["stage"].isin(stages)]
    left = mixed.groupby(["seed", "stage"])["mean"].mean().unstack("stage").reindex(columns=stages)
    sizes = mixed[mixed["stage"] == "sft"].groupby(["seed", "ood_ratio"])["size"].sum()
    prompts = int(sizes.groupby("seed").max().sum())
    splits = ", ".join(sorted(mixed["split"].unique()))
    taken = whole - left["sft"]
    note = f"mean mass after SFT: id {whole.mean():.3f}, mixed {left['sft'].mean():.3f}"
    cells = f"{ratios}; ID minus {splits}; SFT"
    broken = breaks.row(axis, cells, taken, prompts, e.settings, note)
    after = left[list(e.stages)]
    back = (after.max(axis=1) - left["sft"]) / taken.where(taken > 0)
    note = f"mean mass of mixed prompts: {listed(after.mean().dropna())}"
    cells = f"{ratios}; {splits}, better {e.label} stage - SFT, as a share of what was taken"
    repaired = stays.row(axis, cells, back, prompts, e.settings, note)
    if broken["verdict"] != SUPPORTED:
        note = f"nothing shown to be broken, so nothing to repair; {repaired['note']}"
        repaired |= {"verdict": INCONCLUSIVE, "note": note}
    return [broken, repaired]


def _composed(e: Evidence, axis: str) -> list[str]:
    """OOD tasks of an axis that combine operations which no ID task has together."""
    tasks = e.levels[e.levels["axis"] == axis].groupby("split")["task"].unique()
    known, asked = (
        {task: set(TaskSpec.model_validate(task).operations) for task in tasks.get(split, [])}
        for split in SPLITS
    )
    return [
        task
        for task, parts in asked.items()
        if len(parts) > 1 and not any(parts <= other for other in known.values())
    ]


def composition(e: Evidence) -> list[Row]:
    """Operations learnt apart are not combined by RL: mass of composed tasks (the best counts)."""
    claim = Claim(
        "composition",
        f"Without composed tasks in pretraining {e.label} does not reach them from their parts.",
        (-np.inf, e.settings.negligible),
        floor=0.0,
    )
    rows = []
    for axis in e.axes:
        tasks = _composed(e, axis)
        if not tasks:
            continue
        table = e.levels[(e.levels["axis"] == axis) & ~e.levels["exposed"]]
        table = table[(table["split"] == "ood") & table["task"].isin(tasks)]
        table = table[table["method"] == e.method]
        values = table.groupby(["seed", "stage", "task"])["mean"].mean().groupby("seed").max()
        means = table.groupby(["stage", "task"])["mean"].mean()
        note = f"mean mass: {listed(means)}" if len(table) else ""
        prompts = int(table.groupby("seed")["size"].max().sum())
        cells = f"OOD ratio 0; {' and '.join(tasks)}; best of {e.label} stages and tasks"
        rows.append(claim.row(axis, cells, values, prompts, e.settings, note))
    return rows


def mass_bound(e: Evidence) -> list[Row]:
    """Mass after RL stays below the bound: in runs to convergence and in the run's own RL."""
    rows = []
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
            if len(trained):
                note = f"mean distance from the law: {distances}"
                rows.append(_bound_row(e, cells, trained, beta, note))
    if e.beta > 0 and len(e.pairs):
        note = f"{e.label} stops long before the optimum that the theorem is about"
        cells = f"the run's {e.label}, beta {e.beta:g}; every cell and split"
        rows.append(_bound_row(e, cells, e.pairs, e.beta, note))
    return rows


def _bound_row(e: Evidence, cells: str, table: pd.DataFrame, beta: float, note: str) -> Row:
    """The bound on rows with log_mass_before and mass_after: share of prompts above it.

    Where it exceeds 1 it says nothing; such prompts are left out and their share is noted. Axes of
    one seed count as one.
    """
    s = e.settings
    claim = Claim(
        "mass bound",
        f"Fewer than {s.bound_exceptions:.0%} of prompts end above the bound "
        "Q + (e^(1/beta) - 1) Q.",
        (-np.inf, s.bound_exceptions),
        floor=0.0,
        share=True,
    )
    log_bound = law.log_mass_bound(table["log_mass_before"], beta)
    tested = table[log_bound < 0]
    above = tested["mass_after"] > np.exp(log_bound[log_bound < 0]) + s.bound_tolerance
    vacuous = 1 - len(tested) / len(table)
    note = f"the bound exceeds 1, so says nothing, for {vacuous:.1%} of prompts; {note}"
    values = above.astype(float).groupby(tested["seed"]).mean()
    return claim.row(ALL, cells, values, len(tested), s, note)


def prompts_matter(e: Evidence) -> list[Row]:
    """It matters whether RL trains on ID or OOD prompts: gain from a split's own or the other's."""
    n = e.settings.negligible
    claim = Claim(
        "prompts",
        f"It matters on which prompts {e.label} trains: the split's own or the other's.",
        (-n, n),
        inside=False,
    )
    rows = []
    for axis in e.axes:
        for split, other, exposed in (("ood", "id", True), ("id", "ood", None)):
            table, prompts = e.gains(axis, split, exposed)
            ratios = "OOD ratios above 0" if exposed else "every OOD ratio"
            cells = f"{ratios}; {split.upper()} prompts; {e.stage(split)} - {e.stage(other)}"
            values = table[split] - table[other]
            rows.append(claim.row(axis, cells, values, prompts, e.settings, e.gain_note(table)))
    return rows


def sharpening(e: Evidence) -> list[Row]:
    """RL sharpens without widening: where Q was about zero, pass@k at the largest k doesn't grow.

    About zero in the pretrained model too: mass that only SFT hid is not new.
    """
    s, k = e.settings, max(PASS_AT)
    claim = Claim(
        "sharpening",
        f"{e.label} sharpens but does not widen: pass@{k} does not grow where the mass was "
        "about zero.",
        (-np.inf, s.negligible),
    )
    rows, matched = [], e.matched(["ood"])
    for axis in e.axes:
        table = matched[matched["axis"] == axis]
        change = pass_at_k(table["log_mass_after"], k) - pass_at_k(table["log_mass_before"], k)
        table = table.assign(change=change)
        partly = e.band(table, *s.partial)
        note = "no prompts that are partly right"
        if len(partly):
            note = f"mean gain of mass where partly right: {partly.mean():+.3f}"
        cells = (
            f"OOD ratios above 0; OOD prompts of mass < {s.zero_mass:g} after pretraining and SFT; "
            f"{e.stage('ood')}"
        )
        new = table[~hidden(table, s)]
        prompts = int((new["mass_before"] < s.zero_mass).sum())
        values = e.band(new, -np.inf, s.zero_mass, "change")
        rows.append(claim.row(axis, cells, values, prompts, s, note))
    return rows


# The registry of claims, in the order of the study.
CLAIMS: tuple[Callable[[Evidence], list[Row]], ...] = (
    no_exposure,
    exposure,
    beyond_pretraining,
    sweet_spot,
    saturation,
    foreign_tokens,
    composition,
    mass_bound,
    prompts_matter,
    sharpening,
)


def ledger(evidence: Evidence) -> pd.DataFrame:
    """Judge every claim on one method, one row a claim and axis, in the order of CLAIMS.

    A claim whose cells the run lacks gives an inconclusive row, or none where no axis is of its
    kind. Raises ValueError on unpaired prompts.
    """
    table = pd.DataFrame([row for claim in CLAIMS for row in claim(evidence)])
    table.insert(0, "method", evidence.method)
    return table


def ledgers(
    evaluations: pd.DataFrame,
    settings: ClaimsSettings,
    betas: Mapping[str, float],
    theory: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The ledgers of every method; `betas` are the methods' KL weights, in their order.

    A weight of 0 leaves the bound untested: it is that of methods with another objective. The runs
    to convergence in `theory` are of the theorem's objective and of plain GRPO: they go with
    `grpo`, or with the first method of a run that lacks it.
    """
    main = "grpo" if "grpo" in betas else next(iter(betas))
    return pd.concat(
        [
            ledger(
                Evidence(evaluations, settings, method, beta, theory if method == main else None)
            )
            for method, beta in betas.items()
        ],
        ignore_index=True,
    )
