"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo_origin.config.notation import ood_count
from grpo_origin.data.source import COLUMNS, Sequences, Source, _table
from grpo_origin.data.strings import (
    draw_train,
    shares,
)
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic, open_parquet
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import generator

ROW_GROUP = 2**17


def training_chunk(source: Source, split: str, rng: np.random.Generator, count: int) -> pa.Table:
    """`count` training samples of a split, in random order, its tasks in equal shares, train strings only."""
    tasks = source.tasks(split)
    parts = [
        (task, task.in_alphabet(draw_train(rng, share, task.spec.length, source.world_settings)))
        for task, share in zip(tasks, shares(count, len(tasks)), strict=True)
    ]
    return _table(Vocabulary(source.world_settings.nodes), split, parts, rng.permutation(count))


def write_pool(source: Source, split: str, samples: int, path: str | Path) -> None:
    """Write a pretraining pool of a split, one row group at a time; any prefix is a fair sample of its tasks."""
    with atomic(path) as temporary:
        rng = source.generator("pretrain", split)
        schema = training_chunk(source, split, source.generator("schema"), 1).schema
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for start in range(0, samples, ROW_GROUP):
                writer.write_table(
                    training_chunk(source, split, rng, min(ROW_GROUP, samples - start)).cast(schema)
                )


class Pool:
    """A pretraining pool on disk, read forward one row group at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.file = path, open_parquet(path, COLUMNS)
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(groups)])
        self._group, self._rows = -1, None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield (tokens (block, T), prompt length) for rows start..stop-1; raises ArtefactError on a damaged file."""
        while start < stop:
            group = int(np.searchsorted(self.starts, start, side="right")) - 1
            if group != self._group:
                try:
                    table = self.file.read_row_group(
                        group, columns=["prompt_ids", "completion_ids"]
                    )
                except (pa.ArrowException, OSError) as error:
                    raise ArtefactError(self.path, f"damaged parquet file ({error})") from None
                self._group, self._rows = group, Sequences(table)
            end = min(stop, int(self.starts[group + 1]))
            for _, tokens, prompt in self._rows.blocks(np.arange(start, end) - self.starts[group]):
                yield tokens, prompt
            start = end


class Mixture:
    """The N pretraining samples of a ratio: a prefix of each pool, shuffled, exactly round(ratio * N) of them OOD."""

    def __init__(self, id_pool: Pool, ood_pool: Pool, samples: int, ratio: str, seed: int) -> None:
        ood = ood_count(ratio, samples)
        for pool, need in ((id_pool, samples - ood), (ood_pool, ood)):
            if len(pool) < need:
                raise ArtefactError(pool.path, f"holds {len(pool)} samples where {need} are needed")
        self.pools = (id_pool, ood_pool)
        is_ood = np.zeros(samples, dtype=bool)
        is_ood[:ood] = True
        generator(seed, "mixture").shuffle(is_ood)
        self.before = np.concatenate(
            [[0], np.cumsum(is_ood, dtype=np.int64)]
        )  # OOD samples before each position

    def blocks(self, start: int, stop: int) -> list[tuple[np.ndarray, int]]:
        """Samples start..stop-1 as (tokens (block, T), prompt length), one block a shape; order within them is free."""
        ood = (int(self.before[start]), int(self.before[stop]))
        merged: dict[tuple[int, int], list[np.ndarray]] = {}
        for pool, (low, high) in zip(
            self.pools, ((start - ood[0], stop - ood[1]), ood), strict=True
        ):
            for tokens, prompt in pool.blocks(low, high):
                merged.setdefault((tokens.shape[1], prompt), []).append(tokens)
        return [(np.concatenate(parts), prompt) for (_, prompt), parts in sorted(merged.items())]
