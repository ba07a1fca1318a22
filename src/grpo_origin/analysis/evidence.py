"""What claims are judged by: evaluations of a run seen from one RL method, and helpers for bands.

Axes are known by what they hold (splits, tasks, ratios), never by name. Called by the claims in
`exposure_claims` and `gain_claims`; how verdicts are reached is in `claims`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np
import pandas as pd

from grpo_origin.analysis.inference import Look, look_at
from grpo_origin.analysis.stages import method_label, of_method, start_of, with_method
from grpo_origin.analysis.statistics import prompt_gains
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import rl_stage
from grpo_origin.config.schema import ClaimsSettings


def look_of(seeds: int, settings: ClaimsSettings) -> Look | None:
    """The look that a run of so many seeds has reached; without a plan the only one there is."""
    return look_at(seeds, settings.looks or ((1, settings.significance),))


def alpha_of(look: Look | None, settings: ClaimsSettings) -> float:
    """Error of bounds and verdicts at a look; before the first that of the first."""
    return look.alpha if look else settings.looks[0][1]


@dataclass(frozen=True)
class Evidence:
    """What the claims on one RL method are judged by.

    `evaluations` are those of the whole run. Below `zero_mass` a mass is about zero: the budget of
    an RL stage can't find it. `beta` is the KL weight of the method's objective, 0 where theory's
    bound says nothing of it. `theory` holds runs to convergence, a row a prompt: method, beta,
    axis, seed, pool (`train` or another), mass_before, mass_after. `signal` holds what RL stages
    sampled, a row a stage (see `sources.SIGNAL`), where that was recorded, `heads` the heads over a
    fixed set of a run that has some, a row a head and split; `faithfulness` measures of traces (see
    `faithfulness.seed_measures`), where they were taken; `calibration` the rows of the table
    `seed_calibration`, where answers are probabilities.
    """

    evaluations: pd.DataFrame
    settings: ClaimsSettings
    zero_mass: float
    method: str = "grpo"
    beta: float = 0.0
    theory: pd.DataFrame | None = None
    signal: pd.DataFrame | None = None
    heads: pd.DataFrame | None = None
    faithfulness: pd.DataFrame | None = None
    calibration: pd.DataFrame | None = None

    @cached_property
    def look(self) -> Look | None:
        """The planned look that the run's seeds reach."""
        return look_of(self.evaluations["seed"].nunique(), self.settings)

    @cached_property
    def alpha(self) -> float:
        """The error of bounds and verdicts."""
        return alpha_of(self.look, self.settings)

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

    @cached_property
    def start(self) -> str:
        """The stage that RL starts from."""
        return start_of(self.evaluations["stage"])

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
        """Gain and room (over SFT, over the pretrained model), means of a cell and split."""
        keys = ["axis", "seed", "ood_ratio", "exposed", "trained_on", "split"]
        table = self.pairs.assign(
            room=1 - self.pairs["mass_before"],
            over_pretrained_room=1 - self.pairs["mass_pretrained"],
        )
        columns = ["gain", "room", "over_pretrained", "over_pretrained_room"]
        return table.groupby(keys)[columns].mean().reset_index()

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Mean mass and prompts of every seed, ratio, stage, split and task."""
        keys = ["axis", "seed", "ood_ratio", "stage", "split", "task"]
        mass = np.exp(self.rows["log_mass"].clip(upper=0.0))
        groups = mass.groupby([self.rows[key] for key in keys])
        return _exposed(with_method(groups.agg(["mean", "size"]).reset_index()))

    def gains(
        self, axis: str, split: str, exposed: bool | None = None, over: str = "gain"
    ) -> pd.DataFrame:
        """Mean gain over ratios, shape (seeds, training splits)."""
        table = self.cells[(self.cells["axis"] == axis) & (self.cells["split"] == split)]
        if exposed is not None:
            table = table[table["exposed"] == exposed]
        means = table.groupby(["seed", "trained_on"])[over].mean()
        return means.unstack("trained_on").reindex(columns=list(SPLITS))

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

    def closure_in(self, table: pd.DataFrame, low: float, high: float) -> pd.Series:
        """Closure of every seed over prompts of starting mass in [low, high), as `band`."""
        gain, room = (self.band(table, low, high, value) for value in ("gain", "room"))
        return closure(gain, room)

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


def closure(gain: pd.Series, room: pd.Series) -> pd.Series:
    """Share of the room (1 - mass before) that was gained; NaN where there is none."""
    return gain / room.where(room > 0)


def hidden(table: pd.DataFrame, zero_mass: float) -> pd.Series:
    """Which rows of `prompt_gains` are of prompts that the pretrained model had.

    Mass there that SFT took is not new after RL.
    """
    return table["mass_pretrained"] >= zero_mass
