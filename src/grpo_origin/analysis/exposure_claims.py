"""Claims about OOD prompts: what RL finds there, with and without OOD data in pretraining.

Each function gives the findings of one claim; `ledger` lists and judges them.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd

from grpo_origin.analysis.claims import Claim, Finding
from grpo_origin.analysis.evidence import Evidence, closure, listed
from grpo_origin.analysis.stages import start_of
from grpo_origin.analysis.transfer import WITH_MASS, task_cells
from grpo_origin.config.notation import SPLITS, operations_of
from grpo_origin.config.paths import BEFORE_RL

ALL = "all"  # the axis of a claim on all axes together


def no_exposure(e: Evidence) -> list[Finding]:
    """Without OOD data in pretraining RL gains nothing on OOD prompts.

    Two rows an axis: on OOD prompts the run's completions can't hold a success, so nothing moves;
    and where weights did move, on whatever prompts, the mass did not rise.
    """
    return [row(e, axis) for axis in e.axes for row in (_cannot_be_sampled, _did_not_rise)]


def _cannot_be_sampled(e: Evidence, axis: str) -> Finding:
    claim = Claim(
        "no exposure",
        f"Without OOD pretraining {e.label} on OOD prompts has a chance of at most "
        f"{e.settings.chance:.0%} to sample a single success.",
        "few",
        e.settings.chance,
    )
    table = _signal(e, axis)
    table = table[table["trained_on"] == "ood"]
    note = ""
    chances = table.set_index("seed")["any_success"].sort_index()
    if len(table):
        # The chance is that of the SFT model: it says nothing of a method that moves without a
        # success, and is refuted by a success that should not have been.
        odd = (table["moved"] | (table["rewarded"] > 0)) & (
            table["any_success"] <= e.settings.chance
        )
        chances = chances[~chances.index.isin(table.loc[odd, "seed"])]
        moved = f"weights moved in {table['moved'].sum()} of {len(table)} seeds"
        sampled = f"rewarded {table['rewarded'].sum()} of {table['completions'].sum()} completions"
        expected = f"{table['expected_successes'].max():.2g} expected in the best seed"
        note = f"{sampled} ({expected}), {moved}"
        if odd.any():
            note += f"; left out, as they moved or were rewarded all the same: {odd.sum()} seeds"
    return Finding(
        claim,
        axis,
        f"OOD ratio 0; cannot be sampled; {e.stage('ood')}; share of seeds",
        chances,
        note,
        empty="no chance is known" if len(table) else "no record of what was sampled",
    )


def _did_not_rise(e: Evidence, axis: str) -> Finding:
    """The best of the stages whose weights moved; of all stages where that was not recorded."""
    claim = Claim(
        "no exposure",
        f"Without OOD pretraining {e.label} gains no OOD mass where its weights moved, on whatever "
        "prompts.",
        "absent",
        e.settings.negligible,
    )
    table, signal = e.gains(axis, "ood", exposed=False), _signal(e, axis)
    notes = [e.gain_note(table)]
    if len(signal):
        moved = signal.pivot(index="seed", columns="trained_on", values="moved")
        moved = moved.reindex(index=table.index, columns=table.columns).eq(True)
        table = table.where(moved)
        counts = ", ".join(f"{e.stage(split)} {moved[split].sum()}" for split in SPLITS)
        notes.append(f"weights moved, of {len(table)} seeds: {counts}")
    elif len(table):
        notes.append("no record of whether weights moved")
    return Finding(
        claim,
        axis,
        f"OOD ratio 0; did not rise; OOD prompts; best {e.label} stage that moved",
        table.max(axis=1),
        "; ".join(filter(None, notes)),
        empty="weights moved nowhere, so nothing to test" if len(signal) else Finding.empty,
    )


def _signal(e: Evidence, axis: str) -> pd.DataFrame:
    """What the method's stages of an axis sampled at ratio 0; no rows if it was not recorded."""
    if e.signal is None:
        columns = ["seed", "trained_on", "any_success", "moved", "rewarded"]
        return pd.DataFrame(columns=columns)
    table = e.signal[(e.signal["axis"] == axis) & (e.signal["method"] == e.method)]
    return table[table["ood_ratio"].astype(float) == 0]


def exposure(e: Evidence) -> list[Finding]:
    """With OOD data in pretraining RL on OOD prompts gains there: mean over all positive ratios."""
    claim = Claim(
        "exposure",
        f"With OOD pretraining {e.label} on OOD prompts gains OOD mass.",
        "present",
        e.settings.negligible,
    )
    findings = []
    for axis in e.axes:
        cells = e.cells[(e.cells["axis"] == axis) & e.cells["exposed"]]
        cells = cells[(cells["split"] == "ood") & (cells["trained_on"] == "ood")]
        means = cells.groupby("ood_ratio")["gain"].mean()
        means = means.sort_index(key=lambda ratios: ratios.astype(float))
        note = f"mean gain by ratio: {listed(means)}" if len(means) else ""
        what = f"OOD ratios above 0; OOD prompts; {e.stage('ood')}"
        findings.append(_with_closure(e, claim, axis, what, "gain", "room", note))
    return findings


def beyond_pretraining(e: Evidence) -> list[Finding]:
    """RL on OOD prompts ends above the pretrained model.

    SFT on ID data can hide OOD mass, and to get that back is no gain here.
    """
    claim = Claim(
        "beyond pretraining",
        f"With OOD pretraining {e.label} on OOD prompts ends with more OOD mass than the "
        "pretrained model had.",
        "present",
        e.settings.negligible,
    )
    findings, stage = [], e.stage("ood")
    for axis in e.axes:
        levels = e.levels[(e.levels["axis"] == axis) & e.levels["exposed"]]
        by_stage = levels[levels["split"] == "ood"].groupby("stage")["mean"].mean()
        means = by_stage.reindex([*BEFORE_RL, stage]).dropna()
        masses = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        note = f"mean mass: {masses}" if masses else ""
        cells = f"OOD ratios above 0; OOD prompts; {stage} - pretrain"
        columns = "over_pretrained", "over_pretrained_room"
        findings.append(_with_closure(e, claim, axis, cells, *columns, note))
    return findings


def _with_closure(
    e: Evidence, claim: Claim, axis: str, cells: str, over: str, room: str, note: str
) -> Finding:
    """A finding on the gain of the stage on OOD prompts, with its closure: mean over seeds."""
    gain, left = (e.gains(axis, "ood", exposed=True, over=name)["ood"] for name in (over, room))
    return Finding(claim, axis, cells, gain, note, closure(gain, left).mean())


def transfer(e: Evidence) -> list[Finding]:
    """Prompts without mass rise where others of their task have some, and not where none has."""
    rises = Claim(
        "transfer",
        f"OOD prompts without mass rise by {e.label} where other prompts of their task have mass.",
        "present",
        e.settings.negligible,
    )
    stays = Claim(
        "transfer",
        f"OOD prompts without mass do not rise by {e.label} where their task has none.",
        "absent",
        e.settings.negligible,
    )
    cells = task_cells(e.pairs, e.zero_mass)
    cells = cells[cells["prompts"] > 0]
    mass, enough = cells["task_mass_before"], WITH_MASS * e.zero_mass
    what = f"OOD prompts of mass < {e.zero_mass:.2g} after pretraining and SFT; {e.stage('ood')}"
    return [
        Finding(claim, ALL, f"{what}; mean mass of their task {which}", *_risen(e, table))
        for claim, which, table in (
            (rises, f">= {enough:.2g}", cells[mass >= enough]),
            (stays, f"< {e.zero_mass:.2g}", cells[mass < e.zero_mass]),
        )
    ]


def _risen(e: Evidence, cells: pd.DataFrame) -> tuple[pd.Series, str]:
    """Mean gain of every seed over the prompts of task cells, and a note on them."""
    cells = cells.assign(gain=(cells["after"] - cells["before"]) * cells["prompts"])
    sums = cells.groupby("seed")[["gain", "prompts"]].sum()
    sums = sums[sums["prompts"] >= e.settings.band_prompts]
    by_axis = cells[cells["seed"].isin(sums.index)].groupby("axis", sort=False)["prompts"].sum()
    note = f"prompts: {', '.join(f'{axis} {n}' for axis, n in by_axis.items())}"
    return sums["gain"] / sums["prompts"], note if len(by_axis) else ""


def foreign_tokens(e: Evidence) -> list[Finding]:
    """Foreign tokens break ID prompts, and RL doesn't repair them; for axes with mixed splits."""
    repaired = 1 - e.settings.broken
    breaks = Claim(
        "foreign tokens",
        "Foreign tokens take most of the mass of ID prompts after SFT.",
        "present",
        e.settings.broken,
    )
    stays = Claim(
        "foreign tokens",
        f"{e.label} gives back less than {repaired:.0%} of the mass that foreign tokens took, "
        "on whatever prompts it trained.",
        "absent",
        repaired,
        (-np.inf, np.inf),  # RL can take more, or give back more than was taken
    )
    findings = []
    levels = e.levels.assign(mixed=e.levels["split"].str.startswith("mixed-"))
    for axis in dict.fromkeys(levels.loc[levels["mixed"], "axis"]):
        of_axis = levels[levels["axis"] == axis]
        for ratio in sorted(of_axis["ood_ratio"].unique(), key=Decimal):
            table = of_axis[of_axis["ood_ratio"] == ratio]
            findings += _broken_and_repaired(e, axis, ratio, table, breaks, stays)
    return findings


def _broken_and_repaired(
    e: Evidence, axis: str, ratio: str, levels: pd.DataFrame, breaks: Claim, stays: Claim
) -> list[Finding]:
    """Both findings on foreign tokens of an axis, from its `levels` at a ratio."""
    start = start_of(levels["stage"])
    before = levels[levels["stage"] == start]
    whole = before[before["split"] == "id"].groupby("seed")["mean"].mean()
    stages = [start, *e.stages]
    mixed = levels[levels["mixed"] & levels["stage"].isin(stages)]
    left = mixed.groupby(["seed", "stage"])["mean"].mean().unstack("stage").reindex(columns=stages)
    splits = ", ".join(sorted(mixed["split"].unique()))
    taken = whole - left[start]
    note = f"mean mass before RL: id {whole.mean():.3f}, mixed {left[start].mean():.3f}"
    broken = Finding(breaks, axis, f"OOD ratio {ratio}; ID minus {splits}; SFT", taken, note)
    after = left[list(e.stages)]
    back = (after.max(axis=1) - left[start]) / taken.where(taken > 0)
    note = f"mean mass of mixed prompts: {listed(after.mean().dropna())}"
    cells = f"OOD ratio {ratio}; {splits}, better {e.label} stage - SFT, as a share of that"
    otherwise = "nothing shown to be broken, so nothing to repair"
    return [broken, Finding(stays, axis, cells, back, note, requires=broken, otherwise=otherwise)]


def _composed(e: Evidence, axis: str) -> list[str]:
    """OOD tasks of an axis that combine operations which no ID task has together."""
    tasks = e.levels[e.levels["axis"] == axis].groupby("split")["task"].unique()
    known, asked = (
        {task: operations_of(task) for task in tasks.get(split, [])} for split in SPLITS
    )
    return [
        task
        for task, parts in asked.items()
        if len(parts) > 1 and not any(parts <= other for other in known.values())
    ]


def composition(e: Evidence) -> list[Finding]:
    """Operations learnt apart are not combined by RL: mass of composed tasks (the best counts)."""
    claim = Claim(
        "composition",
        f"Without composed tasks in pretraining {e.label} does not reach them from their parts.",
        "absent",
        e.settings.negligible,
        (0.0, 1.0),
    )
    findings = []
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
        cells = f"OOD ratio 0; {' and '.join(tasks)}; best of {e.label} stages and tasks"
        findings.append(Finding(claim, axis, cells, values, note))
    return findings
