"""Nearest unlike neighbours: known rows that the model answers as is wanted, and the way to them.

A row that the model has already given the class sought is a valid answer from the first call on, if not a
near one; on the line to it lie nearer ones. No gradient is needed, so this is where a black box starts.
"""

from __future__ import annotations

import numpy as np

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Points asked about on the line from a row (0) to its neighbour (1)."""


def nearest(origin: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of `rows` is nearest to each origin, in L1, of those that it wants.

    Args:
        origin: `(L, *S)`.
        rows: `(M, *S)`.
        wanted: Which rows would do for which origin `(L, M)`, bool.

    Returns:
        `(L,)`, int64; -1 where none would do.
    """
    chosen = np.full(len(origin), -1, np.int64)
    for lane, point in enumerate(origin):
        would_do = np.flatnonzero(wanted[lane])
        if len(would_do):
            away = np.abs(rows[would_do] - point).reshape(len(would_do), -1).sum(axis=1)
            chosen[lane] = would_do[away.argmin()]
    return chosen


def lines(origin: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The points of `SHARES` on each line from `origin` `(L, *S)` to `target`: `(L * len(SHARES), *S)`."""
    share = np.asarray(SHARES, np.float32).reshape(1, -1, *[1] * (origin.ndim - 1))
    points = origin[:, None] + share * (target - origin)[:, None]
    return np.asarray(points.reshape(-1, *origin.shape[1:]), np.float32)
