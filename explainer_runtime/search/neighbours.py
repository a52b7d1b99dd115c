"""Nearest unlike neighbours: known rows that the model answers as is wanted, and the way to them.

A row that the model has already given the class sought is a valid answer from the first call on, if not a
near one; on the line to it lie nearer ones. No slope is needed, so this is where a black box starts, and
where every search ends that has found nothing: a rule or a tree has no slope at all.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.search.kept import Kept
from explainer_runtime.search.least_change import Problem

SHARES = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 1.0], np.float32)
"""Points asked about on the line from a row (0) to its neighbour (1)."""

_TOGETHER = 2**20
"""Numbers of known rows that are looked at together."""


def lines(
    problem: Problem, lanes: np.ndarray, rows: np.ndarray | Kept, log_scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points on the line from each lane to the nearest known row that would do.

    Args:
        problem: What is sought; its space must know what change leads to a row (`toward`).
        lanes: For which lanes.
        rows: Known rows `(M, *S)`.
        log_scores: What the model says of them `(M, K)`.

    Returns:
        Changes `(P, *D)`, and whose they are `(P,)`; none for lanes for which nothing would do.
    """
    points, whose = [], []
    size = max(1, _TOGETHER // max(1, rows[:1].size))
    for lane in lanes:
        asked = problem.criterion.only(np.full(len(rows), lane))
        wanted = np.flatnonzero(asked.spare(log_scores) >= 0)
        if not len(wanted):
            continue
        near, least = problem.start[lane], np.inf
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            d = problem.space.toward(rows[part], np.full(len(part), lane))
            d = np.clip(d, problem.low[lane], problem.high[lane])
            far = np.abs(d).reshape(len(d), -1).sum(axis=1)
            if far.min() < least:
                near, least = d[far.argmin()], far.min()
        points.append(SHARES.reshape(-1, *[1] * near.ndim) * near)
        whose.append(np.full(len(SHARES), lane))
    if not points:
        return problem.start[:0], np.zeros(0, np.int64)
    d, which = np.concatenate(points), np.concatenate(whose)
    return np.clip(d, problem.low[which], problem.high[which]), which
