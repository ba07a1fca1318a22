"""Figure of transfer: prompts without mass against the mass that their task has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.report.plotting import UNIT, legend, looks_of, panels_of
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MASS_FLOOR = 1e-20  # where masses that are smaller still are drawn
POINT = 8.0, 0.15  # area of a point, and what each prompt adds to it; points squared


@figure(
    "transfer",
    per="run",
    category="Beyond zero",
    title="Transfer: prompts without mass rise with their task",
    caption="""
    OOD test prompts that had about no mass both in the pretrained model and after SFT (so little
    that all completions of an RL stage together would hardly hold a success): their mean mass after
    {{ method }} on OOD prompts, against the mean mass after SFT of all prompts of their task. A
    point a seed, OOD ratio and task, larger with more such prompts; {{ n }}. A policy free at every
    prompt could not move them; a model that shares its parameters between prompts can.
    """,
)
def transfer_figure(transfer: pd.DataFrame) -> Figure:
    """Mean mass of prompts without mass after RL against their task's mass before it."""
    names = sorted(transfer["axis"].unique())
    looks = looks_of(names)
    figure, panels = panels_of(1, 1, width=5.4, height=3.2)
    axes = panels[0, 0]
    for name in names:
        part = transfer[transfer["axis"] == name]
        look = {key: looks[name][key] for key in ("color", "marker")}
        sizes = POINT[0] + POINT[1] * part["prompts"].to_numpy(float)
        mass = part["task_mass_before"].clip(lower=MASS_FLOOR)
        axes.scatter(mass, part["after"], s=sizes, alpha=0.7, linewidths=0, label=name, **look)
    axes.set_xscale("log")
    axes.set_ylim(*UNIT)
    axes.set_xlabel(f"mean mass of the task after SFT (at least {MASS_FLOOR:g})")
    axes.set_ylabel("their mean mass after RL")
    legend(figure)
    return figure
