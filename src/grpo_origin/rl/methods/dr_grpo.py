from typing import Any

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method


class DrGRPO(Method):
    """GRPO "done right" (Liu et al., arXiv 2503.20783, eq. 3): neither divided by the group's
    standard deviation nor by length.

    A_i = r_i - mean r; the token losses are summed and divided by a constant, the longest
    completion. No KL term.
    """

    beta: Number = Field(0.0, ge=0, description="Weight of the KL term.")

    def arguments(self) -> dict[str, Any]:
        return {"loss_type": "dr_grpo", "scale_rewards": "none"}
