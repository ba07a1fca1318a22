from typing import Any

from pydantic import Field

from grpo_origin.config.fields import Count, Number
from grpo_origin.rl.method import Method


class CISPO(Method):
    """Clipped importance-sampling policy optimisation (MiniMax-M1, arXiv 2506.13585, eqs. 4 and 5).

    loss = -sg(min(ratio, high)) A log pi, averaged over the batch's tokens: weights are clipped, so
    no token loses its gradient. No KL term.
    """

    iterations: Count = Field(
        2, description="Optimiser steps on each batch of rollouts (assumption)."
    )
    beta: Number = Field(0.0, ge=0, description="Weight of the KL term.")
    high: Number = Field(1.28, gt=0, description="Largest weight of a token (assumption).")

    def arguments(self) -> dict[str, Any]:
        return {"loss_type": "cispo", "epsilon_high": self.high}
