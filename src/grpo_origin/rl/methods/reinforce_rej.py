from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class ReinforceRej(Method):
    """REINFORCE with rejection of whole groups (Xiong et al., arXiv 2504.11343, eq. 5): all right
    or all wrong teach nothing.

    The advantage is +1 for a right and -1 for a wrong completion of a group that has both, over
    the share of these in the batch, so that the mean is theirs; else 0. No baseline, no scaling.
    """

    objective = "other"

    def advantages(self, rollout: Rollout) -> Tensor:
        kept = rollout.mixed.to(rollout.rewards.dtype)
        return (2 * rollout.rewards - 1) * kept / kept.mean().clamp(min=1 / len(kept))
