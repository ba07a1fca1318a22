"""What an entry of the registry of tables is: columns with types and meanings, and a maker.

Used by `tables` and `claim_tables`; pandas is imported only where a table is made, since the
workflow reads the registry whenever it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from grpo_origin.analysis.sources import Sources
from grpo_origin.evaluation import table as evaluation_file

if TYPE_CHECKING:
    import pandas as pd


class Column(NamedTuple):
    """Type of a column and its meaning, with unit."""

    kind: str
    meaning: str


TEXT, WHOLE, NUMBER, YES_NO = "text", "whole number", "number", "yes or no"
PANDAS_TYPES = {TEXT: "str", WHOLE: "int64", NUMBER: "float64", YES_NO: "bool"}
_KINDS = {"string": TEXT, "int64": WHOLE, "float64": NUMBER, "bool": YES_NO}

# Columns that mean the same in every table.
SHARED: dict[str, Column] = {
    name: Column(_KINDS[kind], meaning) for name, (kind, meaning) in evaluation_file.COLUMNS.items()
} | {
    "interval": Column(TEXT, "how low and high were computed, and over what"),
    "seeds": Column(WHOLE, "seeds that the mean is over"),
    "prompts": Column(WHOLE, "test prompts, those of all seeds together where there is no `seed`"),
    "bin_low": Column(NUMBER, "lower edge of the bin of starting mass (after SFT); belongs to it"),
    "bin_high": Column(NUMBER, "upper edge of the bin; belongs to it only if it is 1"),
    "bin": Column(TEXT, "the bin's edges, as a label"),
    "beta": Column(NUMBER, "KL weight"),
    "pool": Column(TEXT, "`train`: the prompts trained on, `heldout`: test prompts"),
    "mass_before": Column(NUMBER, "correct mass before RL; mean over the row's prompts"),
    "mass_after": Column(NUMBER, "correct mass after RL; mean over the row's prompts"),
    "mass_fixed_point": Column(NUMBER, "mass at which the method itself should rest; mean"),
    "law": Column(NUMBER, "mass that the law of KL-regularised RL predicts; mean"),
    "step": Column(WHOLE, "optimiser step"),
    "steps": Column(WHOLE, "optimiser steps"),
}


def columns(names: str, **described: tuple[str, str]) -> dict[str, Column]:
    """Columns in order, `variant` first: those in `described`, for the others what SHARED says."""
    return {
        name: Column(*described[name]) if name in described else SHARED[name]
        for name in ("variant", *names.split())
    }


def column_lines(described: Mapping[str, Column]) -> list[str]:
    """Columns with types and meanings as a Markdown table."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column, (kind, meaning) in described.items():
        text = meaning.replace("|", "\\|")
        lines.append(f"| `{column}` | {kind} | {text} |")
    return lines


@dataclass(frozen=True)
class Table:
    """An entry of the registry.

    `group` is the job that makes it: `evaluation`, `theory` or `claims`. `converged` marks tables
    that only runs with RL to convergence have. `make` is asked for each variant by itself and
    leaves its name out; what judges variants by each other has `contrast`, of all of them by name.
    """

    group: str
    row: str
    columns: Mapping[str, Column]
    make: Callable[[Sources], pd.DataFrame] | None = None
    converged: bool = False
    contrast: Callable[[Mapping[str, Sources]], pd.DataFrame] | None = None

    @property
    def types(self) -> dict[str, str]:
        """pandas types by column: what `pandas.read_csv(path, dtype=...)` needs."""
        return {name: PANDAS_TYPES[column.kind] for name, column in self.columns.items()}

    def empty(self) -> pd.DataFrame:
        """The table of a run that has none of what is in it."""
        import pandas as pd

        return pd.DataFrame(columns=[column for column in self.columns if column != "variant"])
