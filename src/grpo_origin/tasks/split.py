"""Worlds and tasks: the one definition of what is asked and what is right.

Strings are arrays of *elements*: element `a * nodes + i` is node i written in alphabet a (A = 0, B = 1). All functions
work on whole arrays, shape (samples, length). This module knows neither token ids nor files.
"""

from __future__ import annotations

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)


def is_test(base: np.ndarray, test_fraction: float) -> np.ndarray:
    """Whether start strings (node indices, shape (samples, length)) belong to test, shape (samples,).

    A hash of the string alone decides (a splitmix64 step per element; Steele, Lea and Flood, OOPSLA 2014), so the
    answer is the same in every stage, axis, alphabet and run, and on every machine.
    """
    state = np.full(len(base), base.shape[1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in base.T:
            state = (state ^ column.astype(np.uint64)) + _MIX
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53 < test_fraction
