"""Success amplification of GRPO with a binary reward: Mroueh's recursion (arXiv 2503.06639).

There each iteration goes to the maximiser of the group-relative objective with weight beta on the
KL divergence to a model, with exact expectations in place of samples. With advantages
(R - p) / sqrt(p (1 - p)) that maximiser multiplies the odds of success of that model by
e^{w / beta}, w = 1 / sqrt(p (1 - p)) the advantage of a right completion minus that of a wrong one.
Written down here from that statement of the optimal policy (abstract and first version), not copied
from the paper. Knows probabilities only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

SMALLEST = 1e-300  # success probabilities are kept from 0, where all stays as it is
EPSILON = 1e-8  # added to p (1 - p), as there, so that w is finite at both ends


def amplified(p: ArrayLike, beta: float, iterations: int, *, mirror: bool = False) -> np.ndarray:
    """Probability of success after so many iterations from `p`, shape of `p`.

    The KL divergence is to the model that iteration 1 started from, or with `mirror` to that of the
    iteration before. A probability of 0 stays 0. Raises ValueError unless beta > 0.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")
    start = np.asarray(p, dtype=float)
    inside = (start > SMALLEST) & (start < 1)
    reference = np.where(inside, start, 0.5)
    mass, odds = reference, _logit(reference)
    for _ in range(iterations):
        tilt = 1 / (beta * np.sqrt(mass * (1 - mass) + EPSILON))
        reached = (_logit(mass) if mirror else odds) + tilt
        mass = np.minimum(expit(reached), np.nextafter(1.0, 0.0))
    return np.where(inside, mass, start)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)
