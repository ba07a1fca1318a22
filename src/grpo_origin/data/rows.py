"""Rows of token ids: rendered into tables for pools and prompt sets, read back as arrays.

Training, evaluation and RL read every data file through `Sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary

IDS = ("prompt_ids", "completion_ids")
COLUMNS = (*IDS, "task", "split")  # of every data file; prompt sets have `prompt_index` as well

Strings = Sequence[tuple[Task, np.ndarray]]  # tasks, each with start strings (samples, length)


def rendered(vocabulary: Vocabulary, split: str, strings: Strings, order: np.ndarray) -> pa.Table:
    """Rows of several tasks in the given order, with `COLUMNS`; ids are lists of int32."""
    sizes = [len(starts) for _, starts in strings]
    codes = np.repeat(np.arange(len(strings), dtype=np.int8), sizes)[order]
    names = pa.array([str(task) for task, _ in strings])
    same = pa.array(np.zeros(len(order), np.int8))
    return pa.table(
        {
            "prompt_ids": _id_lists(vocabulary.prompts, strings, order),
            "completion_ids": _id_lists(vocabulary.completions, strings, order),
            "task": pa.DictionaryArray.from_arrays(pa.array(codes), names),
            "split": pa.DictionaryArray.from_arrays(same, pa.array([split])),
        }
    )


def _id_lists(
    render: Callable[[Task, np.ndarray], np.ndarray], strings: Strings, order: np.ndarray
) -> pa.ListArray:
    """What `render` gives for each task's strings, as one list a row: tasks differ in width."""
    blocks = [render(task, starts) for task, starts in strings]
    widths = np.repeat([block.shape[1] for block in blocks], [len(block) for block in blocks])
    width = max(block.shape[1] for block in blocks)
    padded = [np.pad(block, ((0, 0), (0, width - block.shape[1]))) for block in blocks]
    rows, lengths = np.concatenate(padded)[order], widths[order]
    ragged = bool((lengths < width).any())
    flat = rows[np.arange(width) < lengths[:, None]] if ragged else rows.ravel()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


class Sequences:
    """Rows of a table as token arrays, in blocks of one shape so that nothing is padded."""

    def __init__(self, table: pa.Table) -> None:
        self.prompts, self.completions = (self._flat(table[name]) for name in IDS)
        self.size: int = table.num_rows

    @staticmethod
    def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """All ids of a column end to end, and where each row's begin, shape (rows + 1,)."""
        lists = column.combine_chunks()
        ends = np.cumsum(pc.list_value_length(lists).to_numpy())
        return lists.flatten().to_numpy(), np.concatenate([[0], ends])

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield (positions within `rows`, tokens (block, T) int64, prompt length), one a shape."""
        columns = (self.prompts, self.completions)
        begins = [offsets[rows] for _, offsets in columns]
        lengths = [offsets[rows + 1] - offsets[rows] for _, offsets in columns]
        shapes = lengths[0] * 2**16 + lengths[1]
        for shape in np.unique(shapes):
            where = np.flatnonzero(shapes == shape)
            parts = [
                flat[begin[where][:, None] + np.arange(length[where[0]])]
                for (flat, _), begin, length in zip(columns, begins, lengths, strict=True)
            ]
            tokens = np.concatenate(parts, axis=1).astype(np.int64)
            yield where, tokens, int(lengths[0][where[0]])
