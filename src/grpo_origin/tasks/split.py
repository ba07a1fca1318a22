"""Test or train: decided by a hash of the start string, for every stage, axis and run alike.

`tasks.starts` draws by it and `data.summary` checks by it; outcomes of chances are drawn by it.
"""

from __future__ import annotations

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)


def is_test(base: np.ndarray, test_fraction: float) -> np.ndarray:
    """Whether start strings, node indices (samples, length), belong to test, shape (samples,).

    The string alone decides, so the answer is the same in either alphabet and on every machine.
    """
    return uniform(base) < test_fraction


def uniform(rows: np.ndarray) -> np.ndarray:
    """A number from [0, 1) that rows of whole numbers (samples, length) decide, shape (samples,).

    A splitmix64 step an element (Steele, Lea and Flood, OOPSLA 2014).
    """
    state = np.full(len(rows), rows.shape[1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in rows.T:
            state = (state ^ column.astype(np.uint64)) + _MIX
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
