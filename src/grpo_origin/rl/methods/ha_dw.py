from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Count, Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class HADW(Method):
    """History-aware difficulty weights (arXiv 2601.08521, eqs. 13 to 16): the group's advantage is
    biased, and this weighs it back.

    A_i <- A_i scale exp(-sgn(A_i) sgn(d) |d|), d = group's accuracy - anchor: on prompts harder
    than the anchor right answers weigh more and wrong ones less, on easier ones the reverse. The
    anchor is the mean accuracy of the last `history` batches, this one included (eq. 134, the
    variant that the authors' code has; the moving anchor of eqs. 8 to 12 has rates that aren't
    given).
    """

    scale: Number = Field(
        1.3, gt=0, description="Factor of all advantages (the best of the paper's table 7)."
    )
    history: Count = Field(
        10, description="Batches that make up the anchor (as in the authors' code)."
    )

    objective = "other"

    def advantages(self, rollout: Rollout) -> Tensor:
        past = rollout.trainer.memory.setdefault("accuracies", [])
        past.append(rollout.rewards.mean().item())
        del past[: -self.history]
        accuracy = (
            rollout.groups(rollout.rewards)
            .mean(1, keepdim=True)
            .expand(-1, rollout.group_size)
            .flatten()
        )
        difference = accuracy - sum(past) / len(past)
        advantages = rollout.batch["advantages"]
        return advantages * self.scale * (-advantages.sign() * difference).exp()
