"""Grow, prune, refine, prune: the road to small changes in few steps.

Lanes are tries: several may belong to one row (the likeliest other classes, side by side), and only the
best of them is refined. The search returns nothing: every point that the model has found valid goes
through `judge`, which is where the caller keeps the closest.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.search.asks import Rows, Search
from explainer_runtime.search.growth import grow
from explainer_runtime.search.pruning import Judge, drop_harmless, drop_smallest, land, pull_in
from explainer_runtime.search.refine import WEIGHTS, refine
from explainer_runtime.search.targets import Aim


def sparse_descent(
    origin: np.ndarray,
    owner: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    judge: Judge,
    *,
    width: int,
    patience: int,
    refine_steps: int,
    rough: bool = False,
) -> Search[None]:
    """Search every lane for a valid point near its origin.

    Args:
        origin: Where each lane starts, inside its bounds `(L, *S)`.
        owner: Which row each lane belongs to `(L,)`.
        aim: What each lane is after; it has arrived at its level, and is valid if `judge` says so.
        low: Lower bounds `(L, *S)` or `(L, 1, ...)`.
        high: Upper bounds, likewise.
        judge: Says which points are valid, and keeps what it has seen.
        width, patience: See `grow`.
        refine_steps: Steps of `refine`; 0 leaves it out.
        rough: Whether gradients are estimates. Growth then changes much that was not needed, and it pays
            to find out what before refining.
    """
    lanes = np.arange(len(origin))
    grown = (yield grow(origin, aim, low, high, width=width, patience=patience)).x
    scores = yield Rows(grown, 0.3)
    over = _over(aim, scores, lanes)
    beyond = np.flatnonzero(over & ~judge(grown, scores, lanes))
    if len(beyond):  # the probability asked for lies on the way there

        def landed(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
            judge(points, scores, beyond[which])
            return _over(aim, scores, beyond[which])

        grown = grown.copy()
        grown[beyond] = yield from land(origin[beyond], grown[beyond], landed)

    alive = np.flatnonzero(over)
    if not len(alive):
        return
    x = yield from _prune(origin[alive], grown[alive], judge, aim, alive, rough, 0.35)
    best = _nearest(owner[alive], _l1(x, origin[alive]))
    x, alive = x[best], alive[best]
    if not refine_steps:
        return
    x = yield from _refined(
        origin[alive],
        x,
        Aim(*(part[alive] for part in aim)),
        low[alive],
        high[alive],
        judge,
        alive,
        refine_steps,
    )
    x = yield from _prune(origin[alive], x, judge, aim, alive, True, 0.9)
    yield from _prune(origin[alive], x, judge, aim, alive, False, 0.95)


def _refined(
    origin: np.ndarray,
    x: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    judge: Judge,
    lanes: np.ndarray,
    steps: int,
) -> Search[np.ndarray]:
    """The closest valid point that refinement has passed, for each lane."""
    ask = refine(origin, x, aim, low, high, steps=steps)
    state = yield ask
    judge(state.best, state.best_scores, np.repeat(lanes, len(WEIGHTS)))
    tries = state.best_distance.reshape(len(x), len(WEIGHTS)).argmin(axis=1)
    return np.asarray(state.best[np.arange(len(x)) * len(WEIGHTS) + tries])


def _prune(
    origin: np.ndarray, x: np.ndarray, judge: Judge, aim: Aim, lanes: np.ndarray, thorough: bool, done: float
) -> Search[np.ndarray]:
    def own(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return judge(points, scores, lanes[which])

    def value(scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.asarray(aim.sign[lanes[which]] * (aim.mask[lanes[which]] * scores).max(axis=1))

    if thorough:
        x = yield from drop_harmless(origin, x, own, value, done=done)
    x = yield from drop_smallest(origin, x, own, done=done)
    return (yield from pull_in(origin, x, own, done=done))


def _over(aim: Aim, scores: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """`targets.arrived`, for points of these lanes, in NumPy."""
    sign = aim.sign[lanes]
    return np.asarray(sign * (aim.mask[lanes] * scores).max(axis=1) >= sign * aim.level[lanes])


def _nearest(owner: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The index of the smallest distance of each owner; the first wins a tie."""
    order = np.lexsort((distance, owner))
    return order[np.flatnonzero(np.diff(owner[order], prepend=-1))]


def _l1(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(x - origin).reshape(len(x), -1).sum(axis=1))
