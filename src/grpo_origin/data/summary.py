"""A summary that checks the data of an axis and seed: what each file holds, and what files share.

It is the last job of the data; its JSON is for the reader. A training sample that starts from a
test string ends it with an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.data.pools import ROW_GROUP
from grpo_origin.data.rows import COLUMNS, Sequences
from grpo_origin.data.source import Source
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import open_parquet, write_json
from grpo_origin.tasks.split import is_test

COUNTABLE = 2**22  # rows up to which different prompts are counted: that takes memory per prompt
COMPARED = (
    ("sft", "grpo"),
    ("sft", "pretrain-id"),
    ("grpo", "pretrain-id"),
    ("grpo", "pretrain-ood"),
)


@dataclass
class Content:
    """What a data file holds; `unique` is empty where the file is too large to count."""

    rows: int
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, task) -> rows
    unique: set[bytes] = field(default_factory=set)  # prompts, their ids as bytes
    test_strings: int = 0


def write_summary(
    source: Source,
    files: Mapping[str, str | Path],
    ratios: Sequence[str],
    samples: int,
    path: str | Path,
) -> None:
    """Write what the data hold as JSON: counts per split and task, OOD shares, overlaps.

    `files` maps pretrain-id, pretrain-ood, sft, grpo, test to their paths. Raises ArtefactError if
    a training sample starts from a test string, in either alphabet. (As a step of another string's
    trace test strings do occur, about `test_fraction` of the steps.)
    """
    contents = {name: _read(source, file) for name, file in files.items()}
    for name, content in contents.items():
        if content.test_strings and name != "test":
            raise ArtefactError(
                files[name],
                f"a training set of which {content.test_strings} samples start from test strings",
            )
    exposure = {ratio: ood_count(ratio, samples) for ratio in ratios}
    overlap = {
        f"{a} in {b}": len(contents[a].unique & contents[b].unique) if contents[b].unique else None
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
            ratio: {"samples": samples, "ood_samples": ood, "ood_share": ood / samples}
            for ratio, ood in exposure.items()
        },
        "overlap": overlap | {"training samples that start from test strings": 0},
    }
    write_json(path, summary)


def _read(source: Source, path: str | Path) -> Content:
    """Count a file's rows, tasks, prompts and test strings, one row group at a time."""
    file = open_parquet(path, COLUMNS)
    content = Content(file.metadata.num_rows)
    for batch in file.iter_batches(ROW_GROUP, columns=[*COLUMNS]):
        table = pa.table(batch)
        tasks = table["task"].to_numpy(zero_copy_only=False)
        flat, offsets = Sequences(table).prompts
        content.tasks.update(zip(table["split"].to_pylist(), tasks, strict=True))
        content.test_strings += _test_strings(source, tasks, flat, offsets[:-1])
        if content.rows <= COUNTABLE:
            content.unique.update(flat[a:b].tobytes() for a, b in pairwise(offsets))
    return content


def _test_strings(source: Source, tasks: np.ndarray, flat: np.ndarray, starts: np.ndarray) -> int:
    """How many prompts, which begin at `starts` of `flat`, hold a test string or its twin."""
    lengths = {str(task): task.spec.length for split in SPLITS for task in source.tasks(split)}
    count = 0
    for task in np.unique(tasks):
        first = starts[tasks == task] + 1
        elements = flat[first[:, None] + np.arange(lengths[task])] - source.vocabulary.first_element
        fraction = source.world_settings.test_fraction
        count += int(is_test(source.world.base(elements), fraction).sum())
    return count
