"""What RL can reach from the masses of its prompts, averaged over their posterior.

Formulas of single masses are those of `evaluation.exploration` and `evaluation.law`; here they are
integrated. All but `course_of` is about the model before its first step; what it does as it learns
is `analysis.outcome`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from grpo_origin.analysis import outcome
from grpo_origin.evaluation.exploration import contrast, expected_successes
from grpo_origin.evaluation.law import optimal_mass
from grpo_origin.forecast.posterior import Posterior, posterior_of, samples_to_see, unseen_bound
from grpo_origin.forecast.tally import Passes

INTERVAL = (0.05, 0.95)  # quantiles over draws: 90 %
BETAS = (0.001, 0.01, 0.1, 1.0)  # KL weights shown beside the one asked for
DEAD_BELOW = 0.05  # expected chance of contrast: such a prompt wastes 19 groups of 20
STARTS = 8  # settings of the prior over prompts that the forecast of the end is averaged over
SHOWN = 40  # steps at most of its curve
MOST_STEPS = 10**9  # of a search for the first success; no one trains longer


@dataclass(frozen=True)
class Budget(outcome.Budget):
    """What RL is to spend; `beta` is the weight of the KL term, 0 for none."""

    beta: float


@dataclass(frozen=True)
class Estimate:
    """A posterior mean with the ends of its 90 % interval, or a median with those of its 80 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """What a budget can find and use.

    `rewarded`: right completions of the whole budget. `silent`: chance that there are none.
    `first`: steps by which the first one has come with a chance of 5 %, 50 % and 95 %; None past
    MOST_STEPS. `contrast`: share of groups with right and wrong completions; `all_wrong` and
    `all_right` are the shares of the others. `mean`, `chance`: of each prompt, shape (P,), its
    posterior mass and expected chance of contrast; `dead`, shape (P,), is 0 or 1 where the chance
    is below `dead_below`, by the end at which the mass is, else -1. `ceilings`: mean mass of the
    optimum by KL weight. `unseen`: 95 % upper bound of the mean mass of prompts with no success,
    and `needed`: the samples that would show it. `course`: mean mass after each of `at` steps, by
    the fitted model `model`: low end of its 80 % interval, median, high end, shape (steps, 3).
    """

    rewarded: Estimate
    silent: float
    first: tuple[int | None, int | None, int | None]
    contrast: Estimate
    all_wrong: float
    all_right: float
    mean: np.ndarray
    chance: np.ndarray
    dead: np.ndarray
    dead_below: float
    ceilings: dict[float, Estimate]
    unseen: float | None
    needed: int | None
    at: np.ndarray
    course: np.ndarray
    model: outcome.OutcomeModel

    @property
    def end(self) -> Estimate:
        """The median of the mean mass after the budget, with its 80 % interval."""
        low, middle, high = map(float, self.course[-1])
        return Estimate(middle, low, high)


def silence(posterior: Posterior, budget: Budget, steps: int) -> float:
    """Chance that no completion of the first `steps` steps is right.

    Prompts are visited in shuffled epochs. At the end of an epoch this is exact given Q; within one
    each prompt counts as visited with the share of the epoch that is done, independently, which is
    at least the chance wanted (visits without replacement are negatively associated: Joag-Dev and
    Proschan 1983).
    """
    epochs, rest = divmod(steps * budget.prompts_per_step, len(posterior.place))
    done = rest / len(posterior.place)
    log_miss = posterior.log_all_wrong(budget.group_size * epochs)
    if done:
        further = posterior.log_all_wrong(budget.group_size * (epochs + 1))
        log_miss = np.logaddexp(np.log1p(-done) + log_miss, np.log(done) + further)
    by_setting = log_miss @ posterior.prompts
    return float(min(1.0, np.exp(logsumexp(by_setting) - np.log(len(by_setting)))))


def steps_until(posterior: Posterior, budget: Budget, chance: float) -> int | None:
    """Fewest steps that hold a right completion with this chance, or None past MOST_STEPS."""

    def reached(steps: int) -> bool:
        return silence(posterior, budget, steps) <= 1 - chance

    high = 1
    while not reached(high):
        if high >= MOST_STEPS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def contrast_share(posterior: Posterior, group_size: int) -> float:
    """Expected share of groups with right and wrong completions: 1 - E[Q^G] - E[(1 - Q)^G]."""
    return posterior.over_prompts(_contrast(posterior, group_size))


def _contrast(posterior: Posterior, group_size: int) -> np.ndarray:
    """Expected chance of contrast by setting and distinct pair of counts, shape (S, U)."""
    right, wrong = posterior.log_all_right(group_size), posterior.log_all_wrong(group_size)
    return np.clip(1 - np.exp(right) - np.exp(wrong), 0.0, 1.0)


def dead_mass(group_size: int, dead_below: float) -> float:
    """The mass up to which a group's chance of contrast is below a bound; 1/2 if it always is.

    Contrast is the same at Q and 1 - Q and largest at 1/2, so that the upper zone mirrors this one.
    """
    if contrast(np.log([0.5]), group_size)[0] < dead_below:
        return 0.5
    if not dead_below:
        return 0.0
    found = brentq(lambda x: contrast([x], group_size)[0] - dead_below, -700, np.log(0.5))
    return float(np.exp(found))


def outlook(
    passes: Passes, posterior: Posterior, budget: Budget, dead_below: float = DEAD_BELOW
) -> Outlook:
    """All of it; prompts whose expected chance of contrast is below `dead_below` are dead."""
    size, place = budget.group_size, posterior.place
    mean = posterior.mean()[place]
    chance = _contrast(posterior, size).mean(0)[place]
    dead = np.where(chance < dead_below, (mean >= 0.5).astype(int), -1)
    betas = sorted({*BETAS, budget.beta} - {0.0})
    over = _intervals(posterior, budget, betas)
    rewarded = budget.completions * posterior.over_prompts(posterior.mean())
    unseen = unseen_bound(passes)
    model = outcome.read_model()
    at, course = course_of(passes, posterior, budget, model)
    return Outlook(
        rewarded=Estimate(rewarded, *over["rewarded"]),
        silent=silence(posterior, budget, budget.steps),
        first=(
            steps_until(posterior, budget, INTERVAL[0]),
            steps_until(posterior, budget, 0.5),
            steps_until(posterior, budget, INTERVAL[1]),
        ),
        contrast=Estimate(contrast_share(posterior, size), *over["contrast"]),
        all_wrong=posterior.over_prompts(np.exp(posterior.log_all_wrong(size))),
        all_right=posterior.over_prompts(np.exp(posterior.log_all_right(size))),
        mean=mean,
        chance=chance,
        dead=dead,
        dead_below=dead_below,
        ceilings={beta: Estimate(over[f"mean {beta}"][0], *over[f"{beta}"]) for beta in betas},
        unseen=unseen,
        needed=None if unseen is None else samples_to_see(unseen),
        at=at,
        course=course,
        model=model,
    )


def course_of(
    passes: Passes, posterior: Posterior, budget: Budget, model: outcome.OutcomeModel
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (steps shown,), and the mean mass after them by a fitted model (steps shown, 3).

    Prompts are taken to be of one task unless `passes` name theirs, which then have a distribution
    over prompts each. A prompt counts with its posterior mean, averaged over STARTS settings: how
    far below that a prompt without success lies, in log-odds, no counts can tell.
    """
    mass = np.empty((STARTS, len(posterior.place)))
    tasks = np.array(passes.tasks or [""] * len(passes.prompts))
    kinds = np.unique(tasks)
    for kind in kinds:
        own = np.flatnonzero(tasks == kind)
        known = posterior
        if len(kinds) > 1:
            names = tuple(passes.prompts[i] for i in own)
            known = posterior_of(Passes(names, passes.samples[own], passes.correct[own]))
        settings = np.linspace(0, len(known.a) - 1, STARTS).round().astype(int)
        each = known.right / (known.right + known.wrong)
        mass[:, own] = each[settings][:, known.place]
    starts = [model.masses(row, tasks) for row in np.log(mass)]
    at = np.unique(np.linspace(0, budget.steps, SHOWN).round().astype(int))
    return at, model.course(starts, budget, at)


def _intervals(
    posterior: Posterior, budget: Budget, betas: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Quantiles over draws of what is a mean over prompts; `mean {beta}` is a ceiling's mean."""
    visits = budget.completions / len(posterior.place)
    found: dict[str, list[float]] = {}

    def keep(name: str, values: Sequence[float] | np.ndarray) -> None:
        found.setdefault(name, []).extend(map(float, values))

    for mass in posterior.draws():
        with np.errstate(divide="ignore"):
            log_mass = np.log(mass)
        keep("rewarded", [expected_successes(row, visits) for row in log_mass])
        keep("contrast", contrast(log_mass, budget.group_size).mean(1))
        for beta in betas:
            keep(f"{beta}", optimal_mass(mass, beta).mean(1))
    ends = {name: tuple(map(float, np.quantile(x, INTERVAL))) for name, x in found.items()}
    return ends | {f"mean {beta}": (float(np.mean(found[f"{beta}"])),) for beta in betas}
