"""Refining a valid change: proximal steps along the border between the classes.

From a point that is valid, the L1 distance is pulled in by soft thresholding until the point is not valid
any more; then the gradient pushes the few features that matter back over the border. The step size falls
to zero, so the two settle. How hard the gradient pushes, against the threshold, is the trade between few
large and many small changes; nobody knows it beforehand, so two weights run side by side as lanes. Both
fall to the same small one: a hard push gets across in few steps, a soft one settles near the border.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from explainer_runtime.search.asks import Descend
from explainer_runtime.search.proximal import per_row, project, rows_sum, shrink
from explainer_runtime.search.targets import Aim, arrived, log_reach

WEIGHTS = (4.0, 12.0)
"""Push of the steepest feature at first, in thresholds."""
_LAST_WEIGHT = 2.0
"""The same at last."""


class Refinement(NamedTuple):
    """One point a lane, and the best valid one it has passed.

    Attributes:
        x: Points `(L, *S)`.
        active: Lanes with steps left `(L,)`.
        aim: What each lane is after; it arrives at the level, and overshooting is no matter here.
        low, high: Bounds, broadcasting to `x` row by row.
        origin: The inputs being explained `(L, *S)`.
        weight: Push of the steepest feature at first, in thresholds `(L,)`.
        rate: First soft threshold `(L,)`, in input units.
        steps, limit: Steps taken and to take `(L,)`, int32.
        best, best_scores, best_distance: The closest valid point passed, its class scores and its L1
            distance, infinite if none.
    """

    x: Any
    active: Any
    aim: Aim
    low: Any
    high: Any
    origin: Any
    weight: Any
    rate: Any
    steps: Any
    limit: Any
    best: Any
    best_scores: Any
    best_distance: Any


def refine(
    origin: np.ndarray,
    x: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    *,
    steps: int,
) -> Descend:
    """The ask that refines valid points `x` `(L, *S)`, with a lane for each of `WEIGHTS`, row by row.

    `origin`, `low` and `high` are as in `grow`.
    The state it is answered with has `len(WEIGHTS)` lanes for each row, one after the other.
    """
    tries = len(WEIGHTS)
    origin, x, low, high = (np.repeat(a, tries, axis=0) for a in (origin, x, low, high))
    repeated = Aim(*(np.repeat(a, tries, axis=0) for a in aim))
    lanes = len(x)
    span = (high - low).reshape(lanes, -1).max(axis=1)
    state = Refinement(
        x=x,
        active=np.ones(lanes, bool),
        aim=repeated,
        low=low,
        high=high,
        origin=origin,
        weight=np.tile(np.asarray(WEIGHTS, np.float32), lanes // tries),
        rate=0.12 * span,
        steps=np.zeros(lanes, np.int32),
        limit=np.full(lanes, steps, np.int32),
        best=x,
        best_scores=np.zeros_like(repeated.mask),
        best_distance=np.full(lanes, np.inf, np.float32),
    )
    return Descend(state, log_reach, _step, steps + 1, done=(0.5, 0.9))


def _step(state: Refinement, scores: Any, gradient: Any) -> Refinement:
    valid = arrived(state.aim, scores)
    distance = rows_sum(tf.abs(state.x - state.origin))
    closer = valid & (distance < state.best_distance)
    steepest = tf.reduce_max(tf.abs(gradient), axis=list(range(1, len(gradient.shape))))
    left = 1.0 - tf.cast(state.steps, tf.float32) / tf.cast(state.limit, tf.float32)
    weight = _LAST_WEIGHT + (state.weight - _LAST_WEIGHT) * left
    # A hinge: no push while the point is valid, so that the threshold alone works there.
    push = tf.where(valid, 0.0, tf.math.divide_no_nan(weight, steepest))
    rate = state.rate * left
    ahead = state.x + per_row(rate * push, state.x) * gradient
    return state._replace(
        x=project(shrink(ahead, state.origin, per_row(rate, state.x)), state.low, state.high),
        active=state.active & (state.steps < state.limit),
        steps=state.steps + 1,
        best=tf.where(per_row(closer, state.x), state.x, state.best),
        best_scores=tf.where(closer[:, None], scores, state.best_scores),
        best_distance=tf.where(closer, distance, state.best_distance),
    )
