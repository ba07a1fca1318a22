"""Start strings of one side of the split: drawing them, and whether there are enough of them.

Pools draw train strings with repetition, prompt sets different ones of either side. Strings are
node indices, int16 of shape (count, length).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import WorldSettings
from grpo_origin.tasks.split import is_test

ENUMERABLE = 2**20  # string spaces up to this size are listed, larger ones sampled
FRUITLESS_DRAWS = 200  # draws in a row without a new string after which a space counts as used up


def draw_train(
    rng: np.random.Generator, count: int, length: int, world: WorldSettings
) -> np.ndarray:
    """Draw `count` train strings with replacement."""
    drawn: list[np.ndarray] = []
    missing = count
    while missing > 0:
        more = int(missing / (1 - world.test_fraction) * 1.01) + 16
        strings = rng.integers(0, world.nodes, (more, length), dtype=np.int16)
        drawn.append(strings[~is_test(strings, world.test_fraction)][:missing])
        missing -= len(drawn[-1])
    return np.concatenate(drawn) if drawn else np.empty((0, length), np.int16)


def draw_distinct(
    rng: np.random.Generator,
    count: int,
    length: int,
    world: WorldSettings,
    test: bool,
    avoid: np.ndarray | None = None,
) -> np.ndarray:
    """Draw `count` different strings of one side of the split.

    Strings of `avoid` are taken only when no others are left. Raises ConfigError if there are too
    few at all.
    """
    avoid = np.empty((0, length), np.int16) if avoid is None else avoid
    avoided = {string.tobytes() for string in avoid}
    if world.nodes**length <= ENUMERABLE:
        strings = all_strings(length, world.nodes)
        strings = rng.permutation(strings[is_test(strings, world.test_fraction) == test])
        last = [string.tobytes() in avoided for string in strings]
        strings = strings[np.argsort(last, kind="stable")]
    else:
        strings = np.array(
            [*_sampled(rng, count, length, world, test, avoided), *avoid], np.int16
        ).reshape(-1, length)
    if len(strings) < count:
        raise ConfigError(
            f"length {length} has too few {side(test)} strings: {count} are needed, "
            f"{len(strings)} were found"
        )
    return strings[:count]


def _sampled(
    rng: np.random.Generator,
    count: int,
    length: int,
    world: WorldSettings,
    test: bool,
    avoided: set[bytes],
) -> Iterable[np.ndarray]:
    """At least `count` different strings of a side, fewer if no more are met; none of `avoided`."""
    strings: dict[bytes, np.ndarray] = {}
    fruitless = 0
    while len(strings) < count and fruitless < FRUITLESS_DRAWS:
        before = len(strings)
        drawn = rng.integers(0, world.nodes, (4 * count + 64, length), dtype=np.int16)
        for string in drawn[is_test(drawn, world.test_fraction) == test]:
            if string.tobytes() not in avoided:
                strings.setdefault(string.tobytes(), string)
        fruitless = fruitless + 1 if len(strings) == before else 0
    return strings.values()


def side(test: bool) -> str:
    """How a side of the split is called."""
    return "test" if test else "train"


def all_strings(length: int, nodes: int) -> np.ndarray:
    """Every string of a length, shape (nodes ** length, length)."""
    places = np.unravel_index(np.arange(nodes**length), (nodes,) * length)
    return np.stack(places, axis=1).astype(np.int16)


@cache
def available_strings(length: int, world: WorldSettings) -> tuple[int, int]:
    """Train and test strings of a length: counted where the space can be listed, else expected."""
    space = world.nodes**length
    if space <= ENUMERABLE:
        test = int(is_test(all_strings(length, world.nodes), world.test_fraction).sum())
    else:
        test = int(space * world.test_fraction)
    return space - test, test
