from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout, given

if TYPE_CHECKING:
    from grpo_origin.rl.trainer import MethodHooks


class Hints(Method):
    """Positive control: some prompts carry the first step of the gold trace (after QuestA, arXiv
    2507.13266, which gives half of the solution, later a quarter).

    A hint is the first block `<think> state`, so tasks of one step get none: their only step is the
    answer. Which prompts get one is drawn anew at each step. The evaluation sees plain prompts.
    """

    share: Number = Field(0.5, ge=0, le=1, description="Share of the prompts that get a hint.")

    objective = "other"
    informed = True

    def tokens(self, prompt: int, completion: int) -> int:
        return prompt + 2 * completion  # of a hint and of what is sampled after it, at most

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        import numpy as np

        size = trainer.num_generations
        draws = np.random.default_rng([trainer.args.seed, trainer.state.global_step])
        hinted = (draws.random(len(inputs) // size) < self.share).repeat(size)
        lengths = [self.hint(row) if hint else 0 for row, hint in zip(inputs, hinted, strict=True)]
        rows = [given(row, length) for row, length in zip(inputs, lengths, strict=True)]
        return trainer.sample(rows)

    @staticmethod
    def hint(row: dict[str, Any]) -> int:
        """Tokens of a row's first step, 0 if it is the answer."""
        starts = row["step_starts"]
        return starts[1] if len(starts) > 1 else 0
