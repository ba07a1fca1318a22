"""GRPO: TRL's trainer, fed token lists and scored by the task's own checker.

The subclass changes where prompts come from and how a completion is scored; the algorithm is TRL's. Knows nothing of
evaluation.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from grpo_origin.checkpoint import Checkpoint, stage, stage_identity, stop_signals
from grpo_origin.config import GRPOSettings, RuntimeSettings, TaskSpec
from grpo_origin.data import read_prompts
from grpo_origin.files import Interrupted, Provenance
from grpo_origin.model import choose_device, load_model
from grpo_origin.tasks import Task, World
from grpo_origin.tokenizer import Vocabulary, build_tokenizer
from grpo_origin.train import CODE, Progress, finish

# Columns of the training log and the names TRL gives them.
LOGGED = {
    "loss": "loss",
    "reward_mean": "reward",
    "reward_std": "reward_std",
    "zero_variance_share": "frac_reward_zero_std",
    "kl": "kl",
    "entropy": "entropy",
    "completion_length": "completions/mean_length",
    "clip_share": "clip_ratio/region_mean",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "seconds": "step_time",
}


class ExactMatch:
    """Reward 1 for the correct completion, `<eos>` included, else 0."""

    __name__ = "exact_match"

    def __init__(self, world: World) -> None:
        self.world, self.vocabulary = world, Vocabulary(world.nodes)

    def __call__(self, prompts: list[list[int]], completion_ids: list[list[int]], task: list[str], **_: Any) -> list[float]:
        """Score completions (token lists) of prompts (token lists) of the named tasks."""
        rewards = np.zeros(len(prompts))
        for name in set(task):
            rows = [i for i, other in enumerate(task) if other == name]
            checked = Task(TaskSpec.model_validate(name), self.world)
            rewards[rows] = self.vocabulary.check(checked, np.array([prompts[i] for i in rows]), [completion_ids[i] for i in rows])
        return rewards.tolist()


class TokenPrompts:
    """Mixin for TRL's online trainers: prompts are lists of token ids already."""

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}


class TokenGRPOTrainer(TokenPrompts, GRPOTrainer):
    """GRPOTrainer on token lists."""


class Keeper(TrainerCallback):
    """Saves by time and on a stop signal, and reports progress."""

    def __init__(self, checkpoint: Checkpoint, stopping: Any, every: int) -> None:
        self.checkpoint, self.stopping, self.every = checkpoint, stopping, every
        self.progress: Progress | None = None
        self.interrupted = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress = Progress(state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps or state.global_step % self.every:
            return  # rollouts of an unfinished group of iterations are not part of a saved state
        if self.stopping():
            control.should_save = control.should_training_stop = self.interrupted = True
        elif self.checkpoint.due():
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.checkpoint.save_folder(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        if self.progress and "reward" in logs:
            self.progress.step(state.global_step, reward=logs["reward"], loss=logs["loss"])


def shared_arguments(
    settings: GRPOSettings, runtime: RuntimeSettings, device: torch.device, longest: int, seed: int, folder: str | Path
) -> dict[str, Any]:
    """The settings in terms that all of TRL's online trainers share. One generation batch is one optimiser step's batch."""
    return {
        "output_dir": str(folder),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.prompts_per_step * settings.group_size,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "num_generations": settings.group_size,
        "num_iterations": settings.iterations,
        "max_completion_length": longest,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": round(settings.warmup * settings.steps),
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch_fused",
        "shuffle_dataset": False,  # the prompt file is in random order already, which keeps a resume exact
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": runtime.precision == "bfloat16" and device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }


def trainer_config(
    settings: GRPOSettings, runtime: RuntimeSettings, device: torch.device, longest: int, seed: int, folder: str | Path
) -> GRPOConfig:
    """The settings as GRPO: advantages over the group's standard deviation, per-sequence mean of the token losses."""
    shared = shared_arguments(settings, runtime, device, longest, seed, folder)
    return GRPOConfig(loss_type="grpo", scale_rewards="group", **shared)


def grpo(
    source: str | Path,
    prompts: str | Path,
    split: str,
    output: str | Path,
    checkpoint: str | Path,
    *,
    world: World,
    grpo: GRPOSettings,
    runtime: RuntimeSettings,
) -> None:
    """Post-train the model folder `source` on prompts of `split` (id or ood) and write a model folder to `output`.

    Raises Interrupted after saving its state if the job is told to stop.
    """
    device = choose_device(runtime)
    settings = {"seed": world.seed, "prompts": split, "grpo": grpo.model_dump()}
    identity = stage_identity(settings, [Path(source) / "model.safetensors", prompts], *CODE, "grpo")
    with stage(output, checkpoint, identity, runtime) as state, scratch(runtime) as folder, stop_signals() as stopping:
        if state is None:
            return
        provenance = Provenance(settings, str(device))
        table = read_prompts(prompts, split)
        longest = max(len(row) for row in table["completion_ids"].to_pylist())
        dataset = Dataset.from_dict({"prompt": table["prompt_ids"].to_pylist(), "task": table["task"].to_pylist()})
        keeper = Keeper(state, stopping, grpo.iterations)
        trainer = TokenGRPOTrainer(
            model=load_model(source),
            reward_funcs=ExactMatch(world),
            args=trainer_config(grpo, runtime, device, longest, world.seed, folder),
            train_dataset=dataset,
            processing_class=build_tokenizer(world),
            callbacks=[keeper],
        )
        trainer.remove_callback(PrinterCallback)
        found = state.load_folder()
        if found:
            print(f"resumed after {found.name.replace('-', ' ')} of {grpo.steps}", flush=True)
        trainer.train(resume_from_checkpoint=found and str(found))
        if keeper.interrupted:
            raise Interrupted(
                f"stopped after step {trainer.state.global_step} of {grpo.steps}; the state is saved and the same command resumes"
            )
        finish(trainer.model, world, training_log(trainer.state.log_history), provenance, state, output)


def scratch(runtime: RuntimeSettings) -> tempfile.TemporaryDirectory[str]:
    """A folder on node-local disk in which the trainer writes a state before it goes, whole, to the shared file system."""
    return tempfile.TemporaryDirectory(prefix="grpo-origin-", dir=runtime.scratch and os.path.expandvars(runtime.scratch))


def training_log(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """TRL's log as rows of the training log, one an optimiser step; what TRL logs once a rollout holds for all its steps."""
    rows: list[dict[str, float]] = []
    known: dict[str, float] = {}
    for entry in history:
        if "loss" in entry:
            known |= entry
            rows.append({"step": known["step"]} | {name: known.get(key, float("nan")) for name, key in LOGGED.items()})
    return rows
