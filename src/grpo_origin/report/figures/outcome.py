"""Figure of the forecast of outcomes: mean mass after RL against its forecast from before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.report.plotting import UNIT, legend, looks_of, panels_of, stage_label, stages_of
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@figure(
    "outcome",
    per="run",
    category="Beyond zero",
    title="Where RL ends: forecast before it starts, and measured",
    caption="""
    Mean mass of test prompts after {{ method }}, of the split that it trained on, against its
    forecast from the masses of the training prompts before it and the budget. A point an RL stage,
    bars its 80 % interval; on the diagonal the forecast is right. The forecast is a model that was
    fitted once, on the reference run (docs/forecast.md has its errors on stages that it was not
    fitted on): a report of that run shows a fit, one of any other run a forecast; {{ n }}.
    """,
)
def outcome_figure(outcome: pd.DataFrame) -> Figure:
    """Measured against forecast masses, a panel an RL stage of the method."""
    import numpy as np

    stages = stages_of(outcome) or ["grpo~ood"]
    names = sorted(outcome["axis"].unique())
    looks = looks_of(names)
    figure, panels = panels_of(1, len(stages), width=3.6, height=3.4)
    for axes, stage in zip(panels[0], stages, strict=True):
        axes.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
        for name in names:
            part = outcome[(outcome["axis"] == name) & (outcome["stage"] == stage)]
            middle = part["forecast"].to_numpy(float)
            ends = np.array([middle - part["low"], part["high"] - middle])
            look = {key: looks[name][key] for key in ("color", "marker")}
            look |= {"linestyle": "none", "markersize": 4, "elinewidth": 0.7, "alpha": 0.7}
            axes.errorbar(middle, part["after"], xerr=ends, label=name, **look)
        axes.set(xlim=UNIT, ylim=UNIT, title=stage_label(stage))
        axes.set(xlabel="forecast mass (80 % interval)")
    panels[0, 0].set_ylabel("mean mass after RL")
    legend(figure)
    return figure
