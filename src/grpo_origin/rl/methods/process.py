from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class Process(Method):
    """GRPO on a dense reward: the share of right steps, each in its place in the trace."""

    objective = "other"
    custom_rewards = True

    def rewards(self, rollout: Rollout) -> Tensor:
        return rollout.rewards.new_tensor([sum(steps) / len(steps) for steps in rollout.steps])
