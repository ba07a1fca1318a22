from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class SGPO(Method):
    """Stepwise guided policy optimisation (arXiv 2505.11595; after its abstract and reviews):
    all-wrong groups teach too.

    In a group without a right answer, r_i = 1 / (1 + exp(-slope (s_i - midpoint))), s_i being the
    share of steps before the first wrong one; all other groups keep the binary reward. The paper's
    judge of steps is a language model; here it is the task's own trace. Slope and midpoint are
    assumptions.
    """

    slope: Number = Field(10.0, gt=0, description="Slope of the logistic curve (assumption).")
    midpoint: Number = Field(
        0.5, ge=0, le=1, description="Share of right steps that earns a half (assumption)."
    )

    objective = "other"
    custom_rewards = True

    def rewards(self, rollout: Rollout) -> Tensor:
        sound = rollout.rewards.new_tensor(
            [[*steps, False].index(False) / len(steps) for steps in rollout.steps]
        )
        graded = (self.slope * (sound - self.midpoint)).sigmoid()
        none_right = rollout.groups(rollout.rewards).amax(1, keepdim=True) == 0
        return graded.where(none_right.expand(-1, rollout.group_size).flatten(), rollout.rewards)
