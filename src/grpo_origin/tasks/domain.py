"""What a domain of tasks is: its problems, its tokens, and what is right in it.

One file in `tasks/domains` each, found by its name, which an axis gives as `domain`. Data,
training, evaluation and RL work through this interface; none of them asks which domain it is. A
domain of texts starts from `tasks.text`, which does most of it (docs/tasks.md).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import SPLITS, AnyTask, shares
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.tasks import domains

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from grpo_origin.config.schema import Settings

Problems = np.ndarray
"""Problems of one task, an array with a row each; what a row holds is the domain's own affair."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a domain: how each is written, and the ids that programs look for.

    `steps` are the markers that begin a step of a completion, `chances` the answers that say a
    probability, from 0 to 1 in equal steps (`Domain.stochastic`).
    """

    names: tuple[str, ...]
    bos: int
    eos: int
    pad: int
    steps: tuple[int, ...] = ()
    chances: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def markers(self) -> tuple[int, ...]:
        """Ids of the format; all others are content."""
        return (*self.steps, self.eos)

    def step_starts(self, completion: Sequence[int]) -> list[int]:
        """Where the steps of a completion begin: the first at 0, the others at their markers."""
        later = [i for i, token in enumerate(completion) if i and token in self.steps]
        return [0, *later]


class Padded(NamedTuple):
    """Token lists as an array: `ids` (rows, width) int32, filled up on the right, and `lengths`."""

    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def full(cls, ids: np.ndarray) -> Padded:
        """Lists that are all as long as the array is wide."""
        return cls(ids, np.full(len(ids), ids.shape[1]))

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Padded:
        """Lists of any lengths."""
        lengths = np.array([len(tokens) for tokens in lists], dtype=np.int64)
        ids = np.zeros((len(lists), int(lengths.max(initial=0))), dtype=np.int32)
        for row, tokens in zip(ids, lists, strict=True):
            row[: len(tokens)] = tokens
        return cls(ids, lengths)


class Rendered(NamedTuple):
    """Problems as token ids, prompt and reference completion, and what the verifier needs beside.

    `columns` are those that the domain names (`Domain.columns`), one value a problem.
    """

    prompts: Padded
    completions: Padded
    columns: Mapping[str, np.ndarray] = {}


class Domain(ABC):
    """Tasks of one kind on an axis, for a seed. Raises ConfigError for what can't be asked."""

    trains_tokenizer: ClassVar[bool] = False
    """Whether its tokenizer is a file of the data, which `make_tokenizer` makes."""
    ragged: ClassVar[bool] = False
    """Whether prompts of a task differ in length; training then fills batches up."""
    stochastic: ClassVar[bool] = False
    """Whether an answer is the probability of an event, one of `Tokens.chances` before the end; the
    references of test prompts say the true one, and the job `calibration` holds answers to it."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of prompt sets that the verifier needs beside the prompt."""
    rewards: ClassVar[tuple[str, ...]] = ("exact", "answer")
    """Values of `rl.reward` that `score` knows."""

    def __init__(
        self,
        world: WorldSettings,
        axis: AxisSettings,
        seed: int,
        tokenizer: str | Path | None = None,
    ) -> None:
        self.world_settings, self.axis, self.seed = world, axis, seed
        self.tokenizer_file = tokenizer

    # --- what is asked

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError, a line that names the task, for one that can't be asked."""

    @abstractmethod
    def lengths(self, task: AnyTask) -> tuple[int, int]:
        """Tokens of the longest prompt and of the longest completion of a task."""

    @abstractmethod
    def draw(self, task: AnyTask, rng: np.random.Generator, count: int) -> Problems:
        """`count` problems of a task from the train side of the split, with repetition."""

    @abstractmethod
    def distinct(
        self,
        task: AnyTask,
        rng: np.random.Generator,
        count: int,
        test: bool,
        avoid: Problems | None = None,
    ) -> Problems:
        """`count` different problems of one side of the split.

        Those of `avoid` are taken only when no others are left. Raises ConfigError if there are too
        few at all.
        """

    @abstractmethod
    def available(self, task: AnyTask, test: bool, wanted: int) -> int:
        """Different problems of a side that there are; a domain may stop counting at `wanted`."""

    def too_few(self, task: AnyTask, test: bool, available: int) -> str:
        """What to say where a side has only so many problems."""
        side = "test" if test else "train"
        return f"it has {available} {side} problems: ask for fewer, or widen its options"

    @abstractmethod
    def rendered(self, task: AnyTask, problems: Problems) -> Rendered:
        """Problems as token ids."""

    def mixed(self, problems: Problems, positions: int, rng: np.random.Generator) -> Problems:
        """Problems with so many positions replaced by their twin (`mixed-k`)."""
        raise NotImplementedError

    @abstractmethod
    def count_test(self, task: str, prompts: Padded) -> int:
        """How many prompts of a task, by its name, belong to the test side."""

    # --- what is right

    @property
    def unique(self) -> bool:
        """Whether the reference is the only right completion, so that its mass is the correct one.

        Else the exact mass is a lower bound, and that of any right answer is sampled.
        """
        return True

    @abstractmethod
    def score(
        self,
        kind: str,
        task: str,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        """Rewards by `rl.reward`, 0 to 1, of completions (token lists) of a task, by its name.

        `columns` holds those of `Domain.columns`, a value for each completion.
        """

    # --- tokens

    @property
    def vocabulary_size(self) -> int:
        """Tokens of a model, known before any data."""
        return len(self.tokens)

    @property
    @abstractmethod
    def tokens(self) -> Tokens:
        """The tokens that models of this axis and seed read and write."""

    @abstractmethod
    def build_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer as a Hugging Face object, for saving beside a model; pads on the left."""

    def make_tokenizer(self, file: str | Path) -> None:
        """Write the tokenizer of the data stage, where there is one."""
        raise NotImplementedError


def names() -> list[str]:
    """Names of all domains: the files of `domains`."""
    return sorted(module.name for module in pkgutil.iter_modules(domains.__path__))


@cache
def find(name: str) -> type[Domain]:
    """The domain of a name.

    Raises ConfigError, with the nearest name there is, for any other.
    """
    if name not in names():
        raise ConfigError(f"unknown domain {name!r}{closest(name, names())}")
    module = importlib.import_module(f"{domains.__name__}.{name}")
    for value in vars(module).values():
        defined = isinstance(value, type) and value.__module__ == module.__name__
        if defined and issubclass(value, Domain):
            return value
    raise ConfigError(f"tasks/domains/{name}.py defines no subclass of Domain")


def closest(name: str, known: Sequence[str]) -> str:
    """`, did you mean ..?` with the nearest known name, and all of them where they are few."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    guess = f", did you mean {near[0]!r}?" if near else ""
    few = f" (known: {', '.join(known)})" if len(known) <= MOST_LISTED else ""
    return guess + few


MOST_LISTED = 20  # names that fit a line


def domain_of(settings: Settings, axis: str, tokenizer: Path | None = None) -> Domain:
    """The domain of an axis in the world of the run's first seed; its tasks are checked.

    `tokenizer` is the folder of a base's, which text domains use. Raises ConfigError, which names
    the axis.
    """
    try:
        chosen = settings.axes[axis].model_dump_json()
        return _checked(settings.world.model_dump_json(), chosen, settings.seeds[0], tokenizer)
    except ConfigError as error:
        raise ConfigError(f"axes.{axis}: {error}") from None


@cache
def _checked(world: str, axis: str, seed: int, tokenizer: Path | None) -> Domain:
    settings, of = AxisSettings.model_validate_json(axis), WorldSettings.model_validate_json(world)
    domain = find(settings.domain)(of, settings, seed, tokenizer)
    domain.check()
    return domain


def check_axes(settings: Settings, rl_prompts: int, sft_counts: Mapping[str, int]) -> None:
    """Raise ConfigError if a domain can't do what the settings ask.

    Tasks it has not, a reward it has not, or fewer problems than test, SFT and RL prompts need.
    """
    for name, axis in settings.axes.items():
        domain = domain_of(settings, name)
        if settings.rl.reward not in domain.rewards:
            known = ", ".join(domain.rewards)
            raise ConfigError(
                f"rl.reward: axes.{name}, of domain {axis.domain}, has no {settings.rl.reward!r} "
                f"(it has: {known})"
            )
        for split in SPLITS:
            place = f"(axes.{name}.{split})"
            need = _Need(domain, axis.tasks(split), place)
            need("evaluation.prompts", settings.evaluation.prompts, test=True)
            need("rl.prompts_per_step", rl_prompts, test=False)
            if sft_counts[split]:
                need("sft.samples", sft_counts[split], test=False)


@dataclass(frozen=True)
class _Need:
    domain: Domain
    tasks: Sequence[AnyTask]
    place: str

    def __call__(self, key: str, prompts: int, test: bool) -> None:
        for task, share in zip(self.tasks, shares(prompts, len(self.tasks)), strict=True):
            needed = max(share, 1)  # pretraining draws from every task
            available = self.domain.available(task, test, needed)
            if available < needed:
                raise ConfigError(
                    f"{key} {self.place}: {needed} different prompts of task '{task}' are needed, "
                    f"but {self.domain.too_few(task, test, available)}"
                )
