"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grpo_origin.config import PROMPTS, AxisSettings, ConfigError, Settings, TaskSpec, WorldSettings, ood_count
from grpo_origin.files import ArtefactError, atomic, open_parquet, read_table, write_json, write_table
from grpo_origin.tasks import Task, World, generator, is_test
from grpo_origin.tokenizer import Vocabulary

ROW_GROUP = 2**17
ENUMERABLE = 2**20  # string spaces up to this size are listed, larger ones sampled
FRUITLESS_DRAWS = 200  # draws in a row without a new string after which a space counts as used up
COLUMNS = ("prompt_ids", "completion_ids", "task", "split")


@dataclass(frozen=True)
class Source:
    """What the data of one axis and seed are made from."""

    world_settings: WorldSettings
    axis: AxisSettings
    seed: int

    @property
    def world(self) -> World:
        """The world of this seed."""
        return World(self.world_settings.nodes, self.seed)

    def tasks(self, split: str) -> list[Task]:
        """Tasks of a split."""
        return [Task(spec, self.world) for spec in self.axis.tasks(split)]

    def generator(self, *purpose: str) -> np.random.Generator:
        """A generator for one purpose within this seed."""
        return generator(self.seed, *purpose)


def draw_train(rng: np.random.Generator, count: int, length: int, world: WorldSettings) -> np.ndarray:
    """Draw `count` train strings with replacement, as node indices, shape (count, length)."""
    drawn: list[np.ndarray] = []
    missing = count
    while missing > 0:
        more = int(missing / (1 - world.test_fraction) * 1.01) + 16
        strings = rng.integers(0, world.nodes, (more, length), dtype=np.int16)
        drawn.append(strings[~is_test(strings, world.test_fraction)][:missing])
        missing -= len(drawn[-1])
    return np.concatenate(drawn) if drawn else np.empty((0, length), np.int16)


def all_strings(length: int, nodes: int) -> np.ndarray:
    """Every string of a length, shape (nodes ** length, length)."""
    return np.stack(np.unravel_index(np.arange(nodes**length), (nodes,) * length), axis=1).astype(np.int16)


def draw_distinct(
    rng: np.random.Generator,
    count: int,
    length: int,
    world: WorldSettings,
    test: bool,
    avoid: np.ndarray | None = None,
) -> np.ndarray:
    """Draw `count` different strings of one side of the split, none of `avoid` unless there are no others left.

    Raises ConfigError if there are too few at all.
    """
    known = {row.tobytes() for row in avoid} if avoid is not None else set()
    if world.nodes**length <= ENUMERABLE:
        strings = all_strings(length, world.nodes)
        strings = rng.permutation(strings[is_test(strings, world.test_fraction) == test])
        strings = strings[np.argsort([row.tobytes() in known for row in strings], kind="stable")]
        if len(strings) < count:
            raise ConfigError(f"length {length} has {len(strings)} strings of this side of the split, {count} are needed")
        return strings[:count]
    found: dict[bytes, np.ndarray] = {}
    fruitless = 0
    while len(found) < count and fruitless < FRUITLESS_DRAWS:
        before = len(found)
        strings = rng.integers(0, world.nodes, (4 * count + 64, length), dtype=np.int16)
        for row in strings[is_test(strings, world.test_fraction) == test]:
            if row.tobytes() not in known:
                found.setdefault(row.tobytes(), row)
        fruitless = fruitless + 1 if len(found) == before else 0
    drawn = [*found.values(), *(() if avoid is None else avoid)][:count]
    if len(drawn) < count:
        raise ConfigError(f"length {length} has too few strings of this side of the split: {count} are needed, {len(drawn)} were found")
    return np.stack(drawn) if count else np.empty((0, length), np.int16)


def shares(count: int, parts: int) -> list[int]:
    """`count` split as evenly as possible."""
    return [count // parts + (i < count % parts) for i in range(parts)]


def _table(vocabulary: Vocabulary, split: str, parts: Sequence[tuple[Task, np.ndarray]], order: np.ndarray) -> pa.Table:
    """Rows of several tasks (each with its start strings) in the given order."""
    columns: dict[str, Any] = {}
    for name, render in (("prompt_ids", vocabulary.prompts), ("completion_ids", vocabulary.completions)):
        blocks = [render(task, starts) for task, starts in parts]
        width = max(block.shape[1] for block in blocks)
        rows = np.concatenate([np.pad(block, ((0, 0), (0, width - block.shape[1]))) for block in blocks])[order]
        lengths = np.concatenate([np.full(len(block), block.shape[1]) for block in blocks])[order]
        flat = rows[np.arange(width) < lengths[:, None]] if (lengths < width).any() else rows.ravel()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    codes = np.repeat(np.arange(len(parts), dtype=np.int8), [len(starts) for _, starts in parts])[order]
    columns["task"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([str(task) for task, _ in parts]))
    columns["split"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(order), np.int8)), pa.array([split]))
    return pa.table(columns)


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
                writer.write_table(training_chunk(source, split, rng, min(ROW_GROUP, samples - start)).cast(schema))


def _tuning_strings(source: Source, stage: str, task: Task, count: int, avoid: np.ndarray | None = None) -> np.ndarray:
    rng = source.generator(stage, str(task))
    return draw_distinct(rng, count, task.spec.length, source.world_settings, test=False, avoid=avoid)


def _prompt_set(source: Source, split: str, parts: list[tuple[Task, np.ndarray]], rng: np.random.Generator | None) -> pa.Table:
    count = sum(len(starts) for _, starts in parts)
    order = np.arange(count) if rng is None else rng.permutation(count)
    table = _table(Vocabulary(source.world_settings.nodes), split, parts, order)
    return table.append_column("prompt_index", pa.array(np.arange(count, dtype=np.int32)))


def sft_parts(source: Source, samples: int) -> list[tuple[Task, np.ndarray]]:
    """Node indices of the SFT strings of each ID task, different within a task."""
    tasks = source.tasks("id")
    return [(task, _tuning_strings(source, "sft", task, share)) for task, share in zip(tasks, shares(samples, len(tasks)), strict=True)]


def write_sft(source: Source, samples: int, path: str | Path) -> None:
    """Write the SFT samples: ID tasks in equal shares, in random order."""
    parts = [(task, task.in_alphabet(base)) for task, base in sft_parts(source, samples)]
    write_table(path, _prompt_set(source, "id", parts, source.generator("sft")))


def write_grpo(source: Source, prompts: int, sft_samples: int, path: str | Path) -> None:
    """Write the GRPO prompts, `prompts` for each of id and ood; ID prompts avoid those of SFT while others are left."""
    used = {str(task): base for task, base in sft_parts(source, sft_samples)}
    tables = []
    for split in PROMPTS:
        tasks = source.tasks(split)
        parts = [
            (task, task.in_alphabet(_tuning_strings(source, "grpo", task, share, avoid=used.get(str(task)))))
            for task, share in zip(tasks, shares(prompts, len(tasks)), strict=True)
        ]
        tables.append(_prompt_set(source, split, parts, source.generator("grpo", split)))
    write_table(path, pa.concat_tables(tables).unify_dictionaries())


def write_test(source: Source, prompts: int, path: str | Path) -> None:
    """Write the test prompts: `prompts` a split, balanced over its tasks.

    Prompt i of `mixed-k` is prompt i of `id` with k random positions replaced by their twin.
    """
    tables = []
    for split in PROMPTS:
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


class Sequences:
    """Rows of a table as token arrays, handed out in blocks of one shape so that nothing is padded."""

    def __init__(self, table: pa.Table) -> None:
        self.prompts, self.completions = (self._flat(table[name]) for name in ("prompt_ids", "completion_ids"))
        self.size = table.num_rows

    @staticmethod
    def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        array = column.combine_chunks()
        return array.flatten().to_numpy(), np.concatenate([[0], np.cumsum(pc.list_value_length(array).to_numpy())])

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield (positions within `rows`, tokens (block, T) int64, prompt length) for each shape among the rows."""
        starts, lengths = [], []
        for _, offsets in (self.prompts, self.completions):
            starts.append(offsets[rows])
            lengths.append(offsets[rows + 1] - offsets[rows])
        shapes = lengths[0] * 2**16 + lengths[1]
        for shape in np.unique(shapes):
            where = np.flatnonzero(shapes == shape)
            parts = [
                flat[start[where][:, None] + np.arange(length[where[0]])]
                for (flat, _), start, length in zip((self.prompts, self.completions), starts, lengths, strict=True)
            ]
            yield where, np.concatenate(parts, axis=1).astype(np.int64), int(lengths[0][where[0]])


def read_prompts(path: str | Path, split: str | None = None) -> pa.Table:
    """Read a test, SFT or GRPO file, or one split of it; raises ArtefactError if it can't be used."""
    table = read_table(path, (*COLUMNS, "prompt_index"))
    if split is not None:
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    if not table.num_rows:
        raise ArtefactError(path, f"holds no {split or ''} prompts")
    return table


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
                    table = self.file.read_row_group(group, columns=["prompt_ids", "completion_ids"])
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
        self.before = np.concatenate([[0], np.cumsum(is_ood, dtype=np.int64)])  # OOD samples before each position

    def blocks(self, start: int, stop: int) -> list[tuple[np.ndarray, int]]:
        """Samples start..stop-1 as (tokens (block, T), prompt length), one block a shape; order within them is free."""
        ood = (int(self.before[start]), int(self.before[stop]))
        merged: dict[tuple[int, int], list[np.ndarray]] = {}
        for pool, (low, high) in zip(self.pools, ((start - ood[0], stop - ood[1]), ood), strict=True):
            for tokens, prompt in pool.blocks(low, high):
                merged.setdefault((tokens.shape[1], prompt), []).append(tokens)
        return [(np.concatenate(parts), prompt) for (_, prompt), parts in sorted(merged.items())]


def _keys(table: pa.Table) -> Counter[bytes]:
    """How often each prompt occurs."""
    flat, offsets = Sequences(table).prompts
    return Counter(flat[a:b].tobytes() for a, b in pairwise(offsets))


def write_summary(source: Source, files: dict[str, str | Path], ratios: Sequence[str], samples: int, path: str | Path) -> None:
    """Write what the data hold as JSON: counts per split and task, different prompts, OOD share, overlaps.

    `files` maps pretrain-id, pretrain-ood, sft, grpo, test to their paths. Raises ArtefactError if a training sample starts from a
    test string, in either alphabet. (As a step of another string's trace test strings do occur, about `test_fraction` of the steps.)
    """
    vocabulary = Vocabulary(source.world_settings.nodes)
    lengths = {str(task): task.spec.length for split in PROMPTS for task in source.tasks(split)}
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
            if opened.metadata.num_rows <= 2**22:  # counting different prompts needs memory per prompt
                unique.update(_keys(table))
            if name != "test":
                test_strings += _test_strings(table, names, lengths, vocabulary, source)
        if test_strings:
            raise ArtefactError(file, f"a training set of which {test_strings} samples start from test strings")
        summary["files"][name] = {
            "rows": opened.metadata.num_rows,
            "tasks": {f"{split}: {task}": n for (split, task), n in sorted(counts.items())},
            "unique_prompts": len(unique) or None,
        }
        prompts[name] = unique
    for ratio in ratios:
        ood = ood_count(ratio, samples)
        summary["ood"][ratio] = {"samples": samples, "ood_samples": ood, "ood_share": ood / samples}
    for a, b in (("sft", "grpo"), ("sft", "pretrain-id"), ("grpo", "pretrain-id"), ("grpo", "pretrain-ood")):
        summary["overlap"][f"{a} in {b}"] = len(prompts[a].keys() & prompts[b].keys()) if prompts[b] else None
    summary["overlap"]["training samples that start from test strings"] = test_strings
    write_json(path, summary)


def _test_strings(table: pa.Table, names: np.ndarray, lengths: dict[str, int], vocabulary: Vocabulary, source: Source) -> int:
    """How many rows start from a string that, read as node indices, belongs to test: its twin counts as the string itself."""
    flat, offsets = Sequences(table).prompts
    found = 0
    for task in np.unique(names):
        first = offsets[:-1][names == task] + 1
        strings = flat[first[:, None] + np.arange(lengths[task])] - vocabulary.first_element
        found += int(is_test(source.world.base(strings), source.world_settings.test_fraction).sum())
    return found


@cache
def available_strings(length: int, world: WorldSettings) -> tuple[int, int]:
    """Train and test strings of a length: counted where the space can be listed, else expected."""
    space = world.nodes**length
    if space <= ENUMERABLE:
        test = int(is_test(all_strings(length, world.nodes), world.test_fraction).sum())
    else:
        test = int(space * world.test_fraction)
    return space - test, test


def check_string_space(settings: Settings) -> None:
    """Raise ConfigError if a task has too few strings for its test, SFT or GRPO prompts."""

    def require(key: str, prompts: int, tasks: Sequence[TaskSpec], test: bool) -> None:
        for task, share in zip(tasks, shares(prompts, len(tasks)), strict=True):
            available = available_strings(task.length, settings.world)[test]
            share = max(share, 1)  # pretraining draws from every task
            if available < share:
                raise ConfigError(
                    f"{key}: {share} different prompts of task '{task}' are needed, but {settings.world.nodes} nodes at length "
                    f"{task.length} hold {available} {'test' if test else 'train'} strings: ask for fewer, or raise length or nodes"
                )

    for name, axis in settings.axes.items():
        for split in PROMPTS:
            require(f"evaluation.prompts (axes.{name}.{split})", settings.evaluation.prompts, axis.tasks(split), True)
            require(f"grpo.prompts_per_step (axes.{name}.{split})", settings.rl_prompts, axis.tasks(split), False)
        require(f"sft.samples (axes.{name}.id)", settings.sft.samples, axis.id, False)
