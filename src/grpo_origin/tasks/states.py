"""States that a completion passes through, of domains whose tasks have them: strings alone.

Traces of chances have states too, but their answer is none, so they count as without.

What probes, heads and measures of faithfulness (`traces`) ask of a domain. Not part of its
interface, since that is code of every stage of training, and no training asks for states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import SPLITS, AnyTask, TaskSpec
from grpo_origin.tasks.domain import Domain, domain_of
from grpo_origin.tasks.domains.strings import Strings
from grpo_origin.tasks.task import Task

if TYPE_CHECKING:
    from grpo_origin.config.schema import Settings
    from grpo_origin.config.stages import AxisSettings


def state_values(domain: Domain) -> int:
    """How many values stand at a position of a state (nodes); 0 where tasks have no states."""
    return domain.world.nodes if isinstance(domain, Strings) and not domain.stochastic else 0


def state_length(task: AnyTask) -> int:
    """Positions of a state of a task; 0 where it has none."""
    return task.length if isinstance(task, TaskSpec) else 0


def trace_steps(task: AnyTask) -> int:
    """States that a task passes through, its answer the last of them; 0 where it has none."""
    return len(task.operations) if isinstance(task, TaskSpec) else 0


def deep_tasks(axis: AxisSettings, depth: int) -> int:
    """How many tasks of an axis, ID and OOD, have a state so many operations before the answer."""
    return sum(trace_steps(task) > depth for task in (*axis.id, *axis.ood))


def of_strings(domain: Domain, task: str) -> tuple[Strings, Task]:
    """A domain with states and its task of a name; raises ConfigError for any other domain."""
    if not isinstance(domain, Strings):
        raise ConfigError(f"tasks of domain {domain.axis.domain} have no states")
    return domain, Task(TaskSpec.model_validate(task), domain.world)


def states(domain: Domain, task: str, prompts: np.ndarray) -> np.ndarray:
    """State after each step of a task, by its name: values from 0, (rows, steps, positions).

    `prompts` are token ids (rows, width). Alphabets are ignored, so that both share one set of
    values. Raises ConfigError for a domain without states.
    """
    strings, of = of_strings(domain, task)
    return strings.world.base(of.trace(strings.vocabulary.starts(of, prompts)))


def check_states(settings: Settings) -> None:
    """Raise ConfigError if what reads states is asked of an axis that has not what it reads."""
    for key in ("probes", "representation", "faithfulness"):
        for name, axis in settings.axes.items():
            if getattr(settings, key) and not state_values(domain_of(settings, name)):
                raise ConfigError(
                    f"{key}: tasks of axes.{name}, of domain {axis.domain}, have no states: "
                    "leave the axis out, or set this to null"
                )
    if settings.representation:
        for name, axis in settings.axes.items():
            shortest = min(state_length(task) for split in SPLITS for task in axis.tasks(split))
            if settings.representation.position > shortest:
                raise ConfigError(
                    f"representation.position: axes.{name} has strings of length {shortest}"
                )
    if settings.faithfulness:
        depth, axes = settings.faithfulness.depth, settings.axes.values()
        if not any(deep_tasks(axis, depth) for axis in axes):
            longest = max(trace_steps(task) for axis in axes for task in (*axis.id, *axis.ood))
            raise ConfigError(
                f"faithfulness.depth: {depth} operations before the answer no task has a state, "
                f"the longest has {longest} operations"
            )
