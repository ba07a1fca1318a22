"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.config.schema import AxisSettings
from grpo_origin.config.stages import WorldSettings
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World, generator

COLUMNS = ("prompt_ids", "completion_ids", "task", "split")


@dataclass(frozen=True)
class Source:
    """What the data of one axis and seed are made from."""

    world_settings: WorldSettings
    axis: AxisSettings
    seed: int

    @property
    def world(self) -> World:
        """The world of this seed."""
        return World(self.world_settings.nodes, self.seed)

    def tasks(self, split: str) -> list[Task]:
        """Tasks of a split."""
        return [Task(spec, self.world) for spec in self.axis.tasks(split)]

    def generator(self, *purpose: str) -> np.random.Generator:
        """A generator for one purpose within this seed."""
        return generator(self.seed, *purpose)


def _table(
    vocabulary: Vocabulary, split: str, parts: Sequence[tuple[Task, np.ndarray]], order: np.ndarray
) -> pa.Table:
    """Rows of several tasks (each with its start strings) in the given order."""
    columns: dict[str, Any] = {}
    for name, render in (
        ("prompt_ids", vocabulary.prompts),
        ("completion_ids", vocabulary.completions),
    ):
        blocks = [render(task, starts) for task, starts in parts]
        width = max(block.shape[1] for block in blocks)
        rows = np.concatenate(
            [np.pad(block, ((0, 0), (0, width - block.shape[1]))) for block in blocks]
        )[order]
        lengths = np.concatenate([np.full(len(block), block.shape[1]) for block in blocks])[order]
        flat = (
            rows[np.arange(width) < lengths[:, None]] if (lengths < width).any() else rows.ravel()
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    codes = np.repeat(np.arange(len(parts), dtype=np.int8), [len(starts) for _, starts in parts])[
        order
    ]
    columns["task"] = pa.DictionaryArray.from_arrays(
        pa.array(codes), pa.array([str(task) for task, _ in parts])
    )
    columns["split"] = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(order), np.int8)), pa.array([split])
    )
    return pa.table(columns)


class Sequences:
    """Rows of a table as token arrays, handed out in blocks of one shape so that nothing is padded."""

    def __init__(self, table: pa.Table) -> None:
        self.prompts, self.completions = (
            self._flat(table[name]) for name in ("prompt_ids", "completion_ids")
        )
        self.size = table.num_rows

    @staticmethod
    def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        array = column.combine_chunks()
        return array.flatten().to_numpy(), np.concatenate(
            [[0], np.cumsum(pc.list_value_length(array).to_numpy())]
        )

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield (positions within `rows`, tokens (block, T) int64, prompt length) for each shape among the rows."""
        starts, lengths = [], []
        for _, offsets in (self.prompts, self.completions):
            starts.append(offsets[rows])
            lengths.append(offsets[rows + 1] - offsets[rows])
        shapes = lengths[0] * 2**16 + lengths[1]
        for shape in np.unique(shapes):
            where = np.flatnonzero(shapes == shape)
            parts = [
                flat[start[where][:, None] + np.arange(length[where[0]])]
                for (flat, _), start, length in zip(
                    (self.prompts, self.completions), starts, lengths, strict=True
                )
            ]
            yield where, np.concatenate(parts, axis=1).astype(np.int64), int(lengths[0][where[0]])
