"""Figures of contrasts: variants against the run's own settings, methods against the main one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpo_origin.config.notation import SPLITS
from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHIFTS = {"id": -0.15, "ood": 0.15}  # of the prompts trained on, in rows
BOUNDS = "bars: t bounds over seeds, both of them share the error of the look; every seed a point"


@figure(
    "contrasts",
    per="axis of several variants",
    category="Variants",
    title="{{ axis }}: variants against the run's own settings",
    caption=f"""
    Difference in mean mass after {{{{ method }}}} between every variant and the run's own settings,
    same seeds, same worlds, same test prompts; a column an OOD ratio, above the mass of OOD test
    prompts, below that of ID test prompts. {BOUNDS}. Within the shaded band of
    {{{{ equivalent }}}} on both sides a difference counts as none.
    """,
)
def contrasts_figure(
    contrasts: pd.DataFrame, seed_contrasts: pd.DataFrame, axis: str, equivalent: float
) -> Figure:
    """Difference of masses after RL by variant, a column an OOD ratio, a row a split."""
    return _forest(contrasts, seed_contrasts, axis, "variant", equivalent)


@figure(
    "method-contrasts",
    per="axis of several methods",
    category="RL methods",
    title="{{ axis }}: methods against {{ method }}",
    caption=f"""
    Difference in mean mass after RL between every method and {{{{ method }}}}, same seeds, same
    start, same test prompts; a column an OOD ratio, above the mass of OOD test prompts, below that
    of ID test prompts. {BOUNDS}. Within the shaded band of {{{{ equivalent }}}} on both sides a
    difference counts as none.
    """,
    all_methods=True,
)
def method_contrasts_figure(
    method_contrasts: pd.DataFrame,
    method_seed_contrasts: pd.DataFrame,
    axis: str,
    equivalent: float,
) -> Figure:
    """Difference of masses after RL by method, a column an OOD ratio, a row a split."""
    return _forest(method_contrasts, method_seed_contrasts, axis, "method", equivalent)


def _forest(
    means: pd.DataFrame, seeds: pd.DataFrame, axis: str, by: str, equivalent: float
) -> Figure:
    """Differences with bounds and seeds, a line each value of column `by`, RL stages alone."""
    from grpo_origin.analysis.contrasts import MASSES

    series = plotting.Measured(
        *(table[table["trained_on"].notna()] for table in (means, seeds))
    ).where(axis=axis)
    ratios = plotting.ordered(series.means["ood_ratio"])
    names = list(dict.fromkeys(series.means[by]))
    trained = [split for split in SHIFTS if split in set(series.means["trained_on"])]
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    figure, panels = plotting.panels_of(
        len(SPLITS), len(ratios), width=2.9, height=0.9 + 0.22 * len(names), **shared
    )
    for row, split in zip(panels, reversed(SPLITS), strict=True):
        for axes, ratio in zip(row, ratios, strict=True):
            axes.axvspan(-equivalent, equivalent, color="0.85", linewidth=0)
            axes.axvline(0, color="0.3", linewidth=0.8)
            part = series.where(ood_ratio=ratio, quantity=MASSES[split])
            for trained_on in trained:
                shift = SHIFTS[trained_on] if len(trained) > 1 else 0.0
                _draw(axes, part.where(trained_on=trained_on), by, names, trained_on, shift)
            axes.set_title(f"{MASSES[split]}, OOD ratio {ratio}")
    for axes in panels[-1]:
        axes.set_xlabel("difference in mean mass")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    panels[0, 0].set_xlim(-1.05, 1.05)
    plotting.legend(figure)
    return figure


def _draw(
    axes: Any, series: plotting.Measured, by: str, names: list[str], trained_on: str, shift: float
) -> None:
    """One RL stage of every variant or method."""
    look = plotting.stage_look(f"x~{trained_on}")
    means, seeds = (
        table.assign(place=table[by].map(names.index).to_numpy(float) + shift) for table in series
    )
    dots: dict[str, Any] = {"s": 8, "alpha": 0.45, "linewidths": 0}
    axes.scatter(seeds["difference"], seeds["place"], color=look["color"], **dots)
    bars = plotting.error_bars(means.rename(columns={"difference": "mean"}))
    bar: dict[str, Any] = {"linestyle": "none", "markersize": 4, "capsize": 2, "elinewidth": 0.9}
    axes.errorbar(
        means["difference"].to_numpy(),
        means["place"].to_numpy(),
        xerr=bars,
        color=look["color"],
        marker=look["marker"],
        label=f"trained on {trained_on.upper()} prompts",
        **bar,
    )
