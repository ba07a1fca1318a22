from typing import Any

from pydantic import Field

from grpo_origin.config.fields import Count, Rate
from grpo_origin.rl.method import Method


class GSPO(Method):
    """Group sequence policy optimisation (Zheng et al., arXiv 2507.18071, eqs. 5 and 7): one ratio
    a completion.

    s_i = (pi(y_i) / pi_old(y_i))^(1/|y_i|), clipped as a whole, in place of a ratio a token.
    """

    iterations: Count = Field(
        2, description="Optimiser steps on each batch of rollouts (assumption)."
    )
    epsilon_low: Rate = Field(3e-4, description="Clip range below 1.")
    epsilon_high: Rate = Field(4e-4, description="Clip range above 1.")

    def arguments(self) -> dict[str, Any]:
        return {
            "importance_sampling_level": "sequence",
            "epsilon": self.epsilon_low,
            "epsilon_high": self.epsilon_high,
        }
