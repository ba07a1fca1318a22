"""Pass counts per prompt, and the one line that refuses a row.

Every reader of a format fills a `Tally`; the rest of the room sees `Passes`. Knows no format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo_origin.config.fields import ConfigError

MOST_SAMPLES = 10**12  # of one prompt: sums over prompts stay exact in 64 bits


@dataclass(frozen=True)
class Passes:
    """Counts of P distinct prompts: `samples` and `correct` are int64, shape (P,).

    `notes` are sentences on how they were read, for the user; `tasks` name each prompt's task,
    empty where none are named.
    """

    prompts: tuple[str, ...]
    samples: np.ndarray
    correct: np.ndarray
    notes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


class Tally:
    """Adds up counts by prompt, in the order in which prompts first appear."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}
        self._notes: dict[str, None] = {}
        self._tasks: dict[str, str] = {}

    def add(self, prompt: str, samples: int, correct: int) -> bool:
        """Add counts to a prompt's; says whether the prompt was there before."""
        known = prompt in self._counts
        before = self._counts.get(prompt, (0, 0))
        self._counts[prompt] = (before[0] + samples, before[1] + correct)
        return known

    def assign(self, prompt: str, task: str) -> bool:
        """Say which task a prompt is of; whether that is no other than before."""
        return self._tasks.setdefault(prompt, task) == task

    def note(self, sentence: str) -> None:
        """Keep a sentence for the user, once."""
        self._notes[sentence] = None

    def passes(self) -> Passes:
        """What was added; no prompt at all gives arrays of length 0."""
        counts = np.array(list(self._counts.values()), dtype=np.int64).reshape(-1, 2)
        named = tuple(self._tasks.get(prompt, "") for prompt in self._counts) if self._tasks else ()
        return Passes(tuple(self._counts), counts[:, 0], counts[:, 1], tuple(self._notes), named)


def refused(path: str | Path, row: int, problem: str, right: str) -> ConfigError:
    """The error of a row that can't be counted: file, row, problem, what would be right."""
    return ConfigError(f"{path}, row {row}: {problem}; {right}")


def whole(value: Any) -> int | None:
    """A whole number, also as text or as 8.0; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and abs(number) <= MOST_SAMPLES else None
