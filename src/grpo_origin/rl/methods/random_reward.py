from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Rate
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class RandomReward(Method):
    """Control: GRPO on coin flips, r_i ~ Bernoulli(p), whatever was sampled (after the spurious
    rewards of arXiv 2506.10947).
    """

    probability: Rate = Field(0.5, description="Chance of reward 1.")

    objective = "other"
    custom_rewards = True

    def rewards(self, rollout: Rollout) -> Tensor:
        return rollout.rewards.new_empty(rollout.rewards.shape).bernoulli_(self.probability)
