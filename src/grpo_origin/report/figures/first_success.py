"""Figure of the exploration law: when the first success came, against its forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.report.plotting import UNIT, legend, looks_of, panels_of
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@figure(
    "first_success",
    per="run",
    category="Beyond zero",
    title="Exploration law: the first success comes when exact masses say",
    caption="""
    Until the first rewarded completion no weight moves, so the exact masses of the training prompts
    give the distribution of the step at which it comes. Left: forecast chance of a success by the
    step at which the first one came (a place between the chances by this step and the one before,
    drawn at random; likewise beyond the last step where none came), sorted, against evenly spaced
    quantiles: on the diagonal, but for the grey band of 95 %, if the law holds; stages of which it
    was all but certain what would come test nothing and are left out. Right, for all: that step
    against the one by which a success had a chance of one half (`none`: none came, or had). A point
    an RL stage of {{ method }}; {{ n }}.
    """,
)
def first_success_figure(first_success: pd.DataFrame) -> Figure:
    """Sorted places in the forecast distribution, and observed against forecast steps."""
    import numpy as np
    from scipy.stats import kstwo

    from grpo_origin.analysis.first_success import in_doubt, uniforms

    figure, panels = panels_of(1, 2, width=3.6, height=3.2)
    tested = in_doubt(first_success)
    places, count = np.sort(uniforms(tested)), len(tested)
    quantiles = (np.arange(count) + 0.5) / max(count, 1)
    band = kstwo.ppf(0.95, max(count, 1))
    left, right = panels[0]
    ends = np.array([0.0, 1.0])
    left.fill_between(ends, ends - band, ends + band, color="0.9", linewidth=0)
    left.plot(ends, ends, color="0.3", linewidth=0.8)
    left.plot(quantiles, places, ".", markersize=4)
    left.set(xlim=UNIT, ylim=UNIT, xlabel="quantile", ylabel="forecast chance by then")
    last = float(first_success["steps"].max()) if len(first_success) else 1.0
    beyond = 1.6 * last
    names = sorted(first_success["axis"].unique())
    looks = looks_of(names)
    for name in names:
        part = first_success[first_success["axis"] == name]
        look = {key: looks[name][key] for key in ("color", "marker")}
        where = part["median"].fillna(beyond), part["first"].fillna(beyond)
        right.scatter(*where, s=14, alpha=0.6, linewidths=0, label=name, **look)
    right.plot([1, last], [1, last], color="0.3", linewidth=0.8)
    right.set(xscale="log", yscale="log", xlim=(0.8, 2 * last), ylim=(0.8, 2 * last))
    right.set(xlabel="step with a chance of one half", ylabel="step of the first success")
    ticks = [1, 3, 10, 30, 100, 300, 1000]
    ticks = [tick for tick in ticks if tick <= last]
    for axis in (right.xaxis, right.yaxis):
        axis.set_ticks([*ticks, beyond], [*map(str, ticks), "none"])
        axis.set_ticks([], minor=True)
    legend(figure)
    return figure
