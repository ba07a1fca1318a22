"""Text tasks of reasoning-gym (PyPI, optional): any of its data sets with any of its options.

`gsm_symbolic` takes `templates`, numbers of its GSM8K templates, so that exposure is controlled by
template. An answer is right if reasoning-gym's own `score_answer` gives it the full 1; nothing that
a model writes is ever run, so data sets whose verifiers do are refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import DatasetTask
from grpo_origin.tasks.domain import closest
from grpo_origin.tasks.text import NUMBERS, Problem, TextDomain

OURS = ("seed", "size")  # options that the domain sets
TEMPLATED, TEMPLATES = "gsm_symbolic", "templates"
LISTED = ("acre", "list_functions", "word_ladder")  # data sets that make a list of their size
LISTED_SIZE = 20_000
# How a verifier's module may run text: of these none may be asked about a model's answer.
RUNS_TEXT = re.compile(r"(?<![\w.])(eval|exec|compile)\(|parse_expr|sympify|\.parse_latex")
KEPT = 2**14  # entries kept, since a problem is asked for several times in a row


class ReasoningGym(TextDomain):
    """Data sets of reasoning-gym."""

    def problem(self, task: DatasetTask, number: int) -> Problem:
        entry = _entry(_key(task), number)
        if entry.get("answer") is None:
            raise ConfigError(
                f"data set {task.dataset!r} has no reference answers, only a verifier, as for "
                f"{entry['question']!r}"
            )
        return Problem(entry["question"], str(entry["answer"]), worked(task.dataset, entry))

    def accepts(self, task: DatasetTask, number: int, answer: str) -> bool:
        key = _key(task)
        return bool(_data(key).score_answer(answer, _entry(key, number)) == 1)


def worked(dataset: str, entry: dict[str, Any]) -> str:
    """The worked solution of an entry, "" where its data set gives none.

    That of gsm_symbolic is its own, less the line with the answer; that of chain_sum the running
    totals.
    """
    if dataset == TEMPLATED:
        return str(entry["metadata"]["answer_cot"]).rpartition("####")[0].rstrip()
    if dataset == "chain_sum":
        parts = entry["metadata"]["expression"].split()
        totals = [int(parts[0])]
        for sign, term in zip(parts[1::2], parts[2::2], strict=True):
            totals.append(totals[-1] + (int(term) if sign == "+" else -int(term)))
        return " ".join(map(str, totals[:-1]))
    return ""


Key = tuple[str, tuple[tuple[str, Any], ...]]  # a data set and its options, hashable


def _key(task: DatasetTask) -> Key:
    options = task.options.items()
    return task.dataset, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in options)


@lru_cache(maxsize=KEPT)
def _entry(key: Key, number: int) -> dict[str, Any]:
    """The entry of a number: a mapping with question, answer, metadata."""
    data, options = _data(key), dict(key[1])
    if key[0] == TEMPLATED:
        chosen = options.get(TEMPLATES) or _good_templates(type(data))
        make: Callable[[Random, float], dict[str, Any]] = data.generators[
            chosen[number % len(chosen)]
        ]
        entry = make(Random(number), data.config.difficulty)
        # As the data set itself ends its questions.
        entry["question"] += " Give the result as your final answer. Do not include units."
        return entry
    entry = data[number % len(data)]
    assert isinstance(entry, dict)
    return entry


@lru_cache(maxsize=256)
def _data(key: Key) -> Any:
    """The data set of a task. Raises ConfigError for an unknown one, or an option it refuses."""
    name, options = key[0], dict(key[1])
    datasets = _datasets()
    if name not in datasets:
        raise ConfigError(f"unknown data set {name!r}{closest(name, sorted(datasets))}")
    kind, config = datasets[name]
    known = [f.name for f in dataclasses.fields(config) if f.name not in OURS]
    known += [TEMPLATES] if name == TEMPLATED else []
    for option in options:
        if option not in known:
            raise ConfigError(f"data set {name!r} has no option {option!r}{closest(option, known)}")
    if RUNS_TEXT.search(inspect.getsource(sys.modules[kind.__module__])):
        raise ConfigError(
            f"data set {name!r} can't be used: its verifier may run what models write"
        )
    templates = options.pop(TEMPLATES, ())
    good = _good_templates(kind) if name == TEMPLATED else ()
    if not isinstance(templates, tuple):
        raise ConfigError(f"{TEMPLATES}: write a list of numbers, not {templates!r}")
    if odd := [number for number in templates if number not in good]:
        raise ConfigError(f"{TEMPLATED} has no template {odd[0]!r} (from 0 to 99, some are broken)")
    size = 1 if name == TEMPLATED else LISTED_SIZE if name in LISTED else NUMBERS
    try:
        data = kind(config(**options, seed=0, size=size))
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"data set {name!r} refuses these options: {error}") from None
    return data


def _good_templates(kind: type) -> tuple[int, ...]:
    """Templates of gsm_symbolic that reasoning-gym marks as good."""
    return tuple(sys.modules[kind.__module__].tasks_ok)


def _datasets() -> dict[str, tuple[type, type]]:
    """All data sets by name: class and class of their options."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            f"domain reasoning_gym needs a package that is not installed ({error.name}): "
            "run make text, or pip install 'grpo-origin[text]'"
        ) from None
    return dict(reasoning_gym.factory.DATASETS)
