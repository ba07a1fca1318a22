"""Test or train: decided by a hash of the start string, for every stage, axis and run alike.

`data.strings` draws by it and `data.summary` checks by it.
"""

from __future__ import annotations

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)


def is_test(base: np.ndarray, test_fraction: float) -> np.ndarray:
    """Whether start strings, node indices (samples, length), belong to test, shape (samples,).

    A splitmix64 step an element (Steele, Lea and Flood, OOPSLA 2014): the string alone decides, so
    the answer is the same in either alphabet and on every machine.
    """
    state = np.full(len(base), base.shape[1], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in base.T:
            state = (state ^ column.astype(np.uint64)) + _MIX
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53 < test_fraction
