"""The claims ledger: each claim of the study with its effect, interval, p-value and verdict.

Every claim becomes one number a seed, and one rule decides all of them: the t interval over seeds (level 1 - `significance`)
lies where the claim is true (supported), where it is false (contradicted), or across the edge (inconclusive). So a claim of
absence needs the whole interval below what is negligible; failing to see an effect supports nothing. The edges are settings,
fixed before the results. Effects are means of the exact correct mass, the expected accuracy at temperature 1.

Verdicts are a row's own: with many rows some will be wrong, about `significance` of those whose effect sits on its edge.
Axes are known by what they hold (splits, tasks, ratios), never by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from grpo_origin.analysis.statistics import (
    PASS_AT,
    clopper_pearson_interval,
    constant_interval,
    pass_at_k,
    prompt_gains,
    t_interval,
)
from grpo_origin.config.notation import SPLITS, TaskSpec
from grpo_origin.config.paths import BEFORE_RL, rl_stage
from grpo_origin.config.schema import ClaimsSettings

COLUMNS = (
    "claim",
    "axis",
    "statement",
    "cells",
    "effect",
    "low",
    "high",
    "p_value",
    "verdict",
    "note",
)


ALL = "all"


STAGES = tuple(
    rl_stage(prompts) for prompts in SPLITS
)  # the ledger is about GRPO; other methods are left out


SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"


def decide(low: float, high: float, region: tuple[float, float], inside: bool = True) -> str:
    """Verdict on `the effect lies in the open interval region` (or, with inside=False, outside of it) from an interval."""
    if not (low <= high):  # NaN: no interval
        return INCONCLUSIVE
    within = region[0] < low and high < region[1]
    without = high < region[0] or low > region[1]
    if not (within or without):
        return INCONCLUSIVE
    return SUPPORTED if within == inside else CONTRADICTED


@dataclass(frozen=True)
class Claim:
    """What is claimed: a name, a statement, and where the effect must lie for it to be true."""

    name: str
    statement: str
    region: tuple[float, float]
    inside: bool = True
    floor: float = -1.0  # lowest value the effect can have; the highest is 1
    share: bool = False  # the effect is a share of prompts, which seeds can agree on by chance

    def row(
        self,
        axis: str,
        cells: str,
        values: pd.Series,
        prompts: int,
        settings: ClaimsSettings,
        note: str = "",
    ) -> dict[str, Any]:
        """The ledger's row from one effect a seed (a Series; index seed) that rests on so many prompts.

        The p-value is that of a two-sided t test of the effect against the nearest edge of the region, so that it lies below
        `significance` exactly when the verdict is not inconclusive; NaN when the seeds do not differ.
        """
        values = values.dropna()
        n, mean = len(values), float(values.mean()) if len(values) else np.nan
        low = high = p_value = np.nan
        notes = [note]
        if not n:
            notes.append("nothing to test on in this run")
        elif n == 1:
            notes.append("one seed: a verdict needs at least two")
        elif np.ptp(values) <= 1e-12 * values.abs().max():
            level = 1 - settings.significance
            if self.share:
                low, high = clopper_pearson_interval(round(mean * prompts), prompts, level)
            else:  # means of many prompts that agree to the last digit: these are all the same, as at zero
                low, high = (
                    float(bound) for bound in constant_interval(mean, prompts, self.floor, level)
                )
            notes.append(f"the same in every seed: Clopper-Pearson bound over {prompts} prompts")
        else:
            std = float(values.std())
            low, high = (
                float(np.clip(bound, self.floor, 1))
                for bound in t_interval(mean, std, n, 1 - settings.significance)
            )
            edge = min(
                (edge for edge in self.region if np.isfinite(edge)),
                key=lambda edge: abs(edge - mean),
            )
            with np.errstate(divide="ignore"):  # seeds so close that their spread underflows: p = 0
                p_value = float(2 * stats.t.sf(abs(mean - edge) / (std / np.sqrt(n)), n - 1))
        seeds = ", ".join(map(str, values.index))
        return {
            "claim": self.name,
            "axis": axis,
            "statement": self.statement,
            "cells": f"{cells}; seeds {seeds or 'none'}",
            "effect": mean,
            "low": low,
            "high": high,
            "p_value": p_value,
            "verdict": decide(low, high, self.region, self.inside),
            "note": "; ".join(part for part in notes if part),
        }


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged by."""

    evaluations: pd.DataFrame
    settings: ClaimsSettings
    theory: pd.DataFrame | None = None
    beta: float | None = None
    axes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(dict.fromkeys(self.evaluations["axis"])))

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Mass before and after GRPO, a row a stage and prompt; `exposed` if pretraining held OOD data."""
        table = prompt_gains(self.evaluations)
        table = table.assign(over_pretrained=table["mass_after"] - table["mass_pretrained"])
        return _exposed(table[table["stage"].isin(STAGES)])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Mean gain (over SFT, over the pretrained model) and prompts of every seed, ratio, GRPO stage and split."""
        groups = self.pairs.groupby(["axis", "seed", "ood_ratio", "exposed", "stage", "split"])
        return groups.agg(
            gain=("gain", "mean"),
            over_pretrained=("over_pretrained", "mean"),
            size=("gain", "size"),
        ).reset_index()

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Mean mass and prompts of every seed, ratio, stage, split and task."""
        keys = ["axis", "seed", "ood_ratio", "stage", "split", "task"]
        mass = np.exp(self.evaluations["log_mass"].clip(upper=0.0))
        table = (
            mass.groupby([self.evaluations[key] for key in keys])
            .agg(["mean", "size"])
            .reset_index()
        )
        return _exposed(table)

    def gains(
        self, axis: str, split: str, exposed: bool | None = None, over: str = "gain"
    ) -> tuple[pd.DataFrame, int]:
        """Mean gain over ratios, shape (seeds, GRPO stages), and the number of prompts behind it."""
        table = self.cells[(self.cells["axis"] == axis) & (self.cells["split"] == split)]
        if exposed is not None:
            table = table[table["exposed"] == exposed]
        wide = (
            table.groupby(["seed", "stage"])[over]
            .mean()
            .unstack("stage")
            .reindex(columns=list(STAGES))
        )
        return wide, int(table.groupby("seed")["size"].max().sum())

    def band(self, table: pd.DataFrame, low: float, high: float, value: str = "gain") -> pd.Series:
        """Mean of a column in every seed over prompts of starting mass in [low, high); seeds with too few are left out."""
        table = table[(table["mass_before"] >= low) & (table["mass_before"] < high)]
        found = table.groupby("seed")[value].agg(["mean", "size"])
        return found.loc[found["size"] >= self.settings.band_prompts, "mean"]

    def matched(self, splits: Iterable[str] = SPLITS) -> pd.DataFrame:
        """Prompts of runs with OOD data whose GRPO trained on their own split."""
        table = self.pairs[self.pairs["exposed"] & self.pairs["split"].isin(list(splits))]
        return table[table["stage"] == table["split"].map(rl_stage)]


def _exposed(table: pd.DataFrame) -> pd.DataFrame:
    positive = {ratio: Decimal(ratio) > 0 for ratio in table["ood_ratio"].unique()}
    return table.assign(exposed=table["ood_ratio"].map(positive).astype(bool))


def _listed(means: pd.Series) -> str:
    names = (" on ".join(name) if isinstance(name, tuple) else name for name in means.index)
    return ", ".join(f"{name} {value:+.3f}" for name, value in zip(names, means, strict=True))


def hidden(table: pd.DataFrame, settings: ClaimsSettings) -> pd.Series:
    """Which rows of `prompt_gains` are of prompts that the pretrained model had: mass there that SFT took is not new after RL."""
    return table["mass_pretrained"] >= settings.zero_mass


def no_exposure(e: Evidence) -> list[dict[str, Any]]:
    """Without OOD data in pretraining GRPO gains nothing on OOD prompts, whatever it trains on (the best stage counts)."""
    claim = Claim(
        "no exposure",
        "Without OOD pretraining GRPO gains no OOD mass, on whatever prompts.",
        (-np.inf, e.settings.negligible),
    )
    rows = []
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=False)
        note = f"mean gain by stage: {_listed(table.mean().dropna())}" if len(table) else ""
        rows.append(
            claim.row(
                axis,
                "OOD ratio 0; OOD prompts; better GRPO stage",
                table.max(axis=1),
                prompts,
                e.settings,
                note,
            )
        )
    return rows


def exposure(e: Evidence) -> list[dict[str, Any]]:
    """With OOD data in pretraining GRPO on OOD prompts gains there: mean over the positive ratios, none picked out."""
    claim = Claim(
        "exposure",
        "With OOD pretraining GRPO on OOD prompts gains OOD mass.",
        (e.settings.negligible, np.inf),
    )
    rows, stage = [], rl_stage("ood")
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=True)
        cells = e.cells[
            (e.cells["axis"] == axis)
            & (e.cells["split"] == "ood")
            & (e.cells["stage"] == stage)
            & e.cells["exposed"]
        ]
        by_ratio = (
            cells.groupby("ood_ratio")["gain"]
            .mean()
            .sort_index(key=lambda ratios: ratios.map(Decimal))
        )
        note = f"mean gain by ratio: {_listed(by_ratio)}" if len(by_ratio) else ""
        rows.append(
            claim.row(
                axis,
                f"OOD ratios above 0; OOD prompts; {stage}",
                table[stage],
                prompts,
                e.settings,
                note,
            )
        )
    return rows


def beyond_pretraining(e: Evidence) -> list[dict[str, Any]]:
    """GRPO on OOD prompts ends above the pretrained model: SFT on ID data can hide OOD mass, and to get that back is no gain here."""
    statement = "With OOD pretraining GRPO on OOD prompts ends with more OOD mass than the pretrained model had."
    claim = Claim("beyond pretraining", statement, (e.settings.negligible, np.inf))
    rows, stage = [], rl_stage("ood")
    for axis in e.axes:
        table, prompts = e.gains(axis, "ood", exposed=True, over="over_pretrained")
        levels = e.levels[
            (e.levels["axis"] == axis) & (e.levels["split"] == "ood") & e.levels["exposed"]
        ]
        means = levels.groupby("stage")["mean"].mean().reindex([*BEFORE_RL, stage]).dropna()
        note = (
            f"mean mass: {', '.join(f'{name} {value:.3f}' for name, value in means.items())}"
            if len(means)
            else ""
        )
        rows.append(
            claim.row(
                axis,
                f"OOD ratios above 0; OOD prompts; {stage} - pretrain",
                table[stage],
                prompts,
                e.settings,
                note,
            )
        )
    return rows


def sweet_spot(e: Evidence) -> list[dict[str, Any]]:
    """Gain against starting mass rises, then falls: partly right prompts gain more than both ends."""
    s = e.settings
    claim = Claim(
        "sweet spot",
        "Prompts that are partly right gain more than those near zero and those near one.",
        (s.negligible, np.inf),
    )
    table = e.matched()
    ends = {
        "near 0": (-np.inf, s.zero_mass),
        "partly right": s.partial,
        "near 1": (s.saturated, np.inf),
    }
    bands = pd.DataFrame({name: e.band(table, *limits) for name, limits in ends.items()}).dropna()
    values = bands["partly right"] - bands[["near 0", "near 1"]].max(axis=1)
    note = (
        f"mean gain: {_listed(bands.mean())}; near 1 the gain can't exceed {1 - s.saturated:.2g}"
        if len(bands)
        else ""
    )
    if len(bands) and (zero := table["mass_before"] < s.zero_mass).any():
        note += f"; of the prompts near 0, the pretrained model had mass on {hidden(table[zero], s).mean():.0%}"
    cells = f"OOD ratios above 0; GRPO on the split's own prompts; starting mass < {s.zero_mass:g}, {s.partial[0]:g}-{s.partial[1]:g},"
    return [claim.row(ALL, f"{cells} >= {s.saturated:g}", values, len(table), s, note)]


def saturation(e: Evidence) -> list[dict[str, Any]]:
    """GRPO on ID prompts gains nothing on ID prompts that are saturated."""
    s = e.settings
    claim = Claim(
        "saturation",
        "GRPO on ID prompts gains nothing on ID prompts that are saturated.",
        (-np.inf, s.negligible),
    )
    table = e.pairs[(e.pairs["split"] == "id") & (e.pairs["stage"] == rl_stage("id"))]
    rest = e.band(table, -np.inf, s.saturated)
    note = f"mean gain of the other ID prompts: {rest.mean():+.3f}" if len(rest) else ""
    prompts = int((table["mass_before"] >= s.saturated).sum())
    cells = f"every OOD ratio; ID prompts of starting mass >= {s.saturated:g}; {rl_stage('id')}"
    row = claim.row(ALL, cells, e.band(table, s.saturated, np.inf), prompts, s, note)
    if row["high"] < -s.negligible:
        row["note"] = f"no gain, but a loss; {row['note']}"
    return [row]


def foreign_tokens(e: Evidence) -> list[dict[str, Any]]:
    """Foreign tokens break ID prompts, and GRPO doesn't repair them; with and without OOD pretraining, for axes with mixed splits."""
    region = (e.settings.broken, np.inf)
    breaks = Claim(
        "foreign tokens", "Foreign tokens take most of the mass of ID prompts after SFT.", region
    )
    half = 1 - e.settings.broken
    statement = f"GRPO gives back less than {half:.0%} of the mass that foreign tokens took, on whatever prompts it trained."
    stays = Claim("foreign tokens", statement, (-np.inf, half))
    rows = []
    levels = e.levels.assign(mixed=e.levels["split"].str.startswith("mixed-"))
    for axis in dict.fromkeys(levels.loc[levels["mixed"], "axis"]):
        for exposed, name in ((False, "OOD ratio 0"), (True, "OOD ratios above 0")):
            table = levels[(levels["axis"] == axis) & (levels["exposed"] == exposed)]
            if table.empty:
                continue
            whole = (
                table[(table["split"] == "id") & (table["stage"] == "sft")]
                .groupby("seed")["mean"]
                .mean()
            )
            other = table[table["mixed"] & table["stage"].isin(["sft", *STAGES])]
            left = (
                other.groupby(["seed", "stage"])["mean"]
                .mean()
                .unstack("stage")
                .reindex(columns=["sft", *STAGES])
            )
            prompts = int(
                other[other["stage"] == "sft"]
                .groupby(["seed", "ood_ratio"])["size"]
                .sum()
                .groupby("seed")
                .max()
                .sum()
            )
            counts = ", ".join(sorted(other["split"].unique()))
            note = f"mean mass after SFT: id {whole.mean():.3f}, mixed {left['sft'].mean():.3f}"
            taken = whole - left["sft"]
            rows.append(
                breaks.row(
                    axis, f"{name}; ID minus {counts}; SFT", taken, prompts, e.settings, note
                )
            )
            note = f"mean mass of mixed prompts: {_listed(left[list(STAGES)].mean().dropna())}"
            back = (left[list(STAGES)].max(axis=1) - left["sft"]) / taken.where(taken > 0)
            row = stays.row(
                axis,
                f"{name}; {counts}, better GRPO stage - SFT, as a share of what was taken",
                back,
                prompts,
                e.settings,
                note,
            )
            if rows[-1]["verdict"] != SUPPORTED:
                row |= {
                    "verdict": INCONCLUSIVE,
                    "note": f"nothing shown to be broken, so nothing to repair; {row['note']}",
                }
            rows.append(row)
    return rows


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


def composition(e: Evidence) -> list[dict[str, Any]]:
    """Operations learnt apart are not combined by GRPO: mass of the composed tasks after it (best stage and task count)."""
    statement = "Without composed tasks in pretraining GRPO does not reach them from their parts."
    claim = Claim("composition", statement, (-np.inf, e.settings.negligible), floor=0.0)
    rows = []
    for axis in e.axes:
        if tasks := _composed(e, axis):
            table = e.levels[
                (e.levels["axis"] == axis) & ~e.levels["exposed"] & (e.levels["split"] == "ood")
            ]
            table = table[table["task"].isin(tasks) & table["stage"].isin(STAGES)]
            values = table.groupby(["seed", "stage", "task"])["mean"].mean().groupby("seed").max()
            note = (
                f"mean mass: {_listed(table.groupby(['stage', 'task'])['mean'].mean())}"
                if len(table)
                else ""
            )
            prompts = int(table.groupby("seed")["size"].max().sum())
            cells = f"OOD ratio 0; {' and '.join(tasks)}; best of GRPO stages and tasks"
            rows.append(claim.row(axis, cells, values, prompts, e.settings, note))
    return rows


def _bound_row(
    e: Evidence, statement: str, cells: str, table: pd.DataFrame, beta: float, note: str
) -> dict[str, Any]:
    """The bound on rows with log_mass_before and mass_after: share of prompts above Q + (e^{1/beta} - 1) Q = Q e^{1/beta}.

    Where that exceeds 1 the bound says nothing; such prompts are left out and their share is noted. Axes of one seed count as one.
    """
    s = e.settings
    claim = Claim("mass bound", statement, (-np.inf, s.bound_exceptions), floor=0.0, share=True)
    log_bound = table["log_mass_before"] + (1 / beta if beta > 0 else np.inf)
    tested = table[log_bound < 0]
    above = tested["mass_after"] > np.exp(log_bound[log_bound < 0]) + s.bound_tolerance
    vacuous = (
        f"the bound exceeds 1, so says nothing, for {1 - len(tested) / len(table):.1%} of prompts"
    )
    values = above.astype(float).groupby(tested["seed"]).mean()
    return claim.row(
        ALL, cells, values, len(tested), s, "; ".join(part for part in (vacuous, note) if part)
    )


def mass_bound(e: Evidence) -> list[dict[str, Any]]:
    """Mass after RL stays below the bound: runs to convergence if there are any, and the run's own GRPO."""
    statement = f"Fewer than {e.settings.bound_exceptions:.0%} of prompts end above the bound Q + (e^(1/beta) - 1) Q."
    rows = []
    if e.theory is not None and len(e.theory):
        with np.errstate(divide="ignore"):
            theory = e.theory.assign(log_mass_before=np.log(e.theory["mass_before"]))
        for (method, beta), table in theory.groupby(["method", "beta"]):
            log_odds = (
                table["log_mass_before"]
                + 1 / beta
                - np.log1p(-table["mass_before"].clip(upper=1 - 1e-15))
            )
            law = 1 / (1 + np.exp(-log_odds.clip(-700, 700)))
            error = (table["mass_after"] - law).abs().groupby(table["pool"]).mean()
            note = "mean distance from the law: " + ", ".join(
                f"{pool} {value:.3f}" for pool, value in error.items()
            )
            pool = table[table["pool"] == "train"]
            if len(pool):
                rows.append(
                    _bound_row(
                        e, statement, f"{method}, beta {beta:g}, to convergence", pool, beta, note
                    )
                )
    if e.beta is not None and len(e.pairs):
        note = "GRPO stops long before the optimum that the theorem is about"
        table = e.pairs.rename(columns={"log_mass_after": "log_after"})
        rows.append(
            _bound_row(
                e,
                statement,
                f"the run's GRPO, beta {e.beta:g}; every cell and split",
                table,
                e.beta,
                note,
            )
        )
    return rows


def prompts_matter(e: Evidence) -> list[dict[str, Any]]:
    """It matters whether GRPO trains on ID or OOD prompts: gain from a split's own prompts minus gain from the other's."""
    n = e.settings.negligible
    claim = Claim(
        "prompts",
        "It matters on which prompts GRPO trains: the split's own or the other's.",
        (-n, n),
        inside=False,
    )
    rows = []
    for axis in e.axes:
        for split, other, exposed in (("ood", "id", True), ("id", "ood", None)):
            table, prompts = e.gains(axis, split, exposed)
            note = f"mean gain by stage: {_listed(table.mean().dropna())}" if len(table) else ""
            cells = f"{'OOD ratios above 0' if exposed else 'every OOD ratio'}; {split.upper()} prompts; {rl_stage(split)} - {rl_stage(other)}"
            rows.append(
                claim.row(
                    axis,
                    cells,
                    table[rl_stage(split)] - table[rl_stage(other)],
                    prompts,
                    e.settings,
                    note,
                )
            )
    return rows


def sharpening(e: Evidence) -> list[dict[str, Any]]:
    """GRPO sharpens without widening: where Q was about zero, pass@k at the largest k does not grow.

    About zero in the pretrained model too: mass that only SFT hid is not new.
    """
    s, k = e.settings, max(PASS_AT)
    statement = (
        f"GRPO sharpens but does not widen: pass@{k} does not grow where the mass was about zero."
    )
    claim = Claim("sharpening", statement, (-np.inf, s.negligible))
    rows = []
    for axis in e.axes:
        table = e.matched(["ood"])
        table = table[table["axis"] == axis]
        change = pass_at_k(table["log_mass_after"], k) - pass_at_k(table["log_mass_before"], k)
        table = table.assign(change=change)
        partly = e.band(table, *s.partial)
        note = (
            f"mean gain of mass where partly right: {partly.mean():+.3f}"
            if len(partly)
            else "no prompts that are partly right"
        )
        cells = f"OOD ratios above 0; OOD prompts of mass < {s.zero_mass:g} after pretraining and SFT; {rl_stage('ood')}"
        new = table[~hidden(table, s)]
        prompts = int((new["mass_before"] < s.zero_mass).sum())
        rows.append(
            claim.row(axis, cells, e.band(new, -np.inf, s.zero_mass, "change"), prompts, s, note)
        )
    return rows


CLAIMS: tuple[Callable[[Evidence], list[dict[str, Any]]], ...] = (
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


def ledger(
    evaluations: pd.DataFrame,
    settings: ClaimsSettings,
    theory: pd.DataFrame | None = None,
    beta: float | None = None,
) -> pd.DataFrame:
    """Judge every claim on the rows of evaluation files; columns `COLUMNS`, claims in the order of the study.

    `theory` has columns method, beta, axis, seed, pool (`train` or another), prompt_index, mass_before, mass_after: runs to
    convergence. `beta` is the KL weight of the run's GRPO; without it the bound is not tested on the run. A claim whose cells
    the run lacks gives an inconclusive row, or none where no axis is of its kind. Raises ValueError on unpaired prompts.
    """
    evidence = Evidence(evaluations, settings, theory, beta)
    return pd.DataFrame([row for claim in CLAIMS for row in claim(evidence)], columns=list(COLUMNS))
