"""Tokens: how elements, operations and steps are written, and the tokenizer that every checkpoint carries.

The vocabulary always holds both alphabets, so that a model can be asked about tokens it never saw. This module knows
tasks, not files.
"""

from __future__ import annotations

import string
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.config.notation import OPERATIONS
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<think>", "<answer>")


PAD, UNK, BOS, EOS, THINK, ANSWER = range(len(SPECIAL))


class Vocabulary:
    """Token ids of a world: special tokens, operations, then the elements of alphabets A and B."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.first_operation = len(SPECIAL)
        self.first_element = self.first_operation + len(OPERATIONS)

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens, in order of their ids."""
        names = []
        for letter in ("A", "a"):
            letters = string.ascii_uppercase if letter == "A" else string.ascii_lowercase
            short = self.nodes <= len(letters)
            names += (
                list(letters[: self.nodes])
                if short
                else [f"{letter}{i}" for i in range(self.nodes)]
            )
        return [*SPECIAL, *(f"<{name}>" for name in OPERATIONS), *names]

    def __len__(self) -> int:
        return len(self.tokens)

    def prompts(self, task: Task, starts: np.ndarray) -> np.ndarray:
        """Prompts `<bos> x1 .. xL <op1> .. <opk>`, shape (samples, 1 + L + k)."""
        operations = [
            self.first_operation + OPERATIONS.index(name) for name in task.spec.operations
        ]
        out = np.empty((len(starts), task.spec.prompt_tokens), dtype=np.int16)
        out[:, 0] = BOS
        out[:, 1 : 1 + task.spec.length] = starts + self.first_element
        out[:, 1 + task.spec.length :] = operations
        return out

    def completions(self, task: Task, starts: np.ndarray) -> np.ndarray:
        """Completions `<think> state .. <answer> state <eos>`, shape (samples, k (1 + L) + 1)."""
        trace = task.trace(starts)
        samples, steps, length = trace.shape
        blocks = np.empty((samples, steps, 1 + length), dtype=np.int16)
        blocks[:, :, 0] = THINK
        blocks[:, -1, 0] = ANSWER
        blocks[:, :, 1:] = trace + self.first_element
        return np.concatenate(
            [blocks.reshape(samples, steps * (1 + length)), np.full((samples, 1), EOS, np.int16)],
            axis=1,
        )

    def starts(self, task: Task, prompts: np.ndarray) -> np.ndarray:
        """Start strings read back from prompts of a task, shape (samples, L)."""
        return prompts[:, 1 : 1 + task.spec.length] - self.first_element

    def check(self, task: Task, prompts: np.ndarray, completions: list[list[int]]) -> np.ndarray:
        """Whether each completion, up to and including its `<eos>`, is the correct one, shape (samples,)."""
        gold = self.completions(task, self.starts(task, prompts)).tolist()
        return np.array(
            [list(given) == right for given, right in zip(completions, gold, strict=True)],
            dtype=bool,
        )


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer as a Hugging Face object, for saving beside a model; it pads on the left, as generation needs."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = Vocabulary(world.nodes)
    core = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(vocabulary.tokens)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
