"""KL-regularised RL to convergence on a small fixed pool of prompts, to hold against theory.

Called by the job `converge`. `rloo` is TRL's RLOOTrainer: the sequence log-ratio, times beta, is
subtracted from the reward, and the advantage is reward minus the mean of the others in the group,
neither scaled nor clipped. Its expected gradient is that of E[R] - beta KL, the objective of the
law. At the optimum R - beta ln(pi/q) is the same for every completion, so advantages and with them
the gradient noise vanish there. `grpo` is TRL's GRPOTrainer as this study uses it: advantages over
the group's standard deviation and a per-token KL term in the loss. Both see the whole pool at every
step, take one optimiser step on each batch of rollouts (so ratios are 1 and ratio clipping does
nothing) and don't clip gradients. Knows nothing of the workflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import logit
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grpo_origin.config.schema import RuntimeSettings, TheorySettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings, RLSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.exploration import log_miss
from grpo_origin.evaluation.law import grpo_mass, optimal_mass, optimal_objective
from grpo_origin.evaluation.mass import exact_mass, gold_log_probs
from grpo_origin.jobs.files import write_table
from grpo_origin.rl.method import find
from grpo_origin.rl.stage import prompt_dataset, scratch
from grpo_origin.rl.trainer import make_trainer
from grpo_origin.tasks.domain import Domain
from grpo_origin.training.loop import Progress
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import (
    FiniteGuard,
    choose_device,
    float32_view,
    training_arithmetic,
)


def covering(
    log_mass: np.ndarray, preferred: np.ndarray, masses: tuple[float, float], count: int
) -> np.ndarray:
    """Positions of `count` prompts whose masses cover a range, in rising order of position.

    Targets are evenly spaced in log-odds over `masses`; the prompts, each taken once, are those of
    the least total distance to them. Those not `preferred` (bool) count as one spacing farther off.
    Prompts outside the range are considered only if there are too few inside.
    """
    log_odds = np.clip(log_mass - log_miss(log_mass), -1e3, 1e3)
    low, high = logit(masses)
    inside = np.flatnonzero((log_odds >= low) & (log_odds <= high))
    usable = inside if len(inside) >= count else np.arange(len(log_odds))
    targets = np.linspace(low, high, count)
    distance = np.abs(log_odds[usable, None] - targets)
    spacing = (high - low) / max(count - 1, 1)
    rows, _ = linear_sum_assignment(distance + spacing * ~preferred[usable, None])
    return np.sort(usable[rows])


def choose_pool(
    model: Any, prompts: str | Path, theory: TheorySettings, batch_size: int
) -> pa.Table:
    """The prompts to train on: of a prompt set, by their mass under the model.

    Of the split `trained_on` where it has prompts of the masses asked for, else of the other split.
    Prints a warning if neither has enough of them.
    """
    candidates = read_prompts(prompts)
    log_mass = _exact_log_mass(model, Sequences(candidates), batch_size)
    preferred = pc.equal(candidates["split"].cast(pa.string()), theory.trained_on).to_numpy()
    chosen = covering(log_mass, preferred, theory.masses, theory.pool)
    low, high = theory.masses
    inside = int(((low <= np.exp(log_mass[chosen])) & (np.exp(log_mass[chosen]) <= high)).sum())
    if inside < theory.pool:
        print(
            f"warning: {inside} prompts, fewer than theory.pool ({theory.pool}), start from a mass "
            f"of {low:g} to {high:g}; the nearest others are taken",
            flush=True,
        )
    return candidates.take(chosen)


class Trace(TrainerCallback):
    """Exact mean mass every few steps and, for rloo, the sampled objective averaged over them.

    The gap of the objective to its optimum is beta KL(pi || pi*), so it tells convergence without
    looking at the mass. TRL's GRPO logs another estimate of the KL, e^-l - 1 + l of the log-ratio
    l, which is too small on samples of a policy that has moved far: it hardly ever draws the
    completions that carry the sum.
    """

    def __init__(
        self,
        pools: dict[str, Sequences],
        before: dict[str, np.ndarray],
        beta: float,
        every: int,
        batch_size: int,
        exact_kl: bool,
    ) -> None:
        self.pools, self.beta, self.every, self.batch_size = pools, beta, every, batch_size
        self.exact_kl = exact_kl
        self.law = {name: optimal_mass(np.exp(log_mass), beta) for name, log_mass in before.items()}
        self.optimum = float(optimal_objective(np.exp(before["train"]), beta).mean())
        self.rows: list[dict[str, float]] = []
        self.recent: list[float] = []
        self.progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress = Progress(state.max_steps)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        model, logs = more["model"], more["logs"]
        if self.progress is None or "reward" not in logs:
            return
        # `kl` is a mean over tokens; times the mean length it is the mean log-ratio of a sequence.
        kl = logs["kl"] * logs["completions/mean_length"] if self.exact_kl else np.nan
        self.recent.append(logs["reward"] - self.beta * kl)
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        row = {
            "step": state.global_step,
            "objective": float(np.mean(self.recent)),
            "optimal_objective": self.optimum,
        }
        for name, rows in self.pools.items():
            mass = np.exp(_exact_log_mass(model, rows, self.batch_size))
            row |= {
                f"{name}_mass": float(mass.mean()),
                f"{name}_distance": float(np.abs(mass - self.law[name]).mean()),
            }
        model.train()  # TRL takes the mode of the model for its own
        self.rows.append(row)
        self.recent.clear()
        self.progress.step(
            state.global_step,
            objective=row["objective"],
            mass=row["train_mass"],
            distance=row["train_distance"],
        )


def converge(
    source: str | Path,
    prompts: str | Path,
    test: str | Path,
    output: str | Path,
    trace: str | Path,
    *,
    method: str,
    beta: str,
    axis: str,
    ratio: str,
    domain: Domain,
    theory: TheorySettings,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Train the model folder `source` by `method` and write exact masses before and after.

    The pool is chosen from the set `prompts` by starting mass (`choose_pool`); the test prompts of
    the split `theory.trained_on` are the held-out ones. `output` gets one row a prompt, `trace` the
    course of the run. Nothing is kept of a killed run: it takes a minute. Raises NotFinite if a
    gradient or weight is no number.
    """
    device, weight = choose_device(numerics, runtime.threads), float(beta)
    model, size = load_model(source), evaluation.batch_size
    torch.nn.Module.to(model, device)
    chosen = choose_pool(model, prompts, theory, size)
    tables = {"train": chosen, "heldout": read_prompts(test, theory.trained_on)}
    pools = {name: Sequences(table) for name, table in tables.items()}
    gold = {name: gold_log_probs(model, rows, size, device) for name, rows in pools.items()}
    before = {name: np.array([row.sum() for row in rows]) for name, rows in gold.items()}

    rl = RLSettings(
        steps=theory.steps,
        prompts_per_step=len(chosen),
        group_size=theory.group_size,
        learning_rate=theory.learning_rate,
        schedule=theory.schedule,
        beta=weight,
        max_grad_norm=1e9,
    )
    rl_method = find(method)()
    exact_kl = rl_method.trainer == "RLOOTrainer"
    course = Trace(pools, before, weight, theory.trace_every, size, exact_kl)
    guard = FiniteGuard(f"converge {method}")
    with scratch(runtime) as folder, training_arithmetic(numerics, device):
        make_trainer(
            rl_method,
            model,
            prompt_dataset(pa.concat_tables([tables["train"]] * theory.steps), domain.tokens),
            domain=domain,
            rl=rl_method.settings(rl),
            numerics=numerics,
            device=device,
            folder=folder,
            guard=guard,
            callbacks=[course],
        ).train()
    guard.weights(model, rl.steps)

    cell = {"method": method, "beta": weight, "axis": axis, "seed": domain.seed, "ood_ratio": ratio}
    parts = []
    for name, rows in pools.items():
        columns = {
            key: pa.array([value] * rows.size) for key, value in (cell | {"pool": name}).items()
        }
        columns |= {label: tables[name][label].cast(pa.string()) for label in ("split", "task")}
        columns["prompt_index"] = tables[name]["prompt_index"]
        columns["log_mass_before"] = pa.array(before[name])
        columns["log_mass_after"] = pa.array(_exact_log_mass(model, rows, size))
        columns["log_mass_fixed_point"] = pa.array(
            _log_fixed_point(method, gold[name], weight, theory.group_size)
        )
        parts.append(pa.table(columns))
    write_table(trace, pa.Table.from_pylist([cell | row for row in course.rows]))
    write_table(output, pa.concat_tables(parts))


def _exact_log_mass(model: Any, rows: Sequences, batch_size: int) -> np.ndarray:
    """ln Q of every row (rows,) in float32, also of a model in the middle of bfloat16 training."""
    return exact_mass(float32_view(model), rows, batch_size, model.device)[0]


def _log_fixed_point(
    method: str, gold: list[np.ndarray], beta: float, group_size: int
) -> np.ndarray:
    """Log mass (prompts,) at which the method comes to rest if every prefix is free.

    The law for rloo, else GRPO's own.
    """
    mass = np.empty(len(gold))
    lengths = np.array([len(row) for row in gold])
    for length in np.unique(lengths):
        rows = np.stack([gold[i] for i in np.flatnonzero(lengths == length)])
        q = np.exp(rows.sum(1))
        mass[lengths == length] = (
            optimal_mass(q, beta) if method == "rloo" else grpo_mass(rows, beta, group_size)
        )
    with np.errstate(divide="ignore"):
        return np.log(mass)
