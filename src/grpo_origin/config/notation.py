"""How tasks, splits and exposure are written: the text in a configuration and what it means.

A task is text, `operations;length;alphabet`, or a mapping that names a data set and its options;
what a domain makes of it is in `tasks`. The names of the operations are here, what they do is not.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)

from grpo_origin.config.fields import Section

Operation = Literal["trav", "shift"]
Alphabet = Literal["A", "B"]
Split = Literal["id", "ood"]
OPERATIONS: tuple[str, ...] = get_args(Operation)
ALPHABETS: tuple[str, ...] = get_args(Alphabet)
SPLITS: tuple[Split, ...] = get_args(Split)  # what can be trained on; test has mixed-k as well


class TaskSpec(Section):
    """A task, `operations;length;alphabet`: `trav trav;4;A` applies trav twice, left to right."""

    operations: tuple[Operation, ...] = Field(
        min_length=1, description="Operations, applied left to right."
    )
    length: int = Field(ge=1, le=64, description="Number of elements of the string.")
    alphabet: Alphabet = Field(description="Alphabet the start string is written in.")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(";")]
        if len(parts) != 3:
            raise ValueError(
                f"{value!r} is not a task: write 'operations;length;alphabet', "
                "such as 'trav trav;4;A'"
            )
        operations, length, alphabet = parts
        for operation in operations.split() or [""]:
            if operation not in OPERATIONS:
                known = ", ".join(OPERATIONS)
                raise ValueError(
                    f"unknown operation {operation!r} in task {value!r} (known: {known})"
                )
        if not (length.isascii() and length.isdecimal() and 1 <= Decimal(length) <= 64):
            raise ValueError(
                f"length {length!r} in task {value!r} is not a whole number from 1 to 64"
            )
        if alphabet not in ALPHABETS:
            known = ", ".join(ALPHABETS)
            raise ValueError(f"unknown alphabet {alphabet!r} in task {value!r} (known: {known})")
        return {"operations": operations.split(), "length": int(length), "alphabet": alphabet}

    def __str__(self) -> str:
        return f"{' '.join(self.operations)};{self.length};{self.alphabet}"

    @property
    def written(self) -> str:
        """The task as a configuration has it."""
        return str(self)

    @property
    def positions(self) -> int:
        """Positions of the prompt that a mixed test split can replace."""
        return self.length

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a prompt: `<bos>`, the string, one an operation, `<solve>`."""
        return 2 + self.length + len(self.operations)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the completion: a marked state per step, then `<eos>`."""
        return len(self.operations) * (1 + self.length) + 1


class DatasetTask(Section):
    """A task of a text domain, `{dataset: name, option: value, ..}`.

    The domain knows what there is. Options are plain values or lists of them.
    """

    model_config = ConfigDict(extra="allow")

    dataset: str = Field(min_length=1, description="Name of the data set.")

    @model_validator(mode="after")
    def _check(self) -> DatasetTask:
        for option, value in self.options.items():
            parts = value if isinstance(value, (list, tuple)) else [value]
            if not all(isinstance(part, (str, int, float, bool)) for part in parts):
                raise ValueError(f"{option}: write a plain value or a list of them, not {value!r}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options as they were written."""
        return dict(self.model_extra or {})

    @property
    def written(self) -> dict[str, Any]:
        """The task as a configuration has it."""
        return self.model_dump(mode="json")

    @property
    def positions(self) -> int:
        """None: texts have no twins in another alphabet."""
        return 0

    def __str__(self) -> str:
        return " ".join([self.dataset, *(f"{k}={_plain(v)}" for k, v in self.options.items())])


def _plain(value: Any) -> str:
    """An option's value without spaces, as names of tasks have it: `0-9,12` of a rising list."""
    if not isinstance(value, (list, tuple)):
        return str(value).replace(" ", "_")
    whole = all(type(part) is int for part in value)
    if not (whole and list(value) == sorted(set(value))):
        return ",".join(map(_plain, value))
    runs: list[list[int]] = []
    for number in value:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join("-".join(map(str, sorted({run[0], run[-1]}))) for run in runs)


AnyTask = TaskSpec | DatasetTask


def _task(value: Any, _: Any) -> AnyTask:
    """A task by the form in which it is written."""
    if isinstance(value, AnyTask):
        return value
    kind = DatasetTask if isinstance(value, dict) and "dataset" in value else TaskSpec
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(place + first["msg"].removeprefix("Value error, ")) from None


def operations_of(task: str) -> frozenset[str]:
    """Operations that a task combines, by its name; none where it names none."""
    try:
        return frozenset(TaskSpec.model_validate(task).operations)
    except ValidationError:
        return frozenset()


def _distinct_tasks(tasks: tuple[AnyTask, ...]) -> tuple[AnyTask, ...]:
    for task in tasks:
        if tasks.count(task) > 1:
            raise ValueError(f"task '{task}' is listed twice: name each task once")
    return tasks


def _distinct_splits(splits: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(splits)) < len(splits):
        raise ValueError("a split is listed twice: name each of id and ood at most once")
    return splits


Tasks = Annotated[
    tuple[Annotated[AnyTask, WrapValidator(_task)], ...],
    Field(min_length=1),
    AfterValidator(_distinct_tasks),
]
Splits = Annotated[
    tuple[Split, ...],
    Field(min_length=1, max_length=len(SPLITS)),
    AfterValidator(_distinct_splits),
]


def ood_count(ratio: str, samples: int) -> int:
    """OOD samples among `samples` at this ratio: round(ratio * samples), computed in decimals."""
    return round(Decimal(ratio) * samples)


def shares(count: int, parts: int) -> list[int]:
    """`count` split as evenly as possible."""
    return [count // parts + (i < count % parts) for i in range(parts)]
