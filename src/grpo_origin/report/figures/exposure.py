"""Figures of an axis: accuracy and mass of every stage against exposure and foreign tokens."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from grpo_origin.config.notation import SPLITS
from grpo_origin.report.plotting import (
    EXPOSURE,
    METRICS,
    SPLIT_LABELS,
    UNIT,
    WIDEST,
    Measured,
    label_lowest,
    legend,
    ordered,
    panels_of,
    pick,
    ratio_axis,
    stage_lines,
    stages_of,
)
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TITLE = 34  # characters of a line over a panel


@figure(
    "axis",
    per="axis",
    category="Axes",
    title="{{ axis }}: accuracy and correct mass at every stage",
    caption="""
    Greedy accuracy, mean correct mass Q, and the two factors of Q, all exact, from one forward pass
    a prompt, against the share of OOD samples in pretraining (evenly spaced, so that 0 and the
    smallest ratio stay apart). Markers: the probability of every <think>, <answer> and
    <eos> of the right completion, that is, of the right number of steps; content: of the
    states between them. {{ prompts }} ID and {{ prompts }} OOD test prompts a seed, a line a stage;
    {{ means }}. SFT on ID prompts may hide OOD mass that pretraining had put there.
    """,
)
def axis_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, axis: str) -> Figure:
    """Accuracy, mean mass and its factors against the OOD ratio, ID and OOD, a line a stage."""
    series = Measured(summary, seed_means).where(axis=axis)
    ratios, stages = ordered(series.means["ood_ratio"]), stages_of(series.means)
    figure, panels = panels_of(len(METRICS), 2, height=2.0, sharex=True, sharey=True)
    for row, (metric, label) in enumerate(METRICS.items()):
        for column, split in enumerate(SPLITS):
            axes = panels[row, column]
            part = series.where(metric=metric, split=split)
            stage_lines(axes, part, "ood_ratio", ratios, stages)
            ratio_axis(axes, ratios, label=row == len(METRICS) - 1)
            axes.set_ylim(*UNIT)
            axes.set_ylabel(label if column == 0 else "")
            if row == 0:
                axes.set_title(SPLIT_LABELS[split])
    legend(figure)
    return figure


@figure(
    "tasks",
    per="axis with several OOD tasks",
    category="Axes",
    title="{{ axis }}: every task by itself",
    caption="""
    Mean correct mass Q of each task, ID and OOD, against the OOD share of pretraining. The
    {{ prompts }} test prompts of a split and seed are shared evenly by its tasks; {{ means }}. A
    mean over tasks can hide that one OOD task is learnt and another is not.
    """,
)
def tasks_figure(task_summary: pd.DataFrame, task_seed_means: pd.DataFrame, axis: str) -> Figure:
    """Mean mass of every task of an axis against the OOD ratio, a panel a task, OOD below ID."""
    both = Measured(task_summary, task_seed_means)
    series = both.where(axis=axis, metric="mass", split=SPLITS)
    ratios, stages = ordered(series.means["ood_ratio"]), stages_of(series.means)
    tasks = {split: sorted(set(pick(series.means, split=split)["task"])) for split in SPLITS}
    columns = min(WIDEST, max(map(len, tasks.values())))
    lines = [
        [(split, task) for task in names[start : start + columns]]
        for split, names in tasks.items()
        for start in range(0, len(names), columns)
    ]
    shared = {"sharex": True, "sharey": True}
    figure, panels = panels_of(len(lines), columns, width=2.6, height=2.2, **shared)
    for row, line in enumerate(lines):
        for axes, (split, task) in zip(panels[row], line, strict=False):
            part = series.where(split=split, task=task)
            stage_lines(axes, part, "ood_ratio", ratios, stages)
            ratio_axis(axes, ratios, label=False)
            axes.set_ylim(*UNIT)
            axes.set_title(textwrap.fill(f"{split.upper()}: {task}", TITLE))
        panels[row, 0].set_ylabel(METRICS["mass"])
    label_lowest(panels, EXPOSURE)
    legend(figure)
    return figure


@figure(
    "mixing",
    per="axis with mixed splits",
    category="Axes",
    title="{{ axis }}: foreign tokens in ID prompts",
    caption="""
    Mean correct mass Q of {{ prompts }} ID test prompts a seed with {{ mixed }} of their tokens
    replaced by the twin of the other alphabet, a panel an OOD ratio, a line a stage; {{ means }}.
    """,
)
def mixing_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, axis: str) -> Figure:
    """Mean mass of ID prompts against how many of their tokens are foreign, a panel a ratio."""
    series = Measured(*map(_with_foreign, (summary, seed_means))).where(axis=axis, metric="mass")
    ratios, stages = ordered(series.means["ood_ratio"]), stages_of(series.means)
    counts = sorted(series.means["foreign"].unique())
    figure, panels = panels_of(1, len(ratios), width=2.1, height=2.5, sharey=True)
    for axes, ratio in zip(panels.flat, ratios, strict=True):
        part = series.where(ood_ratio=ratio)
        stage_lines(axes, part, "foreign", counts, stages)
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set_xlabel("foreign tokens")
        axes.set_title(f"OOD ratio {ratio}")
        axes.set_ylim(*UNIT)
    panels[0, 0].set_ylabel(METRICS["mass"])
    legend(figure)
    return figure


def _with_foreign(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ID and mixed splits, with the number of foreign tokens of their prompts."""
    names = sorted(set(table["split"]) - {"ood"})
    counts = {name: 0 if name == "id" else int(name.removeprefix("mixed-")) for name in names}
    rows = pick(table, split=tuple(names))
    return rows.assign(foreign=rows["split"].map(counts))
