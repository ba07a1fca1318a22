"""The figure that holds the RL methods of a run beside each other."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from grpo_origin.analysis.stages import start_of
from grpo_origin.config.notation import SPLITS
from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHIFTS = {"ood": -0.16, "id": 0.16}  # of the splits of a method, in rows


@figure(
    "methods",
    per="axis of several methods",
    category="RL methods",
    title="{{ axis }}: mass moved by each RL method",
    caption="""
    Change of the mean correct mass against SFT by every RL method, on {{ prompts }} OOD test
    prompts (filled) and {{ prompts }} ID test prompts a seed (open: forgetting, where it is
    negative), a column an OOD ratio, a row the prompts trained on. The dashed line is the room that
    was left above the OOD mass after SFT; {{ means }}. Figures of the other categories show
    {{ method }} alone.
    """,
    all_methods=True,
)
def methods_figure(
    gains: pd.DataFrame, seed_gains: pd.DataFrame, summary: pd.DataFrame, axis: str
) -> Figure:
    """Change of mean mass by every method, a column an OOD ratio, a row the prompts trained on."""
    series = plotting.Measured(gains, seed_gains).where(axis=axis, metric="mass", split=SPLITS)
    before = plotting.pick(
        summary, axis=axis, metric="mass", split="ood", stage=start_of(summary["stage"])
    )
    start = before.set_index("ood_ratio")["mean"]
    methods, ratios = plotting.methods_of(series.means), plotting.ordered(series.means["ood_ratio"])
    trained = [split for split in SPLITS if split in set(series.means["trained_on"])]
    height = 0.8 + 0.19 * len(methods)
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    figure, panels = plotting.panels_of(
        len(trained), len(ratios), width=2.9, height=height, **shared
    )
    for (row, trained_on), (column, ratio) in product(enumerate(trained), enumerate(ratios)):
        axes = panels[row, column]
        part = series.where(trained_on=trained_on, ood_ratio=ratio)
        _draw_methods(axes, part, methods)
        axes.axvline(0, color="0.3", linewidth=0.8)
        room = {"color": plotting.colours(1)[0], "linestyle": "--", "linewidth": 0.8}
        axes.axvline(1 - start[ratio], label="room left, 1 - OOD mass after SFT", **room)
        mass = f"{start[ratio]:.2g}" if start[ratio] >= 1e-4 else "below 0.0001"
        head = f"OOD ratio {ratio}\nOOD mass after SFT {mass}\n" if row == 0 else ""
        axes.set_title(f"{head}trained on {trained_on.upper()} prompts")
        if row == len(trained) - 1:
            axes.set_xlabel("change of mean mass against SFT")
    panels[0, 0].set_yticks(range(len(methods)), methods)
    panels[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    panels[0, 0].set_xlim(-1.05, 1.05)
    plotting.legend(figure)
    return figure


def _draw_methods(axes: Axes, series: plotting.Measured, methods: list[str]) -> None:
    """Means with intervals, and the seeds, a row a method; OOD filled, ID open."""
    for (split, shift), colour in zip(SHIFTS.items(), plotting.colours(2), strict=True):
        means, seeds = series.where(split=split)
        dots: dict[str, Any] = {"s": 7, "alpha": 0.4, "linewidths": 0}
        axes.scatter(
            seeds["mean"],
            seeds["method"].map(methods.index).to_numpy(float) + shift,
            color=colour,
            **dots,
        )
        axes.errorbar(
            means["mean"],
            means["method"].map(methods.index).to_numpy(float) + shift,
            xerr=plotting.error_bars(means),
            fmt="o",
            color=colour,
            markerfacecolor=colour if split == "ood" else "white",
            markersize=4,
            capsize=2,
            elinewidth=0.9,
            label=f"{split.upper()} mass",
        )
