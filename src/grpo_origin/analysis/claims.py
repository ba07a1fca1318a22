"""How claims are judged: the rule, what a claim is, and the evidence it is judged by.

Every claim becomes one number a seed, and one rule decides all of them: the t interval over seeds
(level 1 - `significance`) lies where the claim is true (supported), where it is false
(contradicted), or across the edge (inconclusive). So a claim of absence needs the whole interval
below what is negligible; failing to see an effect supports nothing. The edges are settings, fixed
before the results. Effects are means of the exact correct mass, the expected accuracy at
temperature 1.

Verdicts stand row by row: with many rows some will be wrong, about `significance` of those whose
effect sits on its edge. Axes are known by what they hold (splits, tasks, ratios), never by name.
The claims themselves are in `ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from grpo_origin.analysis.intervals import (
    clopper_pearson_interval,
    constant_interval,
    t_interval,
)
from grpo_origin.analysis.stages import method_label, of_method, with_method
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import rl_stage
from grpo_origin.config.schema import ClaimsSettings

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
Row = dict[str, Any]


def decide(low: float, high: float, region: tuple[float, float], inside: bool = True) -> str:
    """Verdict on `the effect lies in the open interval region` from an interval of the effect.

    With inside=False the claim is that it lies outside of the region.
    """
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
    ) -> Row:
        """The ledger's row from one effect a seed (index seed) that rests on so many prompts.

        The p-value is that of a two-sided t test of the effect against the nearest edge of the
        region, so that it lies below `significance` exactly when the verdict is not inconclusive;
        NaN when the seeds do not differ.
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
            low, high = self._constant(mean, prompts, 1 - settings.significance)
            notes.append(f"the same in every seed: Clopper-Pearson bound over {prompts} prompts")
        else:
            std = float(values.std())
            low, high = (
                float(np.clip(bound, self.floor, 1))
                for bound in t_interval(mean, std, n, 1 - settings.significance)
            )
            edges = [edge for edge in self.region if np.isfinite(edge)]
            distance = min(abs(edge - mean) for edge in edges)
            with np.errstate(divide="ignore"):  # seeds so close that their spread underflows: p = 0
                p_value = float(2 * stats.t.sf(distance / (std / np.sqrt(n)), n - 1))
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

    def _constant(self, value: float, prompts: int, level: float) -> tuple[float, float]:
        """Interval where all seeds agree: shares may by chance, means only where prompts do."""
        if self.share:
            return clopper_pearson_interval(round(value * prompts), prompts, level)
        low, high = constant_interval(value, prompts, self.floor, level)
        return float(low), float(high)


@dataclass(frozen=True)
class Evidence:
    """What the claims on one RL method are judged by.

    `evaluations` are those of the whole run. `beta` is the KL weight of the method's objective, 0
    where theory's bound says nothing of it. `theory` holds runs to convergence, a row a prompt:
    method, beta, axis, seed, pool (`train` or another), mass_before, mass_after.
    """

    evaluations: pd.DataFrame
    settings: ClaimsSettings
    method: str = "grpo"
    beta: float = 0.0
    theory: pd.DataFrame | None = None

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Axes of the run."""
        return tuple(dict.fromkeys(self.evaluations["axis"]))

    @cached_property
    def label(self) -> str:
        """The method as statements call it."""
        return method_label(self.method)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The method's stages, trained on ID and on OOD prompts."""
        return tuple(map(self.stage, SPLITS))

    def stage(self, trained_on: str) -> str:
        """The method's stage that trained on a split."""
        return rl_stage(trained_on, self.method)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Evaluations of the stages before RL and of the method."""
        return of_method(self.evaluations, self.method)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Mass before and after RL, a row a stage and prompt; `exposed` if it saw OOD data."""
        table = prompt_gains(self.rows)
        return _exposed(
            table.assign(over_pretrained=table["mass_after"] - table["mass_pretrained"])
        )

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Mean gain (over SFT, over the pretrained model) and prompts, a row a cell and split."""
        keys = ["axis", "seed", "ood_ratio", "exposed", "trained_on", "split"]
        groups = self.pairs.groupby(keys)
        return groups.agg(
            gain=("gain", "mean"),
            over_pretrained=("over_pretrained", "mean"),
            size=("gain", "size"),
        ).reset_index()

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Mean mass and prompts of every seed, ratio, stage, split and task."""
        keys = ["axis", "seed", "ood_ratio", "stage", "split", "task"]
        mass = np.exp(self.rows["log_mass"].clip(upper=0.0))
        groups = mass.groupby([self.rows[key] for key in keys])
        return _exposed(with_method(groups.agg(["mean", "size"]).reset_index()))

    def gains(
        self, axis: str, split: str, exposed: bool | None = None, over: str = "gain"
    ) -> tuple[pd.DataFrame, int]:
        """Mean gain over ratios, shape (seeds, training splits), and the prompts behind it."""
        table = self.cells[(self.cells["axis"] == axis) & (self.cells["split"] == split)]
        if exposed is not None:
            table = table[table["exposed"] == exposed]
        means = table.groupby(["seed", "trained_on"])[over].mean()
        wide = means.unstack("trained_on").reindex(columns=list(SPLITS))
        return wide, int(table.groupby("seed")["size"].max().sum())

    def gain_note(self, gains: pd.DataFrame) -> str:
        """The means of `gains` by stage, in words."""
        means = gains.mean().dropna().rename(index=self.stage)
        return f"mean gain by stage: {listed(means)}" if len(gains) else ""

    def band(self, table: pd.DataFrame, low: float, high: float, value: str = "gain") -> pd.Series:
        """Mean of a column in every seed over prompts of starting mass in [low, high).

        Seeds with too few such prompts are left out.
        """
        table = table[(table["mass_before"] >= low) & (table["mass_before"] < high)]
        seeds = table.groupby("seed")[value].agg(["mean", "size"])
        return seeds.loc[seeds["size"] >= self.settings.band_prompts, "mean"]

    def matched(self, splits: Iterable[str] = SPLITS) -> pd.DataFrame:
        """Prompts of cells with OOD data whose RL trained on their own split."""
        table = self.pairs[self.pairs["exposed"] & self.pairs["split"].isin(list(splits))]
        return table[table["trained_on"] == table["split"]]


def _exposed(table: pd.DataFrame) -> pd.DataFrame:
    positive = {ratio: Decimal(ratio) > 0 for ratio in table["ood_ratio"].unique()}
    return table.assign(exposed=table["ood_ratio"].map(positive).astype(bool))


def listed(means: pd.Series) -> str:
    """Names and means in one line, for notes."""
    names = (" on ".join(name) if isinstance(name, tuple) else name for name in means.index)
    return ", ".join(f"{name} {value:+.3f}" for name, value in zip(names, means, strict=True))


def hidden(table: pd.DataFrame, settings: ClaimsSettings) -> pd.Series:
    """Which rows of `prompt_gains` are of prompts that the pretrained model had.

    Mass there that SFT took is not new after RL.
    """
    return table["mass_pretrained"] >= settings.zero_mass
