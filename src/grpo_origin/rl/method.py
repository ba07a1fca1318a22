"""What an RL method is: settings, and hooks into one step of TRL's trainer.

The base class is plain GRPO; a method overrides the hooks in which it differs, and every hook
starts from what TRL computed. Called by `study` to check a run's methods and by the trainer at each
step. Imports neither torch nor TRL, so that settings are checked without them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from grpo_origin.config.fields import ConfigError, Count, Number, Section
from grpo_origin.config.load import one_line
from grpo_origin.config.stages import RLSettings
from grpo_origin.rl import methods
from grpo_origin.tasks.domain import domain_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from grpo_origin.config.schema import Settings
    from grpo_origin.rl.trainer import MethodHooks
    from grpo_origin.training.base import Base


@dataclass
class Rollout:
    """Completions of one step: B = prompts x group size, T tokens at most.

    A prompt's completions are in consecutive rows.
    """

    inputs: list[dict[str, Any]]
    """Rows of the prompt set (B): `prompt`, `gold` (token lists), where the
    steps of that begin (`step_starts`) and `task`; `given` if a method
    put a part of the gold completion behind the prompt.
    """
    completions: list[list[int]]
    """Token lists (B) as sampled, after what was given; `<eos>` included where it was sampled."""
    rewards: Tensor
    """Rewards by `rl.reward` (B,): exact matches, 0 or 1, or what else it says."""
    batch: dict[str, Any]
    """What TRL trains on: `completion_ids`, `completion_mask` (B, T), `advantages` (B,),
    `prompt_ids`, and `old_per_token_logps`, `ref_per_token_logps` (B, T) where iterations > 1 and
    beta > 0 ask.
    """
    trainer: MethodHooks
    """`model`, `num_generations`, and `memory`, a JSON-able dict that checkpoints keep."""

    @property
    def group_size(self) -> int:
        """Completions of a prompt."""
        return self.trainer.num_generations

    def groups(self, values: Tensor) -> Tensor:
        """Values (B,) as (prompts, group size)."""
        return values.view(-1, self.group_size)

    def relative(self, rewards: Tensor, scaled: bool = True) -> Tensor:
        """Rewards (B,) less their group's mean, over its standard deviation if `scaled`, as TRL."""
        grouped = self.groups(rewards)
        centred = grouped - grouped.mean(1, keepdim=True)
        return (centred / (grouped.std(1, keepdim=True) + 1e-4) if scaled else centred).flatten()

    @property
    def right_only(self) -> Tensor:
        """Advantages (B,) of plain likelihood of the right completions.

        1 for these, over their share of the batch, and 0 for others.
        """
        return self.rewards / self.rewards.mean().clamp(min=1 / len(self.rewards))

    @property
    def mixed(self) -> Tensor:
        """Which rows belong to a group whose rewards are not all the same (B,), bool."""
        grouped = self.groups(self.rewards)
        return (grouped != grouped[:, :1]).any(1).repeat_interleave(self.group_size)

    def replaced(self, rows: Mapping[int, int], other: Rollout) -> Rollout:
        """This rollout with some rows (row here -> row of `other`) from another of as many rows."""
        import torch
        from torch.nn.functional import pad

        size = len(self.inputs)
        order = [size + rows[i] if i in rows else i for i in range(size)]
        batch = {}
        for name, tensor in self.batch.items():
            parts = [tensor, other.batch[name]]
            if tensor.dim() == 2:
                # Prompts are padded on the left, completions on the right.
                left = name.startswith("prompt")
                width = max(part.shape[1] for part in parts)
                missing = [width - part.shape[1] for part in parts]
                parts = [
                    pad(part, (count, 0) if left else (0, count))
                    for part, count in zip(parts, missing, strict=True)
                ]
            batch[name] = torch.cat(parts)[order] if tensor.dim() else tensor
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        inputs, completions = self.inputs + other.inputs, self.completions + other.completions
        rewards = torch.cat([self.rewards, other.rewards])[order]
        return Rollout(
            [inputs[i] for i in order],
            [completions[i] for i in order],
            rewards,
            batch,
            self.trainer,
        )

    def forced(self, completions: list[list[int]]) -> Rollout:
        """These completions (token lists, B) of its prompts, as if sampled with certainty."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        device = self.rewards.device
        ids = pad_sequence([torch.tensor(tokens, device=device) for tokens in completions], True)
        lengths = torch.tensor([len(tokens) for tokens in completions], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        batch = {"completion_ids": ids, "completion_mask": mask}
        batch["old_per_token_logps"] = torch.zeros(ids.shape, device=device)
        rewards = torch.ones_like(self.rewards)
        return Rollout(self.inputs, completions, rewards, self.batch | batch, self.trainer)

    @cached_property
    def steps(self) -> list[list[bool]]:
        """Which steps of each completion are right, in their places.

        A step is a block `<think> state` or `<answer> state <eos>`; one that was given is right.
        """
        verdicts = []
        for row, sampled in zip(self.inputs, self.completions, strict=True):
            completion = [*row.get("given", ()), *sampled]
            gold, starts = row["gold"], row["step_starts"]
            ends = [*starts[1:], max(len(gold), len(completion))]
            verdicts.append(
                [completion[a:b] == gold[a:b] for a, b in zip(starts, ends, strict=True)]
            )
        return verdicts


def given(row: dict[str, Any], tokens: int) -> dict[str, Any]:
    """A row of the prompt set with so many tokens of the gold completion behind its prompt.

    A completion is then the rest; rewards and `Rollout.steps` judge the whole.
    """
    start = row["gold"][:tokens]
    return row | {"prompt": [*row["question"], *start], "given": start}


# How TRL makes rewards relative to their group: `scale_rewards` -> over the standard deviation.
SCALED = {"group": True, True: True, "none": False, False: False}


class Method(Section):
    """An RL method: plain GRPO but for the hooks that a subclass overrides and what it declares."""

    iterations: Count | None = Field(
        None,
        description="Optimiser steps on each batch of rollouts; `rl.iterations` when left out.",
    )
    beta: Number | None = Field(
        None, ge=0, description="Weight of the KL term; `rl.beta` when left out."
    )
    learning_rate: Number | None = Field(
        None, gt=0, description="Peak learning rate; `rl.learning_rate` when left out."
    )

    trainer: ClassVar[Literal["GRPOTrainer", "RLOOTrainer"]] = "GRPOTrainer"
    objective: ClassVar[Literal["reward-kl", "other"]] = "reward-kl"
    """Whether it optimises the expected reward less the KL term, of which law and bound speak:
    `other` where a hook changes which completions are rewarded, or by how much."""
    custom_rewards: ClassVar[bool] = False
    """Whether `rewards` gives anything but those of `rl.reward`."""
    informed: ClassVar[bool] = False
    """Whether it is shown gold tokens, and so a positive control (docs/methods.md)."""

    @model_validator(mode="after")
    def _declared(self) -> Method:
        """Refuse a class whose hooks and declarations disagree."""
        kind = type(self)
        overridden = [
            hook
            for hook in ("rollout", "rewards", "advantages", "loss")
            if getattr(kind, hook) is not getattr(Method, hook)
        ]
        if ("rewards" in overridden) != kind.custom_rewards:
            raise ValueError(
                f"{kind.__name__} must declare `custom_rewards = True` if, and only if, it "
                "overrides `rewards`"
            )
        bases = kind.__mro__[: kind.__mro__.index(Method)]
        if overridden and not any("objective" in vars(base) for base in bases):
            raise ValueError(
                f"{kind.__name__} overrides `{overridden[0]}`: it must declare `objective`, "
                '"reward-kl" or "other"'
            )
        if kind.custom_rewards and "advantages" not in overridden and self._scaled is None:
            raise ValueError(
                f"{kind.__name__} overrides `rewards` under a trainer that does not make "
                "advantages as GRPO does: override `advantages` too"
            )
        return self

    @property
    def _scaled(self) -> bool | None:
        """Whether advantages are over the group's standard deviation; None if made otherwise.

        RLOO's have the KL term in them, and TRL can scale by the batch.
        """
        if self.trainer != "GRPOTrainer":
            return None
        return SCALED.get(self.arguments().get("scale_rewards", "group"))

    def settings(self, rl: RLSettings, **changes: Any) -> RLSettings:
        """The `rl` section with what this method sets otherwise.

        Raises ValidationError if that can't be.
        """
        changes |= {
            key: value
            for key in ("iterations", "beta", "learning_rate")
            if (value := getattr(self, key)) is not None
        }
        return RLSettings.model_validate(rl.model_dump() | changes)

    def kl_weight(self, rl: RLSettings) -> float:
        """Weight of the KL term where the objective is the law's, else 0.

        The law's is the expected exact match less the KL divergence from where RL starts.
        """
        of_the_law = self.objective == "reward-kl" and rl.reward == "exact"
        of_the_law &= not rl.reset_reference_every
        return self.settings(rl).beta if of_the_law else 0.0

    def arguments(self) -> dict[str, Any]:
        """Arguments of TRL's GRPOConfig (or RLOOConfig) that differ from plain GRPO's."""
        return {}

    def count(self, rl: RLSettings) -> int:
        """Distinct prompts that a run trains on: one pass."""
        return self.settings(rl).prompts

    def tokens(self, prompt: int, completion: int) -> int:
        """Longest sequence in training, from the lengths of a task's prompt and completion."""
        return prompt + completion

    def order(
        self, prompts: pa.Table, others: pa.Table, count: int, draws: np.random.Generator
    ) -> pa.Table:
        """The prompts in the order of training, of which `count` are used.

        `prompts` are those of the stage's split, `others` those of the other one.
        """
        return prompts

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        """Completions of these prompts (B rows, each prompt repeated for its group)."""
        return trainer.sample(inputs)

    def rewards(self, rollout: Rollout) -> Tensor:
        """Rewards (B,) that advantages are made of; the log shows those of `rl.reward` anyway."""
        return rollout.rewards

    def advantages(self, rollout: Rollout) -> Tensor:
        """Advantages, (B,) or (B, T): TRL's, or custom rewards made relative as GRPO does."""
        if not self.custom_rewards:
            return rollout.batch["advantages"]
        return rollout.relative(self.rewards(rollout), scaled=bool(self._scaled))

    def log_probs(self, log_probs: Tensor, batch: dict[str, Any]) -> Tensor:
        """The policy's log-probabilities (B, T) in the loss; `batch` as in Rollout, shuffled."""
        return log_probs

    def loss(self, trainer: MethodHooks, model: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch (as in Rollout, shuffled), a scalar: TRL's."""
        return trainer.loss_of(model, batch)


def names() -> list[str]:
    """Names of all methods: the files of `methods`."""
    return sorted(module.name for module in pkgutil.iter_modules(methods.__path__))


def find(name: str) -> type[Method]:
    """The method of a name.

    Raises ValueError, with the names there are, for any other, and for a file without a method.
    """
    if name not in names():
        raise ValueError(f"unknown method {name!r} (known: {', '.join(names())})")
    module = importlib.import_module(f"{methods.__name__}.{name}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Method)
            and value.__module__ == module.__name__
        ):
            return value
    raise ValueError(f"methods/{name}.py defines no subclass of Method")


def load_methods(settings: Settings, base: Base | None = None) -> dict[str, Method]:
    """The methods of a run by name, their settings checked against the run's.

    `base` is the model from outside that it starts from, with tokenizer and context of its own.
    Raises ConfigError for an unknown method or setting, for one that can't run with the `rl`
    section, and for one that needs longer sequences than the model's context.
    """
    loaded: dict[str, Method] = {}
    longest, where = settings.model.context, "model.context"
    if base:
        longest, where = base.context or sys.maxsize, "the context of pretrain.base"
    for name, values in settings.methods.items():
        loaded[name] = _load(name, values, settings.rl)
        for axis, tasks in settings.axes.items():
            domain = domain_of(settings, axis, base.folder if base else None)
            for task in (*tasks.id, *tasks.ood):
                tokens = loaded[name].tokens(*domain.lengths(task))
                if tokens > longest:
                    raise ConfigError(
                        f"axes.{axis}: task '{task}' needs {tokens} tokens under {name}, "
                        f"more than {where} ({longest})"
                    )
    return loaded


def _load(name: str, values: Mapping[str, Any], rl: RLSettings) -> Method:
    """A method with its settings, which the `rl` section allows; raises ConfigError."""
    try:
        kind = find(name)
    except ValueError as error:
        raise ConfigError(f"methods: {error}") from None
    for key in values:
        if key not in kind.model_fields:
            allowed = ", ".join(kind.model_fields)
            raise ConfigError(f"methods: method {name} has no setting {key!r} (allowed: {allowed})")
    try:
        method = kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"methods: method {name}: {one_line(error)}") from None
    try:
        method.settings(rl)
    except ValidationError as error:
        raise ConfigError(
            f"methods: {name} can't run with this rl section: {one_line(error)}"
        ) from None
    return method


def prompts_needed(settings: Settings, methods: Mapping[str, Method]) -> int:
    """Distinct prompts a split that the RL methods of a run need at most."""
    return max(settings.rl.prompts, *(method.count(settings.rl) for method in methods.values()))
