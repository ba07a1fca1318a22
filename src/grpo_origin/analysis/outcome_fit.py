"""The forecast of outcomes fitted to RL stages that ran, and how a fit is chosen.

What is minimised is the continuous ranked probability score of the mass after RL (Gneiting and
Raftery 2007): proper, so that neither the median nor the width of a forecast can be had at the cost
of the other. A forecast is a mixture over rates, for which the score is a quadratic form in their
weights, computed once. The margin of the interval is conformal (Romano, Patterson and Candes 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from grpo_origin.analysis.outcome import (
    FEATURES,
    LOG_RATES,
    QUANTILES,
    OutcomeModel,
    courses,
    features,
    masses_of,
    mixture,
    quantiles,
    widened,
)
from grpo_origin.analysis.outcome_stages import Ran

EXPONENTS = (0.25, 0.5, 1.0)  # 1: as plain gradient descent; below: as Adam's scaling makes it
CEILING = 0.985  # mass at which runs level off; read off ten stages before anything was fitted
STARTS = ((-4.0, 0.0, 1.0), (-2.0, 0.0, 1.0), (0.0, 0.0, 1.0))  # log rate, ln scatter, slope
FEWEST = 5  # stages of a fit: as many as parameters
SIMPLEX = np.vstack([np.zeros(3), np.diag([1.5, -0.7, 2.0])])  # its first steps
LIMITS = {"xatol": 0.01, "fatol": 1e-5, "maxfev": 300}
SCATTER = (0.1, 4.0)  # of the log rate; least and most
SCATTERS = np.geomspace(*SCATTER, 25)
OUTSIDE = 0.01  # loss a unit beyond these limits
SLOPE = 8.0  # largest of a feature, in log rate


@dataclass(frozen=True)
class Candidate:
    """A form of the forecast: what its rate depends on, and whether tasks learn by themselves."""

    feature: str
    by_task: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.feature}, {'by task' if self.by_task else 'pooled'}"


CANDIDATES = tuple(
    Candidate(feature, by_task)
    for by_task in (False, True)
    for feature in ("none", "spread", "overdispersion")
)


class Prepared:
    """Stages with all that a fit of any candidate needs of them, computed once.

    `after`, `axes`, `doubt` (stages,): mass after RL, axis, whether it was open what would come;
    `finals` by (by_task, exponent): masses after the budget (stages, rates, paths); `features` by
    (feature, by_task): (stages,).
    """

    def __init__(
        self,
        stages: Sequence[Ran],
        exponents: Sequence[float] = EXPONENTS,
        by_task: Sequence[bool] = (False, True),
    ) -> None:
        self.stages, self.exponents = list(stages), tuple(exponents)
        self.after = np.array([ran.after for ran in stages])
        self.axes = np.array([ran.axis for ran in stages])
        self.doubt = np.array([ran.in_doubt for ran in stages])
        self.finals: dict[tuple[bool, float], np.ndarray] = {}
        self.features: dict[tuple[str, bool], np.ndarray] = {}
        self._scores: dict[tuple[bool, float], tuple[np.ndarray, np.ndarray]] = {}
        for apart in by_task:
            starts = [masses_of(ran.log_mass, ran.tasks if apart else None) for ran in stages]
            found = [features(start) for start in starts]
            for name in FEATURES:
                self.features[name, apart] = np.array([row[name] for row in found])
            for exponent in exponents:
                finals = [
                    courses(start, ran.budget, exponent, CEILING, LOG_RATES)[-1]
                    for start, ran in zip(starts, stages, strict=True)
                ]
                self.finals[apart, exponent] = np.stack(finals)
                self._scores[apart, exponent] = _score_terms(np.stack(finals), self.after)

    def ends(self, candidate: Candidate, chosen: np.ndarray) -> tuple[float, float]:
        """Least and largest feature of those of some stages that were in doubt, or of all."""
        known = self.features[candidate.feature, candidate.by_task]
        seen = known[chosen[self.doubt[chosen]]] if self.doubt[chosen].any() else known[chosen]
        return float(seen.min()), float(seen.max())

    def weights(self, model: OutcomeModel, chosen: np.ndarray) -> np.ndarray:
        """Weights of rates that a model gives some stages, (chosen, rates)."""
        feature = self.features[model.feature, model.by_task][chosen]
        centre = model.log_rate + model.slope * np.clip(feature, model.lowest, model.highest)
        return mixture(centre, model.scatter)

    def score(self, model: OutcomeModel, chosen: np.ndarray) -> float:
        """Mean continuous ranked probability score of some stages, in mass; 0 is best."""
        weights = self.weights(model, chosen)
        near, apart = (x[chosen] for x in self._scores[model.by_task, model.exponent])
        spread = (weights * (apart @ weights[..., None])[..., 0]).sum(1)
        return float(np.mean((weights * near).sum(1) - spread / 2))

    def forecasts(self, model: OutcomeModel, chosen: np.ndarray) -> np.ndarray:
        """Low end, median and high end (chosen, 3) that a model gives of some stages."""
        finals = self.finals[model.by_task, model.exponent][chosen]
        weights = self.weights(model, chosen)
        found = [quantiles(*pair) for pair in zip(finals, weights, strict=True)]
        return widened(np.stack(found), model.margin)


def _score_terms(finals: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean |mass - after| by rate (stages, rates), and |mass - mass'| by two rates."""
    near = np.abs(finals - after[:, None, None]).mean(-1)
    ordered = np.sort(finals, axis=-1)
    apart = np.empty((*near.shape, near.shape[1]))
    for stage, values in enumerate(ordered):
        for rate, own in enumerate(values):
            apart[stage, rate] = np.abs(own[:, None, None] - values).mean((0, 2))
    return near, apart


def fit(
    prepared: Prepared,
    candidate: Candidate,
    chosen: np.ndarray,
    provenance: Mapping[str, Any] | None = None,
) -> OutcomeModel:
    """The candidate's model that scores best on some stages (an array of their numbers).

    How much rates differ, and the margin, are those of an axis that is not known: each axis of the
    stages is left out in turn, and forecast by what the others give. Raises ValueError if there are
    fewer stages than the model has parameters.
    """
    if len(chosen) < FEWEST:
        raise ValueError(f"a fit needs at least {FEWEST} stages, not {len(chosen)}")
    found = [
        _search(prepared, candidate, chosen, exponent, start)
        for exponent in prepared.exponents
        for start in STARTS
    ]
    best = min(found, key=lambda one: prepared.score(one, chosen))
    axes = prepared.axes[chosen]
    parts = [chosen[axes == axis] for axis in np.unique(axes)]
    inner = [(best, chosen)]
    if len(parts) > 1 and len(chosen) - max(map(len, parts)) >= FEWEST:
        start = best.log_rate, np.log(best.scatter), best.slope
        inner = [
            (_search(prepared, candidate, np.setdiff1d(chosen, x), best.exponent, start), x)
            for x in parts
        ]

    def loss(scatter: float) -> float:
        scores = [prepared.score(replace(one, scatter=scatter), x) * len(x) for one, x in inner]
        return float(np.sum(scores))

    scatter = float(min(SCATTERS, key=loss))
    left = np.concatenate([x for _, x in inner])
    ends = [prepared.forecasts(replace(one, scatter=scatter), x) for one, x in inner]
    margin = conformal_margin(np.concatenate(ends), prepared.after[left])
    return replace(best, scatter=scatter, margin=margin, provenance=dict(provenance or {}))


def _search(
    prepared: Prepared,
    candidate: Candidate,
    chosen: np.ndarray,
    exponent: float,
    start: Sequence[float],
) -> OutcomeModel:
    """The best log rate, scatter and slope that a search from `start` finds; no margin."""
    ends = prepared.ends(candidate, chosen)
    low, high = _limits(candidate)

    def model(point: np.ndarray) -> OutcomeModel:
        rate, scatter, slope = map(float, point)
        rest = slope, *ends, float(np.exp(scatter)), CEILING, 0.0
        return OutcomeModel(candidate.feature, candidate.by_task, exponent, rate, *rest)

    def loss(point: np.ndarray) -> float:
        inside = np.clip(point, low, high)
        return prepared.score(model(inside), chosen) + OUTSIDE * float(np.abs(point - inside).sum())

    first = np.clip(np.asarray(start, dtype=float), low, high)
    options = {"initial_simplex": first + SIMPLEX} | LIMITS
    best = minimize(loss, first, method="Nelder-Mead", options=options)
    return model(np.clip(best.x, low, high))


def _limits(candidate: Candidate) -> tuple[list[float], list[float]]:
    """Least and largest log rate, ln scatter and slope."""
    slope = 0.0 if candidate.feature == "none" else SLOPE
    most = LOG_RATES[-1] + 5 * slope  # where the feature is 0
    low, high = np.log(SCATTER)
    return [LOG_RATES[0] - 5 * slope, low, -slope], [most, high, slope]


def conformal_margin(found: np.ndarray, after: np.ndarray) -> float:
    """Margin that an interval (stages, 3) needs so that its level of the stages lies within."""
    outside = np.maximum(found[:, 0] - after, after - found[:, 2])
    level = QUANTILES[-1] - QUANTILES[0]
    place = min(1.0, level * (1 + 1 / len(after)))
    return float(np.quantile(outside, place, method="higher"))
