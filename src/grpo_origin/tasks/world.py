"""The world of a seed, a cycle of nodes named in two alphabets, and the generators of a seed.

Strings are arrays of *elements*, shape (samples, length): element `a * nodes + i` is node i written
in alphabet a (A = 0, B = 1). Tasks, data and training start from a `World`; it knows no token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from grpo_origin.config.notation import ALPHABETS
from grpo_origin.config.stages import WorldSettings


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """A random generator that depends on the seed and on what it is for, on nothing else."""
    words = [word for text in purpose for word in (len(text), *text.encode())]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


@dataclass(frozen=True)
class World:
    """A graph in which every node has one successor and all nodes form one cycle, in random order.

    Both alphabets name the same graph, so alphabet B is an isomorphic copy of A.
    """

    nodes: int
    seed: int

    @classmethod
    def of(cls, world: Mapping[str, Any], seed: int | str) -> World:
        """The world of plain settings, as a job of the workflow gets them."""
        return cls(WorldSettings(**world).nodes, int(seed))

    @cached_property
    def successor(self) -> np.ndarray:
        """Successor of every element, within its own alphabet, shape (2 * nodes,)."""
        order = generator(self.seed, "world").permutation(self.nodes)
        successor = np.empty(self.nodes, dtype=np.int16)
        successor[order] = np.roll(order, -1)
        return np.concatenate(
            [successor + alphabet * self.nodes for alphabet in range(len(ALPHABETS))]
        ).astype(np.int16)

    def base(self, strings: np.ndarray) -> np.ndarray:
        """Strings as node indices, the alphabet ignored."""
        return strings % self.nodes

    def twin(self, strings: np.ndarray) -> np.ndarray:
        """The same nodes written in the other alphabet."""
        return (strings + self.nodes) % (len(ALPHABETS) * self.nodes)
