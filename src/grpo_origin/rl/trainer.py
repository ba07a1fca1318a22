"""TRL's trainers, fed token lists, scored by the task's own checker, with a method's hooks.

Made by `make_trainer` for RL stages (`stage`) and for RL to convergence (`converge`). The
subclasses change where prompts come from and how a completion is scored; the algorithm is TRL's,
and what a method changes of it is the method's (`methods`). Knows nothing of evaluation.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from grpo_origin.config.stages import NumericsSettings, RLSettings
from grpo_origin.rl import signal
from grpo_origin.rl.method import Method, Rollout
from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.rewards import TaskReward
from grpo_origin.training.numerics import FiniteGuard

if TYPE_CHECKING:
    from peft import LoraConfig

    from grpo_origin.training.model import Decoder

    OnlineTrainer = GRPOTrainer
else:
    OnlineTrainer = object  # the mixin goes before any of TRL's online trainers

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


LARGE = 4096  # tokens of a vocabulary whose logits of a whole batch are too many to hold
SEEDS_APART = 1_000_003  # of rollouts of one world by `rl.seed`


class MethodHooks(OnlineTrainer):
    """Mixin for TRL's online trainers: prompts are token lists, a method has its say at each step.

    `memory` is the method's own state, JSON-able, kept in checkpoints, and what `signal` counts in
    it; `guard` refuses gradients that are not finite, before the optimiser sees them.
    """

    model: Any
    ref_model: Any  # None where beta is 0
    num_generations: int
    train_dataset: Dataset
    scored: tuple[list[list[int]], torch.Tensor]  # the last completions (B) and their rewards (B,)

    def __init__(
        self,
        *args: Any,
        method: Method,
        guard: FiniteGuard,
        memory: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.guard = method, guard
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
        plain = sum(row["question"] == row["prompt"] for row in inputs)
        signal.count(self.memory, rewards[:, 0].view(-1, self.num_generations), plain)
        groups = inputs[:: self.num_generations]
        signal.show(self.memory, [row.get("given", ()) for row in groups])
        return rewards

    def sample(self, inputs: list[dict[str, Any]]) -> Rollout:
        """Scored completions of these prompts, with TRL's advantages.

        B rows, each prompt repeated for its group.
        """
        batch = super()._generate_and_score_completions(inputs)
        return Rollout(inputs, *self.scored, batch, self)

    def draft(self, inputs: list[dict[str, Any]]) -> tuple[list[list[int]], torch.Tensor]:
        """Completions of these prompts (token lists, B) and their rewards (B,), for no training."""
        prompts = [row["prompt"] for row in inputs]
        completions = self._generate(prompts)[1]
        texts = [""] * len(prompts)
        return completions, self._calculate_rewards(inputs, prompts, texts, completions)[:, 0]

    def show(self, gold: list[list[int]]) -> None:
        """Count gold completions (token lists) that the method trains on."""
        signal.show(self.memory, gold)

    def log_probs_of(self, batch: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (B, T) of a batch's completions under the policy as it stands."""
        ids, seen = (
            torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1)
            for kind in ("ids", "mask")
        )
        length = batch["completion_ids"].shape[1]
        with torch.no_grad():
            return self._get_per_token_logps_and_entropies(self.model, ids, seen, length)[0]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        rollout = self.method.rollout(self, inputs)
        rollout.batch["advantages"] = self.method.advantages(rollout)
        return rollout.batch

    def loss_of(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of a batch, made of the method's log-probabilities."""
        self.training_batch = batch
        loss = super()._compute_loss(model, batch)
        self.training_batch = None
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        return self.method.loss(self, model, inputs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm, which the trainer asks for between backward pass and optimiser."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.guard.number("gradient norm", float(norm), self.state.global_step + 1)
        return norm

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities and entropies (B, T) of the completions, 0 where masked.

        From the logits of these tokens alone. TRL's own way never holds all logits, scores the
        prompt too, and is slower where a vocabulary has tens of words: it is for large ones.
        """
        places = _positions(model, attention_mask)
        if model.config.get_text_config().vocab_size > LARGE and not places:
            arguments = (model, input_ids, attention_mask, logits_to_keep, batch_size)
            log_probs, entropies, _ = super()._get_per_token_logps_and_entropies(
                *arguments, compute_entropy=compute_entropy
            )
            return self._of_method(log_probs), entropies, None
        with self.accelerator.autocast():
            logits = model(
                input_ids,
                attention_mask=attention_mask,
                use_cache=False,
                logits_to_keep=logits_to_keep + 1,
                **places,
            ).logits
        drawn, masked = (
            input_ids[:, -logits_to_keep:, None],
            attention_mask[:, -logits_to_keep:] == 0,
        )
        every = torch.log_softmax(logits[:, :-1].float() / self.temperature, -1)
        log_probs = self._of_method(every.gather(-1, drawn)[..., 0].masked_fill(masked, 0))
        entropies = (
            -(every.exp() * every).sum(-1).masked_fill(masked, 0) if compute_entropy else None
        )
        return log_probs, entropies, None

    def _of_method(self, log_probs: torch.Tensor) -> torch.Tensor:
        """What the method makes of log-probabilities (B, T) in a loss."""
        if self.training_batch is None:
            return log_probs
        return self.method.log_probs(log_probs, self.training_batch)


def _positions(model: Any, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions (B, T) from the first token behind the padding on, for a model that learned them.

    Rotary ones need none, since the distance of tokens is all that counts.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    rotary = getattr(bare.config, "rope_parameters", None) is not None
    if rotary or "position_ids" not in inspect.signature(type(bare).forward).parameters:
        return {}
    return {"position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0)}


class TokenGRPOTrainer(MethodHooks, GRPOTrainer):
    """GRPOTrainer on token lists."""


class TokenRLOOTrainer(MethodHooks, RLOOTrainer):  # type: ignore[misc]  # typed for GRPOTrainer
    """RLOOTrainer on token lists."""


class TrainerKind(NamedTuple):
    """One of TRL's online trainers, on token lists: its class, its config's, plain arguments."""

    trainer: type[MethodHooks]
    config: type[GRPOConfig | RLOOConfig]
    plain: dict[str, Any]


TRAINERS = {
    # Advantages over the group's standard deviation, per-sequence mean of token losses.
    "GRPOTrainer": TrainerKind(
        TokenGRPOTrainer, GRPOConfig, {"loss_type": "grpo", "scale_rewards": "group"}
    ),
    "RLOOTrainer": TrainerKind(TokenRLOOTrainer, RLOOConfig, {}),
}


def make_trainer(
    method: Method,
    model: Decoder,
    dataset: Dataset,
    *,
    domain: Domain,
    rl: RLSettings,
    numerics: NumericsSettings,
    device: torch.device,
    folder: str | Path,
    guard: FiniteGuard,
    callbacks: Sequence[TrainerCallback] = (),
    memory: dict[str, Any] | None = None,
    adapters: LoraConfig | None = None,
) -> MethodHooks:
    """TRL's trainer for a method, its hooks in place; `rl` is what the method makes of the section.

    `dataset` has the columns of `stage.prompt_dataset`; `folder` is for the trainer's own files.
    With `adapters` these are trained, and the reference is the model without them.
    """
    longest = max(map(len, dataset["gold"]))
    trainer = TRAINERS[method.trainer].trainer(
        model=model,
        reward_funcs=TaskReward(domain, rl.reward),
        args=trainer_config(method, rl, numerics, device, longest, domain.seed, folder),
        train_dataset=dataset,
        processing_class=domain.build_tokenizer(),
        callbacks=list(callbacks),
        method=method,
        guard=guard,
        memory=memory,
        peft_config=adapters,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_config(
    method: Method,
    rl: RLSettings,
    numerics: NumericsSettings,
    device: torch.device,
    longest: int,
    seed: int,
    folder: str | Path,
) -> GRPOConfig | RLOOConfig:
    """The settings in TRL's terms, with what the method sets otherwise.

    A generation batch is one optimiser step's batch.
    """
    constant = rl.schedule == "constant"
    kind = TRAINERS[method.trainer]
    arguments = {
        "output_dir": str(folder),
        "max_steps": rl.steps,
        "per_device_train_batch_size": rl.prompts_per_step * rl.group_size,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "num_generations": rl.group_size,
        "num_iterations": rl.iterations,
        "max_completion_length": longest,
        "temperature": rl.temperature,
        "beta": rl.beta,
        "epsilon": rl.epsilon,
        "learning_rate": rl.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if constant else rl.schedule,
        "warmup_steps": round(rl.warmup * rl.steps),
        "max_grad_norm": rl.max_grad_norm,
        "optim": "adamw_torch_fused",
        "weight_decay": rl.weight_decay,
        "adam_beta1": rl.adam_beta1,
        "adam_beta2": rl.adam_beta2,
        "adam_epsilon": rl.adam_epsilon,
        "shuffle_dataset": False,  # prompts are in random order already: a resume stays exact
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "bf16": numerics.precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "seed": (seed + SEEDS_APART * rl.seed) % 2**32,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }
    config = kind.config(**(kind.plain | arguments | method.arguments()))
    # Transformers counts every GPU in sight and would split batches over them, which TRL refuses.
    config._n_gpu = min(config.n_gpu, 1)
    return config


def training_log(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """TRL's log as rows of the training log, one an optimiser step.

    What TRL logs once a rollout holds for all its steps.
    """
    rows: list[dict[str, float]] = []
    known: dict[str, float] = {}
    for entry in history:
        if "loss" in entry:
            known |= entry
            values = {name: known.get(key, float("nan")) for name, key in LOGGED.items()}
            rows.append({"step": known["step"], **values})
    return rows
