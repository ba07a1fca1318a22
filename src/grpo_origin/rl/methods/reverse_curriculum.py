from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout, given

if TYPE_CHECKING:
    from grpo_origin.rl.trainer import MethodHooks


class ReverseCurriculum(Method):
    """Positive control: rollouts start from within the gold completion, ever earlier (R3, arXiv
    2402.05808; after its abstract).

    At first all of it but `<eos>` is given; what is given shrinks linearly with the steps, to
    nothing after a share `until` of the training, and from then on prompts are plain. Starts lie
    between any two tokens, since a whole state is more than a model without OOD mass can find
    (assumption; the paper's lie between steps). The evaluation sees plain prompts.
    """

    until: Number = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the training after which prompts are plain (assumption).",
    )

    objective = "other"
    informed = True

    def tokens(self, prompt: int, completion: int) -> int:
        return prompt + 2 * completion  # of what is given and what is sampled after it, at most

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        steps = max(1, round(self.until * trainer.args.max_steps))
        left = max(0, steps - trainer.state.global_step)
        # Rounded up, in whole numbers: all but the last token at step 0, none from `until` on.
        return trainer.sample(
            [given(row, -(-(len(row["gold"]) - 1) * left // steps)) for row in inputs]
        )
