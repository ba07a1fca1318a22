from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpo_origin.config.stages import RLSettings
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from grpo_origin.rl.trainer import MethodHooks


class IGRPO(Method):
    """Drafts first, then refinements of the best one (iGRPO, arXiv 2602.09000, eqs. 2 to 6).

    Half of the group's completions are drafts; the first of highest reward goes before the prompt
    (`x draft x`, two whole sequences: the template is an assumption), and the other half are
    refinements sampled after it. The update is GRPO's on the refinements alone; the evaluation sees
    plain prompts. No earlier stage has seen the template, which the paper's models could read: what
    it does here is no test of the method.
    """

    objective = "other"

    def settings(self, rl: RLSettings, **changes: Any) -> RLSettings:
        return super().settings(rl, group_size=rl.group_size // 2, **changes)

    def tokens(self, prompt: int, completion: int) -> int:
        return 2 * (prompt + completion)

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        drafts, rewards = trainer.draft(inputs)
        size = trainer.num_generations
        best = rewards.view(-1, size).argmax(1).tolist()
        refined = []
        for number, row in enumerate(inputs):
            group = number // size
            draft = drafts[group * size + best[group]]
            refined.append(row | {"prompt": [*row["prompt"], *draft, *row["prompt"]]})
        return trainer.sample(refined)
