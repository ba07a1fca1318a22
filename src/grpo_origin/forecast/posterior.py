"""What counts say of every prompt's mass Q: Beta posteriors whose prior is fitted to all prompts.

Q is the chance that one completion of the prompt is right. Given Beta(a, b) over prompts, a prompt
with c of n right has Q ~ Beta(a + c, b + n - c). The pair (a, b) is itself uncertain, and with few
prompts or samples that matters more than anything else: it is integrated over, on a grid, with the
beta-binomial likelihood of all counts as weight. Knows counts, not what RL does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, expit, gammaln, logit
from scipy.stats import chi2

from grpo_origin.analysis.intervals import LEVEL, clopper_pearson_upper
from grpo_origin.forecast.tally import Passes

JEFFREYS = 0.5  # both parameters: of the prior for a single prompt, and of the mean over prompts
STRENGTHS = (0.05, 1000.0)  # a + b: from "each prompt all or nothing" to "all prompts alike"
GRID = (41, 31)  # points for the mean and for the strength
DEPTH = 10.0  # nats below the best point at which the grid ends: e^-10 of its weight
ZOOMS = 8  # at most; each narrows the grid to what has weight
SETTINGS = 200  # pairs (a, b) that stand for the grid, weighing the same
FEWEST_SETTINGS = 20
CELLS = 2_000_000  # numbers in one array: 16 MB
DRAWS = 2000  # of all Q at once, for intervals
FEWEST_DRAWS = 200
DRAWN = 20_000_000  # masses drawn in all: seconds
SEED = 0  # the same counts give the same forecast


@dataclass(frozen=True)
class Posterior:
    """Posterior of every prompt's Q: a mixture of S settings (a, b) of the prior.

    `a`, `b` have shape (S,); the U distinct pairs of counts are in `samples` and `correct`, shape
    (U,), `prompts` (U,) says how many prompts have each, `place` (P,) which a prompt has.
    `fitted` is the (a, b) of the highest weight; `stated` says why a prior was stated, or is empty.
    """

    a: np.ndarray
    b: np.ndarray
    samples: np.ndarray
    correct: np.ndarray
    prompts: np.ndarray
    place: np.ndarray
    fitted: tuple[float, float]
    stated: str = ""

    @property
    def right(self) -> np.ndarray:
        """First parameter a + c of the posteriors, shape (S, U)."""
        return self.a[:, None] + self.correct

    @property
    def wrong(self) -> np.ndarray:
        """Second parameter b + n - c of the posteriors, shape (S, U)."""
        return self.b[:, None] + (self.samples - self.correct)

    def log_all_right(self, k: float) -> np.ndarray:
        """ln E[Q^k], the chance that k completions are all right, in nats, shape (S, U)."""
        return betaln(self.right + k, self.wrong) - betaln(self.right, self.wrong)

    def log_all_wrong(self, k: float) -> np.ndarray:
        """ln E[(1 - Q)^k], the chance that k completions are all wrong, in nats, shape (S, U)."""
        return betaln(self.right, self.wrong + k) - betaln(self.right, self.wrong)

    def mean(self) -> np.ndarray:
        """Posterior mean of Q by distinct pair of counts, shape (U,)."""
        return (self.right / (self.right + self.wrong)).mean(0)

    def over_prompts(self, values: np.ndarray) -> float:
        """Mean over settings and prompts of values by distinct pair, shape (S, U) or (U,)."""
        return float(np.average(np.atleast_2d(values).mean(0), weights=self.prompts))

    def draws(self) -> Iterator[np.ndarray]:
        """Draws of all prompts' Q in blocks of shape (D, P), always the same ones.

        A draw takes one setting for all prompts. Masses below 1e-308 come out as 0.
        """
        random = np.random.default_rng(SEED)
        size = len(self.place)
        total = int(np.clip(DRAWN // size, FEWEST_DRAWS, DRAWS))
        settings = np.resize(random.permutation(len(self.a)), total)
        block = max(1, CELLS // size)
        counts = self.correct[self.place], (self.samples - self.correct)[self.place]
        for start in range(0, total, block):
            chosen = settings[start : start + block, None]
            yield random.beta(self.a[chosen] + counts[0], self.b[chosen] + counts[1])


def posterior_of(passes: Passes, prior: tuple[float, float] | None = None) -> Posterior:
    """Posterior of every prompt's Q; `prior` fixes (a, b) instead of fitting them."""
    pairs, place, prompts = np.unique(
        np.stack([passes.samples, passes.correct]), axis=1, return_inverse=True, return_counts=True
    )
    samples, correct = pairs.astype(float)
    stated = "" if prior else _undecided(passes)
    if prior is None and len(passes.prompts) == 1:
        prior = (JEFFREYS, JEFFREYS)
    if prior is not None:
        a, b = np.array(prior)[:, None]
        fitted = prior
    else:
        settings = int(np.clip(CELLS // len(prompts), FEWEST_SETTINGS, SETTINGS))
        a, b, fitted = _fit(samples, correct, prompts, settings)
    return Posterior(a, b, samples, correct, prompts, place.reshape(-1), fitted, stated)


def _undecided(passes: Passes) -> str:
    """Why these counts don't fix the prior, or nothing if they do."""
    never, always = passes.correct == 0, passes.correct == passes.samples
    spread = f"the strength a + b anything from {STRENGTHS[0]:g} to {STRENGTHS[1]:g}"
    assumed = f"so the mean pass rate has Jeffreys' prior Beta(1/2, 1/2) and {spread}"
    if len(passes.prompts) == 1:
        return "One prompt tells nothing of others, so its Q has Jeffreys' prior Beta(1/2, 1/2)."
    if never.all():
        return f"No completion is right, {assumed}."
    if always.all():
        return f"All completions are right, {assumed}."
    if (passes.samples == 1).all():
        return f"One sample a prompt can't tell how prompts differ, {assumed}."
    if (never | always).all():
        return f"Every prompt is right always or never, {assumed}."
    return ""


def _fit(
    samples: np.ndarray, correct: np.ndarray, prompts: np.ndarray, settings: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Settings (a, b) of equal weight, arrays (settings,) each, and the likeliest one.

    The mean a / (a + b) has Jeffreys' prior, ln(a + b) a flat one between STRENGTHS: proper, so
    that there is an answer for any counts. The grid is narrowed until it holds little but weight.
    """
    likelihood = _Likelihood(samples, correct, prompts)
    # far enough out that sqrt(mean), which is what the prior has there, leaves 0.1 %
    far = logit(1e-6 / (samples @ prompts + 1))
    box = np.array([[far, -far], np.log(STRENGTHS)])
    for _ in range(ZOOMS):
        axes = [np.linspace(box[i, 0], box[i, 1], count) for i, count in enumerate(GRID)]
        mean, strength = (x.ravel() for x in np.meshgrid(*axes, indexing="ij"))
        a, b = expit(mean) * np.exp(strength), expit(-mean) * np.exp(strength)
        # Jeffreys' prior of the mean, in its log-odds
        prior = JEFFREYS * (np.log(expit(mean)) + np.log(expit(-mean)))
        height = likelihood(a, b) + prior
        weighty = height > height.max() - DEPTH
        narrow = np.array([[x[weighty].min(), x[weighty].max()] for x in (mean, strength)])
        steps = np.array([[axis[1] - axis[0]] for axis in axes])
        narrow = np.clip(narrow + steps * [-1, 1], box[:, :1], box[:, 1:])
        done = np.ptp(narrow, axis=1) > 0.7 * np.ptp(box, axis=1)
        box = narrow
        if done.all():
            break
    weights = np.exp(height - height.max())
    places = (np.arange(settings) + 0.5) / settings
    chosen = np.searchsorted(np.cumsum(weights) / weights.sum(), places).clip(0, len(a) - 1)
    best = int(height.argmax())
    return a[chosen], b[chosen], (float(a[best]), float(b[best]))


class _Likelihood:
    """Beta-binomial ln-likelihood of all counts, in nats but for a constant, at arrays of (a, b).

    ln B(a + c, b + n - c) - ln B(a, b) is a sum of a term in c, one in n - c and one in n, so each
    is computed for its own distinct values only.
    """

    def __init__(self, samples: np.ndarray, correct: np.ndarray, prompts: np.ndarray) -> None:
        self._right = self._counted(correct, prompts)
        self._wrong = self._counted(samples - correct, prompts)
        self._all = self._counted(samples, prompts)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (
            self._rising(a, *self._right)
            + self._rising(b, *self._wrong)
            - self._rising(a + b, *self._all)
        )

    @staticmethod
    def _counted(values: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distinct, place = np.unique(values, return_inverse=True)
        return distinct, np.bincount(place.reshape(-1), weights=prompts)

    @staticmethod
    def _rising(x: np.ndarray, values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Sum over prompts of ln Gamma(x + value) - ln Gamma(x)."""
        total = np.zeros_like(x)
        for value, count in zip(values, prompts, strict=True):
            total += count * (gammaln(x + value) - gammaln(x))
        return total


def single_bounds(samples: np.ndarray) -> np.ndarray:
    """One-sided 95 % upper bound of Q for a prompt with no success: 1 - 0.05^(1/n), shape as given.

    Clopper and Pearson (1934); it assumes no prior, and holds for a prompt chosen before counting.
    """
    return clopper_pearson_upper(np.zeros_like(samples), samples)


def unseen_bound(passes: Passes) -> float | None:
    """95 % upper bound of the mean Q over the prompts with no success; None if there are none.

    Without any success: Clopper and Pearson's for all samples together. Else these prompts were
    picked *because* they had none, so that pooling their samples would say too little; Good and
    Turing's argument holds (Good 1953): the sum over prompts of Q (1 - Q)^(n-1), which the number
    of prompts with exactly one success estimates times n, bounds the expected mass of those with
    none. Its bound is that of a Poisson count, conservative for a sum of Bernoulli ones.
    """
    never = passes.correct == 0
    if not never.any():
        return None
    if never.all():
        return float(clopper_pearson_upper(0, passes.samples.sum()))
    once = int((passes.correct == 1).sum())
    most = chi2.ppf(LEVEL, 2 * (once + 1)) / 2
    return min(1.0, float(most / passes.samples.min() / never.sum()))


def samples_to_see(mass: float, chance: float = LEVEL) -> int:
    """Samples of a prompt after which a mass shows a success with this chance.

    The least n with 1 - (1 - Q)^n >= chance; exact.
    """
    if mass >= 1:
        return 1
    return int(np.ceil(np.log1p(-chance) / np.log1p(-mass) - 1e-9))
