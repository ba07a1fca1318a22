from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class GRPOCARE(Method):
    """A bonus for traces that fit the answer (GRPO-CARE, arXiv 2506.16141, algorithm 1).

    r_i = a_i + bonus a_i [p_i >= mean p - slack], a_i = 1 for a right answer (the last step,
    whatever the trace), p_i = the reference's mean probability (geometric, at most `cap`) of the
    answer's tokens after the trace, its mean taken over the samples that qualify: those with a_i >=
    max(group's mean, threshold). The paper's reference follows the policy by 0.5 % every 10 steps;
    in a run as short as this it stays at the SFT model (assumption), and a KL term of small weight
    stays, since TRL only then has the reference's probabilities. It rewards the answer alone,
    while evaluation wants the whole completion right: it is at a disadvantage against methods that
    train on that.
    """

    beta: Number = Field(0.001, gt=0, description="Weight of the KL term (the paper has none).")
    bonus: Number = Field(0.5, ge=0, description="Bonus of a consistent right answer.")
    cap: Number = Field(0.95, gt=0, le=1, description="Largest probability that counts.")
    slack: Number = Field(0.01, ge=0, description="How far below the mean is consistent.")
    threshold: Number = Field(0.1, ge=0, description="Least accuracy that qualifies.")

    objective = "other"
    custom_rewards = True

    def rewards(self, rollout: Rollout) -> Tensor:
        right = rollout.rewards.new_tensor([float(steps[-1]) for steps in rollout.steps])
        log_probs = rollout.batch["ref_per_token_logps"]
        answers = [
            (len(row["gold"]) - 1) // len(steps) + 1
            for row, steps in zip(rollout.inputs, rollout.steps, strict=True)
        ]
        means = [
            log_probs[i, len(c) - answers[i] : len(c)].mean()
            if right[i]
            else log_probs.new_zeros(())
            for i, c in enumerate(rollout.completions)
        ]
        likely = rollout.groups(
            right.new_tensor([float(mean.exp()) for mean in means]).clamp(max=self.cap)
        )
        grouped = rollout.groups(right)
        qualified = grouped >= grouped.mean(1, keepdim=True).clamp(min=self.threshold)
        mean = (likely * qualified).sum(1, keepdim=True) / qualified.sum(1, keepdim=True).clamp(
            min=1
        )
        return (grouped * (1 + self.bonus * (qualified & (likely >= mean - self.slack)))).flatten()
