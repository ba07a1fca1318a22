"""The run's tables, a registry: name -> what a row is, what its columns are, how it is made.

A table is added here and nowhere else: the workflow takes names and groups from TABLES, and
`table_files` makes, writes and describes them. pandas and scipy are imported only where a table is
made, since the workflow reads the registry whenever it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.analysis.calibration_tables import CALIBRATION_TABLES
from grpo_origin.analysis.claim_tables import CLAIM_TABLES
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stage_tables import STAGE_TABLES
from grpo_origin.analysis.stages import of_method
from grpo_origin.analysis.table_entry import (
    NUMBER,
    TEXT,
    WHOLE,
    YES_NO,
    Column,
    Table,
    columns,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Column", "Table", "names_of", "of_method"]


def _summary(sources: Sources, by_task: bool = False) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import summarise

    return summarise(sources.evaluations, by_task=by_task)


def _seed_means(sources: Sources, by_task: bool = False) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import seed_means

    return seed_means(sources.evaluations, by_task=by_task)


def _gains(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import gains

    return gains(sources.evaluations)


def _seed_gains(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import seed_gains

    return seed_gains(sources.evaluations)


def _mass_gains(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import binned_gains

    fewest = sources.claims.band_prompts
    return binned_gains(sources.gains, by=("stage", "split"), fewest=fewest)


def _seed_mass_gains(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.statistics import seed_binned_gains

    fewest = sources.claims.band_prompts
    return seed_binned_gains(sources.gains, by=("stage", "split"), fewest=fewest)


def _mass_spread(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.spread import mass_spread

    return mass_spread(sources.evaluations)


def _theory_prompts(sources: Sources) -> pd.DataFrame:
    if sources.converged is None:
        raise ValueError("no runs to convergence given")
    return sources.converged


def _theory(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.theory import summarise

    return summarise(_theory_prompts(sources), sources.claims.bound_tolerance)


def _theory_trace(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.theory import read_traces

    return read_traces(sources.traces)


def _sampling(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.theory import read_samples, sampling_agreement

    return sampling_agreement(read_samples(sources.samples))


_METRIC = {
    "metric": (TEXT, "what is averaged over prompts, see Metrics"),
    "mean": (NUMBER, "mean of the metric"),
    "low": (NUMBER, "lower end of its 95 % interval"),
    "high": (NUMBER, "upper end of its 95 % interval"),
}
_GAIN = _METRIC | {"mean": (NUMBER, "mean change of the metric: this stage minus SFT, paired")}
_BINNED = _GAIN | {"mean": (NUMBER, "mean change of the mass by RL")}
_BIN = "bin_low bin_high bin mass_before mean"
_OVER_SEEDS = "metric mean low high interval seeds prompts"
_CELL = "axis ood_ratio stage method trained_on split"
_SEED_CELL = "axis seed ood_ratio stage method trained_on split"
_CONVERGED = "method beta axis seed ood_ratio"

_OF_EVALUATIONS: dict[str, Table] = {
    "summary": Table(
        "evaluation",
        "a stage of a cell, test split and metric: mean over seeds, all tasks of the split",
        columns(f"{_CELL} {_OVER_SEEDS}", **_METRIC),
        _summary,
    ),
    "task_summary": Table(
        "evaluation",
        "as `summary`, for every task by itself",
        columns(f"{_CELL} task {_OVER_SEEDS}", **_METRIC),
        lambda sources: _summary(sources, by_task=True),
    ),
    "seed_means": Table(
        "evaluation",
        "a stage of a cell, seed, test split and metric: all tasks of the split",
        columns(f"{_SEED_CELL} metric mean prompts", **_METRIC),
        _seed_means,
    ),
    "task_seed_means": Table(
        "evaluation",
        "as `seed_means`, for every task by itself",
        columns(f"{_SEED_CELL} task metric mean prompts", **_METRIC),
        lambda sources: _seed_means(sources, by_task=True),
    ),
    "gains": Table(
        "evaluation",
        "an RL stage of a cell, test split and metric: mean over seeds",
        columns(f"{_CELL} {_OVER_SEEDS}", **_GAIN),
        _gains,
    ),
    "seed_gains": Table(
        "evaluation",
        "an RL stage of a cell, seed, test split and metric",
        columns(f"{_SEED_CELL} metric mean prompts", **_GAIN),
        _seed_gains,
    ),
    "mass_gains": Table(
        "evaluation",
        "an RL stage, test split and bin of starting mass, over axes and ratios: mean over seeds",
        columns(f"stage method trained_on split {_BIN} low high interval seeds prompts", **_BINNED),
        _mass_gains,
    ),
    "seed_mass_gains": Table(
        "evaluation",
        "as `mass_gains`, for every seed by itself",
        columns(f"stage method trained_on split seed {_BIN} prompts", **_BINNED),
        _seed_mass_gains,
    ),
    "mass_spread": Table(
        "evaluation",
        "a stage of a cell, seed, test split, quantity and decade that holds any of its prompts",
        columns(
            f"{_SEED_CELL} quantity decade prompts",
            quantity=(TEXT, "mass, or one of its factors: markers, content"),
            decade=(
                WHOLE,
                "power of ten that it is at least: -3 for 0.001 to 0.01, -1 up to 1, the lowest "
                "(-60) for less too",
            ),
            prompts=(WHOLE, "test prompts whose quantity lies there"),
        ),
        _mass_spread,
    ),
    "theory": Table(
        "theory",
        "a run to convergence and pool of prompts",
        columns(
            f"{_CONVERGED} pool mass_before mass_after law mass_fixed_point difference distance "
            "fixed_point_distance above_bound bound_below_1 prompts",
            difference=(NUMBER, "mean of mass after minus law"),
            distance=(NUMBER, "mean of |mass after - law|"),
            fixed_point_distance=(NUMBER, "mean of |mass after - fixed point|"),
            above_bound=(NUMBER, "share of prompts above the bound by more than the tolerance"),
            bound_below_1=(NUMBER, "share of prompts of which the bound says anything"),
            prompts=(WHOLE, "prompts of the pool"),
        ),
        _theory,
        converged=True,
    ),
    "theory_prompts": Table(
        "theory",
        "a run to convergence and prompt",
        columns(
            f"{_CONVERGED} pool split prompt_index task mass_before mass_after mass_fixed_point "
            "law bound",
            prompt_index=(WHOLE, "number of the prompt in its split of its file"),
            bound=(NUMBER, "upper bound of the mass, Q + (e^(1/beta) - 1) Q"),
        ),
        _theory_prompts,
        converged=True,
    ),
    "theory_trace": Table(
        "theory",
        "an evaluated step of a run to convergence",
        columns(
            f"{_CONVERGED} step objective optimal_objective train_mass train_distance "
            "heldout_mass heldout_distance",
            objective=(NUMBER, "reward minus beta KL since the row before; empty for grpo"),
            optimal_objective=(NUMBER, "the largest value that the objective can have"),
            train_mass=(NUMBER, "mean mass of the prompts trained on"),
            train_distance=(NUMBER, "their mean |mass - law|"),
            heldout_mass=(NUMBER, "mean mass of the held-out prompts"),
            heldout_distance=(NUMBER, "their mean |mass - law|"),
        ),
        _theory_trace,
        converged=True,
    ),
    "sampling": Table(
        "theory",
        "a cell and split whose exact masses were checked by sampling from the SFT model",
        columns(
            "axis seed ood_ratio split prompts samples exact sampled standard_error "
            "largest_difference k exact_pass_at_k sampled_pass_at_k agrees",
            prompts=(WHOLE, "test prompts"),
            samples=(WHOLE, "completions drawn for each prompt"),
            exact=(NUMBER, "mean exact mass"),
            sampled=(NUMBER, "share of correct completions"),
            standard_error=(NUMBER, "standard error of `sampled` if the exact masses hold"),
            largest_difference=(NUMBER, "largest |frequency - mass| of a prompt"),
            k=(WHOLE, "k of pass@k"),
            exact_pass_at_k=(NUMBER, "mean of 1 - (1 - Q)^k"),
            sampled_pass_at_k=(NUMBER, "mean unbiased estimate of it from the samples"),
            agrees=(YES_NO, "whether binomial tests let the exact masses stand"),
        ),
        _sampling,
    ),
}

GROUPS = ("evaluation", "theory", "claims")  # the jobs that make tables, in their order
TABLES: dict[str, Table] = dict(
    sorted(
        (_OF_EVALUATIONS | STAGE_TABLES | CALIBRATION_TABLES | CLAIM_TABLES).items(),
        key=lambda entry: GROUPS.index(entry[1].group),
    )
)


def names_of(group: str, converged: bool) -> list[str]:
    """Names of a group's tables in a run that has runs to convergence or not."""
    return [
        name
        for name, table in TABLES.items()
        if table.group == group and (converged or not table.converged)
    ]
