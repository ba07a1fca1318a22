from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Count, Number, Rate
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from grpo_origin.rl.trainer import MethodHooks


class DAPO(Method):
    """Decoupled clip and dynamic sampling (Yu et al., arXiv 2503.14476, eq. 8).

    Clip range [1 - low, 1 + high]; token losses averaged over the batch's tokens; no KL; prompts
    whose group is all right or all wrong are replaced by others, drawn from the whole prompt set,
    for at most `draws` rounds of sampling (assumption; the paper goes on until the batch is full).
    No completion here is too long, so the paper's length penalty has nothing to do.
    """

    iterations: Count = Field(
        2, description="Optimiser steps on each batch of rollouts (assumption)."
    )
    beta: Number = Field(0.0, ge=0, description="Weight of the KL term.")
    low: Rate = Field(0.2, description="Clip range below 1.")
    high: Rate = Field(0.28, description="Clip range above 1.")
    draws: Count = Field(3, description="Rounds of sampling at a step, at most.")

    objective = "other"

    def arguments(self) -> dict[str, Any]:
        return {"loss_type": "dapo", "epsilon": self.low, "epsilon_high": self.high}

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        import numpy as np

        rollout = trainer.sample(inputs)
        prompts, size = trainer.train_dataset, trainer.num_generations
        draws = np.random.default_rng([trainer.args.seed, trainer.state.global_step])
        for _ in range(self.draws - 1):
            empty = (~rollout.mixed).nonzero().flatten().tolist()
            if not empty:
                break
            chosen = draws.integers(len(prompts), size=len(inputs) // size).tolist()
            more = trainer.sample([row for i in chosen for row in [prompts[i]] * size])
            spare = more.mixed.nonzero().flatten().tolist()
            rollout = rollout.replaced(dict(zip(empty, spare, strict=False)), more)
        return rollout
