"""RL stages of a run as the forecast of outcomes sees them: masses before, budget, mass after.

And the table `outcome`: the shipped forecast beside what was measured. Called by the registry of
tables and by the script that fits the forecast (`benchmarks/outcome.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo_origin.analysis.outcome import Budget, OutcomeModel
from grpo_origin.evaluation.exploration import any_success

STAGE = ["axis", "seed", "ood_ratio", "stage"]
DOUBT = (0.01, 0.9)  # least chance of any success, and most mass before, of a stage in doubt
COLUMNS = (
    *(*STAGE, "method", "trained_on", "steps", "train_mass", "before", "after"),
    *("forecast", "low", "high", "within"),
)


@dataclass(frozen=True)
class Ran:
    """An RL stage that ran: what was known before it, and what came of it.

    `log_mass` (prompts,) are the training prompts' before RL, `tasks` (prompts,) whose they are.
    `before` and `after` are mean masses of test prompts of the split that RL trained on.
    """

    axis: str
    seed: int
    ood_ratio: str
    stage: str
    method: str
    trained_on: str
    log_mass: np.ndarray
    tasks: np.ndarray
    budget: Budget
    before: float
    after: float

    @property
    def start(self) -> float:
        """Mean mass of the training prompts before RL."""
        return float(np.exp(self.log_mass).mean())

    @property
    def in_doubt(self) -> bool:
        """Whether it was open what would come: a success may be found, and there is room to rise.

        By what was known before it alone.
        """
        chance = any_success(self.log_mass, self.budget.group_size)
        return chance >= DOUBT[0] and self.start <= DOUBT[1]


def stages_that_ran(
    masses: pd.DataFrame, steps: pd.DataFrame, signal: pd.DataFrame, gains: pd.DataFrame
) -> list[Ran]:
    """The stages that sample each prompt once, as it is, under a reward that Q is of.

    `masses` are training prompts (`log_mass`, `task`, the `step` that samples each, `samples`),
    `steps` the training logs, `signal` the stages' counts, `gains` rows of `prompt_gains`, each
    with the columns of STAGE. Stages whose steps differ in prompts, or prompts in samples, are left
    out: their budget is no group size and number of prompts.
    """
    logged = dict(steps.groupby(STAGE, sort=False)["step"].count().items())
    of_stage = dict(iter(masses.groupby(STAGE, sort=False)))
    own = gains[gains["split"] == gains["trained_on"]]
    means = own.groupby(STAGE, sort=False)[["mass_before", "mass_after"]].mean()
    mean_of = dict(zip(means.index, means.to_numpy(), strict=True))
    found = []
    for row in signal[signal["any_success"].notna()].to_dict("records"):
        place = tuple(row[name] for name in STAGE)
        prompts = of_stage[place]
        sizes, batches = prompts["samples"].unique(), prompts.groupby("step").size().unique()
        whole = prompts["samples"].sum() == row["completions"]
        if place not in mean_of or len(sizes) != 1 or len(batches) != 1 or not whole:
            continue
        before, after = mean_of[place]
        budget = Budget(int(sizes[0]), int(batches[0]), int(logged[place]))
        found.append(
            Ran(
                **{name: row[name] for name in (*STAGE, "method", "trained_on")},
                log_mass=prompts["log_mass"].to_numpy(float),
                tasks=prompts["task"].to_numpy(),
                budget=budget,
                before=float(before),
                after=float(after),
            )
        )
    return found


def outcome_table(stages: Iterable[Ran], model: OutcomeModel) -> pd.DataFrame:
    """A row a stage: mean mass before and after RL, and its forecast. Columns COLUMNS."""
    rows = []
    for ran in stages:
        masses = model.masses(ran.log_mass, ran.tasks)
        low, middle, high = model.forecast(masses, ran.budget)
        place = [getattr(ran, name) for name in (*STAGE, "method", "trained_on")]
        known = ran.budget.steps, masses.mean, ran.before, ran.after
        rows.append((*place, *known, middle, low, high, bool(low <= ran.after <= high)))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def of_methods(stages: Sequence[Ran], methods: Iterable[str]) -> list[Ran]:
    """The stages of some methods."""
    wanted = set(methods)
    return [ran for ran in stages if ran.method in wanted]
