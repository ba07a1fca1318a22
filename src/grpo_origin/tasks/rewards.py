"""Rewards of completions from their tasks: what `rl.reward` names.

RL trains on them, and evaluation samples those that exact masses do not give. Every rule of what is
right is the domain's (`tasks.domain`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_origin.tasks.domain import Domain


class TaskReward:
    """A reward of completions from their tasks: one that the domain has, from 0 to 1."""

    def __init__(self, domain: Domain, kind: str = "exact") -> None:
        self.domain, self.kind, self.__name__ = domain, kind, kind

    def __call__(
        self,
        question: list[list[int]],
        completion_ids: list[list[int]],
        task: list[str],
        given: list[list[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Score completions (token lists) of questions (the task's prompts, token lists) of the
        named tasks.

        What was `given` of a completion (token lists) is judged with it, as its beginning.
        `columns` hold those of the domain, a value a completion; others are ignored.
        """
        if given is not None:
            pairs = zip(given, completion_ids, strict=True)
            completion_ids = [[*start, *rest] for start, rest in pairs]
        rewards = np.zeros(len(question))
        for name in set(task):
            rows = [i for i, other in enumerate(task) if other == name]
            asked, written = [question[i] for i in rows], [completion_ids[i] for i in rows]
            beside = {key: [columns[key][i] for i in rows] for key in self.domain.columns}
            rewards[rows] = self.domain.score(self.kind, name, asked, written, beside)
        return rewards.tolist()
