"""Worlds and tasks: the one definition of what is asked and what is right.

Strings are arrays of *elements*: element `a * nodes + i` is node i written in alphabet a (A = 0, B = 1). All functions
work on whole arrays, shape (samples, length). This module knows neither token ids nor files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grpo_origin.config import ALPHABETS, TaskSpec

_MIX = np.uint64(0x9E3779B97F4A7C15)


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """A random generator that depends on the seed and on what it is for, on nothing else."""
    words = [word for text in purpose for word in (len(text), *text.encode())]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


@dataclass(frozen=True)
class World:
    """A directed graph in which every node has one successor and all nodes form a single cycle, in random order.

    Both alphabets name the same graph, so alphabet B is an isomorphic copy of A.
    """

    nodes: int
    seed: int

    @cached_property
    def successor(self) -> np.ndarray:
        """Successor of every element, within its own alphabet, shape (2 * nodes,)."""
        order = generator(self.seed, "world").permutation(self.nodes)
        successor = np.empty(self.nodes, dtype=np.int16)
        successor[order] = np.roll(order, -1)
        return np.concatenate([successor + alphabet * self.nodes for alphabet in range(len(ALPHABETS))]).astype(np.int16)

    def base(self, strings: np.ndarray) -> np.ndarray:
        """Strings as node indices, the alphabet ignored."""
        return strings % self.nodes

    def twin(self, strings: np.ndarray) -> np.ndarray:
        """The same nodes written in the other alphabet."""
        return (strings + self.nodes) % (len(ALPHABETS) * self.nodes)


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


def is_test(base: np.ndarray, test_fraction: float) -> np.ndarray:
    """Whether start strings (node indices, shape (samples, length)) belong to test, shape (samples,).

    A hash of the string alone decides (a splitmix64 step per element; Steele, Lea and Flood, OOPSLA 2014), so the
    answer is the same in every stage, axis, alphabet and run, and on every machine.
    """
    state = np.full(len(base), base.shape[1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in base.T:
            state = (state ^ column.astype(np.uint64)) + _MIX
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53 < test_fraction
