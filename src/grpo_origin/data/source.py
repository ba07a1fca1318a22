"""What the data of an axis and seed are made from; every writer of data takes it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World, generator


@dataclass(frozen=True)
class Source:
    """A world's settings, an axis with its tasks, and the seed of every draw."""

    world_settings: WorldSettings
    axis: AxisSettings
    seed: int

    @classmethod
    def of(cls, world: Mapping[str, Any], axis: Mapping[str, Any], seed: int | str) -> Source:
        """The source of plain settings, as a job of the workflow gets them."""
        return cls(WorldSettings(**world), AxisSettings(**axis), int(seed))

    @property
    def world(self) -> World:
        """The world of this seed."""
        return World(self.world_settings.nodes, self.seed)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the world."""
        return Vocabulary(self.world_settings.nodes)

    def tasks(self, split: str) -> list[Task]:
        """Tasks of a split."""
        return [Task(spec, self.world) for spec in self.axis.tasks(split)]

    def generator(self, *purpose: str) -> np.random.Generator:
        """A generator for one purpose within this seed."""
        return generator(self.seed, *purpose)
