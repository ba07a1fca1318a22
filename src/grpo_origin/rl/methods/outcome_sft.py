from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from grpo_origin.rl.trainer import MethodHooks


class OutcomeSFT(Method):
    """Positive control: SFT on what happened, on the prompts that RL would score.

    loss = -mean log pi over the tokens of the gold trace with an answer, which is `<1.0>` if the
    prompt's event came about and `<0.0>` if not: the outcome that rewards score, in a domain of
    chances. In any other domain it is the gold answer. What is sampled is counted and not trained
    on.
    """

    beta: Number = Field(0.0, ge=0, le=0, description="Weight of the KL term: none.")

    objective = "other"
    informed = True

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        sampled = trainer.sample(inputs)
        happened = [
            [*row["gold"][:-2], row.get("outcome", row["gold"][-2]), row["gold"][-1]]
            for row in inputs
        ]
        trainer.show(happened[:: trainer.num_generations])
        everywhere = {i: i for i in range(len(inputs))}
        return sampled.replaced(everywhere, sampled.forced(happened))

    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.rewards

    def loss(self, trainer: MethodHooks, model: Any, batch: dict[str, Any]) -> Tensor:
        """TRL's loss as if the policy had just sampled: ratios are 1, likelihood is left."""
        return super().loss(trainer, model, batch | {"old_per_token_logps": None})
