"""Data of an axis and seed: pretraining pools, SFT samples, GRPO prompts, test prompts, and a summary of them.

Every training set draws from train strings only (`tasks.is_test`). Pools are written and read in row groups, so 67M
samples need no more memory than one group. This module knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import SPLITS, TaskSpec
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import WorldSettings
from grpo_origin.tasks.split import is_test

ENUMERABLE = 2**20  # string spaces up to this size are listed, larger ones sampled


FRUITLESS_DRAWS = 200  # draws in a row without a new string after which a space counts as used up


def draw_train(
    rng: np.random.Generator, count: int, length: int, world: WorldSettings
) -> np.ndarray:
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
    return np.stack(np.unravel_index(np.arange(nodes**length), (nodes,) * length), axis=1).astype(
        np.int16
    )


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
            raise ConfigError(
                f"length {length} has {len(strings)} strings of this side of the split, {count} are needed"
            )
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
        raise ConfigError(
            f"length {length} has too few strings of this side of the split: {count} are needed, {len(drawn)} were found"
        )
    return np.stack(drawn) if count else np.empty((0, length), np.int16)


def shares(count: int, parts: int) -> list[int]:
    """`count` split as evenly as possible."""
    return [count // parts + (i < count % parts) for i in range(parts)]


@cache
def available_strings(length: int, world: WorldSettings) -> tuple[int, int]:
    """Train and test strings of a length: counted where the space can be listed, else expected."""
    space = world.nodes**length
    if space <= ENUMERABLE:
        test = int(is_test(all_strings(length, world.nodes), world.test_fraction).sum())
    else:
        test = int(space * world.test_fraction)
    return space - test, test


def check_string_space(settings: Settings, rl_prompts: int) -> None:
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
        for split in SPLITS:
            require(
                f"evaluation.prompts (axes.{name}.{split})",
                settings.evaluation.prompts,
                axis.tasks(split),
                True,
            )
            require(
                f"rl.prompts_per_step (axes.{name}.{split})",
                rl_prompts,
                axis.tasks(split),
                False,
            )
        require(f"sft.samples (axes.{name}.id)", settings.sft.samples, axis.id, False)
