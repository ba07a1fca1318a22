"""What a page says first: five sentences, a grid of verdicts, and a card for each claim.

All of it is made of the ledger's rows of the run at hand, decided or not. Called by `page`; knows
nothing of HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pandas as pd

from grpo_origin.analysis.claims import CONTRADICTED, INCONCLUSIVE, SUPPORTED
from grpo_origin.analysis.inference import MIN_SEEDS
from grpo_origin.analysis.stages import method_label
from grpo_origin.config.schema import Settings
from grpo_origin.report.words import RULES, WORDINGS, Wording

VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE)
SAID = {SUPPORTED: "supported", CONTRADICTED: "contradicted", INCONCLUSIVE: "undecided"}
SYMBOLS = {SUPPORTED: "✓", CONTRADICTED: "✗", INCONCLUSIVE: "?"}  # colour alone tells nobody enough
ALL = "all"  # the ledger's name for all axes together


class Bar(NamedTuple):
    """Mean, bounds, edge and zero of a row on a scale from 0 to 100 that its card's rows share."""

    mean: float
    low: float
    high: float
    edge: float
    zero: float


@dataclass(frozen=True)
class Judged:
    """A row of the ledger as a card shows it; `query` names its cells to the explorer."""

    place: str
    verdict: str
    effect: str
    seeds: int
    needed: str
    p_value: str
    cells: str
    note: str
    reference: str
    query: str
    bar: Bar | None


@dataclass(frozen=True)
class Card:
    """A claim with its rows.

    `tally` counts its verdicts, `marks` are its rows by axis, as the grid shows them, `figures`
    names and titles of figures that show it.
    """

    anchor: str
    wording: Wording
    statement: str
    tally: Mapping[str, int]
    found: str
    rule: str
    rows: tuple[Judged, ...]
    marks: Mapping[str, list[Judged]]
    figures: tuple[tuple[str, str], ...] = ()


def signed(value: float) -> str:
    """A number with its sign to three places; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return text if float(text) else text[1:]


def number(row: Any) -> str:
    """The effect of a row with its bounds, as text; a share of seeds in percent."""
    if math.isnan(row.effect):
        return "nothing to test"
    share = row.kind == "few"
    effect, *bounds = (
        f"{value:.0%}" if share else signed(value) for value in (row.effect, row.low, row.high)
    )
    known = f" [{', '.join(bounds)}]" if not math.isnan(row.low) else ""
    return f"{effect}{' of seeds' if share else ''}{known}"


def needed(row: Any) -> str:
    """How many seeds would decide an undecided row; nothing if it is decided or can't be said."""
    return "" if math.isnan(row.seeds_needed) else f"about {row.seeds_needed:.0f} seeds"


def places(rows: Sequence[Any]) -> list[str]:
    """What tells rows of a claim apart: their axis, and a part of their cells if it is shared."""
    names = []
    for row in rows:
        name = "all axes together" if row.axis == ALL else row.axis
        same = [other.cells.split("; ") for other in rows if other.axis == row.axis]
        parts = row.cells.split("; ")[:-1]  # the last part lists seeds
        differing = [
            part for i, part in enumerate(parts) if len({tuple(o[i : i + 1]) for o in same}) > 1
        ]
        # Prompts tell more than ratios, which come before them.
        names.append(", ".join([name, *differing[:2][-1:]]))
    return names


def enumerated(names: Sequence[str]) -> str:
    """One or more names as a sentence lists them: `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def told(rows: Sequence[Any], clauses: Mapping[str, str], show: Callable[[Any], str]) -> str:
    """Rows in one sentence, by verdict: `clauses` says what each verdict is called."""
    parts = []
    names = places(rows)
    for verdict in VERDICTS:
        of = [f"{n} ({show(r)})" for n, r in zip(names, rows, strict=True) if r.verdict == verdict]
        if of:
            parts.append(f"{clauses[verdict]} on {enumerated(of)}")
    return "; ".join(parts)


def summary(claims: pd.DataFrame, settings: Settings) -> list[str]:
    """The five sentences that a page opens with, from the main method's rows of the ledger."""
    method = method_label(settings.main_method)
    seeds, axes = len(settings.seeds), list(settings.axes)
    models = seeds * sum(len(settings.axis_ratios(axis)) for axis in axes)

    def rows(claim: str, kind: str) -> list[Any]:
        return list(claims[(claims["claim"] == claim) & (claims["kind"] == kind)].itertuples())

    def sentence(claim: str, kind: str, start: str, yes: str, no: str) -> str:
        of = rows(claim, kind)
        if not of:
            return f"{start} this run has no cells to tell."
        clauses = (f"it {yes}", f"it {no}", f"it is undecided whether it {yes}")
        return f"{start} {told(of, dict(zip(VERDICTS, clauses, strict=True)), _short)}."

    certified = [row.verdict for row in rows("no exposure", "few")].count(SUPPORTED)
    counts = claims["verdict"].value_counts()
    tally = ", ".join(f"{counts.get(name, 0)} {SAID[name]}" for name in VERDICTS)
    return [
        f"Can {method} take a language model beyond what it was pretrained on? This run asks "
        f"{_counted(models, 'small model')} pretrained along {_counted(len(axes), 'axis', 'axes')} "
        f"({', '.join(axes)}), {_counted(seeds, 'seed')} each, with more or less "
        "out-of-distribution (OOD) data among their samples.",
        sentence(
            "exposure",
            "present",
            f"{method} on OOD prompts, with OOD data in pretraining:",
            "gained OOD mass",
            "did not gain OOD mass",
        ),
        sentence("no exposure", "absent", "Without any:", "gained nothing", "did gain OOD mass")
        + (
            f" On {_counted(certified, 'axis', 'axes')} its samples could hold no right answer to "
            "begin with."
            if certified
            else ""
        ),
        sentence(
            "beyond pretraining",
            "present",
            "Held against the pretrained model, whose OOD mass SFT partly hides:",
            "ended higher",
            "did not end higher",
        ),
        f"Of {len(claims)} verdicts {tally}; {_caveat(claims, seeds)}",
    ]


def _short(row: Any) -> str:
    return "nothing to test" if math.isnan(row.effect) else signed(row.effect)


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _caveat(claims: pd.DataFrame, seeds: int) -> str:
    if seeds < MIN_SEEDS:
        return (
            f"with fewer than {MIN_SEEDS} seeds nothing can be decided, and the numbers only say "
            "what happened here."
        )
    most = claims["seeds_needed"].max()
    more = "" if math.isnan(most) else f"up to about {most:.0f} seeds would decide the open ones, "
    return f"{more}and supported means: in most seeds, of models as small as these."


def cards(
    claims: pd.DataFrame,
    settings: Settings,
    references: pd.DataFrame | None = None,
    figures: Mapping[str, tuple[str, str]] | None = None,
) -> list[Card]:
    """A card for each statement of the ledger of one method, in its order.

    `references` is the table `agreement` or None, `figures` the name of every figure of the page
    with its kind and title.
    """
    families = claims.groupby(["claim", "kind", "statement"], sort=False)
    return [
        _card(list(rows.itertuples()), f"claim-{place}", settings, references, figures or {})
        for place, (_, rows) in enumerate(families, start=1)
    ]


def _card(
    rows: list[Any],
    anchor: str,
    settings: Settings,
    references: pd.DataFrame | None,
    figures: Mapping[str, tuple[str, str]],
) -> Card:
    first = rows[0]
    plain = WORDINGS.get((first.claim, first.kind), Wording(first.claim, first.statement, "effect"))
    method = method_label(first.method)
    texts: dict[str, Any] = {
        name: text.replace("{method}", method)
        for name, text in plain._asdict().items()
        if isinstance(text, str)
    }
    wording = plain._replace(**texts)
    judged = tuple(
        _judged(row, place, bar, settings, references)
        for row, place, bar in zip(rows, places(rows), _bars(rows), strict=True)
    )
    marks: dict[str, list[Judged]] = {}
    for row, shown in zip(rows, judged, strict=True):
        marks.setdefault(row.axis, []).append(shown)
    rare = settings.claims.rare
    rule = RULES[first.kind].format(
        edge=f"{first.edge:g}", rare=f"{rare:.0%}", rest=f"{1 - rare:.0%}"
    )
    said = told(rows, SAID, number)
    open_rows = [row.seeds_needed for row in rows if not math.isnan(row.seeds_needed)]
    if open_rows:
        said += f"; {'up to ' * (len(open_rows) > 1)}about {max(open_rows):.0f} seeds would decide"
    return Card(
        anchor=anchor,
        wording=wording,
        statement=first.statement,
        tally={v: n for v in VERDICTS if (n := [row.verdict for row in rows].count(v))},
        found=f"{said[0].upper()}{said[1:]}.",
        rule=f"{rule} Holm's adjustment over the claim's {_counted(len(rows), 'row')}; look "
        f"{first.look}.",
        rows=judged,
        marks=marks,
        figures=tuple(
            (name, title) for name, (kind, title) in figures.items() if kind in wording.figures
        ),
    )


def _judged(
    row: Any, place: str, bar: Bar | None, settings: Settings, references: pd.DataFrame | None
) -> Judged:
    return Judged(
        place=place,
        verdict=row.verdict,
        effect=number(row),
        seeds=row.seeds,
        needed=needed(row),
        p_value="" if math.isnan(row.p_adjusted) else f"{row.p_adjusted:.3g}",
        cells=row.cells,
        note=row.note,
        reference=_there(row, references),
        query=query(row, settings),
        bar=bar,
    )


def _there(row: Any, references: pd.DataFrame | None) -> str:
    """The reference run's verdict on the same row, with its seeds; nothing if it has none."""
    if references is None:
        return ""
    keys = ["method", "claim", "axis", "statement", "cells"]
    same = (references[keys] == [getattr(row, key) for key in keys]).all(axis=1)
    found = references[same & references["reference_verdict"].notna()]
    if found.empty:
        return ""
    other = found.iloc[0]
    return f"{SAID[other['reference_verdict']]} ({other['reference_seeds']:.0f} seeds)"


def query(row: Any, settings: Settings) -> str:
    """Where the explorer finds cells behind a row: axis, ratio, split and method, as in a URL.

    Rows of all axes lead to the first, rows of several ratios to the smallest above 0.
    """
    axis = row.axis if row.axis in settings.axes else next(iter(settings.axes))
    ratios = settings.axis_ratios(axis)
    said = re.match(r"OOD ratio ([^;]+);", row.cells)
    above = [ratio for ratio in ratios if Decimal(ratio) > 0]
    ratio = said.group(1) if said else (above or list(ratios))[0]
    mixed = re.search(r"mixed-\d+", row.cells)
    split = mixed.group() if mixed else "id" if re.search(r"\bID prompts", row.cells) else "ood"
    return urlencode({"axis": axis, "ratio": ratio, "split": split, "method": row.method})


def _bars(rows: Sequence[Any]) -> list[Bar | None]:
    """The rows' numbers on one scale that holds all of them, the edge and zero."""
    edge = rows[0].edge
    numbers = [0.0, edge, *(x for row in rows for x in (row.effect, row.low, row.high))]
    finite = [x for x in numbers if math.isfinite(x)]
    low, high = min(finite), max(finite)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low) if high > low else 50.0

    return [
        None
        if math.isnan(row.effect)
        else Bar(
            mean=at(row.effect),
            low=at(row.effect if math.isnan(row.low) else row.low),
            high=at(row.effect if math.isnan(row.high) else row.high),
            edge=at(edge),
            zero=at(0.0),
        )
        for row in rows
    ]
