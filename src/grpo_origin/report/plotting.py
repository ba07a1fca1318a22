"""The shared style and parts of all figures; called by `report.figures` and `report.draw`.

Stages differ in colour (safe for the colour-blind), marker and line, so that prints in grey stay
readable. Plotting libraries are imported where used: the Snakefile imports the figures for their
names alone. Knows tables, not what a figure shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grpo_origin.analysis.stages import method_label
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import BEFORE_RL, stage_of
from grpo_origin.jobs.files import atomic

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METRICS = {
    "accuracy": "greedy accuracy",
    "mass": "mean correct mass Q",
    "markers": "of Q: markers",
    "content": "of Q: content",
}
EXPOSURE = "OOD share of pretraining"
SHIFT = 0.12  # between series at the same place, in steps of the horizontal axis
WIDEST = 4  # panels beside each other
SPLIT_LABELS = {"id": "in distribution (ID)", "ood": "out of distribution (OOD)"}
STAGE_LABELS = {"pretrain": "pretrained", "sft": "SFT"}
UNIT = (-0.03, 1.03)  # limits of what lies in [0, 1]


@contextmanager
def style() -> Iterator[None]:
    """The shared style."""
    import matplotlib as mpl
    import seaborn as sns

    changes: Any = {
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.dpi": 120,
        "grid.alpha": 0.5,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "pdf.fonttype": 42,
        "savefig.dpi": 160,
    }
    context = sns.plotting_context("paper", font_scale=0.95)
    with sns.axes_style("whitegrid"), context, mpl.rc_context(changes):
        yield


def save(figure: Figure, png: str | Path, pdf: str | Path) -> None:
    """Write a figure as PNG and PDF, each atomically; the same figure gives the same bytes."""
    for path, kind, stamp in ((png, "png", "Software"), (pdf, "pdf", "CreationDate")):
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, bbox_inches="tight", metadata={stamp: None})


class Measured(NamedTuple):
    """Means with their intervals, and the values of every seed behind them."""

    means: pd.DataFrame
    seeds: pd.DataFrame

    def where(self, **values: Any) -> Measured:
        """The rows of both whose columns have these values."""
        return Measured(*(pick(table, **values) for table in self))


def pick(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns have these values, each one value or a tuple of allowed ones."""
    for name, value in values.items():
        allowed = value if isinstance(value, tuple) else (value,)
        table = table[table[name].isin(allowed)]
    return table


def stage_label(stage: str) -> str:
    """A stage as a reader calls it: `GRPO on OOD prompts` for `grpo~ood`."""
    parts = stage_of(stage)
    if parts.method is None or parts.trained_on is None:
        return STAGE_LABELS.get(stage, stage)
    return f"{method_label(parts.method)} on {parts.trained_on.upper()} prompts"


def stages_of(table: pd.DataFrame) -> list[str]:
    """Stages in their order."""
    names = set(table["stage"])
    return [name for name in BEFORE_RL if name in names] + sorted(names - {*BEFORE_RL})


def methods_of(table: pd.DataFrame) -> list[str]:
    """RL methods of a table, plain GRPO first."""
    return sorted(set(table["method"].dropna()), key=lambda name: (name != "grpo", name))


def ordered(ratios: Iterable[str]) -> list[str]:
    """Distinct ratios (text) by size."""
    return sorted(set(ratios), key=Decimal)


def colours(count: int, name: str = "colorblind") -> list[Any]:
    """So many colours of a palette."""
    import seaborn as sns

    return list(sns.color_palette(name, count))


def looks_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each name, by its place."""
    palette = colours(max(len(names), 8))
    return {
        name: {
            "color": palette[i],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, name in enumerate(names)
    }


def stage_look(stage: str) -> dict[str, Any]:
    """Colour, marker and line of a stage, the same in every figure and for every method."""
    kinds = (*BEFORE_RL, *SPLITS)
    return looks_of(kinds)[stage_of(stage).trained_on or stage]


def error_bars(means: pd.DataFrame) -> np.ndarray:
    """Lengths of the intervals below and above the means, shape (2, rows)."""
    import numpy as np

    below, above = means["mean"] - means["low"], means["high"] - means["mean"]
    return np.clip(np.array([below, above]), 0, None)


def draw_series(
    axes: Axes,
    series: Measured,
    x: str,
    order: Sequence[Any],
    offset: float,
    look: dict[str, Any],
    label: str,
) -> None:
    """A line of means with interval bars and a point for each seed.

    The values of column `x` are evenly spaced in the given order.
    """
    place = {value: i for i, value in enumerate(order)}
    means = series.means.sort_values(x, key=lambda column: column.map(place))
    where = means[x].map(place).to_numpy(float) + offset
    bars: dict[str, Any] = {"capsize": 2.5, "elinewidth": 1, "markersize": 4.5} | look
    axes.errorbar(where, means["mean"], error_bars(means), label=label, **bars)
    points = series.seeds[x].map(place).to_numpy(float) + offset
    dots: dict[str, Any] = {"s": 9, "alpha": 0.45, "linewidths": 0, "zorder": 3}
    axes.scatter(points, series.seeds["mean"], color=look["color"], **dots)


def stage_lines(
    axes: Axes, series: Measured, x: str, order: Sequence[Any], stages: Sequence[str]
) -> None:
    """`draw_series` for every stage that the series have."""
    for i, stage in enumerate(stages):
        part = series.where(stage=stage)
        if len(part.means):
            offset = (i - (len(stages) - 1) / 2) * SHIFT
            draw_series(axes, part, x, order, offset, stage_look(stage), stage_label(stage))


def ratio_axis(axes: Axes, ratios: Sequence[str], label: bool = True) -> None:
    """A horizontal axis of evenly spaced OOD ratios."""
    axes.set_xticks(range(len(ratios)), ratios)
    axes.set_xlim(-0.5, len(ratios) - 0.5)
    if label:
        axes.set_xlabel(EXPOSURE)


def zero_line(axes: Axes) -> None:
    """Where nothing changes."""
    axes.axhline(0, color="0.3", linewidth=0.8)


def panels_of(
    rows: int, columns: int, width: float = 3.3, height: float = 2.4, **more: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, shape (rows, columns); `width` and `height` of a panel in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows))
    figure.set_layout_engine("constrained", w_pad=0.08)  # inches; keeps tick labels apart
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def wrapped_panels(count: int, **more: Any) -> tuple[Figure, np.ndarray]:
    """As `panels_of`, so many panels in rows of WIDEST at most; those left over are hidden."""
    columns = min(count, WIDEST)
    figure, panels = panels_of(-(-count // columns), columns, **more)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, panels


def label_lowest(panels: np.ndarray, label: str) -> None:
    """Hide panels that hold nothing; the lowest other one of each column gets ticks and label."""
    for column in panels.T:
        used = [axes for axes in column if axes.has_data()]
        for axes in column:
            axes.set_visible(axes in used)
        used[-1].tick_params(labelbottom=True)
        used[-1].set_xlabel(label)


def legend(figure: Figure, columns: int = 4, title: str | None = None) -> None:
    """One legend above the panels, with every label that any of them has, series first."""
    from matplotlib.container import Container

    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = sorted(handles, key=lambda label: not isinstance(handles[label], Container))
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(columns, len(handles)),
        title=title,
    )
