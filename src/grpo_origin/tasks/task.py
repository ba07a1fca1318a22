"""A task: operations on strings of one length, and what each of them gives.

This is the one definition of a right answer: data, rewards and evaluation read it through
`tasks.tokenizer.Vocabulary`. Strings are whole arrays of elements, shape (samples, length).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grpo_origin.config.notation import ALPHABETS, TaskSpec
from grpo_origin.tasks.world import World


def trav(world: World, strings: np.ndarray) -> np.ndarray:
    """Replace every element by its successor."""
    return world.successor[strings]


def shift(world: World, strings: np.ndarray) -> np.ndarray:
    """Rotate the string left by one."""
    return np.roll(strings, -1, axis=1)


OPERATIONS: dict[str, Callable[[World, np.ndarray], np.ndarray]] = {"trav": trav, "shift": shift}


@dataclass(frozen=True)
class Task:
    """A task in a world: operations applied left to right to strings of one length."""

    spec: TaskSpec
    world: World

    def __str__(self) -> str:
        return str(self.spec)

    def in_alphabet(self, base: np.ndarray) -> np.ndarray:
        """Start strings of this task from node indices, int16."""
        return (base + ALPHABETS.index(self.spec.alphabet) * self.world.nodes).astype(np.int16)

    def trace(self, starts: np.ndarray) -> np.ndarray:
        """States after each operation, shape (samples, steps, length); the last is the answer."""
        states = []
        for name in self.spec.operations:
            starts = OPERATIONS[name](self.world, starts)
            states.append(starts)
        return np.stack(states, axis=1)
