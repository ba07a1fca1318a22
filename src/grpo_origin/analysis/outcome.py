"""Where RL ends: a forecast of the mean mass after a budget, from the masses before it.

Before the first group with right and wrong completions nothing moves; how many groups teach follows
from the masses (`evaluation.exploration`). What such groups do is fitted: in a step in which a
share s of the groups teaches, the log-odds of *every* prompt of the task rise by rate x s^exponent,
since prompts share parameters. The number of groups that teach is drawn, so that a start at which
little is found gives a mixture of all and nothing. The rate differs from model to model: its
logarithm is normal, about a mean that may depend on how prompts differ. Few parameters, fitted by
`outcome_fit` and shipped. Knows masses, not what they are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, ndtr, ndtri

from grpo_origin.evaluation.exploration import log_miss
from grpo_origin.jobs.errors import ArtefactError

SHIPPED = Path(__file__).parents[1] / "shipped" / "outcome.json"
ATOMS = 48  # points that stand for the masses of a task, equally many prompts each
SHIFTS = 600  # points of a task's way from its start to the ceiling, closer at its start
PATHS = 32  # courses drawn at each rate
SEED = 0  # the same masses give the same forecast
LOG_RATES = np.linspace(-6.0, 3.0, 19)  # from no gain in 60 steps to all at the first success
QUANTILES = (0.1, 0.5, 0.9)  # of the forecast: an 80 % interval about its median
LOWEST = -700.0  # log-odds; exp of less is 0
FEATURES = ("none", "spread", "overdispersion")  # what the mean log rate may depend on
ROUNDING = 1e-12  # of a distribution that sums to 1
MANY = 30.0  # expected groups from which on their number is taken as normal


@dataclass(frozen=True)
class Budget:
    """What RL is to spend: `steps` of `prompts_per_step` groups of `group_size` completions."""

    group_size: int
    prompts_per_step: int
    steps: int

    @property
    def completions(self) -> int:
        """Completions that all steps sample together."""
        return self.steps * self.prompts_per_step * self.group_size


@dataclass(frozen=True)
class Masses:
    """Masses of the training prompts before RL: log-odds (tasks, ATOMS), ascending, and `shares`
    (tasks,), the share of prompts that are of each task."""

    log_odds: np.ndarray
    shares: np.ndarray

    @property
    def mean(self) -> float:
        """Mean mass."""
        return float(self.shares @ expit(self.log_odds).mean(1))


def masses_of(log_mass: ArrayLike, tasks: ArrayLike | None = None) -> Masses:
    """Masses from ln Q of every prompt, (prompts,); all of one task unless `tasks` names theirs.

    Raises ValueError if there are none, or one is no log probability.
    """
    values = np.minimum(np.asarray(log_mass, dtype=float), 0.0)
    if not values.size or np.isnan(values).any():
        raise ValueError("a forecast needs the log mass of at least one prompt")
    names = np.zeros(values.size) if tasks is None else np.asarray(tasks)
    kinds, counts = np.unique(names, return_counts=True)
    rows = [_atoms(np.sort(values[names == kind])) for kind in kinds]
    return Masses(np.stack(rows), counts / values.size)


def _atoms(log_mass: np.ndarray) -> np.ndarray:
    """Log-odds of the mean mass of ATOMS slices of the ascending log masses, (ATOMS,).

    Means of slices keep the mean of all, which a few prompts may hold nearly alone; quantiles would
    not. A prompt on an edge belongs to both slices, to each with its part.
    """
    slices = np.repeat(log_mass, ATOMS).reshape(ATOMS, len(log_mass))
    odds = np.logaddexp.reduce(slices, axis=1) - np.logaddexp.reduce(log_miss(slices), axis=1)
    return np.clip(np.nan_to_num(odds, posinf=-LOWEST, neginf=LOWEST), LOWEST, -LOWEST)


def features(masses: Masses) -> dict[str, float]:
    """How prompts of a task differ, by name in FEATURES, each the mean over tasks by their shares.

    `spread`: ln of 1 + the standard deviation of the log-odds. `overdispersion`: ln of the share of
    the variance of single successes that lies between prompts, Var Q / (m (1 - m)), plus 0.01:
    1/(a + b + 1) of a Beta distribution, so that counts of anyone's model tell it.
    """
    mass, missed = expit(masses.log_odds), expit(-masses.log_odds)
    mean = mass.mean(1)
    room = np.maximum(mean * missed.mean(1), np.finfo(float).tiny)
    between = np.clip(mass.var(1) / room, 0.0, 1.0)
    return {
        "none": 0.0,
        "spread": float(masses.shares @ np.log1p(masses.log_odds.std(1))),
        "overdispersion": float(masses.shares @ np.log(between + 0.01)),
    }


def courses(
    masses: Masses, budget: Budget, exponent: float, ceiling: float, log_rates: ArrayLike
) -> np.ndarray:
    """Mean mass after each step of PATHS drawn courses at each rate: (steps + 1, rates, PATHS).

    In each step every task draws how many of its groups hold right and wrong completions, from the
    masses that it has by then; their share of the step's groups moves the task. No prompt is raised
    above the mass `ceiling`, at which noise and signal balance; one above it stays.
    """
    rates = np.exp(np.asarray(log_rates, dtype=float))[:, None]
    uniform = _places((budget.steps, len(masses.shares)))
    groups = np.maximum(1, np.round(masses.shares * budget.prompts_per_step)).astype(int)
    found = np.zeros((budget.steps + 1, len(rates), PATHS))
    for task, share in enumerate(masses.shares):
        places, mean, teaching = _by_shift(masses.log_odds[task], budget.group_size, ceiling)
        shift = np.zeros((len(rates), PATHS))
        found[0] += share * mean[0]
        for step in range(budget.steps):
            chance = np.interp(shift, places, teaching)
            count = _binomial(uniform[step, task], groups[task], chance)
            shift = shift + rates * (count / budget.prompts_per_step) ** exponent
            found[step + 1] += share * np.interp(shift, places, mean)
    return found


def _places(shape: tuple[int, int]) -> np.ndarray:
    """Uniform numbers (*shape, PATHS), always the same: one in each of PATHS equal parts of [0, 1],
    in random order (a Latin hypercube), so that few courses are no lucky ones."""
    random = np.random.default_rng(SEED)
    parts = np.broadcast_to(np.arange(PATHS), (*shape, PATHS))
    return (random.permuted(parts, axis=-1) + random.random(parts.shape)) / PATHS


def _by_shift(
    start: np.ndarray, group_size: int, ceiling: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts of all log-odds, the mean mass and the chance that a group teaches there, (SHIFTS,).

    All that a task does follows from its shift, so that these are computed once.
    """
    highest = np.maximum(start, np.log(ceiling) - np.log1p(-ceiling))
    shifts = (highest - start).max() * np.linspace(0, 1, SHIFTS) ** 2
    mass = expit(np.minimum(start + shifts[:, None], highest))
    teaches = 1 - (1 - mass) ** group_size - mass**group_size
    return shifts, mass.mean(1), teaches.mean(1)


def _binomial(uniform: np.ndarray, trials: int, chance: np.ndarray) -> np.ndarray:
    """Binomial counts whose places in their distribution are `uniform`, shape of `chance`.

    The same place gives more successes at a larger chance, so that courses at several rates can be
    compared. Counts of MANY or more are taken as normal.
    """
    many = trials * chance > MANY
    few = np.where(many, 0.0, np.minimum(chance, 1 - 1e-12))
    term = (1 - few) ** trials
    below, count = term, np.zeros(chance.shape)
    for k in range(trials):
        more = uniform > below + ROUNDING
        if not more.any():
            break
        count += more
        term = term * ((trials - k) / (k + 1)) * few / (1 - few)
        below = below + term
    if many.any():
        spread = np.sqrt(trials * chance * (1 - chance))
        normal = np.clip(np.round(trials * chance + spread * ndtri(uniform)), 0, trials)
        count = np.where(many, normal, count)
    return count


def mixture(log_rate: ArrayLike, scatter: float) -> np.ndarray:
    """Weights of LOG_RATES under normal distributions of the log rate, (..., rates), summing to 1.

    `log_rate` (...) are their means, `scatter` their standard deviation.
    """
    edges = (LOG_RATES[1:] + LOG_RATES[:-1]) / 2
    inner = ndtr((edges - np.asarray(log_rate, dtype=float)[..., None]) / scatter)
    none = np.zeros((*inner.shape[:-1], 1))
    return np.diff(np.concatenate([none, inner, none + 1], axis=-1), axis=-1)


def quantiles(values: np.ndarray, weights: np.ndarray, at: ArrayLike = QUANTILES) -> np.ndarray:
    """Quantiles of courses' masses (rates, PATHS) by weights of rates, shape of `at`."""
    each = np.repeat(weights / values.shape[1], values.shape[1])
    order = np.argsort(values, axis=None)
    places = np.cumsum(each[order]) - each[order] / 2
    return np.interp(np.asarray(at, dtype=float), places, values.ravel()[order])


@dataclass(frozen=True)
class OutcomeModel:
    """A fitted forecast.

    Log rate: normal with mean `log_rate` + `slope` x the feature `feature` and standard deviation
    `scatter`. A feature below `lowest` or above `highest`, beyond what was seen where it mattered,
    counts as that end. `margin` widens the interval at both ends (negative: narrows it), so that
    four fifths of the stages it was fitted on lie within. `by_task`: whether each task learns by
    itself.
    """

    feature: str
    by_task: bool
    exponent: float
    log_rate: float
    slope: float
    lowest: float
    highest: float
    scatter: float
    ceiling: float
    margin: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def masses(self, log_mass: ArrayLike, tasks: ArrayLike | None = None) -> Masses:
        """The masses of prompts as this model takes them, by task or all of one task."""
        return masses_of(log_mass, tasks if self.by_task else None)

    def weights(self, masses: Masses) -> np.ndarray:
        """Weights of LOG_RATES for a start."""
        feature = np.clip(features(masses)[self.feature], self.lowest, self.highest)
        return mixture(self.log_rate + self.slope * float(feature), self.scatter)

    def course(
        self, starts: Sequence[Masses], budget: Budget, at: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Mean mass after some steps: (steps asked, 3), low, median and high end as in QUANTILES.

        Several starts, of which one is true and nobody knows which, count alike.
        """
        drawn = [
            courses(x, budget, self.exponent, self.ceiling, LOG_RATES)[list(at)] for x in starts
        ]
        weights = np.concatenate([self.weights(x) / len(starts) for x in starts])
        found = [quantiles(values, weights) for values in np.concatenate(drawn, axis=1)]
        return widened(np.stack(found), self.margin)

    def forecast(self, masses: Masses, budget: Budget) -> np.ndarray:
        """Mean mass after the budget: low end, median, high end."""
        return self.course([masses], budget, [budget.steps])[0]

    def as_json(self) -> str:
        """The text of its file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def widened(found: np.ndarray, margin: float) -> np.ndarray:
    """Low ends, medians and high ends (..., 3) with a margin, within [0, 1]."""
    low, median, high = np.moveaxis(found, -1, 0)
    ends = np.minimum(low - margin, median), median, np.maximum(high + margin, median)
    return np.clip(np.stack(ends, -1), 0.0, 1.0)


def read_model(path: str | Path = SHIPPED) -> OutcomeModel:
    """A fitted forecast from its file; raises ArtefactError, naming what is wrong."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(path, f"can't be read ({error})") from None
    names = {item.name for item in fields(OutcomeModel)}
    if not isinstance(given, dict) or set(given) != names:
        raise ArtefactError(path, f"holds not just {', '.join(sorted(names))}")
    if given["feature"] not in FEATURES or not isinstance(given["by_task"], bool):
        raise ArtefactError(path, f"feature is one of {', '.join(FEATURES)}, by_task true or false")
    words = {"feature", "by_task", "provenance"}
    for name in sorted(names - words):
        if not isinstance(given[name], (int, float)) or not np.isfinite(given[name]):
            raise ArtefactError(path, f"{name} must be a number")
    if given["scatter"] <= 0 or not 0 < given["ceiling"] < 1 or given["exponent"] < 0:
        raise ArtefactError(path, "scatter is positive, ceiling in (0, 1), exponent not negative")
    return OutcomeModel(**given)
