from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Count, Number
from grpo_origin.config.stages import RLSettings
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from grpo_origin.rl.trainer import MethodHooks


class ExpertIteration(Method):
    """Control: SFT on own correct samples, in rounds.

    Expert iteration (Anthony et al., arXiv 1705.08439), STaR (arXiv 2203.14465).

    A round samples for `round_steps` steps' prompts with the policy as it stands, then fits the
    correct completions for several epochs: loss = -mean log pi over their tokens, without ratios,
    clipping or KL. The policy goes on from round to round (assumption; STaR starts each from the
    first model). `rl.steps` that are no multiple of round_steps x iterations cut the last round.
    """

    round_steps: Count = Field(5, description="Steps' worth of prompts in a round.")
    iterations: Count = Field(2, description="Epochs over a round's samples.")
    beta: Number = Field(0.0, ge=0, le=0, description="Weight of the KL term: none.")

    objective = "other"

    def arguments(self) -> dict[str, Any]:
        return {"steps_per_generation": self.round_steps}

    def count(self, rl: RLSettings) -> int:
        rounds = -(-rl.steps // (self.round_steps * self.iterations))
        return rounds * self.round_steps * rl.prompts_per_step

    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.right_only

    def loss(self, trainer: MethodHooks, model: Any, batch: dict[str, Any]) -> Tensor:
        """TRL's loss as if the policy had just sampled: ratios are 1, likelihood is left."""
        return super().loss(trainer, model, batch | {"old_per_token_logps": None})
