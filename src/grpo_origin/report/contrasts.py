"""The variants of a run against its own settings, in Markdown; called by `grpo-origin contrasts`.

A sentence for each variant and tables, all made of the table `contrasts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from grpo_origin.analysis.contrasts import (
    DIFFERS,
    EQUIVALENT,
    MASSES,
    OVER_PRETRAINED,
    OVER_START,
)
from grpo_origin.analysis.inference import MIN_SEEDS
from grpo_origin.analysis.stages import start_of
from grpo_origin.config.variants import CHANGED
from grpo_origin.report.plotting import stage_label
from grpo_origin.report.verdicts import enumerated, needed, signed

if TYPE_CHECKING:
    import pandas as pd

SAID = {"+": "higher", "-": "lower", "=": "equivalent", "?": "undecided"}
JUDGED = (MASSES["ood"], OVER_START, OVER_PRETRAINED, MASSES["id"])
KEY = """\
Brackets hold t bounds over seeds that share an error of {error:g}. `=` equivalent (within
±{within:g}), `+` more, `-` less, `?` undecided; in parentheses the number of seeds that would
decide, if that is known. Each row by itself: of many some are false.
"""


def contrasts_text(table: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """A sentence for each variant, a table for each axis and RL stage, and what else differs.

    From table `contrasts` of a run and its settings as in `settings.json`.
    """
    rl = table[table["trained_on"].notna()]
    lines = ["## A sentence for each variant", ""]
    for variant, rows in rl.groupby("variant", sort=False):
        stage = max(rows["stage"], key=lambda name: name.endswith("~ood"))
        of_mass = rows[(rows["stage"] == stage) & (rows["quantity"] == MASSES["ood"])]
        change = changes(settings["variants"][variant])
        said = sentence(list(of_mass.itertuples()))
        lines.append(f"- `{variant}` ({change}): OOD mass after {stage_label(stage)} is {said}.")
    claims = settings["claims"]
    key = KEY.format(within=claims["equivalent"], error=claims["significance"])
    lines += ["", "## Tables", "", key]
    for (axis, stage), rows in rl.groupby(["axis", "stage"], sort=False):
        lines += [f"### {axis}, after {stage_label(str(stage))}", "", *_table(rows), ""]
    before = table[table["trained_on"].isna() & (table["difference"] != 0)]
    starts = before.groupby("variant")["stage"].transform(start_of)
    others = rl[~rl["quantity"].isin(JUDGED)]
    for heading, rows in (
        ("Before RL, where models differ", before[before["stage"] == starts]),
        ("At equal numbers of completions, and of answers with any trace", others),
    ):
        if len(rows):
            lines += [f"### {heading}", "", *_list(rows), ""]
    return "\n".join(lines)


def changes(variant: Mapping[str, Any]) -> str:
    """What a variant changes, as settings: `rl.steps: 600`."""
    changed = {name: value for name, value in variant.items() if name in CHANGED}
    texts = (f"`{key}: {json.dumps(value)}`" for key, value in _flat(changed))
    return ", ".join(texts).replace('"', "")


def sentence(rows: Sequence[Any]) -> str:
    """Rows of `contrasts` in words, by verdict: where a variant is higher, lower, equivalent."""
    parts = []
    for mark, word in SAID.items():
        at = [row for row in rows if sign(row.verdict, row.difference) == mark]
        of = [f"{row.axis} at {row.ood_ratio} ({_said(row)})" for row in at]
        if of:
            parts.append(f"{word} on {enumerated(of)}")
    seeds = max(row.seeds for row in rows)
    few = f"; with {seeds} seeds, fewer than {MIN_SEEDS}, nothing is decided"
    return "; ".join(parts) + (few if seeds < MIN_SEEDS else f"; {seeds} seeds")


def sign(verdict: str, value: float) -> str:
    """The sign of a verdict on a difference: `=`, `+`, `-` or `?`."""
    if verdict == DIFFERS:
        return "+" if value > 0 else "-"
    return "=" if verdict == EQUIVALENT else "?"


def difference(verdict: str, value: float, low: float, high: float) -> str:
    """A difference with the sign of its verdict and its bounds, for a cell of a table."""
    return f"{sign(verdict, value)} {value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _said(row: Any) -> str:
    bounds = f"{signed(row.difference)} [{signed(row.low)}, {signed(row.high)}]"
    more = needed(row)
    return f"{bounds}; {more} would decide" if more else bounds


def _flat(changed: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with their dotted keys."""
    for key, value in changed.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _table(rows: pd.DataFrame) -> list[str]:
    """A line each variant and OOD ratio: masses, and differences of what is judged."""
    heads = ("variant", "OOD ratio", "OOD mass of the run", "of the variant")
    lines = _heading(*heads, *(f"{name}: difference" for name in JUDGED), "seeds")
    for (variant, ratio), part in rows.groupby(["variant", "ood_ratio"], sort=False):
        by: dict[Any, Any] = {row.quantity: row for row in part.itertuples()}
        mass = by[MASSES["ood"]]
        cells = [f"`{variant}`", str(ratio), f"{mass.reference:.3f}", f"{mass.value:.3f}"]
        cells += [_cell(by[name]) if name in by else "-" for name in JUDGED]
        lines.append(_line(*cells, str(mass.seeds)))
    return lines


def _list(rows: pd.DataFrame) -> list[str]:
    """A line each row of `contrasts`."""
    heads = ("variant", "axis", "OOD ratio", "after", "quantity", "run", "variant", "difference")
    lines = _heading(*heads, "seeds")
    row: Any
    for row in rows.itertuples():
        where = f"`{row.variant}`", row.axis, row.ood_ratio, stage_label(row.stage)
        numbers = f"{row.reference:.3f}", f"{row.value:.3f}", _cell(row), str(row.seeds)
        lines.append(_line(*where, row.quantity, *numbers))
    return lines


def _cell(row: Any) -> str:
    text = difference(row.verdict, row.difference, row.low, row.high)
    return f"{text} ({row.seeds_needed:.0f})" if row.seeds_needed > 0 else text


def _heading(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
