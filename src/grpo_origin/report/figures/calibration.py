"""Reliability diagrams, where answers are probabilities of events that chance decides."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from grpo_origin.analysis.stages import start_of
from grpo_origin.config.notation import SPLITS
from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SMALLEST, LARGEST = 1.5, 7.0  # diameters of a marker, of an answer that is hardly or always given


@figure(
    "reliability",
    per="axis with stochastic outcomes",
    category="RL methods",
    title="{{ axis }}: what is true where a probability is said",
    caption="""
    True probability of the event, mean over {{ prompts }} test prompts a seed weighted by how
    likely the answer is after the right trace, against the answer: on the diagonal, if calibrated;
    flatter than it, if overconfident. Before RL and after every method on the split's own prompts,
    a column an OOD ratio; markers are larger where an answer is given more often, and missing where
    hardly ever. Bars: {{ interval }}; {{ n }}.
    """,
    all_methods=True,
)
def reliability_figure(reliability: pd.DataFrame, axis: str) -> Figure:
    """True probability against the answer, a row a split, a column an OOD ratio."""
    table = plotting.pick(reliability, axis=axis)
    ratios, start = plotting.ordered(table["ood_ratio"]), start_of(table["stage"])
    methods = plotting.methods_of(table)
    looks = plotting.looks_of([start, *methods])
    figure, panels = plotting.panels_of(
        len(SPLITS), len(ratios), width=2.9, height=2.7, sharex=True, sharey=True
    )
    for (row, split), (column, ratio) in product(enumerate(SPLITS), enumerate(ratios)):
        axes = panels[row, column]
        axes.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
        part = plotting.pick(table, split=split, ood_ratio=ratio)
        for name in looks:
            own = (part["method"] == name) & (part["trained_on"] == split)
            series = part[own | (part["stage"] == name)].sort_values("answer")
            label = plotting.stage_label(name) if name == start else plotting.method_label(name)
            look = looks[name] | {"marker": "none", "elinewidth": 0.8}
            bars = plotting.error_bars(series)
            axes.errorbar(series["answer"], series["mean"], bars, label=label, **look)
            sizes = (SMALLEST + (LARGEST - SMALLEST) * series["share"].to_numpy() ** 0.5) ** 2
            dots = {key: looks[name][key] for key in ("color", "marker")}
            axes.scatter(series["answer"], series["mean"], s=sizes, **dots)
        axes.set(xlim=plotting.UNIT, ylim=plotting.UNIT)
        axes.set_title(f"OOD ratio {ratio}, {split.upper()} prompts")
    for axes in panels[-1]:
        axes.set_xlabel("probability that is said")
    for axes in panels[:, 0]:
        axes.set_ylabel("true probability")
    plotting.legend(figure)
    return figure
