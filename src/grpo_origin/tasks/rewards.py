"""Rewards of completions from their tasks: what `rl.reward` names.

RL trains on them, and evaluation samples those that exact masses do not give. Every rule of what is
right is that of `tasks.tokenizer.Vocabulary`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_origin.config.notation import TaskSpec
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World

# Values of `rl.reward` and what gives them.
REWARDS = {
    "exact": Vocabulary.check,
    "answer": Vocabulary.check_answer,
    "steps": Vocabulary.share_of_states,
}


class TaskReward:
    """A reward of completions from their tasks: one of REWARDS, from 0 to 1."""

    def __init__(self, world: World, kind: str = "exact") -> None:
        self.world, self.vocabulary = world, Vocabulary(world.nodes)
        self.score, self.__name__ = REWARDS[kind], kind

    def __call__(
        self,
        question: list[list[int]],
        completion_ids: list[list[int]],
        task: list[str],
        given: list[list[int]] | None = None,
        **_: Any,
    ) -> list[float]:
        """Score completions (token lists) of questions (the task's prompts, token lists) of the
        named tasks.

        What was `given` of a completion (token lists) is judged with it, as its beginning.
        """
        if given is not None:
            pairs = zip(given, completion_ids, strict=True)
            completion_ids = [[*start, *rest] for start, rest in pairs]
        rewards = np.zeros(len(question))
        for name in set(task):
            rows = [i for i, other in enumerate(task) if other == name]
            checked = Task(TaskSpec.model_validate(name), self.world)
            asked = np.array([question[i] for i in rows])
            rewards[rows] = self.score(
                self.vocabulary, checked, asked, [completion_ids[i] for i in rows]
            )
        return rewards.tolist()
