from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Count, Rate
from grpo_origin.rl.method import Method

if TYPE_CHECKING:
    from torch import Tensor


class ABCGRPO(Method):
    """Ratios bounded on both sides whatever the sign of the advantage (ABC-GRPO, arXiv 2601.03895;
    after its abstract).

    loss = -clip(ratio, 1 - low, 1 + high) A with bounds of their own for right (A > 0) and wrong
    completions: four bounds, where GRPO's minimum leaves two of the four cases unbounded. This is a
    reading of it: the equation could not be read, and the values below are assumptions. Bounds act
    through the log-probabilities, so a token out of bounds leaves the KL term too.
    """

    iterations: Count = Field(
        2, description="Optimiser steps on each batch of rollouts (assumption)."
    )
    right_low: Rate = Field(
        0.2, description="Bound below 1 where the advantage is positive (assumption)."
    )
    right_high: Rate = Field(
        0.28, description="Bound above 1 where the advantage is positive (assumption)."
    )
    wrong_low: Rate = Field(
        0.2, description="Bound below 1 where the advantage is negative (assumption)."
    )
    wrong_high: Rate = Field(
        0.2, description="Bound above 1 where the advantage is negative (assumption)."
    )

    def arguments(self) -> dict[str, Any]:
        return {"epsilon": 1.0, "epsilon_high": 1e6}  # TRL's own clipping never binds

    def log_probs(self, log_probs: Tensor, batch: dict[str, Any]) -> Tensor:
        if "old_per_token_logps" not in batch:  # one step a batch: every ratio is 1
            return log_probs
        right = (batch["advantages"] > 0).unsqueeze(1)
        low = right * math.log(1 - self.right_low) + ~right * math.log(1 - self.wrong_low)
        high = right * math.log(1 + self.right_high) + ~right * math.log(1 + self.wrong_high)
        old = batch["old_per_token_logps"]
        return old + (log_probs - old).clamp(min=low, max=high)
