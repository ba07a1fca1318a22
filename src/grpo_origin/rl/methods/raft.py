from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class RAFT(Method):
    """Rejection sampling: likelihood of correct samples only (RAFT as in Xiong et al., arXiv
    2504.11343, eq. 1).

    loss = -mean of log pi, over the tokens of a correct completion and then over these: the
    advantage is 1 for a right one, 0 for a wrong one, over the share of right ones in the batch. No
    baseline, so groups that are all right go on being reinforced. The KL term stays (the authors'
    scripts have one of the same weight).
    """

    objective = "other"

    def advantages(self, rollout: Rollout) -> Tensor:
        return rollout.right_only
