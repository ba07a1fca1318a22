"""Prompt sets: the SFT samples, the RL prompts (`grpo`) and the test prompts of an axis and seed.

Their rows are those of a pool, what the domain's verifier needs beside them, and `prompt_index`,
which counts within a split. SFT, RL and evaluation read them with `read_prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_origin.config.notation import SPLITS, AnyTask, shares
from grpo_origin.data.rows import COLUMNS, TaskProblems, rendered
from grpo_origin.data.source import Source
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import open_parquet, read_table, write_table
from grpo_origin.tasks.domain import Problems


def write_sft(source: Source, counts: Mapping[str, int], path: str | Path) -> None:
    """Write the SFT samples: so many of each split, its tasks in equal shares, in random order."""
    rng = source.generator("sft")
    tables = [
        _prompt_set(source, split, problems, rng)
        for split, problems in _sft_problems(source, counts).items()
    ]
    table = pa.concat_tables(tables).unify_dictionaries()
    write_table(path, table.take(rng.permutation(table.num_rows)) if len(tables) > 1 else table)


def write_grpo(
    source: Source, prompts: int, sft_counts: Mapping[str, int], path: str | Path
) -> None:
    """Write the RL prompts, `prompts` for each of id and ood.

    They avoid those of SFT while others are left.
    """
    used = _sft_problems(source, sft_counts)
    tables = []
    for split in SPLITS:
        problems = _problems(source, split, "grpo", prompts, used.get(split, ()))
        tables.append(_prompt_set(source, split, problems, source.generator("grpo", split)))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def _sft_problems(
    source: Source, counts: Mapping[str, int]
) -> dict[str, list[tuple[AnyTask, Problems]]]:
    """Problems of the SFT samples of each split that has any."""
    return {
        split: _problems(source, split, "sft", count) for split, count in counts.items() if count
    }


def write_test(source: Source, prompts: int, path: str | Path) -> None:
    """Write the test prompts: `prompts` a split, balanced over its tasks.

    Prompt i of `mixed-k` is prompt i of `id` with k random positions replaced by their twin.
    """
    tables = []
    for split in SPLITS:
        problems = _problems(source, split, "test", prompts)
        tables.append(_prompt_set(source, split, problems))
        if split == "id":
            for k in source.axis.mixed:
                rng = source.generator("mixed", str(k))
                mixed = [(task, source.domain.mixed(of, k, rng)) for task, of in problems]
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
        least = min(source.domain.available(task, True, prompts) for task in tasks)
        count = min(prompts, least * len(tasks))
        tables.append(_prompt_set(source, split, _problems(source, split, "test", count)))
    return pa.concat_tables(tables).unify_dictionaries()


def read_prompts(path: str | Path, split: str | None = None) -> pa.Table:
    """Read a prompt set, or one split of it, with what the domain's verifier needs beside.

    Raises ArtefactError if it can't be used.
    """
    needed = (*COLUMNS, "prompt_index")
    beside = [name for name in open_parquet(path, needed).schema_arrow.names if name not in needed]
    table = read_table(path, (*needed, *beside))
    if split is not None:
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    if not table.num_rows:
        raise ArtefactError(path, f"holds no {split or ''} prompts")
    return table


def _problems(
    source: Source, split: str, name: str, count: int, avoid: TaskProblems = ()
) -> list[tuple[AnyTask, Problems]]:
    """`count` problems of a split for the prompt set `name`, different within a task.

    Those of the same task in `avoid` are taken only when no others are left.
    """
    tasks, avoided = source.tasks(split), {str(task): of_task for task, of_task in avoid}
    problems = []
    for task, share in zip(tasks, shares(count, len(tasks)), strict=True):
        rng = source.generator(name, str(task))
        chosen = source.domain.distinct(task, rng, share, name == "test", avoided.get(str(task)))
        problems.append((task, chosen))
    return problems


def _prompt_set(
    source: Source, split: str, problems: TaskProblems, rng: np.random.Generator | None = None
) -> pa.Table:
    """Rows of a split with `prompt_index`, shuffled by `rng` or task after task."""
    count = sum(len(of_task) for _, of_task in problems)
    order = np.arange(count) if rng is None else rng.permutation(count)
    table = rendered(source.domain, split, problems, order, beside=True)
    return table.append_column("prompt_index", pa.array(np.arange(count, dtype=np.int32)))
