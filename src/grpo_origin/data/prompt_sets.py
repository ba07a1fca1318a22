"""Prompt sets: the SFT samples, the RL prompts (`grpo`) and the test prompts of an axis and seed.

Their rows are those of a pool plus `prompt_index`, which counts within a split. SFT, RL and
evaluation read them with `read_prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.config.notation import SPLITS
from grpo_origin.data.rows import COLUMNS, Strings, rendered
from grpo_origin.data.source import Source
from grpo_origin.data.strings import available_strings, draw_distinct, shares
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import read_table, write_table
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.world import World


def write_sft(source: Source, counts: Mapping[str, int], path: str | Path) -> None:
    """Write the SFT samples: so many of each split, its tasks in equal shares, in random order."""
    rng = source.generator("sft")
    tables = [
        _prompt_set(source, split, strings, rng)
        for split, strings in _sft_strings(source, counts).items()
    ]
    table = pa.concat_tables(tables).unify_dictionaries()
    write_table(path, table.take(rng.permutation(table.num_rows)) if len(tables) > 1 else table)


def write_grpo(
    source: Source, prompts: int, sft_counts: Mapping[str, int], path: str | Path
) -> None:
    """Write the RL prompts, `prompts` for each of id and ood.

    They avoid those of SFT while others are left.
    """
    used = _sft_strings(source, sft_counts)
    tables = []
    for split in SPLITS:
        strings = _strings(source, split, "grpo", prompts, used.get(split, ()))
        tables.append(_prompt_set(source, split, strings, source.generator("grpo", split)))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def _sft_strings(
    source: Source, counts: Mapping[str, int]
) -> dict[str, list[tuple[Task, np.ndarray]]]:
    """Start strings of the SFT samples of each split that has any."""
    return {
        split: _strings(source, split, "sft", count) for split, count in counts.items() if count
    }


def write_test(source: Source, prompts: int, path: str | Path) -> None:
    """Write the test prompts: `prompts` a split, balanced over its tasks.

    Prompt i of `mixed-k` is prompt i of `id` with k random positions replaced by their twin.
    """
    tables = []
    for split in SPLITS:
        strings = _strings(source, split, "test", prompts)
        tables.append(_prompt_set(source, split, strings))
        if split == "id":
            for k in source.axis.mixed:
                rng = source.generator("mixed", str(k))
                mixed = [(task, mix(source.world, starts, k, rng)) for task, starts in strings]
                tables.append(_prompt_set(source, f"mixed-{k}", mixed))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def curve_prompts(source: Source, prompts: int) -> pa.Table:
    """Test prompts that learning curves are measured on, for each of id and ood.

    They are `prompts`, or as many as all its tasks have. Drawn anew rather than read, so that no
    training depends on the file of test prompts.
    """
    tables = []
    for split in SPLITS:
        tasks = source.axis.tasks(split)
        least = min(available_strings(task.length, source.world_settings)[1] for task in tasks)
        count = min(prompts, least * len(tasks))
        tables.append(_prompt_set(source, split, _strings(source, split, "test", count)))
    return pa.concat_tables(tables).unify_dictionaries()


def mix(world: World, strings: np.ndarray, positions: int, rng: np.random.Generator) -> np.ndarray:
    """Replace that many random positions of every string by their twin in the other alphabet."""
    ranks = rng.random(strings.shape).argsort(axis=1)
    return np.where(ranks < positions, world.twin(strings), strings).astype(np.int16)


def read_prompts(path: str | Path, split: str | None = None) -> pa.Table:
    """Read a prompt set, or one split of it; raises ArtefactError if it can't be used."""
    table = read_table(path, (*COLUMNS, "prompt_index"))
    if split is not None:
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    if not table.num_rows:
        raise ArtefactError(path, f"holds no {split or ''} prompts")
    return table


def _strings(
    source: Source, split: str, name: str, count: int, avoid: Strings = ()
) -> list[tuple[Task, np.ndarray]]:
    """`count` start strings of a split for the prompt set `name`, different within a task.

    Those of the same task in `avoid` are taken only when no others are left.
    """
    tasks = source.tasks(split)
    avoided = {str(task): source.world.base(starts) for task, starts in avoid}
    strings = []
    for task, share in zip(tasks, shares(count, len(tasks)), strict=True):
        base = draw_distinct(
            source.generator(name, str(task)),
            share,
            task.spec.length,
            source.world_settings,
            test=name == "test",
            avoid=avoided.get(str(task)),
        )
        strings.append((task, task.in_alphabet(base)))
    return strings


def _prompt_set(
    source: Source, split: str, strings: Strings, rng: np.random.Generator | None = None
) -> pa.Table:
    """Rows of a split with `prompt_index`, shuffled by `rng` or task after task."""
    count = sum(len(starts) for _, starts in strings)
    order = np.arange(count) if rng is None else rng.permutation(count)
    table = rendered(source.vocabulary, split, strings, order)
    return table.append_column("prompt_index", pa.array(np.arange(count, dtype=np.int32)))
