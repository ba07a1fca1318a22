from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class ReinforceRej(Method):
    """REINFORCE with rejection of whole groups (Xiong et al., arXiv 2504.11343, eq. 5): all right
    or all wrong teach nothing.

    The advantage is +1 for a right and -1 for a wrong completion of a group that has both, else 0:
    no baseline, no scaling.
    """

    objective = "other"

    def advantages(self, rollout: Rollout) -> Tensor:
        return (2 * rollout.rewards - 1) * rollout.mixed
