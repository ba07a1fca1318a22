"""Rows of token ids: rendered into tables for pools and prompt sets, read back as arrays.

Training, evaluation and RL read every data file through `Sequences`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.config.notation import AnyTask
from grpo_origin.tasks.domain import Domain, Padded, Problems

IDS = ("prompt_ids", "completion_ids")
COLUMNS = (*IDS, "task", "split")  # of every data file; prompt sets have `prompt_index` as well

TaskProblems = Sequence[tuple[AnyTask, Problems]]  # tasks, each with problems of it


def rendered(
    domain: Domain, split: str, problems: TaskProblems, order: np.ndarray, beside: bool = False
) -> pa.Table:
    """Rows of several tasks in the given order, with `COLUMNS`; ids are lists of int32.

    With those that the verifier needs `beside`, if the domain has any.
    """
    sizes = [len(of_task) for _, of_task in problems]
    codes = np.repeat(np.arange(len(problems), dtype=np.int8), sizes)[order]
    names = pa.array([str(task) for task, _ in problems])
    same = pa.array(np.zeros(len(order), np.int8))
    parts = [domain.rendered(task, of_task) for task, of_task in problems]
    columns = {
        "prompt_ids": _id_lists([part.prompts for part in parts], order),
        "completion_ids": _id_lists([part.completions for part in parts], order),
        "task": pa.DictionaryArray.from_arrays(pa.array(codes), names),
        "split": pa.DictionaryArray.from_arrays(same, pa.array([split])),
    }
    for name in domain.columns if beside else ():
        columns[name] = pa.array(np.concatenate([part.columns[name] for part in parts])[order])
    return pa.table(columns)


def _id_lists(blocks: Sequence[Padded], order: np.ndarray) -> pa.ListArray:
    """The token lists of each task's problems, as one list a row: tasks differ in width."""
    widths = np.concatenate([block.lengths for block in blocks])
    width = max(block.ids.shape[1] for block in blocks)
    padded = [np.pad(block.ids, ((0, 0), (0, width - block.ids.shape[1]))) for block in blocks]
    rows, lengths = np.concatenate(padded)[order], widths[order]
    ragged = bool((lengths < width).any())
    flat = rows[np.arange(width) < lengths[:, None]] if ragged else rows.ravel()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


IGNORED = -100  # a target that doesn't count, to torch's cross-entropy


class Block(NamedTuple):
    """Sequences to train on: `tokens` (block, T) int64, of which those from `first` on are targets.

    Where sequences differ in length, `targets` (block, T - first) are these, IGNORED where a
    sequence has none.
    """

    tokens: np.ndarray
    first: int
    targets: np.ndarray | None = None


def filled(blocks: Sequence[tuple[np.ndarray, int]], pad: int, whole: bool) -> Block:
    """Blocks (tokens, prompt length) of several shapes as one, filled up with `pad` on the right.

    Targets are all tokens but the first of a sequence if `whole`, else those of completions.
    """
    firsts = [1 if whole else prompt for _, prompt in blocks]
    shape = sum(len(tokens) for tokens, _ in blocks), max(t.shape[1] for t, _ in blocks)
    tokens, targets, row = np.full(shape, pad), np.full(shape, IGNORED), 0
    for (part, _), first in zip(blocks, firsts, strict=True):
        rows, width = slice(row, row + len(part)), part.shape[1]
        tokens[rows, :width] = part
        targets[rows, first:width] = part[:, first:]
        row += len(part)
    return Block(tokens, min(firsts), targets[:, min(firsts) :])


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
