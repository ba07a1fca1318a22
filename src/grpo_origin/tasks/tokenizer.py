"""Tokens: how strings and operations are written as ids, and the tokenizer saved with every model.

Data, rewards and evaluation use `Vocabulary` on whole arrays; text is for people and for other
programs, which open the saved tokenizer with `AutoTokenizer`. The vocabulary always holds both
alphabets, so that a model can be asked about tokens it never saw.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.config.notation import OPERATIONS
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<think>", "<answer>", "<solve>")
PAD, UNK, BOS, EOS, THINK, ANSWER, SOLVE = range(len(SPECIAL))
IDS = np.int32  # the smallest type that torch's embedding takes


class Vocabulary:
    """Token ids of a world: special tokens, operations, then the elements of alphabets A and B."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.first_operation = len(SPECIAL)
        self.first_element = self.first_operation + len(OPERATIONS)

    @cached_property
    def elements(self) -> list[str]:
        """Names of the elements: letters where they suffice, else numbered: A0, A1, .., a0, .."""
        names: list[str] = []
        for letters in (string.ascii_uppercase, string.ascii_lowercase):
            if self.nodes <= len(letters):
                names += letters[: self.nodes]
            else:
                names += [f"{letters[0]}{node}" for node in range(self.nodes)]
        return names

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens, in order of their ids."""
        return [*SPECIAL, *(f"<{name}>" for name in OPERATIONS), *self.elements]

    def __len__(self) -> int:
        return len(self.tokens)

    def prompts(self, task: Task, starts: np.ndarray) -> np.ndarray:
        """Prompts `<bos> x1 .. xL <op1> .. <opk> <solve>`, int32 (samples, 2 + L + k).

        The last token ends the prompt, so that no prompt is the beginning of another: a model
        that goes on after `trav` with a second `trav` would be right to, and its mass capped.
        """
        ids = np.empty((len(starts), task.spec.prompt_tokens), dtype=IDS)
        ids[:, 0] = BOS
        ids[:, 1 : 1 + task.spec.length] = starts + self.first_element
        ids[:, 1 + task.spec.length : -1] = [
            self.first_operation + OPERATIONS.index(name) for name in task.spec.operations
        ]
        ids[:, -1] = SOLVE
        return ids

    def completions(self, task: Task, starts: np.ndarray) -> np.ndarray:
        """Completions `<think> state .. <answer> state <eos>`, int32 (samples, k (1 + L) + 1)."""
        trace = task.trace(starts)
        samples, steps, length = trace.shape
        blocks = np.empty((samples, steps, 1 + length), dtype=IDS)
        blocks[:, :, 0] = THINK
        blocks[:, -1, 0] = ANSWER
        blocks[:, :, 1:] = trace + self.first_element
        end = np.full((samples, 1), EOS, IDS)
        return np.concatenate([blocks.reshape(samples, steps * (1 + length)), end], axis=1)

    def starts(self, task: Task, prompts: np.ndarray) -> np.ndarray:
        """Start strings read back from prompts of a task, shape (samples, L)."""
        return prompts[:, 1 : 1 + task.spec.length] - self.first_element

    def check(
        self, task: Task, prompts: np.ndarray, completions: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Whether each completion, its `<eos>` included, is the correct one, shape (samples,)."""
        gold = self.completions(task, self.starts(task, prompts)).tolist()
        pairs = zip(completions, gold, strict=True)
        return np.array([list(completion) == right for completion, right in pairs], dtype=bool)

    def check_answer(
        self, task: Task, prompts: np.ndarray, completions: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Whether each completion ends in `<answer>`, the right state and `<eos>` (samples,).

        What comes before the first `<answer>` is free.
        """
        answers = self._states(task, prompts)[:, -1].tolist()
        pairs = zip(completions, answers, strict=True)
        return np.array(
            [
                ANSWER in written and list(written[written.index(ANSWER) + 1 :]) == [*right, EOS]
                for written, right in pairs
            ],
            dtype=bool,
        )

    def share_of_states(
        self, task: Task, prompts: np.ndarray, completions: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Share of each completion's states that are right, whatever its markers (samples,).

        A state is what stands between two markers; each counts in its place. The share is of the
        states asked for, or of those written if these are more, so more writing earns nothing.
        """
        shares = []
        for written, states in zip(completions, self._states(task, prompts).tolist(), strict=True):
            given: list[list[int]] = [[]]
            for token in written:
                if token in (THINK, ANSWER, EOS):
                    given.append([])
                else:
                    given[-1].append(token)
            given = [state for state in given if state]
            right = sum(a == b for a, b in zip(given, states, strict=False))
            shares.append(right / max(len(states), len(given)))
        return np.array(shares)

    def _states(self, task: Task, prompts: np.ndarray) -> np.ndarray:
        """Token ids of the right states of prompts, shape (samples, steps, L)."""
        return task.trace(self.starts(task, prompts)) + self.first_element


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer as a Hugging Face object, for saving beside a model; it pads on the left.

    Text may be written with or without spaces: `ABCD<trav>` and `A B C D <trav>` give the same ids.
    A piece between known tokens that is none itself becomes one `<unk>`, and that piece alone.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = Vocabulary(world.nodes)
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    elements = "|".join(vocabulary.elements)
    # No digit may follow an element: A10 is not A1 and 0, and A300 of 300 nodes is no token.
    known = Regex(rf"<[^<>]*>|(?:{elements})(?!\d)")
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(known, "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
