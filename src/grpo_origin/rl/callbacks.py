"""What happens between the steps of an RL stage: saving, learning curve, new reference, progress.

Given to the trainer by `stage`; what changes the state that is saved comes before `Keeper`. Knows
nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, RLOOConfig

from grpo_origin.config.notation import SPLITS
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.checkpoint import Checkpoint
from grpo_origin.jobs.files import write_json
from grpo_origin.rl import signal
from grpo_origin.training.loop import Progress
from grpo_origin.training.numerics import FiniteGuard, exact_arithmetic, float32_view

# In a checkpoint: what methods, `signal` and the learning curve remember; the latest reference.
MEMORY, REFERENCE = "memory.json", "reference.safetensors"
CURVE = "learning_curve"  # key in the memory
CURVE_TYPES = {
    "step": pa.int64(),
    "completions": pa.int64(),
    "split": pa.string(),
    "mass": pa.float64(),
    "log_mass_mean": pa.float64(),
    "greedy_accuracy": pa.float64(),
}


class LearningCurve(TrainerCallback):
    """Exact masses on some test prompts (as of `curve_prompts`) before RL, every few steps, at the
    end.

    Draws no random numbers, so training is the same with and without it.
    """

    def __init__(
        self, prompts: pa.Table, every: int, device: torch.device, memory: dict[str, Any]
    ) -> None:
        self.every, self.device, self.memory = every, device, memory
        self.rows, self.splits = Sequences(prompts), np.array(prompts["split"].to_pylist())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        if CURVE not in self.memory:
            self._measure(more["model"], 0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        step = state.global_step
        if step % self.every == 0 or step >= state.max_steps:
            self._measure(more["model"], step)

    def _measure(self, model: Any, step: int) -> None:
        training = model.training
        with exact_arithmetic(self.device):
            view = float32_view(model)
            log_mass, greedy = exact_mass(view, self.rows, self.rows.size, self.device)
        model.train(training)
        sampled = self.memory.get(signal.COUNTS, {}).get("completions", 0)
        for split in SPLITS:
            of_split = self.splits == split
            row = {
                "step": step,
                "completions": sampled,
                "split": split,
                "mass": float(np.exp(np.minimum(log_mass[of_split], 0.0)).mean()),
                "log_mass_mean": float(log_mass[of_split].mean()),
                "greedy_accuracy": float(greedy[of_split].mean()),
            }
            self.memory.setdefault(CURVE, []).append(row)

    @property
    def table(self) -> pa.Table:
        """What was measured so far, a row a step and split."""
        return pa.Table.from_pylist(self.memory[CURVE], pa.schema(CURVE_TYPES))


class NewReference(TrainerCallback):
    """Makes the model its own reference every few steps and clears the optimiser's state.

    Reference policy reset of ProRL (arXiv 2505.24864). `reference` is the trainer's, None where
    there is no KL term, `resumed` the folder of the checkpoint that training goes on from, if any.
    """

    def __init__(self, reference: Any, every: int, resumed: Path | None) -> None:
        self.reference, self.every, self.resumed = reference, every, resumed
        self.was_reset = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.resumed and (self.resumed / REFERENCE).exists():
            self.reference.load_state_dict(load_file(self.resumed / REFERENCE))
            self.was_reset = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        if state.global_step % self.every:
            return
        more["optimizer"].state.clear()
        if self.reference is not None:
            self.reference.load_state_dict(more["model"].state_dict())
            self.was_reset = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.was_reset:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            save_file(self.reference.state_dict(), folder / REFERENCE)


class Keeper(TrainerCallback):
    """Saves by time and on a stop signal, the memory too, and reports progress."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        stopping: Callable[[], bool],
        memory: dict[str, Any],
        guard: FiniteGuard,
    ) -> None:
        self.checkpoint, self.stopping, self.memory = checkpoint, stopping, memory
        self.guard = guard
        self.progress: Progress | None = None
        self.interrupted = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress = Progress(state.max_steps, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        assert isinstance(args, GRPOConfig | RLOOConfig)
        steps = (args.steps_per_generation or 1) * args.num_iterations
        if state.global_step >= state.max_steps or state.global_step % steps:
            return  # rollouts of an unfinished group of iterations are not part of a saved state
        if self.stopping():
            control.should_save = control.should_training_stop = self.interrupted = True
        elif self.checkpoint.due():
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        model: torch.nn.Module = more["model"]
        self.guard.weights(model, state.global_step)
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        write_json(folder / MEMORY, self.memory)
        self.checkpoint.save_folder(folder, state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        logs: dict[str, float] = more["logs"]
        if self.progress and "reward" in logs:
            self.progress.step(state.global_step, reward=logs["reward"], loss=logs["loss"])
