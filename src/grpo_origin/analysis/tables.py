"""The run's tables, a registry: name -> what a row is, what its columns are, how it is made.

A table is added here and nowhere else: the workflow takes names and groups from TABLES, and
`table_files` makes, writes and describes them. pandas and scipy are imported only where a table is
made, since the workflow reads the registry whenever it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import METHOD_COLUMNS, of_method
from grpo_origin.config.paths import SIGNAL, TRAINING_LOG
from grpo_origin.evaluation import table as evaluation_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Column", "Table", "names_of", "of_method"]


class Column(NamedTuple):
    """Type of a column and its meaning, with unit."""

    kind: str
    meaning: str


TEXT, WHOLE, NUMBER, YES_NO = "text", "whole number", "number", "yes or no"
PANDAS_TYPES = {TEXT: "str", WHOLE: "int64", NUMBER: "float64", YES_NO: "bool"}
_KINDS = {"string": TEXT, "int64": WHOLE, "float64": NUMBER, "bool": YES_NO}

# Columns that mean the same in every table.
SHARED: dict[str, Column] = {
    name: Column(_KINDS[kind], meaning) for name, (kind, meaning) in evaluation_file.COLUMNS.items()
} | {
    "interval": Column(TEXT, "how low and high were computed, and over what"),
    "seeds": Column(WHOLE, "seeds that the mean is over"),
    "prompts": Column(WHOLE, "test prompts, those of all seeds together where there is no `seed`"),
    "bin_low": Column(NUMBER, "lower edge of the bin of starting mass (after SFT); belongs to it"),
    "bin_high": Column(NUMBER, "upper edge of the bin; belongs to it only if it is 1"),
    "bin": Column(TEXT, "the bin's edges, as a label"),
    "beta": Column(NUMBER, "KL weight"),
    "pool": Column(TEXT, "`train`: the prompts trained on, `heldout`: test prompts"),
    "mass_before": Column(NUMBER, "correct mass before RL; mean over the row's prompts"),
    "mass_after": Column(NUMBER, "correct mass after RL; mean over the row's prompts"),
    "mass_fixed_point": Column(NUMBER, "mass at which the method itself should rest; mean"),
    "law": Column(NUMBER, "mass that the law of KL-regularised RL predicts; mean"),
    "step": Column(WHOLE, "optimiser step"),
}


def _columns(names: str, **described: tuple[str, str]) -> dict[str, Column]:
    """Columns in order: those in `described`, and for the others what SHARED says."""
    return {
        name: Column(*described[name]) if name in described else SHARED[name]
        for name in names.split()
    }


@dataclass(frozen=True)
class Table:
    """An entry of the registry.

    `group` is the job that makes it: `evaluation`, `theory` or `claims`. `converged` marks tables
    that only runs with RL to convergence have.
    """

    group: str
    row: str
    columns: Mapping[str, Column]
    make: Callable[[Sources], pd.DataFrame]
    converged: bool = False

    @property
    def types(self) -> dict[str, str]:
        """pandas types by column: what `pandas.read_csv(path, dtype=...)` needs."""
        return {name: PANDAS_TYPES[column.kind] for name, column in self.columns.items()}


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


def _training(sources: Sources) -> pd.DataFrame:
    """Training logs of the RL stages without wall seconds: tables of a run are always the same."""
    logged = [name for name in TABLES["training"].columns if name not in (*_STAGE, *METHOD_COLUMNS)]
    return sources.of_stages(TRAINING_LOG, logged)


_STAGE = ("axis", "seed", "ood_ratio", "stage")


def _warnings(sources: Sources) -> pd.DataFrame:
    import numpy as np

    learnt, table = sources.claims.learnt, sources.evaluations
    table = table[(table["stage"] == "sft") & (table["split"] == "id")]
    mass = np.exp(table["log_mass"].clip(upper=0.0)).groupby([table[name] for name in _STAGE])
    low = mass.mean().rename("mass").reset_index().query("mass < @learnt")
    texts = [evaluation_file.low_mass_warning(value, learnt) for value in low["mass"]]
    return low.drop(columns="stage").assign(warning=texts)


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


def _claims(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.ledger import ledgers

    return ledgers(sources.evaluations, sources.claims, sources.betas, sources.converged)


def _transcend(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.transcend import transcend

    return transcend(sources.evaluations, sources.claims, sources.betas)


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

TABLES: dict[str, Table] = {
    "summary": Table(
        "evaluation",
        "a stage of a cell, test split and metric: mean over seeds, all tasks of the split",
        _columns(f"{_CELL} {_OVER_SEEDS}", **_METRIC),
        _summary,
    ),
    "task_summary": Table(
        "evaluation",
        "as `summary`, for every task by itself",
        _columns(f"{_CELL} task {_OVER_SEEDS}", **_METRIC),
        lambda sources: _summary(sources, by_task=True),
    ),
    "seed_means": Table(
        "evaluation",
        "a stage of a cell, seed, test split and metric: all tasks of the split",
        _columns(f"{_SEED_CELL} metric mean prompts", **_METRIC),
        _seed_means,
    ),
    "task_seed_means": Table(
        "evaluation",
        "as `seed_means`, for every task by itself",
        _columns(f"{_SEED_CELL} task metric mean prompts", **_METRIC),
        lambda sources: _seed_means(sources, by_task=True),
    ),
    "gains": Table(
        "evaluation",
        "an RL stage of a cell, test split and metric: mean over seeds",
        _columns(f"{_CELL} {_OVER_SEEDS}", **_GAIN),
        _gains,
    ),
    "seed_gains": Table(
        "evaluation",
        "an RL stage of a cell, seed, test split and metric",
        _columns(f"{_SEED_CELL} metric mean prompts", **_GAIN),
        _seed_gains,
    ),
    "mass_gains": Table(
        "evaluation",
        "an RL stage, test split and bin of starting mass, over axes and ratios: mean over seeds",
        _columns(
            f"stage method trained_on split {_BIN} low high interval seeds prompts", **_BINNED
        ),
        _mass_gains,
    ),
    "seed_mass_gains": Table(
        "evaluation",
        "as `mass_gains`, for every seed by itself",
        _columns(f"stage method trained_on split seed {_BIN} prompts", **_BINNED),
        _seed_mass_gains,
    ),
    "training": Table(
        "evaluation",
        "an optimiser step of an RL stage",
        _columns(
            "axis seed ood_ratio stage method trained_on step loss reward_mean reward_std "
            "zero_variance_share kl entropy completion_length clip_share grad_norm learning_rate",
            loss=(NUMBER, "loss of the method"),
            reward_mean=(NUMBER, "mean reward of the rollouts, 0 to 1"),
            reward_std=(NUMBER, "standard deviation of the rewards in a group, mean over groups"),
            zero_variance_share=(NUMBER, "share of groups whose rewards are all equal"),
            kl=(NUMBER, "estimated KL divergence from the SFT model; nats a token"),
            entropy=(NUMBER, "entropy of the next token; nats"),
            completion_length=(NUMBER, "mean length of the rollouts; tokens"),
            clip_share=(NUMBER, "share of tokens whose probability ratio was clipped"),
            grad_norm=(NUMBER, "norm of the gradient before clipping"),
            learning_rate=(NUMBER, "learning rate"),
        ),
        _training,
    ),
    "signal": Table(
        "evaluation",
        "an RL stage: what could be sampled, what was rewarded, whether it learnt anything",
        _columns(
            "axis seed ood_ratio stage method trained_on completions rewarded contrast_share "
            "expected_successes any_success moved",
            completions=(WHOLE, "completions sampled in all"),
            rewarded=(WHOLE, "exact matches among them"),
            contrast_share=(NUMBER, "share of groups that held right and wrong completions"),
            expected_successes=(NUMBER, "matches expected of the SFT model; if temperature is 1"),
            any_success=(NUMBER, "probability of at least one match by the SFT model; likewise"),
            moved=(YES_NO, "whether any weight differs from the SFT model's, bit for bit"),
        ),
        lambda sources: sources.of_stages(SIGNAL),
    ),
    "theory": Table(
        "theory",
        "a run to convergence and pool of prompts",
        _columns(
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
        _columns(
            f"{_CONVERGED} pool prompt_index task mass_before mass_after mass_fixed_point law "
            "bound",
            prompt_index=(WHOLE, "number of the prompt in its split of its file"),
            bound=(NUMBER, "upper bound of the mass, Q + (e^(1/beta) - 1) Q"),
        ),
        _theory_prompts,
        converged=True,
    ),
    "theory_trace": Table(
        "theory",
        "an evaluated step of a run to convergence",
        _columns(
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
        _columns(
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
    "claims": Table(
        "claims",
        "a claim on an RL method, judged for an axis or for all",
        _columns(
            "method claim axis statement cells effect low high p_value verdict note",
            method=(TEXT, "RL method that is judged"),
            claim=(TEXT, "name of the claim"),
            axis=(TEXT, "axis that is judged; `all`: all together"),
            statement=(TEXT, "what is claimed"),
            cells=(TEXT, "ratios, prompts, stages and seeds that it is judged by"),
            effect=(NUMBER, "mean over seeds of what is judged: a mass, its change, or a share"),
            low=(NUMBER, "lower end of its interval, level 1 - `claims.significance`"),
            high=(NUMBER, "upper end of its interval"),
            p_value=(NUMBER, "of a t test against the edge of the claim; empty if seeds agree"),
            verdict=(TEXT, "supported, contradicted or inconclusive"),
            note=(TEXT, "what else to know"),
        ),
        _claims,
    ),
    "transcend": Table(
        "claims",
        "an RL stage, axis and OOD ratio: OOD prompts that started from about no mass",
        _columns(
            "method trained_on axis ood_ratio seeds prompts hidden before after gain low high "
            "raised raised_at_most transcends",
            method=(TEXT, "RL method"),
            trained_on=(TEXT, "split of the prompts that RL trained on"),
            hidden=(WHOLE, "prompts left out: the pretrained model had mass that SFT took"),
            before=(NUMBER, "mass after SFT, mean over seeds of the seeds' means"),
            after=(NUMBER, "mass after RL, mean over seeds of the seeds' means"),
            gain=(NUMBER, "after minus before"),
            low=(NUMBER, "lower end of the gain's interval, level 1 - `claims.significance`"),
            high=(NUMBER, "upper end of the gain's interval"),
            raised=(NUMBER, "share of prompts that end at least partly right, mean over seeds"),
            raised_at_most=(NUMBER, "upper end of the interval of `raised`"),
            transcends=(TEXT, "yes, no or unclear: whether the gain is more than negligible"),
        ),
        _transcend,
    ),
    "warnings": Table(
        "claims",
        "a cell that calls for a warning; none in a good run",
        _columns(
            "axis seed ood_ratio mass warning",
            mass=(NUMBER, "mean ID mass after SFT"),
            warning=(TEXT, "what is wrong and what to do"),
        ),
        _warnings,
    ),
}


def names_of(group: str, converged: bool) -> list[str]:
    """Names of a group's tables in a run that has runs to convergence or not."""
    return [
        name
        for name, table in TABLES.items()
        if table.group == group and (converged or not table.converged)
    ]
