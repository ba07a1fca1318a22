"""What the data of an axis and seed are made from; every writer of data takes it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import AnyTask
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic
from grpo_origin.tasks.domain import Domain, find
from grpo_origin.tasks.world import generator


@dataclass(frozen=True)
class Source:
    """A world's settings, an axis with its tasks, and the seed of every draw.

    `tokenizer` is the file of the tokenizer where the domain trains one.
    """

    world_settings: WorldSettings
    axis: AxisSettings
    seed: int
    tokenizer: str | Path | None = None

    @classmethod
    def of(
        cls,
        world: Mapping[str, Any],
        axis: Mapping[str, Any],
        seed: int | str,
        tokenizer: str | Path | None = None,
    ) -> Source:
        """The source of plain settings, as a job of the workflow gets them."""
        return cls(WorldSettings(**world), AxisSettings(**axis), int(seed), tokenizer or None)

    @classmethod
    def of_job(cls, snakemake: Any) -> Source:
        """The source of a job of the workflow: its params, seed and, if there is one, tokenizer."""
        params, tokenizer = snakemake.params, snakemake.input.get("tokenizer")
        seed = snakemake.wildcards.seed
        return cls.of(params.world, params.axis, seed, str(tokenizer) if tokenizer else None)

    @cached_property
    def domain(self) -> Domain:
        """The tasks of the axis, what is right in them, and their tokens.

        Raises ArtefactError if the tokenizer can't be read.
        """
        kind = find(self.axis.domain)
        domain = kind(self.world_settings, self.axis, self.seed, self.tokenizer)
        if self.tokenizer:
            try:
                len(domain.tokens)
            except ConfigError:  # of a base model, which no run made
                raise
            except ValueError as error:
                raise ArtefactError(self.tokenizer, str(error)) from None
        return domain

    def tasks(self, split: str) -> tuple[AnyTask, ...]:
        """Tasks of a split."""
        return self.axis.tasks(split)

    def generator(self, *purpose: str) -> np.random.Generator:
        """A generator for one purpose within this seed."""
        return generator(self.seed, *purpose)


def write_tokenizer(source: Source, file: str | Path, base: Path | None = None) -> None:
    """Write the tokenizer of an axis and seed, whose domain trains one on its train problems.

    Of a `base` model's folder that one instead, since a model reads no other.
    """
    with atomic(file) as temporary:
        replace(source, tokenizer=base).domain.make_tokenizer(temporary)
