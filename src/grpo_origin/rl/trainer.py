"""RL with verifiable rewards: TRL's trainers, fed token lists, scored by the task's own checker, with a method's hooks.

The subclasses change where prompts come from and how a completion is scored; the algorithm is TRL's, and what a method changes
of it is the method's (`methods`). Knows nothing of evaluation.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from grpo_origin.config.notation import SPLITS, TaskSpec
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings, RLSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.jobs.checkpoint import Checkpoint, stage, stage_identity, stop_signals
from grpo_origin.jobs.errors import ArtefactError, Interrupted
from grpo_origin.jobs.files import write_json
from grpo_origin.jobs.provenance import Provenance
from grpo_origin.rl.method import Method, Rollout
from grpo_origin.rl.methods.grpo import GRPO
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World, generator
from grpo_origin.training.loop import Progress, finish
from grpo_origin.training.model import choose_device, load_model

MEMORY = "memory.json"  # of a method, in a checkpoint


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

    def __call__(
        self, question: list[list[int]], completion_ids: list[list[int]], task: list[str], **_: Any
    ) -> list[float]:
        """Score completions (token lists) of questions (the task's prompts, token lists) of the named tasks."""
        rewards = np.zeros(len(question))
        for name in set(task):
            rows = [i for i, other in enumerate(task) if other == name]
            checked = Task(TaskSpec.model_validate(name), self.world)
            rewards[rows] = self.vocabulary.check(
                checked, np.array([question[i] for i in rows]), [completion_ids[i] for i in rows]
            )
        return rewards.tolist()


class MethodHooks:
    """Mixin for TRL's online trainers: prompts are token lists already, and a method has its say at each step.

    `memory` is the method's own state, JSON-able, kept in checkpoints.
    """

    def __init__(
        self,
        *args: Any,
        method: Method | None = None,
        memory: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method = method or GRPO()
        self.memory = {} if memory is None else memory
        self.training_batch: dict[str, Any] | None = None

    def _tokenize_prompts(
        self, prompts: list[list[int]]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.scored = completion_ids_list, rewards[:, 0]
        return rewards

    def sample(self, inputs: list[dict[str, Any]]) -> Rollout:
        """Completions of these prompts (B rows, each prompt repeated for its group), scored, with TRL's advantages."""
        batch = super()._generate_and_score_completions(inputs)
        return Rollout(inputs, *self.scored, batch, self)

    def draft(self, inputs: list[dict[str, Any]]) -> tuple[list[list[int]], torch.Tensor]:
        """Completions of these prompts (token lists, B) and their exact matches (B,); nothing is trained on them."""
        prompts = [row["prompt"] for row in inputs]
        completions = self._generate(prompts)[1]
        return completions, self._calculate_rewards(
            inputs, prompts, [""] * len(prompts), completions
        )[:, 0]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        rollout = self.method.rollout(self, inputs)
        rollout.batch["advantages"] = self.method.advantages(rollout)
        return rollout.batch

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self.training_batch = inputs
        loss = super()._compute_loss(model, inputs)
        self.training_batch = None
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities (B, T) and entropies (B, T) of the completions, 0 where masked, from the logits of these tokens alone.

        TRL's own way never holds all logits, scores the prompt too, and is slower here, where a vocabulary has tens of words.
        """
        with self.accelerator.autocast():
            logits = model(
                input_ids,
                attention_mask=attention_mask,
                use_cache=False,
                logits_to_keep=logits_to_keep + 1,
            ).logits
        drawn, masked = (
            input_ids[:, -logits_to_keep:, None],
            attention_mask[:, -logits_to_keep:] == 0,
        )
        every = torch.log_softmax(logits[:, :-1].float() / self.temperature, -1)
        log_probs = every.gather(-1, drawn)[..., 0].masked_fill(masked, 0)
        if self.training_batch is not None:
            log_probs = self.method.log_probs(log_probs, self.training_batch)
        entropies = (
            -(every.exp() * every).sum(-1).masked_fill(masked, 0) if compute_entropy else None
        )
        return log_probs, entropies, None


class TokenGRPOTrainer(MethodHooks, GRPOTrainer):
    """GRPOTrainer on token lists."""


class TokenRLOOTrainer(MethodHooks, RLOOTrainer):
    """RLOOTrainer on token lists."""


class Keeper(TrainerCallback):
    """Saves by time and on a stop signal, the method's memory too, and reports progress."""

    def __init__(self, checkpoint: Checkpoint, stopping: Any, memory: dict[str, Any]) -> None:
        self.checkpoint, self.stopping, self.memory = checkpoint, stopping, memory
        self.progress: Progress | None = None
        self.interrupted = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress = Progress(state.max_steps, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps or state.global_step % (
            args.steps_per_generation * args.num_iterations
        ):
            return  # rollouts of an unfinished group of iterations are not part of a saved state
        if self.stopping():
            control.should_save = control.should_training_stop = self.interrupted = True
        elif self.checkpoint.due():
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / MEMORY, self.memory)
        self.checkpoint.save_folder(folder, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        if self.progress and "reward" in logs:
            self.progress.step(state.global_step, reward=logs["reward"], loss=logs["loss"])


def shared_arguments(
    settings: RLSettings,
    numerics: NumericsSettings,
    device: torch.device,
    longest: int,
    seed: int,
    folder: str | Path,
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
        "lr_scheduler_type": settings.schedule
        if settings.schedule != "constant"
        else "constant_with_warmup",
        "warmup_steps": round(settings.warmup * settings.steps),
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch_fused",
        "shuffle_dataset": False,  # the prompt file is in random order already, which keeps a resume exact
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": numerics.precision == "bfloat16" and device.type == "cuda",
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
    method: Method,
    settings: RLSettings,
    numerics: NumericsSettings,
    device: torch.device,
    longest: int,
    seed: int,
    folder: str | Path,
) -> GRPOConfig | RLOOConfig:
    """The settings as plain GRPO (advantages over the group's standard deviation, per-sequence mean of the token losses), or as
    RLOO if the method asks for it, with what the method sets otherwise."""
    shared = shared_arguments(settings, numerics, device, longest, seed, folder)
    if method.trainer == "RLOOTrainer":
        return RLOOConfig(**(shared | method.arguments()))
    return GRPOConfig(
        **({"loss_type": "grpo", "scale_rewards": "group"} | shared | method.arguments())
    )


def prompt_set(path: str | Path, split: str, method: Method, count: int, seed: int) -> Dataset:
    """The prompts of a GRPO file in the order of training, `count` of which a run uses.

    Columns `prompt` and `question` (the same), `gold`, `task`.
    """
    own, other = (
        read_prompts(path, name) for name in (split, *(name for name in SPLITS if name != split))
    )
    table = method.prompts(own, other, count, generator(seed, "method", "prompts"))
    columns = {
        "prompt": "prompt_ids",
        "question": "prompt_ids",
        "gold": "completion_ids",
        "task": "task",
    }
    return Dataset.from_dict({name: table[column].to_pylist() for name, column in columns.items()})


def train_rl(
    source: str | Path,
    prompts: str | Path,
    split: str,
    output: str | Path,
    checkpoint: str | Path,
    *,
    world: World,
    rl: RLSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
    method: Method | None = None,
) -> None:
    """Post-train the model folder `source` on prompts of `split` (id or ood) by a method and write a model folder to `output`.

    Raises Interrupted after saving its state if the job is told to stop.
    """
    device, method = choose_device(numerics, runtime.threads), method or GRPO()
    name = type(method).__module__.rpartition(".")[2]
    count, rl = method.count(rl), method.settings(rl)
    settings = {
        "seed": world.seed,
        "prompts": split,
        "method": {name: method.model_dump()},
        "rl": rl.model_dump(),
    }
    identity = stage_identity(
        settings,
        [Path(source) / "model.safetensors", prompts],
        __file__,
        inspect.getfile(type(method)),
    )
    with (
        stage(output, checkpoint, identity, runtime) as state,
        scratch(runtime) as folder,
        stop_signals() as stopping,
    ):
        if state is None:
            return
        provenance = Provenance(settings, str(device))
        dataset = prompt_set(prompts, split, method, count, world.seed)
        found = state.load_folder()
        memory = json.loads((found / MEMORY).read_text(encoding="utf-8")) if found else {}
        keeper = Keeper(state, stopping, memory)
        trainer = {"GRPOTrainer": TokenGRPOTrainer, "RLOOTrainer": TokenRLOOTrainer}[
            method.trainer
        ](
            model=load_model(source),
            reward_funcs=ExactMatch(world),
            args=trainer_config(
                method, rl, numerics, device, max(map(len, dataset["gold"])), world.seed, folder
            ),
            train_dataset=dataset,
            processing_class=build_tokenizer(world),
            callbacks=[keeper],
            method=method,
            memory=memory,
        )
        trainer.remove_callback(PrinterCallback)
        if found:
            print(f"resumed after {found.name.replace('-', ' ')} of {rl.steps}", flush=True)
        trainer.train(resume_from_checkpoint=found and str(found))
        if keeper.interrupted:
            raise Interrupted(
                f"stopped after step {trainer.state.global_step} of {rl.steps}; the state is saved and the same command resumes"
            )
        if trainer.state.global_step < rl.steps:
            raise ArtefactError(
                prompts,
                f"has too few {split} prompts: they ended at step {trainer.state.global_step} of {rl.steps}",
            )
        finish(
            trainer.model, world, training_log(trainer.state.log_history), provenance, state, output
        )


def scratch(runtime: RuntimeSettings) -> tempfile.TemporaryDirectory[str]:
    """A folder on node-local disk in which the trainer writes a state before it goes, whole, to the shared file system."""
    return tempfile.TemporaryDirectory(
        prefix="grpo-origin-", dir=runtime.scratch and os.path.expandvars(runtime.scratch)
    )


def training_log(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """TRL's log as rows of the training log, one an optimiser step; what TRL logs once a rollout holds for all its steps."""
    rows: list[dict[str, float]] = []
    known: dict[str, float] = {}
    for entry in history:
        if "loss" in entry:
            known |= entry
            rows.append(
                {"step": known["step"]}
                | {name: known.get(key, float("nan")) for name, key in LOGGED.items()}
            )
    return rows
