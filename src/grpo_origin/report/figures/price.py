"""Figure of the price of leaving zero: gold tokens shown against the OOD mass reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpo_origin.analysis.stages import method_label, of_base
from grpo_origin.config.schema import main_method
from grpo_origin.report.plotting import (
    UNIT,
    Measured,
    error_bars,
    legend,
    looks_of,
    wrapped_panels,
)
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRETRAINED = "pretrain"


@figure(
    "price",
    per="run with controls",
    category="Beyond zero",
    title="How little information from outside takes a model out of zero?",
    caption="""
    Mean OOD mass against gold tokens: those of right completions of OOD prompts that a model was
    trained on, each as often as it saw them. Lines: shown in pretraining alone, a point an OOD
    ratio, before and after {{ method }} on OOD prompts. Single points: nothing in pretraining (OOD
    ratio 0), shown by RL methods, or in SFT with {{ method }} after it, by name of the variant.
    Bars: 95 % t intervals over seeds; every seed a point. The axis is linear up to the first token
    count and logarithmic from there.
    """,
    all_methods=True,
)
def price_figure(price: pd.DataFrame, seed_price: pd.DataFrame) -> Figure:
    """OOD mass against gold tokens, a panel an axis, a series each way to be shown some."""
    series = Measured(price.rename(columns={"mass": "mean"}), seed_price)
    names = list(dict.fromkeys(price["axis"]))
    main = main_method(of_base(price)["method"].dropna())
    before, after = "pretraining", f"pretraining, SFT and {method_label(main)}"
    entries = list(dict.fromkeys(_shown_later(series).means["entry"]))
    looks = looks_of([before, after, *entries])
    figure, panels = wrapped_panels(len(names), sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        part = series.where(axis=name)
        for label, entry in ((before, PRETRAINED), (after, main)):
            _draw(axes, part.where(variant="base", entry=entry), looks[label], label)
        shown = _shown_later(part)
        for entry in entries:
            look = looks[entry] | {"linestyle": "none"}
            _draw(axes, shown.where(entry=entry), look, entry)
        counts = part.means["gold_tokens"]
        axes.set_xscale("symlog", linthresh=counts[counts > 0].min() if counts.any() else 1.0)
        axes.set(title=name, ylim=UNIT, xlabel="gold tokens shown")
    for row in panels:
        row[0].set_ylabel("mean OOD mass")
    legend(figure, columns=3)
    return figure


def _shown_later(series: Measured) -> Measured:
    """RL stages of models whose pretraining had no OOD sample, but SFT or RL gold tokens."""
    kept = (
        table[
            table["method"].notna() & (table["pretrain_tokens"] == 0) & (table["gold_tokens"] > 0)
        ]
        for table in series
    )
    return Measured(*kept)


def _draw(axes: Axes, series: Measured, look: dict[str, Any], label: str) -> None:
    """Means with intervals by their tokens, and every seed."""
    if series.means.empty:
        return
    means = series.means.sort_values("gold_tokens")
    bars: dict[str, Any] = {"capsize": 2, "elinewidth": 0.9, "markersize": 4.5} | look
    axes.errorbar(means["gold_tokens"], means["mean"], error_bars(means), label=label, **bars)
    dots: dict[str, Any] = {"s": 8, "alpha": 0.45, "linewidths": 0, "zorder": 3}
    axes.scatter(series.seeds["gold_tokens"], series.seeds["mass"], color=look["color"], **dots)
