"""The explorer of a page: its data, its charts and the JavaScript that draws them.

Three charts of one choice of axis, ratio, seed, stage and the like: means by OOD ratio with every
seed, learning curves, and how the mass is spread over prompts. They are Vega-Lite, written with
Altair; page.js.j2 filters the data and feeds them. Everything is aggregated here, so that a page
holds no row a prompt. Called by `page`; altair and vl-convert are imported where used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from grpo_origin.analysis.spread import LOWEST
from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import BASE, BEFORE_RL, stage_of
from grpo_origin.report.plotting import (
    EXPOSURE,
    METRICS,
    STAGE_LABELS,
    ordered,
    stage_label,
    stage_look,
    stages_of,
)
from grpo_origin.report.registry import EXPLORER_TABLES

if TYPE_CHECKING:
    import altair as alt

KINDS = STAGE_LABELS | {split: f"RL on {split.upper()} prompts" for split in SPLITS}
SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond"}  # matplotlib to Vega
DIGITS = 4  # significant ones of numbers in the page: more than a reader or a pixel can tell
_CELL = ["variant", "axis", "seed", "ratio", "stage", "method", "split"]


def explorer_data(tables: Mapping[str, pd.DataFrame], method: str) -> dict[str, Any]:
    """What the charts show, ready for JSON: tables as {columns, words, rows}, and labels.

    `tables` are EXPLORER_TABLES, of all variants or of none; `method` is the main one, which is
    shown first. Rows are in the order of ratios.
    """
    known = {name: _named(tables[name]) for name in EXPLORER_TABLES}
    seeds, means = (known[name].query("metric in @METRICS") for name in ("seed_means", "summary"))
    curves = known["learning_curves"]
    accuracy = {"accuracy": curves.get("greedy_accuracy", float("nan"))}
    return {
        "labels": {stage: stage_label(stage) for stage in stages_of(known["seed_means"])},
        "kinds": {stage: _kind(stage) for stage in stages_of(known["seed_means"])},
        "metrics": METRICS,
        "base": BASE,
        "first": [BASE, method, "ood", "mass"],
        "lowest": LOWEST,
        "seeds": _packed(seeds, [*_CELL, "metric", "mean"]),
        "means": _packed(
            means,
            [*_without(_CELL, "seed"), *("metric", "mean", "low", "high", "seeds", "interval")],
        ),
        "curves": _packed(curves.assign(**accuracy), [*_CELL, "completions", "mass", "accuracy"]),
        "spread": _packed(known["mass_spread"], [*_CELL, "quantity", "decade", "prompts"]),
        "signal": _packed(
            known["signal"],
            [*_without(_CELL, "split"), "completions", "rewarded", "any_success", "moved"],
        ),
    }


def _without(names: Sequence[str], left_out: str) -> list[str]:
    return [name for name in names if name != left_out]


def _kind(stage: str) -> str:
    """What a stage is called whatever its method, as legends do."""
    return KINDS[stage_of(stage).trained_on or stage]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """A table with a column `variant` and its ratios as `ratio`, in the order of both."""
    if "variant" not in table:
        table = table.assign(variant=BASE)
    table = table.rename(columns={"ood_ratio": "ratio"})
    places = {ratio: i for i, ratio in enumerate(ordered(table["ratio"]))}
    return table.sort_values("ratio", key=lambda column: column.map(places), kind="stable")


def _packed(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """A table as {columns, words, rows}: text as its place in `words`, numbers rounded.

    A page holds thousands of rows of the same few words. Columns that the table lacks are null.
    """
    table = table.reindex(columns=list(columns))
    words: dict[str, list[str]] = {}
    packed = []
    for name in columns:
        column = table[name]
        if pd.api.types.is_float_dtype(column):
            packed.append([None if pd.isna(x) else float(f"{x:.{DIGITS}g}") for x in column])
        elif pd.api.types.is_numeric_dtype(column):
            packed.append(column.tolist())
        else:
            codes, distinct = pd.factorize(column)
            words[name] = distinct.tolist()
            packed.append([None if code < 0 else int(code) for code in codes])
    rows = [list(row) for row in zip(*packed, strict=True)]
    return {"columns": list(columns), "words": words, "rows": rows}


def charts() -> dict[str, dict[str, Any]]:
    """The charts as Vega-Lite: `ratios`, `curves` and `spread`; each draws the data set `rows`."""
    made = {"ratios": _ratios(), "curves": _curves(), "spread": _spread()}
    return {name: chart.to_dict() for name, chart in made.items()}


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that may stand inside an HTML page."""
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub wants an argument
    # What looks like the script's end inside a string would end it.
    return script.replace("</script", "<\\/script")


def _looks(channel: Any, title: str | None = None) -> Any:
    """Colour or shape of the kinds of stages, as in the figures."""
    import altair as alt
    from matplotlib.colors import to_hex

    looks = [stage_look(name) for name in (*BEFORE_RL, *SPLITS)]
    marks = (
        [to_hex(look["color"]) for look in looks]
        if channel is alt.Color
        else [SHAPES[look["marker"]] for look in looks]
    )
    scale = alt.Scale(domain=list(KINDS.values()), range=marks)
    legend = alt.Legend(orient="top", columns=2, title=title, labelLimit=200)
    return channel("kind:N", scale=scale, legend=legend)


def _base(**encodings: Any) -> alt.Chart:
    import altair as alt

    return alt.Chart(alt.NamedData("rows")).encode(**encodings)


def _sized(chart: Any, height: int) -> Any:
    return chart.properties(width="container", height=height).configure(
        axis={"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        legend={"labelFontSize": 12},
        view={"stroke": None},
    )


def _ratios() -> Any:
    """Mean and interval of every stage by ratio; every seed a point that can be chosen."""
    import altair as alt

    unit = alt.Scale(domain=[0, 1])
    base = _base(
        x=alt.X(
            "ratio:N",
            sort=None,
            title=EXPOSURE,
            axis=alt.Axis(labelAngle=0),
            scale=alt.Scale(paddingInner=0.4),
        ),
        xOffset=alt.XOffset("kind:N", sort=list(KINDS.values())),
        color=_looks(alt.Color),
    )
    means = base.transform_filter("datum.seed === null")
    said = [
        alt.Tooltip("label:N", title="stage"),
        alt.Tooltip("ratio:N", title="OOD ratio"),
    ]
    over = [
        alt.Tooltip("mean:Q", title="mean", format=".3g"),
        alt.Tooltip("low:Q", title="low", format=".3g"),
        alt.Tooltip("high:Q", title="high", format=".3g"),
        alt.Tooltip("seeds:Q", title="n (seeds)"),
        alt.Tooltip("interval:N", title="interval"),
    ]
    bars = means.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", scale=unit, title="mean over prompts"), y2="high:Q"
    )
    ticks = means.mark_tick(thickness=3, size=14).encode(y="mean:Q", tooltip=[*said, *over])
    points = (
        base.transform_filter("datum.seed !== null")
        .mark_point(filled=True, cursor="pointer")
        .encode(
            y="mean:Q",
            shape=_looks(alt.Shape),
            size=alt.condition("datum.chosen", alt.value(130), alt.value(45)),
            opacity=alt.condition("datum.chosen", alt.value(1), alt.value(0.5)),
            stroke=alt.condition("datum.chosen", alt.value("black"), alt.value(None)),
            tooltip=[*said, alt.Tooltip("seed:N"), alt.Tooltip("mean:Q", format=".3g")],
        )
    )
    return _sized(alt.layer(bars, ticks, points), 260)


def _curves() -> Any:
    """Learning curves of the ratio's seeds, the chosen one strong."""
    import altair as alt

    lines = _base(
        x=alt.X("completions:Q", title="completions sampled so far", axis=alt.Axis(tickCount=5)),
        y=alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title="mean over prompts"),
        color=_looks(alt.Color),
        detail="seed:N",
        opacity=alt.condition("datum.chosen", alt.value(1), alt.value(0.2)),
        tooltip=[
            alt.Tooltip("label:N", title="stage"),
            alt.Tooltip("seed:N"),
            alt.Tooltip("completions:Q"),
            alt.Tooltip("value:Q", title="mean", format=".3g"),
        ],
    )
    dots = lines.transform_filter("datum.chosen").mark_point(filled=True, size=50)
    dots = dots.encode(shape=_looks(alt.Shape))
    return _sized(alt.layer(lines.mark_line(), dots), 260)


def _spread() -> Any:
    """Shares of the chosen cell's prompts by decade, a panel a stage; page.js sets its width."""
    import altair as alt

    bars = _base(
        x=alt.X("decade:Q", title="power of ten", axis=alt.Axis(tickMinStep=1, tickCount=6)),
        x2="end:Q",
        y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=2)),
        y2=alt.Y2Datum(0),
        color=_looks(alt.Color).legend(None),
        tooltip=[
            alt.Tooltip("label:N", title="stage"),
            alt.Tooltip("decade:Q", title="at least 10^"),
            alt.Tooltip("prompts:Q"),
            alt.Tooltip("share:Q", title="share of prompts", format=".0%"),
        ],
    ).mark_bar(stroke="white", strokeWidth=0.5)
    panels = bars.properties(height=44).facet(
        row=alt.Row(
            "kind:N",
            sort=list(KINDS.values()),
            title=None,
            header=alt.Header(labelOrient="top", labelAnchor="start", labelFontSize=12),
        ),
        spacing=6,
    )
    return panels.configure(view={"stroke": None})
