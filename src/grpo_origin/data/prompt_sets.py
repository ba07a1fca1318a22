"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.config.notation import SPLITS
from grpo_origin.data.source import COLUMNS, Source, _table
from grpo_origin.data.strings import (
    draw_distinct,
    shares,
)
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import read_table, write_table
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World


def _tuning_strings(
    source: Source, stage: str, task: Task, count: int, avoid: np.ndarray | None = None
) -> np.ndarray:
    rng = source.generator(stage, str(task))
    return draw_distinct(
        rng, count, task.spec.length, source.world_settings, test=False, avoid=avoid
    )


def _prompt_set(
    source: Source,
    split: str,
    parts: list[tuple[Task, np.ndarray]],
    rng: np.random.Generator | None,
) -> pa.Table:
    count = sum(len(starts) for _, starts in parts)
    order = np.arange(count) if rng is None else rng.permutation(count)
    table = _table(Vocabulary(source.world_settings.nodes), split, parts, order)
    return table.append_column("prompt_index", pa.array(np.arange(count, dtype=np.int32)))


def sft_parts(source: Source, samples: int) -> list[tuple[Task, np.ndarray]]:
    """Node indices of the SFT strings of each ID task, different within a task."""
    tasks = source.tasks("id")
    return [
        (task, _tuning_strings(source, "sft", task, share))
        for task, share in zip(tasks, shares(samples, len(tasks)), strict=True)
    ]


def write_sft(source: Source, samples: int, path: str | Path) -> None:
    """Write the SFT samples: ID tasks in equal shares, in random order."""
    parts = [(task, task.in_alphabet(base)) for task, base in sft_parts(source, samples)]
    write_table(path, _prompt_set(source, "id", parts, source.generator("sft")))


def write_grpo(source: Source, prompts: int, sft_samples: int, path: str | Path) -> None:
    """Write the GRPO prompts, `prompts` for each of id and ood; ID prompts avoid those of SFT while others are left."""
    used = {str(task): base for task, base in sft_parts(source, sft_samples)}
    tables = []
    for split in SPLITS:
        tasks = source.tasks(split)
        parts = [
            (
                task,
                task.in_alphabet(
                    _tuning_strings(source, "grpo", task, share, avoid=used.get(str(task)))
                ),
            )
            for task, share in zip(tasks, shares(prompts, len(tasks)), strict=True)
        ]
        tables.append(_prompt_set(source, split, parts, source.generator("grpo", split)))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def write_test(source: Source, prompts: int, path: str | Path) -> None:
    """Write the test prompts: `prompts` a split, balanced over its tasks.

    Prompt i of `mixed-k` is prompt i of `id` with k random positions replaced by their twin.
    """
    tables = []
    for split in SPLITS:
        tasks = source.tasks(split)
        parts = []
        for task, share in zip(tasks, shares(prompts, len(tasks)), strict=True):
            rng = source.generator("test", str(task))
            base = draw_distinct(rng, share, task.spec.length, source.world_settings, test=True)
            parts.append((task, task.in_alphabet(base)))
        tables.append(_prompt_set(source, split, parts, rng=None))
        if split == "id":
            for k in source.axis.mixed:
                rng = source.generator("mixed", str(k))
                mixed = [(task, mix(source.world, starts, k, rng)) for task, starts in parts]
                tables.append(_prompt_set(source, f"mixed-{k}", mixed, rng=None))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def mix(world: World, strings: np.ndarray, positions: int, rng: np.random.Generator) -> np.ndarray:
    """Replace that many random positions of every string by their twin in the other alphabet."""
    ranks = rng.random(strings.shape).argsort(axis=1)
    return np.where(ranks < positions, world.twin(strings), strings).astype(np.int16)


def read_prompts(path: str | Path, split: str | None = None) -> pa.Table:
    """Read a test, SFT or GRPO file, or one split of it; raises ArtefactError if it can't be used."""
    table = read_table(path, (*COLUMNS, "prompt_index"))
    if split is not None:
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    if not table.num_rows:
        raise ArtefactError(path, f"holds no {split or ''} prompts")
    return table
