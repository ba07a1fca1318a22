"""All figures of a report, by theme; each module registers its own (`report.registry`).

The Snakefile asks `figures_of` what a run draws, `report.draw` draws it, `report.page` shows it.
"""

from __future__ import annotations

from grpo_origin.config.schema import Settings
from grpo_origin.report.figures import (
    calibration,
    contrasts,
    exposure,
    first_success,
    gains,
    methods,
    outcome,
    price,
    representation,
    theory,
    training,
    transfer,
)
from grpo_origin.report.registry import ENTRIES, Drawing, FigureEntry, drawings

__all__ = [
    "ENTRIES",
    "Drawing",
    "FigureEntry",
    "calibration",
    "contrasts",
    "exposure",
    "figures_of",
    "first_success",
    "gains",
    "methods",
    "outcome",
    "price",
    "representation",
    "theory",
    "training",
    "transfer",
]


def figures_of(settings: Settings) -> dict[str, Drawing]:
    """The figures of a run: name -> kind and axis, in the order of the report."""
    return drawings(settings)
