"""What models write, as the page shows it: stages side by side, tokens shaded by probability.

Made from the table `completions` alone; `completions.html.j2` lays it out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

TITLE = "What the models write"
# A token's shade is the number of these that its probability is below: from white, as good as
# certain, to black, which is never sampled in a stage's few completions.
SHADES = (0.9, 0.5, 0.1, 0.01)
LABELS = {"gold": "right one", "greedy": "greedy"}
PROMPT = ["split", "prompt_index"]


@dataclass(frozen=True)
class Token:
    """A token as it is drawn: its shade, whether it is wrong, and whether it is the first such."""

    text: str
    shade: int
    hint: str
    wrong: bool
    first: bool


@dataclass(frozen=True)
class Strip:
    """A completion: its tokens and what to say of it."""

    tokens: list[Token]
    verdict: str


@dataclass(frozen=True)
class Prompt:
    """A prompt with what each stage makes of it.

    `masses` has a line a stage, `rows` a label and a strip a stage for each kind of completion.
    """

    text: str
    about: str
    stages: list[str]
    masses: list[str]
    rows: list[tuple[str, list[Strip]]]


@dataclass(frozen=True)
class ShownCell:
    """A cell with its prompts."""

    title: str
    prompts: list[Prompt]


def legend() -> list[tuple[int, str]]:
    """Shades and what they mean."""
    named = [(0, f"at least {SHADES[0]:g}")]
    for shade, (high, low) in enumerate(zip(SHADES, (*SHADES[1:], 0.0), strict=True), start=1):
        named.append((shade, f"{low:g} to {high:g}" if low else f"below {high:g}"))
    return named


def shown_cells(table: pd.DataFrame) -> list[ShownCell]:
    """The cells of the table `completions` (of one variant), in its order."""
    cells = []
    for place, part in table.groupby(["axis", "seed", "ood_ratio"], sort=False):
        axis, seed, ratio = place
        prompts = [_prompt(rows) for _, rows in part.groupby(PROMPT, sort=False)]
        cells.append(ShownCell(f"{axis}, OOD ratio {ratio}, seed {seed}", prompts))
    return cells


def _prompt(rows: pd.DataFrame) -> Prompt:
    first = rows.iloc[0]
    about = f"{first['split']} prompt {first['prompt_index']} ({first['task']}): {first['chosen']}"
    stages = list(dict.fromkeys(rows["stage"]))
    texts = {
        place: part.to_dict("records")
        for place, part in rows.groupby(["stage", "kind"], sort=False)
    }
    masses = [_mass(texts[stage, "gold"]) for stage in stages]
    kinds = [
        (LABELS.get(kind, kind.replace("-", " ")), [_strip(texts[stage, kind]) for stage in stages])
        for kind in dict.fromkeys(rows["kind"])
    ]
    return Prompt(first["prompt"], about, stages, masses, kinds)


def _mass(gold: list[dict[Hashable, Any]]) -> str:
    """The correct mass and whether markers or content lose it, from rows of the right one."""
    total, markers, content = (gold[0][f"log_mass{part}"] for part in ("", "_markers", "_content"))
    text = f"Q = {math.exp(total):.2g}: markers {math.exp(markers):.2g}, "
    return f"{text}content {math.exp(content):.2g}"


def _strip(rows: list[dict[Hashable, Any]]) -> Strip:
    """One completion from its rows, a token each."""
    about = rows[0]
    is_right = pd.isna(about["first_wrong"])
    first = 0 if is_right else int(about["first_wrong"])
    tokens = [
        Token(
            text=row["token"],
            shade=sum(row["probability"] < edge for edge in SHADES),
            hint=f"{row['probability']:.2g}",
            wrong=not row["right"],
            first=row["position"] == first,
        )
        for row in rows
    ]
    if about["kind"] == "gold":
        least = min(rows, key=lambda row: row["probability"])
        place = f"token {least['position']}, {least['probability']:.2g}"
        return Strip(tokens, f"least likely: {least['token']} ({place})")
    if is_right:
        return Strip(tokens, "right")
    ends = " ends too early" if first > len(rows) else ""
    return Strip(tokens, f"wrong at token {first}: {about['failure']}{ends}")
