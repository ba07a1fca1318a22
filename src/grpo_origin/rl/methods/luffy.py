from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from grpo_origin.rl.trainer import MethodHooks


class LUFFY(Method):
    """Positive control: one completion of each group is the gold one (LUFFY, arXiv 2504.14945,
    eqs. 4 and 6).

    Advantages are relative to the mixed group. A gold token's ratio is f(p) = p / (p + gamma), p
    its probability (the gold's own is taken as 1), so that its gradient has the weight gamma p /
    (p + gamma)^2 of log p; it is below 1, so that clipping never binds. The rest is plain GRPO but
    for the KL term, which the paper drops too (as it does lengths and standard deviations, which
    stay here). The first completion of a group is sampled, and counted, but makes room for the gold
    one.
    """

    beta: Number = Field(0.0, ge=0, le=0, description="Weight of the KL term: none.")
    gamma: Number = Field(0.1, gt=0, description="Probability at which the weight is largest.")

    objective = "other"
    informed = True

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        import torch

        sampled = trainer.sample(inputs)
        if "old_per_token_logps" not in sampled.batch:
            sampled.batch["old_per_token_logps"] = trainer.log_probs_of(sampled.batch)
        first = range(0, len(inputs), trainer.num_generations)
        trainer.show([inputs[i]["gold"] for i in first])
        gold = sampled.forced([row["gold"] for row in sampled.inputs])
        mixed = sampled.replaced({i: i for i in first}, gold)
        place = torch.arange(len(inputs), device=mixed.rewards.device)
        mixed.batch["is_gold"] = place % trainer.num_generations == 0
        return mixed

    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.relative(rollout.rewards)

    def log_probs(self, log_probs: Tensor, batch: dict[str, Any]) -> Tensor:
        shaped = log_probs - (log_probs.exp() + self.gamma).log()
        return shaped.where(batch["is_gold"][:, None], log_probs)
