"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.data.pools import ROW_GROUP
from grpo_origin.data.source import COLUMNS, Sequences, Source
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import open_parquet, write_json
from grpo_origin.tasks.split import is_test
from grpo_origin.tasks.tokenizer import Vocabulary


def _keys(table: pa.Table) -> Counter[bytes]:
    """How often each prompt occurs."""
    flat, offsets = Sequences(table).prompts
    return Counter(flat[a:b].tobytes() for a, b in pairwise(offsets))


def write_summary(
    source: Source,
    files: dict[str, str | Path],
    ratios: Sequence[str],
    samples: int,
    path: str | Path,
) -> None:
    """Write what the data hold as JSON: counts per split and task, different prompts, OOD share, overlaps.

    `files` maps pretrain-id, pretrain-ood, sft, grpo, test to their paths. Raises ArtefactError if a training sample starts from a
    test string, in either alphabet. (As a step of another string's trace test strings do occur, about `test_fraction` of the steps.)
    """
    vocabulary = Vocabulary(source.world_settings.nodes)
    lengths = {str(task): task.spec.length for split in SPLITS for task in source.tasks(split)}
    test_strings = 0
    summary: dict[str, Any] = {"files": {}, "ood": {}, "overlap": {}}
    prompts: dict[str, Counter[bytes]] = {}
    for name, file in files.items():
        counts: Counter[tuple[str, str]] = Counter()
        unique: Counter[bytes] = Counter()
        opened = open_parquet(file, COLUMNS)
        for batch in opened.iter_batches(ROW_GROUP, columns=[*COLUMNS]):
            table = pa.table(batch)
            names = table["task"].to_numpy(zero_copy_only=False)
            counts.update(zip(table["split"].to_pylist(), names, strict=True))
            if (
                opened.metadata.num_rows <= 2**22
            ):  # counting different prompts needs memory per prompt
                unique.update(_keys(table))
            if name != "test":
                test_strings += _test_strings(table, names, lengths, vocabulary, source)
        if test_strings:
            raise ArtefactError(
                file, f"a training set of which {test_strings} samples start from test strings"
            )
        summary["files"][name] = {
            "rows": opened.metadata.num_rows,
            "tasks": {f"{split}: {task}": n for (split, task), n in sorted(counts.items())},
            "unique_prompts": len(unique) or None,
        }
        prompts[name] = unique
    for ratio in ratios:
        ood = ood_count(ratio, samples)
        summary["ood"][ratio] = {"samples": samples, "ood_samples": ood, "ood_share": ood / samples}
    for a, b in (
        ("sft", "grpo"),
        ("sft", "pretrain-id"),
        ("grpo", "pretrain-id"),
        ("grpo", "pretrain-ood"),
    ):
        summary["overlap"][f"{a} in {b}"] = (
            len(prompts[a].keys() & prompts[b].keys()) if prompts[b] else None
        )
    summary["overlap"]["training samples that start from test strings"] = test_strings
    write_json(path, summary)


def _test_strings(
    table: pa.Table,
    names: np.ndarray,
    lengths: dict[str, int],
    vocabulary: Vocabulary,
    source: Source,
) -> int:
    """How many rows start from a string that, read as node indices, belongs to test: its twin counts as the string itself."""
    flat, offsets = Sequences(table).prompts
    found = 0
    for task in np.unique(names):
        first = offsets[:-1][names == task] + 1
        strings = flat[first[:, None] + np.arange(lengths[task])] - vocabulary.first_element
        found += int(is_test(source.world.base(strings), source.world_settings.test_fraction).sum())
    return found
