"""Worlds and tasks: the one definition of what is asked and what is right.

Strings are arrays of *elements*: element `a * nodes + i` is node i written in alphabet a (A = 0, B = 1). All functions
work on whole arrays, shape (samples, length). This module knows neither token ids nor files.
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
        """Start strings of this task from node indices."""
        return (base + ALPHABETS.index(self.spec.alphabet) * self.world.nodes).astype(np.int16)

    def trace(self, starts: np.ndarray) -> np.ndarray:
        """States after each operation, shape (samples, steps, length); the last one is the answer."""
        states = []
        for name in self.spec.operations:
            starts = OPERATIONS[name](self.world, starts)
            states.append(starts)
        return np.stack(states, axis=1)
