"""Pretraining pools: as many samples as wanted, written and read one row group at a time.

A pool holds the tasks of one split; `data.mixture` joins the two pools of a seed. 67M samples need
no more memory than one row group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo_origin.config.notation import shares
from grpo_origin.data.rows import COLUMNS, IDS, Sequences, rendered
from grpo_origin.data.source import Source
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic, open_parquet

ROW_GROUP = 2**17  # samples


def training_chunk(source: Source, split: str, rng: np.random.Generator, count: int) -> pa.Table:
    """`count` samples of a split in random order, tasks in equal shares, train problems only."""
    tasks = source.tasks(split)
    problems = [
        (task, source.domain.draw(task, rng, share))
        for task, share in zip(tasks, shares(count, len(tasks)), strict=True)
    ]
    return rendered(source.domain, split, problems, rng.permutation(count))


def write_pool(source: Source, split: str, samples: int, path: str | Path) -> None:
    """Write a pretraining pool of a split; any prefix is a fair sample of its tasks."""
    rng = source.generator("pretrain", split)
    schema = training_chunk(source, split, source.generator("schema"), 1).schema
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as file:
        for start in range(0, samples, ROW_GROUP):
            chunk = training_chunk(source, split, rng, min(ROW_GROUP, samples - start))
            file.write_table(chunk.cast(schema))


class Pool:
    """A pretraining pool on disk; one row group is in memory, so reading forward is cheap."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.file = path, open_parquet(path, COLUMNS)
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(groups)])  # first row of each row group
        self._loaded: tuple[int, Sequences] | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield (tokens (block, T), prompt length) for rows start..stop-1.

        Raises ArtefactError on a damaged file.
        """
        while start < stop:
            group = int(np.searchsorted(self.starts, start, side="right")) - 1
            end = min(stop, int(self.starts[group + 1]))
            rows = np.arange(start, end) - self.starts[group]
            for _, tokens, prompt in self._row_group(group).blocks(rows):
                yield tokens, prompt
            start = end

    def _row_group(self, group: int) -> Sequences:
        if self._loaded is None or self._loaded[0] != group:
            try:
                table = self.file.read_row_group(group, columns=list(IDS))
            except (pa.ArrowException, OSError) as error:
                raise ArtefactError(self.path, f"damaged parquet file ({error})") from None
            self._loaded = group, Sequences(table)
        return self._loaded[1]
