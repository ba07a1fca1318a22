"""Types that settings are made of: bounded numbers, ratios as text, lists that name nothing twice.

Used by every section of the schema and by the settings of RL methods.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME_LENGTH = 100  # names become folders, whose names file systems limit to 255 bytes
DIGITS = 30  # of a number that names a folder or file
MAX_BETA = 1_000_000


class ConfigError(ValueError):
    """A setting that can't be used; its message is one line: the key and what is allowed."""


class Section(BaseModel):
    """Base of all settings: immutable, and a key that isn't declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field of this annotation holds, also if it may be null; else None."""
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def _number(value: Any) -> Any:
    """Refuse YAML's yes and no, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _whole(value: Any) -> Any:
    """Make 1.0e+23 a whole number, which pydantic can't, so that the bounds answer it."""
    return int(value) if isinstance(value, float) and value.is_integer() else _number(value)


def _decimal_text(value: Any) -> str:
    """A number as the text that names its files, without exponent; "" for anything else."""
    if isinstance(value, str):
        text = value.strip()
    elif type(value) in (int, float):
        text = format(Decimal(repr(value)), "f")
    else:
        return ""
    digits = text.replace(".", "", 1)
    plain = text.isascii() and digits.isdigit() and text[0] != "." and text[-1] != "."
    return text if plain and len(text) <= DIGITS else ""


def _ratio_text(value: Any) -> str:
    """A ratio as the text that names its folder; raises ValueError unless it lies in [0, 1]."""
    text = _decimal_text(value)
    if not text:
        raise ValueError(
            f"{value!r} is not a ratio: write a decimal number from 0 to 1 of at most {DIGITS} "
            "characters, such as 0.03"
        )
    if Decimal(text) > 1:
        raise ValueError(f"ratio {text} lies outside [0, 1]")
    return text


def _beta_text(value: Any) -> str:
    """A KL weight as the text that names its files; raises ValueError unless it is positive."""
    text = _decimal_text(value)
    if not text or not 0 < Decimal(text) <= MAX_BETA:
        raise ValueError(
            f"{value!r} is not a KL weight: write a positive decimal number up to {MAX_BETA} of "
            f"at most {DIGITS} characters, such as 0.3"
        )
    return text


def distinct_ratios(ratios: tuple[str, ...]) -> tuple[str, ...]:
    """Raise ValueError if a ratio comes twice, in whatever notation."""
    seen: dict[Decimal, str] = {}
    for text in ratios:
        other = seen.setdefault(Decimal(text), text)
        if other is not text or ratios.count(text) > 1:
            raise ValueError(
                f"ratio {text} is listed twice (as {other} and {text}): name each ratio once"
            )
    return ratios


def _distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        repeated = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"seed {repeated} is listed twice: name each seed once")
    return seeds


def _distinct_betas(betas: tuple[str, ...]) -> tuple[str, ...]:
    if len({Decimal(text) for text in betas}) < len(betas):
        raise ValueError("a KL weight is listed twice: name each once")
    return betas


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]
Rate = Annotated[Number, Field(gt=0, lt=1)]
Ratio = Annotated[str, BeforeValidator(_ratio_text)]
Ratios = Annotated[tuple[Ratio, ...], Field(min_length=1), AfterValidator(distinct_ratios)]
Beta = Annotated[str, BeforeValidator(_beta_text)]
Betas = Annotated[tuple[Beta, ...], Field(min_length=1), AfterValidator(_distinct_betas)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct_seeds)]
