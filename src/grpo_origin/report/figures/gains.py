"""Figures of what RL gains and loses against SFT, over all axes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpo_origin.analysis.stages import start_of
from grpo_origin.config.notation import SPLITS
from grpo_origin.report.plotting import (
    SHIFT,
    SPLIT_LABELS,
    UNIT,
    Measured,
    draw_series,
    label_lowest,
    legend,
    looks_of,
    ordered,
    panels_of,
    pick,
    ratio_axis,
    stage_label,
    stage_lines,
    stage_look,
    stages_of,
    wrapped_panels,
    zero_line,
)
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAINS, LOSSES = "What RL gains", "What RL loses"


@figure(
    "gain",
    per="run",
    category=GAINS,
    title="Gain by {{ method }} against starting mass",
    caption="""
    Change of a test prompt's correct mass by {{ method }} against its mass after SFT, all axes and
    OOD ratios together, in bins of that starting mass. Mean over the seeds with at least
    {{ bin_prompts }} prompts in the bin (n at most {{ seeds }}), bars: {{ interval }}, every seed a
    point. {% if beta > 0 %}Grey: what the law of KL-regularised RL and its bound allow at the KL
    weight of the run, {{ "%g" | format(beta) }}. At a weight near 0 that is all the room there is,
    1 - Q, for any Q but 0: the training run, not the objective, sets the limit.{% endif %}
    """,
)
def gain_figure(mass_gains: pd.DataFrame, seed_mass_gains: pd.DataFrame, beta: float) -> Figure:
    """Gain over SFT against the starting mass of the prompt, a panel a test split.

    The law and its bound at `beta` (none if that is 0) stand at the bins' mean starting mass.
    """
    series = Measured(*map(_with_labels, (mass_gains, seed_mass_gains)))
    bins = list(dict.fromkeys(series.means.sort_values("bin_low")["bin"]))
    figure, panels = panels_of(1, 2, width=3.6, height=2.8, sharey=True)
    for axes, split in zip(panels.flat, SPLITS, strict=True):
        part = series.where(split=split)
        stage_lines(axes, part, "bin", bins, stages_of(mass_gains))
        if beta > 0:
            _draw_limits(axes, part.means, bins, beta)
        zero_line(axes)
        axes.set_xticks(range(len(bins)), bins, rotation=45, ha="right")
        axes.set_xlim(-0.5, len(bins) - 0.5)
        axes.set_xlabel("starting mass Q of the prompt (after SFT)")
        axes.set_title(SPLIT_LABELS[split])
    panels[0, 0].set_ylabel("gain in mass against SFT")
    legend(figure)
    return figure


def _with_labels(table: pd.DataFrame) -> pd.DataFrame:
    edges = zip(table["bin_low"], table["bin_high"], strict=True)
    labels = [f"{low:g}–{high:g}" if low else f"< {high:g}" for low, high in edges]
    return table.assign(bin=labels)


def _draw_limits(axes: Axes, means: pd.DataFrame, bins: list[str], beta: float) -> None:
    import numpy as np

    from grpo_origin.evaluation.law import mass_bound, optimal_mass

    start = means.groupby("bin")["mass_before"].mean().reindex(bins).dropna()
    places = [bins.index(label) for label in start.index]
    law, bound = optimal_mass(start, beta), np.minimum(mass_bound(start, beta), 1)
    dashes: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1}
    dots: dict[str, Any] = {"color": "0.35", "linestyle": ":", "linewidth": 1.6}
    axes.plot(places, law - start, label=f"law at beta {beta:g}", **dashes)
    axes.plot(places, bound - start, label="its bound, at most 1 - Q", **dots)


@figure(
    "saturation",
    per="run",
    category=GAINS,
    title="Saturation on ID prompts",
    caption="""
    Gain in mean correct mass on ID test prompts by {{ method }} against the ID mass after SFT: a
    point a cell (axis, OOD ratio, seed), the mean of {{ prompts }} prompts; {{ n }}. The dotted
    line is the room that was left, 1 - Q.
    """,
)
def saturation_figure(seed_means: pd.DataFrame, seed_gains: pd.DataFrame) -> Figure:
    """Gain in ID mass of every cell against its ID mass after SFT, a panel an RL stage."""
    keys = ["axis", "seed", "ood_ratio"]
    shown = {"split": "id", "metric": "mass"}
    before = pick(seed_means, stage=start_of(seed_means["stage"]), **shown)[[*keys, "mean"]]
    points = pick(seed_gains, **shown).merge(before.rename(columns={"mean": "start"}), on=keys)
    names, stages = sorted(points["axis"].unique()), stages_of(points)
    looks, edge = looks_of(names), [points["start"].min(), 1.0]
    figure, panels = panels_of(1, len(stages), width=3.6, height=2.8, sharex=True, sharey=True)
    for axes, stage in zip(panels.flat, stages, strict=True):
        for name in names:
            part = pick(points, stage=stage, axis=name)
            look = {key: looks[name][key] for key in ("color", "marker")}
            axes.scatter(
                part["start"], part["mean"], s=22, alpha=0.8, linewidths=0, label=name, **look
            )
        room = [1 - start for start in edge]
        axes.plot(edge, room, color="0.4", linewidth=0.9, linestyle=":", label="room left, 1 - Q")
        zero_line(axes)
        axes.set_title(stage_label(stage))
        axes.set_xlabel("mean ID mass after SFT")
    panels[0, 0].set_ylabel("gain in mean ID mass")
    legend(figure, columns=6)
    return figure


@figure(
    "pass_at_k",
    per="run",
    category=GAINS,
    title="Exact pass@k on OOD prompts, before and after {{ method }}",
    caption="""
    Exact pass@k, the mean of 1 - (1 - Q)^k over {{ prompts }} OOD test prompts a seed: the chance
    that one of k samples at temperature 1 is right. A row an axis, a panel an OOD ratio;
    {{ means }}. RL that only sharpens raises pass@1 and leaves pass@k at the largest k where it
    was, or lowers it.
    """,
)
def pass_at_k_figure(summary: pd.DataFrame, seed_means: pd.DataFrame) -> Figure:
    """Exact pass@k on OOD prompts before and after RL: a row an axis, a panel an OOD ratio."""
    series = Measured(*map(_with_k, (summary, seed_means))).where(split="ood")
    names, sizes = list(dict.fromkeys(series.means["axis"])), sorted(series.means["k"].unique())
    stages = [stage for stage in stages_of(series.means) if stage != "pretrain"]
    ratios = {name: ordered(pick(series.means, axis=name)["ood_ratio"]) for name in names}
    columns = max(map(len, ratios.values()))
    figure, panels = panels_of(len(names), columns, width=1.9, height=1.8, sharex=True, sharey=True)
    for row, name in enumerate(names):
        for axes, ratio in zip(panels[row], ratios[name], strict=False):
            part = series.where(axis=name, ood_ratio=ratio)
            stage_lines(axes, part, "k", sizes, stages)
            axes.set_xticks(range(len(sizes)), [_size_label(size) for size in sizes])
            axes.set_ylim(*UNIT)
            axes.set_title(f"{name}, OOD ratio {ratio}", fontsize="small")
        panels[row, 0].set_ylabel("exact pass@k")
    label_lowest(panels, "k (samples)")
    legend(figure)
    return figure


def _size_label(size: int) -> str:
    """A power of ten as one from 1,000 on, so that labels don't meet."""
    return f"{size:.0e}".replace("e+0", "e") if size >= 1000 else str(size)


def _with_k(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of pass@k with k as a number; the mass is pass@1."""
    names = ["mass", *(name for name in set(table["metric"]) if name.startswith("pass@"))]
    sizes = {name: 1 if name == "mass" else int(name.removeprefix("pass@")) for name in names}
    rows = pick(table, metric=tuple(names))
    return rows.assign(k=rows["metric"].map(sizes))


@figure(
    "forgetting",
    per="run",
    category=LOSSES,
    title="What {{ method }} on one distribution does to the other",
    caption="""
    Change of the mean correct mass on ID and on OOD test prompts by {{ method }} on ID and on OOD
    prompts, against SFT; paired over {{ prompts }} prompts a split and seed, {{ means }}. Below 0
    is forgetting.
    """,
)
def forgetting_figure(gains: pd.DataFrame, seed_gains: pd.DataFrame) -> Figure:
    """Change of the mass of both splits by RL on either, a panel an axis.

    Colour and marker tell the stage; OOD mass is a full line with filled marks, ID mass open.
    """
    series = Measured(gains, seed_gains).where(metric="mass", split=SPLITS)
    names, stages = list(dict.fromkeys(series.means["axis"])), stages_of(series.means)
    lines = [(stage, split) for stage in stages for split in SPLITS]
    figure, panels = wrapped_panels(len(names), width=2.7, height=2.6, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        ratios = ordered(pick(series.means, axis=name)["ood_ratio"])
        for i, (stage, split) in enumerate(lines):
            part = series.where(axis=name, stage=stage, split=split)
            open_marks = {"linestyle": ":", "markerfacecolor": "white"} if split == "id" else {}
            look = stage_look(stage) | {"linestyle": "-"} | open_marks
            label = f"{stage_label(stage)}: {split.upper()} mass"
            offset = (i - (len(lines) - 1) / 2) * SHIFT
            draw_series(axes, part, "ood_ratio", ratios, offset, look, label)
        zero_line(axes)
        ratio_axis(axes, ratios)
        axes.set_title(name)
    for axes in panels[:, 0]:
        axes.set_ylabel("change of mass against SFT")
    legend(figure, columns=2)
    return figure
