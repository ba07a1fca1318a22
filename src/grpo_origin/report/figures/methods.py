"""Figures that hold the RL methods of a run beside each other: masses, and what traces are for."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from grpo_origin.analysis.stages import start_of
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import BASE
from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Measures of the table `faithfulness` that are drawn, and what they are called.
FAITHFULNESS = {
    "consistent": "consistent completions",
    "causal_use": "causal use of the trace",
    "right_for_wrong_reasons": "right for wrong reasons",
}
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


@figure(
    "faithfulness",
    per="axis with faithfulness",
    category="RL methods",
    title="{{ axis }}: do answers follow from their traces?",
    caption="""
    By method (and variant), on OOD test prompts with a trace (filled) and ID ones (open), a row an
    OOD ratio. Left: share of sampled completions whose answer is what the last operation makes of
    the last state written. Middle: causal use, exact: a state of the gold trace is corrupted; 1 if
    the model then gives the answer that follows from it in place of the gold one, 0 if it answers
    as before. Right: mass of right answers behind wrong traces. {{ n }}: mean over seeds, bars:
    95 % t interval, every seed a point.
    """,
    all_methods=True,
)
def faithfulness_figure(
    faithfulness_summary: pd.DataFrame, faithfulness: pd.DataFrame, axis: str
) -> Figure:
    """Three measures by stage where RL starts and after every method, a row an OOD ratio."""
    series = plotting.Measured(*map(_entries, (faithfulness_summary, faithfulness)))
    series = series.where(axis=axis, split=SPLITS)
    names = list(dict.fromkeys(series.means["method"]))
    ratios = plotting.ordered(series.means["ood_ratio"])
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    figure, panels = plotting.panels_of(
        len(ratios), len(FAITHFULNESS), width=2.9, height=0.9 + 0.22 * len(names), **shared
    )
    for row, ratio in zip(panels, ratios, strict=True):
        for axes, (measure, label) in zip(row, FAITHFULNESS.items(), strict=True):
            part = series.where(ood_ratio=ratio, measure=measure)
            _draw_methods(axes, part, names, "prompts")
            axes.set_title(f"{label}\nOOD ratio {ratio}")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    panels[0, 0].set_xlim(-0.1, 1.05)
    plotting.legend(figure)
    return figure


def _entries(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a figure: where RL starts, the run's RL stages, then those of its variants.

    Their labels stand in the column `method`; of a variant RL stages alone, since it mostly starts
    where the run does.
    """
    start = start_of(table["stage"])
    late, trained = table["variant"] != BASE, table["method"].notna()
    labels = table["stage"].map(plotting.stage_label)
    labels = labels.where(~late, table["variant"] + ": " + labels)
    table = table.assign(method=labels, late=late, trained=trained)
    table = table[trained | ((table["stage"] == start) & ~late)]
    return table.sort_values(["late", "trained"], kind="stable")


def _draw_methods(
    axes: Axes, series: plotting.Measured, methods: list[str], what: str = "mass"
) -> None:
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
            label=f"{split.upper()} {what}",
        )
