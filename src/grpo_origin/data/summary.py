"""A summary that checks the data of an axis and seed: what each file holds, and what files share.

It is the last job of the data; its JSON is for the reader. A training sample that belongs to
test ends it with an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from grpo_origin.config.notation import ood_count
from grpo_origin.data.pools import ROW_GROUP
from grpo_origin.data.rows import COLUMNS, Sequences
from grpo_origin.data.source import Source
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import open_parquet, write_json
from grpo_origin.tasks.domain import Padded

COUNTABLE = 2**22  # rows up to which different prompts are counted: that takes memory per prompt
COMPARED = (
    ("sft", "grpo"),
    ("sft", "pretrain-id"),
    ("grpo", "pretrain-id"),
    ("grpo", "pretrain-ood"),
)


@dataclass
class Content:
    """What a data file holds.

    `unique` are its prompts, their ids as bytes, each with a task that asks it; empty where the
    file is too large to count. `repeated` are those that a second task asks too.
    """

    rows: int
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, task) -> rows
    unique: dict[bytes, str] = field(default_factory=dict)
    repeated: set[bytes] = field(default_factory=set)
    test_problems: int = 0


def write_summary(
    source: Source,
    files: Mapping[str, str | Path],
    ratios: Sequence[str],
    samples: int,
    path: str | Path,
) -> None:
    """Write what the data hold as JSON: counts per split and task, OOD shares, overlaps.

    `files` maps pretrain-id, pretrain-ood, sft, grpo, test to their paths. Raises ArtefactError if
    a training sample belongs to test. (Of strings in either alphabet; as a step of another string's
    trace test strings do occur, about `test_fraction` of the steps.)
    """
    contents = {name: _read(source, file) for name, file in files.items()}
    for name, content in contents.items():
        if content.test_problems and name != "test":
            raise ArtefactError(
                files[name],
                f"a training set of which {content.test_problems} samples belong to test",
            )
    exposure = {ratio: ood_count(ratio, samples) for ratio in ratios}
    overlap = {
        f"{a} in {b}": len(contents[a].unique.keys() & contents[b].unique.keys())
        if contents[b].unique
        else None
        for a, b in COMPARED
    }
    summary = {
        "files": {
            name: {
                "rows": content.rows,
                "tasks": {
                    f"{split}: {task}": n for (split, task), n in sorted(content.tasks.items())
                },
                "unique_prompts": len(content.unique) or None,
            }
            for name, content in contents.items()
        },
        "ood": {
            ratio: {"samples": samples, "ood_samples": ood, "ood_share": ood / max(samples, 1)}
            for ratio, ood in exposure.items()
        },
        "overlap": overlap
        | {
            "training samples that belong to test": 0,
            "prompts of more than one task": _in_two_tasks(contents.values()),
        },
    }
    write_json(path, summary)


def _read(source: Source, path: str | Path) -> Content:
    """Count a file's rows, tasks, prompts and test problems, one row group at a time."""
    file = open_parquet(path, COLUMNS)
    content = Content(file.metadata.num_rows)
    for batch in file.iter_batches(ROW_GROUP, columns=[*COLUMNS]):
        table = pa.table(batch)
        tasks = table["task"].to_numpy(zero_copy_only=False)
        flat, offsets = Sequences(table).prompts
        content.tasks.update(zip(table["split"].to_pylist(), tasks, strict=True))
        content.test_problems += _test_problems(source, tasks, flat, offsets)
        if content.rows <= COUNTABLE:
            for (first, last), task in zip(pairwise(offsets), tasks, strict=True):
                prompt = flat[first:last].tobytes()
                if content.unique.setdefault(prompt, task) != task:
                    content.repeated.add(prompt)
    return content


def _in_two_tasks(contents: Iterable[Content]) -> int:
    """How many prompts two tasks ask, wherever they stand: then one's exposure is the other's."""
    asked: dict[bytes, str] = {}
    repeated: set[bytes] = set()
    for content in contents:
        repeated |= content.repeated
        for prompt, task in content.unique.items():
            if asked.setdefault(prompt, task) != task:
                repeated.add(prompt)
    return len(repeated)


def _test_problems(source: Source, tasks: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> int:
    """How many prompts belong to test; their ids are `flat`, a row's from `offsets` on."""
    lengths, count = np.diff(offsets), 0
    for task in np.unique(tasks):
        rows = np.flatnonzero(tasks == task)
        width = int(lengths[rows].max())
        places = offsets[rows][:, None] + np.arange(width)
        ids = flat[np.minimum(places, len(flat) - 1)]  # a last row may be shorter than the width
        count += source.domain.count_test(task, Padded(ids, lengths[rows]))
    return count
