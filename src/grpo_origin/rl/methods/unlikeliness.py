from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Number, Whole
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class Unlikeliness(Method):
    """Correct but unlikely samples earn more (He et al., arXiv 2506.02355; after the authors'
    code): r_i = R_i (1 - penalty rank_i / G).

    rank_i counts the group's completions that are less likely under the sampling policy, by mean
    log-probability of a token (half of those that are alike). A prompt of this study has one
    correct completion, so within a group all right ones earn alike and division by the group's
    standard deviation would cancel the factor: the advantages are left unscaled (assumption), and
    groups whose right answer is unlikely weigh more.
    """

    iterations: Whole = Field(
        2,
        ge=2,
        description="Optimiser steps a batch of rollouts; from 2 on TRL keeps what ranks need.",
    )
    penalty: Number = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the reward that a sample likelier than all G others would lose.",
    )

    objective = "other"
    custom_rewards = True

    def arguments(self) -> dict[str, Any]:
        return {"scale_rewards": "none"}

    def rewards(self, rollout: Rollout) -> Tensor:
        mask = rollout.batch["completion_mask"]
        likelihood = rollout.groups(
            (rollout.batch["old_per_token_logps"] * mask).sum(1) / mask.sum(1).clamp(min=1)
        )
        above = likelihood[:, :, None] - likelihood[:, None, :]
        alike = above.abs() <= 1e-4  # the same completion, but for rounding
        rank = ((above > 1e-4).sum(2) + (alike.sum(2) - 1) / 2).flatten()
        return rollout.rewards * (1 - self.penalty * rank / rollout.group_size)
