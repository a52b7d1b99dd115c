"""Grow, prune, refine, prune: the road to small changes in few steps.

Lanes are tries: several may belong to one row (the likeliest other classes, side by side). The nearest few
are pruned, and the best of those is refined. The search returns nothing: every point that the model has
found valid goes through `judge`, which is where the caller keeps the closest.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.search.asks import Rows, Search
from explainer_runtime.search.growth import grow
from explainer_runtime.search.pruning import Judge, drop_harmless, drop_smallest, land, pull_in
from explainer_runtime.search.refine import WEIGHTS, refine
from explainer_runtime.search.targets import Aim

_PRUNED = 2
"""Lanes of a row that are pruned before the best is chosen."""
_COARSE, _FINE = (12, 8, 1), (24, 6, 2)
"""Rungs of `drop_smallest`, rungs and rounds of `pull_in`: for a point yet to be refined, and after that."""


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
        rough: Whether gradients are estimates. They are smooth already, and growth then changes much that was
            not needed: it pays to find out what before refining.
    """
    lanes = np.arange(len(origin))
    grown, scores = yield from _grown(origin, owner, aim, low, high, width, patience, coherent=not rough)
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
    alive = alive[_nearest(owner[alive], _l1(grown[alive], origin[alive]), _PRUNED)]
    x = yield from _prune(origin[alive], grown[alive], judge, aim, alive, _COARSE, rough, 0.45)
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
    x = yield from _prune(origin[alive], x, judge, aim, alive, _FINE, True, 0.9)
    yield from _prune(origin[alive], x, judge, aim, alive, _FINE, False, 0.95)


def _grown(
    origin: np.ndarray,
    owner: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    width: int,
    patience: int,
    coherent: bool,
) -> Search[tuple[np.ndarray, np.ndarray]]:
    """Where growth has taken every lane, and the scores there.

    All lanes of a row grow for `patience` steps. Only where none has arrived do they go on, wider, and
    with each feature chosen for itself: the smooth road does not lead everywhere.
    """
    first = yield grow(
        origin, aim, low, high, width=width, patience=patience, steps=patience, coherent=coherent
    )
    grown = first.x
    scores = yield Rows(grown, 0.3)
    over = _over(aim, scores, np.arange(len(origin)))
    late = np.flatnonzero(~np.isin(owner, owner[over]))
    if len(late):
        part = Aim(*(values[late] for values in aim))
        further = yield grow(
            grown[late],
            part,
            low[late],
            high[late],
            width=2 * width,
            patience=patience,
            steps=3 * patience,
            coherent=False,
            done=(0.3, 0.4),
        )
        grown, scores = grown.copy(), scores.copy()
        grown[late] = further.x
        scores[late] = yield Rows(further.x, 0.4)
    return grown, scores


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
    origin: np.ndarray,
    x: np.ndarray,
    judge: Judge,
    aim: Aim,
    lanes: np.ndarray,
    rungs: tuple[int, int, int],
    thorough: bool,
    done: float,
) -> Search[np.ndarray]:
    def own(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return judge(points, scores, lanes[which])

    def value(scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.asarray(aim.sign[lanes[which]] * (aim.mask[lanes[which]] * scores).max(axis=1))

    if thorough:
        x = yield from drop_harmless(origin, x, own, value, done=done)
    drops, pulls, rounds = rungs
    x = yield from drop_smallest(origin, x, own, rungs=drops, done=done)
    return (yield from pull_in(origin, x, own, rungs=pulls, rounds=rounds, done=done))


def _over(aim: Aim, scores: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """`targets.arrived`, for points of these lanes, in NumPy."""
    sign = aim.sign[lanes]
    return np.asarray(sign * (aim.mask[lanes] * scores).max(axis=1) >= sign * aim.level[lanes])


def _nearest(owner: np.ndarray, distance: np.ndarray, count: int = 1) -> np.ndarray:
    """The indices of the `count` smallest distances of each owner; the first wins a tie."""
    order = np.lexsort((distance, owner))
    first = np.flatnonzero(np.diff(owner[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return np.asarray(order[rank < count])


def _l1(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(x - origin).reshape(len(x), -1).sum(axis=1))
