"""How verdicts are reached: what a claim is, its tests, its family, and the row of the ledger.

Every claim becomes one number a seed. Two one-sided tests are made of them, of the claim and of its
opposite (`inference`); a family is one statement over its axes and cells, and Holm's adjustment
keeps the error of a family at that of the look reached. Supported, contradicted: that adjusted
p-value is at most alpha. Failing to see an effect supports nothing. Prompts are never replicates.
docs/protocol.md says it in words. Called by the claims and by `ledger`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from grpo_origin.analysis import inference
from grpo_origin.analysis.evidence import alpha_of
from grpo_origin.analysis.inference import MIN_SEEDS, Look
from grpo_origin.config.schema import ClaimsSettings

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """What is claimed of one number a seed.

    - present: it exceeds `edge`; absent: it stays below `edge` in most seeds, and so does the mean
      of those seen (which tells nothing of rare seeds that learn all);
    - outside: it lies outside [-edge, edge];
    - few: so few seeds as `claims.rare` exceed `edge` (no mean is asked for).
    """

    name: str
    statement: str
    kind: Literal["present", "absent", "outside", "few"]
    edge: float
    limits: tuple[float, float] = (-1.0, 1.0)  # values that the mean can have

    def p_values(self, values: np.ndarray, rare: float) -> tuple[float, float]:
        """Raw p-values of the claim and of its opposite."""
        edge = self.edge
        if self.kind == "few":
            many = values > edge
            return inference.p_few(many, rare), inference.p_few(~many, 1 - rare)
        if self.kind == "outside":
            within = inference.p_within(values, -edge, edge, rare)
            return inference.p_outside(values, -edge, edge), within
        above = inference.p_above(values, edge)
        absent = inference.p_absent(values, edge, rare)
        return (above, absent) if self.kind == "present" else (absent, above)

    def effect(self, values: np.ndarray, alpha: float) -> tuple[float, float, float]:
        """Mean and its bounds, each one-sided with error alpha, half of it for a two-sided claim.

        For `few` the share of seeds and its exact bounds. NaN without values.
        """
        n = len(values)
        if not n:
            return np.nan, np.nan, np.nan
        if self.kind == "few":
            above = int((values > self.edge).sum())
            low = 1 - inference.excluded(n, alpha, n - above)
            return above / n, low, inference.excluded(n, alpha, above)
        bounds = inference.bounds(values, alpha / 2 if self.kind == "outside" else alpha)
        low, high = np.clip(bounds, *self.limits)
        return float(values.mean()), float(low), float(high)

    def seeds_needed(self, values: np.ndarray, alpha: float, rare: float) -> int | None:
        """Seeds after which a verdict is likely if these are typical; None if that can't be said.

        More than there are: these did not decide.
        """
        edge, mean = self.edge, values.mean() if len(values) else np.nan
        if len(values) < 2:
            return None
        if self.kind == "few":
            needed = inference.seeds_to_count(float((values > edge).mean()), alpha, rare)
        else:
            if self.kind == "outside":
                values = values * (1 if mean > 0 else -1)
                alpha = alpha / 2 if abs(mean) > edge else alpha
            needed = inference.seeds_to_decide(values, edge, alpha, rare)
        return None if needed is None else max(needed, len(values) + 1)

    def seedwise(self, values: np.ndarray, alpha: float) -> str:
        """What seeds show of an absence that the mean does not say, in words; else nothing."""
        few = self.kind == "few"
        if self.kind == "outside" or len(values) < 2 or (not few and values.mean() >= self.edge):
            return ""
        n, above = len(values), int((values > self.edge if few else values >= self.edge).sum())
        most = inference.excluded(n, alpha, above)
        return f"{above} of {n} seeds exceed {self.edge:g}, so at most {most:.0%} of seeds do"


@dataclass(frozen=True, eq=False)
class Finding:
    """A row of the ledger before its verdict: a claim on some cells and one number a seed.

    `values` has the index seed; NaN says nothing. `requires` is the finding that must be supported
    for this one to mean anything, else `otherwise` says why not; `empty` what is missing if there
    are no values.
    """

    claim: Claim
    axis: str
    cells: str
    values: pd.Series
    note: str = ""
    closure: float = np.nan
    requires: Finding | None = None
    otherwise: str = ""
    empty: str = "nothing to test on in this run"

    @property
    def numbers(self) -> np.ndarray:
        """One number a seed, those that say something."""
        return self.values.dropna().to_numpy(dtype=float)


def decide(
    supports: Sequence[float], contradicts: Sequence[float], alpha: float
) -> tuple[list[str], np.ndarray]:
    """Verdicts of a family from raw p-values of its claims and of their opposites.

    Returns them and Holm's adjusted p-values, shape (2, rows): of the claims, of the opposites.
    """
    adjusted = np.array([inference.holm(supports), inference.holm(contradicts)])
    words = [
        SUPPORTED if claim <= alpha else CONTRADICTED if opposite <= alpha else INCONCLUSIVE
        for claim, opposite in adjusted.T
    ]
    return words, adjusted


def judge(findings: Iterable[Finding], settings: ClaimsSettings, look: Look | None) -> list[Row]:
    """The rows of the ledger, in the order of the findings.

    Findings of fewer than MIN_SEEDS seeds can't be decided and don't count in their family.
    """
    findings, alpha = list(findings), alpha_of(look, settings)
    families: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        families.setdefault((finding.claim.name, finding.claim.statement), []).append(finding)
    judged: dict[Finding, Row] = {}
    for rows in families.values():
        asked = [f for f in rows if len(f.numbers)]
        judged |= {f: {"verdict": INCONCLUSIVE, "undecided": len(asked)} for f in asked}
        family = [f for f in asked if look and len(f.numbers) >= MIN_SEEDS]
        if not family:
            continue
        raw = np.transpose([f.claim.p_values(f.numbers, settings.rare) for f in family])
        words, adjusted = decide(raw[0], raw[1], alpha)
        undecided = max(len(asked) - len(family) + words.count(INCONCLUSIVE), 1)
        for i, (finding, verdict) in enumerate(zip(family, words, strict=True)):
            side = {SUPPORTED: 0, CONTRADICTED: 1}.get(verdict, int(raw[:, i].argmin()))
            judged[finding] = {
                "p_value": raw[side, i],
                "p_adjusted": adjusted[side, i],
                "verdict": verdict,
                "undecided": undecided,
            }
    return [_row(finding, judged, settings, look, alpha) for finding in findings]


def _row(
    finding: Finding,
    judged: dict[Finding, Row],
    settings: ClaimsSettings,
    look: Look | None,
    alpha: float,
) -> Row:
    claim, values = finding.claim, finding.numbers
    known, before = judged.get(finding, {}), finding.requires
    blocked = before is not None and judged.get(before, {}).get("verdict") != SUPPORTED
    known = {} if blocked else known
    verdict = INCONCLUSIVE if blocked else known.get("verdict", INCONCLUSIVE)
    effect, low, high = claim.effect(values, alpha)
    needed = None
    if verdict == INCONCLUSIVE and not blocked:
        needed = claim.seeds_needed(values, alpha / known.get("undecided", 1), settings.rare)
        if needed is not None:  # not every seed of the run says something here
            needed = math.ceil(needed * len(finding.values) / len(values))
    notes = [
        finding.otherwise if blocked else "",
        finding.note,
        claim.seedwise(values, alpha),
        _undecided(len(values), needed, look, settings)
        if verdict == INCONCLUSIVE and not blocked
        else "",
    ]
    if not len(values):
        notes = [finding.note, finding.empty]
    planned = max(len(settings.looks), 1)
    reached = f"{look.number if look else 0} of {planned}, alpha {alpha:g}"
    seeds = ", ".join(map(str, finding.values.dropna().index))
    return {
        "claim": claim.name,
        "axis": finding.axis,
        "statement": claim.statement,
        "kind": claim.kind,
        "edge": claim.edge,
        "cells": f"{finding.cells}; seeds {seeds or 'none'}",
        "effect": effect,
        "low": low,
        "high": high,
        "closure": finding.closure,
        "spread": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
        "seeds": len(values),
        "p_value": known.get("p_value", np.nan),
        "p_adjusted": known.get("p_adjusted", np.nan),
        "look": reached,
        "verdict": verdict,
        "seeds_needed": np.nan if needed is None else float(needed),
        "note": "; ".join(part for part in notes if part),
    }


def _undecided(seeds: int, needed: int | None, look: Look | None, settings: ClaimsSettings) -> str:
    """Why there is no verdict, and what would bring one."""
    if look is None:
        return f"before the first look, at {settings.looks[0][0]} seeds"
    if seeds < MIN_SEEDS:
        return f"{seeds} seed{'' if seeds == 1 else 's'}: at least {MIN_SEEDS} are needed"
    if needed is None:
        return f"no number of seeds up to {inference.MOST_SEEDS} would decide it"
    return f"about {needed} seeds would decide it"
