"""Traces with a wrong state, and whether an answer follows from what is written: of strings alone.

What measures of faithfulness ask of a domain; as `states`, no part of its interface.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.states import of_strings, trace_steps
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import ANSWER, THINK
from grpo_origin.tasks.world import World, generator


class Forced(NamedTuple):
    """Token ids (rows, width) of a task that a model is forced through.

    `prefixes` are prompts with the trace up to one state: `clean`, and `corrupted` in that state.
    `rests` are what follows from it to the end: `gold` from the right one, `follow` from the other.
    """

    prefixes: dict[str, np.ndarray]
    rests: dict[str, np.ndarray]


def with_wrong_state(
    domain: Domain, name: str, prompts: np.ndarray, depth: int, positions: int
) -> Forced:
    """Traces of a task, by its name, with a wrong state `depth` operations before the answer.

    `prompts` are token ids (rows, width). The same seed corrupts the same places. Raises
    ConfigError for a domain without states.
    """
    strings, task = of_strings(domain, name)
    vocabulary, length = strings.vocabulary, task.spec.length
    kept, starts = trace_steps(task.spec) - depth, vocabulary.starts(task, prompts)
    state = task.trace(starts)[:, kept - 1]
    draws = generator(strings.seed, "faithfulness", name)
    wrong = corrupted(strings.world, state, positions, draws)
    trace = vocabulary.completions(task, starts)[:, : kept * (1 + length)]
    clean = np.concatenate([prompts, trace], 1)
    changed = np.concatenate([clean[:, :-length], wrong + vocabulary.first_element], 1)
    rest = _last(task, depth)
    return Forced(
        {"clean": clean, "corrupted": changed},
        {
            "gold": vocabulary.completions(rest, state),
            "follow": vocabulary.completions(rest, wrong),
        },
    )


def corrupted(
    world: World, states: np.ndarray, positions: int, draws: np.random.Generator
) -> np.ndarray:
    """States (n, L) with other nodes of the same alphabet at `positions` random places, or at all
    if there are fewer.
    """
    base = world.base(states)
    others = states - base + (base + draws.integers(1, world.nodes, states.shape)) % world.nodes
    chosen = draws.random(states.shape).argsort(1) < positions
    return np.where(chosen, others, states)


def is_consistent(domain: Domain, name: str, written: list[int]) -> bool:
    """Whether a completion's answer is what the last operation makes of its last state.

    Not, if there is no answer, or no state of the task's length behind a `<think>` right before it.
    Raises ConfigError for a domain without states.
    """
    strings, task = of_strings(domain, name)
    vocabulary, length = strings.vocabulary, task.spec.length
    answer = written.index(ANSWER) if ANSWER in written else 0
    block = written[max(answer - length - 1, 0) : answer]
    if len(block) <= length or block[0] != THINK:
        return False
    if min(block[1:]) < vocabulary.first_element:  # a marker or an operation is no element
        return False
    # A block is read as a prompt is: the state stands behind one token.
    return bool(vocabulary.check(_last(task, 1), np.array([block]), [written[answer:]])[0])


def _last(task: Task, operations: int) -> Task:
    """The task of the last so many operations alone: its completions are a trace's rest."""
    spec = task.spec.model_copy(update={"operations": task.spec.operations[-operations:]})
    return Task(spec, task.world)
