"""Alignment and uniformity of representations (Wang and Isola, ICML 2020, arXiv 2005.10242).

Both are of representations scaled to unit length, over pairs of different rows; less is better.
"""

from __future__ import annotations

import numpy as np

UNIFORMITY_T = 2.0  # of the Gaussian potential; the paper's


def _squared_distances(points: np.ndarray) -> np.ndarray:
    """Between rows (n, d) scaled to unit length, shape (n, n)."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return np.clip(2 - 2 * unit @ unit.T, 0, None)


def alignment(points: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of rows (n, d) that share a label (n,), 0 to 4; NaN if none do."""
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    return float(_squared_distances(points)[same].mean()) if same.any() else np.nan


def uniformity(points: np.ndarray) -> float:
    """ln of the mean of exp(-2 squared distance) of all pairs of rows (n, d), at most 0 (nats).

    NaN of fewer than two rows.
    """
    if len(points) < 2:
        return np.nan
    pairs = ~np.eye(len(points), dtype=bool)
    return float(np.log(np.exp(-UNIFORMITY_T * _squared_distances(points)[pairs]).mean()))
