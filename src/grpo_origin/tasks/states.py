"""States that a completion passes through, of domains whose tasks have them: strings alone.

What probes and heads ask of a domain. Not part of its interface, since that is code of every stage
of training, and no training asks for states.
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


def state_values(domain: Domain) -> int:
    """How many values stand at a position of a state (nodes); 0 where tasks have no states."""
    return domain.world.nodes if isinstance(domain, Strings) else 0


def state_length(task: AnyTask) -> int:
    """Positions of a state of a task; 0 where it has none."""
    return task.length if isinstance(task, TaskSpec) else 0


def states(domain: Domain, task: str, prompts: np.ndarray) -> np.ndarray:
    """State after each step of a task, by its name: values from 0, (rows, steps, positions).

    `prompts` are token ids (rows, width). Alphabets are ignored, so that both share one set of
    values. Raises ConfigError for a domain without states.
    """
    if not isinstance(domain, Strings):
        raise ConfigError(f"tasks of domain {domain.axis.domain} have no states")
    of = Task(TaskSpec.model_validate(task), domain.world)
    return domain.world.base(of.trace(domain.vocabulary.starts(of, prompts)))


def check_states(settings: Settings) -> None:
    """Raise ConfigError if probes or heads are asked of an axis that has not what they read."""
    for key in ("probes", "representation"):
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
