"""The shared style and parts of all figures. Stages differ in colour (safe for the colour-blind), marker and line, so that prints
in grey stay readable. Knows tables, not what a figure shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grpo_origin.jobs.files import atomic

mpl.use("Agg")


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


LINES = ("-", "--", "-.", ":")


METRICS = {"accuracy": "greedy accuracy", "mass": "mean correct mass Q"}


STAGES = {"pretrain": "pretrained", "sft": "SFT"}


@contextmanager
def style() -> Iterator[None]:
    """The shared style."""
    with sns.axes_style("whitegrid"), sns.plotting_context("paper", font_scale=0.95):
        rc = {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.5,
            "legend.frameon": False,
            "svg.hashsalt": "0",
        }
        with mpl.rc_context(
            {
                **rc,
                "figure.dpi": 120,
                "savefig.dpi": 160,
                "pdf.fonttype": 42,
                "lines.linewidth": 1.4,
            }
        ):
            yield


def save(figure: Figure, png: str | Path, pdf: str | Path) -> None:
    """Write a figure as PNG and PDF, each atomically, and close it."""
    for path, kind in ((png, "png"), (pdf, "pdf")):
        with atomic(path) as temporary:
            metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
            figure.savefig(temporary, format=kind, bbox_inches="tight", metadata=metadata)
    plt.close(figure)


def stage_label(stage: str) -> str:
    """A stage as a reader calls it: `GRPO on OOD prompts` for `grpo~ood`."""
    if "~" in stage:
        method, prompts = stage.split("~")
        return f"{method.upper() if method == 'grpo' else method} on {prompts.upper()} prompts"
    return STAGES.get(stage, stage)


def split_label(split: str) -> str:
    """A test split as a reader calls it."""
    return {"id": "in distribution (ID)", "ood": "out of distribution (OOD)"}.get(split, split)


def looks_of(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Colour, marker and line of each name, the same in every figure that has the same names."""
    colours = sns.color_palette("colorblind", max(len(names), 8))
    return {
        name: {
            "color": colours[i],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, name in enumerate(names)
    }


def stages_of(table: pd.DataFrame) -> list[str]:
    """Stages in their order."""
    found = list(table["stage"].unique())
    return [stage for stage in STAGES if stage in found] + sorted(
        stage for stage in found if stage not in STAGES
    )


def methods_of(table: pd.DataFrame) -> list[str]:
    """RL methods of a table, plain GRPO first."""
    return sorted(
        {stage.split("~")[0] for stage in table["stage"] if "~" in stage},
        key=lambda name: (name != "grpo", name),
    )


def ordered(ratios: Sequence[str]) -> list[str]:
    return sorted(set(ratios), key=Decimal)


def draw_series(
    axes: Axes,
    mean: pd.DataFrame,
    seeds: pd.DataFrame,
    x: str,
    order: Sequence,
    offset: float,
    look: dict,
    label: str,
) -> None:
    """One line with interval bars and a point for each seed, at evenly spaced places in the given order."""
    place = {value: i for i, value in enumerate(order)}
    mean = mean.sort_values(x, key=lambda column: column.map(place))
    where = mean[x].map(place).to_numpy(float) + offset
    error = np.clip(np.array([mean["mean"] - mean["low"], mean["high"] - mean["mean"]]), 0, None)
    axes.errorbar(
        where, mean["mean"], error, capsize=2.5, markersize=4.5, label=label, elinewidth=1, **look
    )
    dots = seeds[x].map(place).to_numpy(float) + offset
    axes.scatter(dots, seeds["mean"], s=9, color=look["color"], alpha=0.45, linewidths=0, zorder=3)


def ratio_axis(axes: Axes, ratios: Sequence[str], label: bool = True) -> None:
    axes.set_xticks(range(len(ratios)), ratios)
    axes.set_xlim(-0.5, len(ratios) - 0.5)
    if label:
        axes.set_xlabel("OOD share of pretraining")


def legend(figure: Figure, axes: Axes, columns: int = 4, title: str | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(columns, len(labels)),
        title=title,
    )


def panels_of(
    rows: int, columns: int, width: float = 3.3, height: float = 2.4, **more: object
) -> tuple[Figure, np.ndarray]:
    return plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
        **more,
    )


def stage_lines(
    axes: Axes,
    mean: pd.DataFrame,
    seeds: pd.DataFrame,
    x: str,
    order: Sequence,
    stages: Sequence[str],
) -> None:
    looks = looks_of(stages)
    for i, stage in enumerate(stages):
        offset = (i - (len(stages) - 1) / 2) * 0.12
        one = (mean[mean["stage"] == stage], seeds[seeds["stage"] == stage])
        if len(one[0]):
            draw_series(axes, *one, x, order, offset, looks[stage], stage_label(stage))
