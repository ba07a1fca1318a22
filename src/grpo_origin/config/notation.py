"""How tasks, splits and exposure are written: the text in a configuration and what it means.

The names of the operations are here, what they do is in `tasks`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

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
    def prompt_tokens(self) -> int:
        """Tokens of a prompt: `<bos>`, the string, one an operation, `<solve>`."""
        return 2 + self.length + len(self.operations)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the completion: a marked state per step, then `<eos>`."""
        return len(self.operations) * (1 + self.length) + 1


def _distinct_tasks(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    for task in tasks:
        if tasks.count(task) > 1:
            raise ValueError(f"task '{task}' is listed twice: name each task once")
    return tasks


def _distinct_splits(splits: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(splits)) < len(splits):
        raise ValueError("a split is listed twice: name each of id and ood at most once")
    return splits


Tasks = Annotated[tuple[TaskSpec, ...], Field(min_length=1), AfterValidator(_distinct_tasks)]
Splits = Annotated[
    tuple[Split, ...],
    Field(min_length=1, max_length=len(SPLITS)),
    AfterValidator(_distinct_splits),
]


def ood_count(ratio: str, samples: int) -> int:
    """OOD samples among `samples` at this ratio: round(ratio * samples), computed in decimals."""
    return round(Decimal(ratio) * samples)
