"""Chances: strings whose completion ends in the probability of an event that chance decides.

Every node has a biased coin, its probability of heads one of 0, 0.1 .. 1, spread evenly over the
nodes at random. A task is one of `strings`; its event is that the coin of the node where the
string's first element ends comes up heads. So the answer is a function of the last state, and a
task of more steps composes more before it (assumption: the simplest one with a spread over all
eleven values). A completion is `<think> state` a step, then `<answer> <0.7> <eos>`.

Problems are rows of a string and an answer, in tenths: of test problems the true probability, of
others what `axis.observed` outcomes show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_origin.config.notation import OPERATIONS, AnyTask
from grpo_origin.tasks.domain import Padded, Problems, Rendered, Tokens
from grpo_origin.tasks.domains.strings import Strings
from grpo_origin.tasks.split import uniform
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import ANSWER, BOS, EOS, PAD, THINK
from grpo_origin.tasks.world import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TENTHS = 10  # answers are 0, 1 .. 10 tenths
NAMES = tuple(f"<{tenth / TENTHS:.1f}>" for tenth in range(TENTHS + 1))
# The most that an answer is taken to say by the log score, which 0 and 1 would make infinite.
SUREST = 0.99


def brier(said: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Brier score (1950) as a reward: 1 - (said - happened)^2, from 0 to 1."""
    return 1 - (said - happened) ** 2


def log_score(said: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """ln of the probability given to what happened, from 0 (0.01, the least) to 1 (certainty)."""
    given = np.where(happened == 1, said, 1 - said).clip(1 - SUREST, SUREST)
    return 1 - np.log(given) / np.log(1 - SUREST)


SCORES = {"brier": brier, "log": log_score}


class Chances(Strings):
    """Operations on strings, then the probability of an event; rewards score what happened."""

    stochastic = True
    columns = ("outcome",)  # the answer that would have been right for sure, as a token id
    rewards = tuple(SCORES)

    @cached_property
    def coins(self) -> np.ndarray:
        """Tenths of the probability of heads of each node, shape (nodes,)."""
        even = np.round(np.linspace(0, TENTHS, self.world.nodes)).astype(np.int16)
        return generator(self.seed, "coins").permutation(even)

    def truth(self, task: Task, strings: np.ndarray) -> np.ndarray:
        """Tenths of the true probability of strings (samples, length), shape (samples,)."""
        return self.coins[self.world.base(task.trace(strings)[:, -1, 0])]

    def happened(self, task: Task, strings: np.ndarray) -> np.ndarray:
        """Whether the event of each string came about (samples,), by hash of seed, task, string.

        One draw a prompt: all completions of it are scored by the same outcome.
        """
        asked = [self.seed, *map(OPERATIONS.index, task.spec.operations)]
        rows = np.concatenate([np.tile(asked, (len(strings), 1)), self.world.base(strings)], axis=1)
        return uniform(rows) < self.truth(task, strings) / TENTHS

    def lengths(self, task: AnyTask) -> tuple[int, int]:
        prompt, completion = super().lengths(task)
        return prompt, completion + 2

    def draw(self, task: AnyTask, rng: np.random.Generator, count: int) -> Problems:
        return self._answered(task, super().draw(task, rng, count), rng)

    def distinct(
        self,
        task: AnyTask,
        rng: np.random.Generator,
        count: int,
        test: bool,
        avoid: Problems | None = None,
    ) -> Problems:
        avoid = None if avoid is None else avoid[:, :-1]
        strings = super().distinct(task, rng, count, test, avoid)
        return self._answered(task, strings, None if test else rng)

    def _answered(
        self, task: AnyTask, strings: np.ndarray, rng: np.random.Generator | None
    ) -> Problems:
        """Strings with answers: as observed in outcomes that `rng` draws, the truth if None."""
        tenths, outcomes = self.truth(self._task(task), strings), self.axis.observed
        if rng is not None and outcomes:
            tenths = rng.binomial(outcomes, tenths / TENTHS) * (TENTHS // outcomes)
        return np.column_stack([strings, tenths]).astype(np.int16)

    def mixed(self, problems: Problems, positions: int, rng: np.random.Generator) -> Problems:
        strings = super().mixed(problems[:, :-1], positions, rng)
        return np.column_stack([strings, problems[:, -1]])

    def rendered(self, task: AnyTask, problems: Problems) -> Rendered:
        of, strings, first = self._task(task), problems[:, :-1], self.tokens.chances[0]
        states = self.vocabulary.completions(of, strings)  # <think> .. <answer> state <eos>
        states[:, -2 - of.spec.length] = THINK
        states[:, -1] = ANSWER
        end = np.full(len(strings), EOS)
        completions = np.column_stack([states, first + problems[:, -1], end]).astype(states.dtype)
        outcome = first + TENTHS * self.happened(of, strings)
        prompts = Padded.full(self.vocabulary.prompts(of, strings))
        return Rendered(prompts, Padded.full(completions), {"outcome": outcome})

    def score(
        self,
        kind: str,
        task: str,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        """The score of what each completion says after its first `<answer>`, its trace free.

        0, as for the worst answer, where it says no probability or goes on after it.
        """
        first = self.tokens.chances[0]
        happened = (np.array(columns["outcome"]) - first) / TENTHS
        said = np.array([self._said(written) for written in completions])
        return np.where(np.isnan(said), 0.0, SCORES[kind](said, happened))

    def _said(self, written: Sequence[int]) -> float:
        """The probability that a completion ends in; NaN if it does not."""
        end = [*written[[*written].index(ANSWER) + 1 :]] if ANSWER in written else []
        if len(end) == 2 and end[0] in self.tokens.chances and end[1] == EOS:
            return (end[0] - self.tokens.chances[0]) / TENTHS
        return float("nan")

    @cached_property
    def tokens(self) -> Tokens:
        names = (*self.vocabulary.tokens, *NAMES)
        chances = tuple(range(len(self.vocabulary), len(names)))
        return Tokens(names, BOS, EOS, PAD, (THINK, ANSWER), chances)

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = super().build_tokenizer()
        tokenizer.add_tokens([*NAMES])
        return tokenizer
