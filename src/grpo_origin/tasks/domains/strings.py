"""Strings over a cyclic graph: the study's own tasks, `operations;length;alphabet`.

Problems are start strings, elements of shape (samples, length); exactly one completion is right.
Everything is whole arrays, so that pools of 67M samples are written at the speed of numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import SPLITS, AnyTask, TaskSpec
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.tasks.domain import Domain, Padded, Problems, Rendered, Tokens
from grpo_origin.tasks.split import is_test
from grpo_origin.tasks.starts import available_strings, draw_distinct, draw_train, side
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import ANSWER, BOS, EOS, PAD, THINK, Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

REWARDS = {
    "exact": Vocabulary.check,
    "answer": Vocabulary.check_answer,
    "steps": Vocabulary.share_of_states,
}


class Strings(Domain):
    """Operations on strings of one length, in the world of the seed."""

    rewards = tuple(REWARDS)

    def __init__(
        self,
        world: WorldSettings,
        axis: AxisSettings,
        seed: int,
        tokenizer: str | Path | None = None,
    ) -> None:
        super().__init__(world, axis, seed, tokenizer)
        self.world = World(world.nodes, seed)
        self.vocabulary = Vocabulary(world.nodes)

    def check(self) -> None:
        if self.axis.completions != "direct":
            raise ConfigError("completions: strings always write their trace, leave it out")
        for split in SPLITS:
            for task in self.axis.tasks(split):
                if not isinstance(task, TaskSpec):
                    raise ConfigError(
                        f"{split}: '{task}' is not a task of domain strings: write "
                        "'operations;length;alphabet', or name another domain"
                    )

    def lengths(self, task: AnyTask) -> tuple[int, int]:
        spec = self._task(task).spec
        return spec.prompt_tokens, spec.completion_tokens

    def draw(self, task: AnyTask, rng: np.random.Generator, count: int) -> Problems:
        of = self._task(task)
        return of.in_alphabet(draw_train(rng, count, of.spec.length, self.world_settings))

    def distinct(
        self,
        task: AnyTask,
        rng: np.random.Generator,
        count: int,
        test: bool,
        avoid: Problems | None = None,
    ) -> Problems:
        of, settings = self._task(task), self.world_settings
        avoid = None if avoid is None else self.world.base(avoid)
        return of.in_alphabet(draw_distinct(rng, count, of.spec.length, settings, test, avoid))

    def available(self, task: AnyTask, test: bool, wanted: int) -> int:
        return available_strings(self._task(task).spec.length, self.world_settings)[test]

    def too_few(self, task: AnyTask, test: bool, available: int) -> str:
        length = self._task(task).spec.length
        return (
            f"{self.world_settings.nodes} nodes at length {length} hold {available} {side(test)} "
            "strings: ask for fewer, or raise length or nodes"
        )

    def rendered(self, task: AnyTask, problems: Problems) -> Rendered:
        of = self._task(task)
        prompts, completions = self.vocabulary.prompts, self.vocabulary.completions
        return Rendered(Padded.full(prompts(of, problems)), Padded.full(completions(of, problems)))

    def mixed(self, problems: Problems, positions: int, rng: np.random.Generator) -> Problems:
        ranks = rng.random(problems.shape).argsort(axis=1)
        return np.where(ranks < positions, self.world.twin(problems), problems).astype(np.int16)

    def count_test(self, task: str, prompts: Padded) -> int:
        starts = self.vocabulary.starts(self._task(task), prompts.ids)
        return int(is_test(self.world.base(starts), self.world_settings.test_fraction).sum())

    def score(
        self,
        kind: str,
        task: str,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        return REWARDS[kind](self.vocabulary, self._task(task), np.array(prompts), completions)

    @cached_property
    def tokens(self) -> Tokens:
        return Tokens(tuple(self.vocabulary.tokens), BOS, EOS, PAD, (THINK, ANSWER))

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_tokenizer(self.world)

    def _task(self, task: AnyTask | str) -> Task:
        return Task(TaskSpec.model_validate(task), self.world)
