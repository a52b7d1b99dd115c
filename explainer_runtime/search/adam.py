"""Wachter's loss, minimised by Adam: the schedule that users of counterfactuals know.

    (f(x') - p)^2 + lambda * ||x' - x||_1

`f` is the probability sought, `p` the one it should have. Each point that a step arrives at is judged by
the scores of the next gradient, so validity costs no row of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from explainer_runtime.search.asks import Descend
from explainer_runtime.search.proximal import per_row, project, rows_sum
from explainer_runtime.search.targets import Aim, reach

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Walk(NamedTuple):
    """One Adam run a lane, and the best valid point it has passed.

    Attributes:
        x: Points `(L, *S)`.
        active: Lanes still walking `(L,)`.
        aim: `mask` says which classes count, `level` is the probability `p` to hit; the sign is not used.
        tolerance: How near to the level counts as valid `(L,)`.
        low, high: Bounds, broadcasting to `x` row by row.
        origin: The inputs being explained `(L, *S)`.
        weight: Lambda `(L,)`.
        rate: First step size `(L,)`, in input units.
        horizon: Steps over which the step size decays to zero `(L,)`, float32; infinite is no decay.
        steps, limit: Steps taken and to take `(L,)`, int32.
        patience: Consecutive valid, or invalid, points that end the walk `(L,)`, int32.
        mean, square: Adam's moments `(L, *S)`.
        hits: Valid points passed `(L,)`, int32.
        valid_run, invalid_run: Consecutive ones up to now `(L,)`, int32.
        best, best_scores, best_distance: The closest valid point, its class scores and its L1 distance,
            infinite if none.
    """

    x: Any
    active: Any
    aim: Aim
    tolerance: Any
    low: Any
    high: Any
    origin: Any
    weight: Any
    rate: Any
    horizon: Any
    steps: Any
    limit: Any
    patience: Any
    mean: Any
    square: Any
    hits: Any
    valid_run: Any
    invalid_run: Any
    best: Any
    best_scores: Any
    best_distance: Any


def walk(
    origin: np.ndarray,
    start: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    weight: np.ndarray,
    *,
    tolerance: float,
    rate: float,
    horizon: float,
    steps: int,
    patience: int,
    done: tuple[float, float],
) -> Descend:
    """The ask that walks from `start` for `steps` steps, with fresh moments."""
    lanes = len(start)
    count, real = np.zeros(lanes, np.int32), np.zeros_like(start)
    state = Walk(
        x=start,
        active=np.ones(lanes, bool),
        aim=aim,
        tolerance=np.full(lanes, tolerance, np.float32),
        low=low,
        high=high,
        origin=origin,
        weight=weight.astype(np.float32),
        rate=np.full(lanes, rate, np.float32),
        horizon=np.full(lanes, horizon, np.float32),
        steps=count,
        limit=np.full(lanes, steps, np.int32),
        patience=np.full(lanes, patience, np.int32),
        mean=real,
        square=real,
        hits=count,
        valid_run=count,
        invalid_run=count,
        best=start,
        best_scores=np.zeros_like(aim.mask),
        best_distance=np.full(lanes, np.inf, np.float32),
    )
    return Descend(state, _sought, _step, steps + 1, done=done)


def _sought(aim: Aim, scores: Any) -> Any:
    # The slope of f alone: the square around it has a derivative in closed form, and would lose the small
    # probabilities in float32 where slopes are estimated from differences.
    return reach(aim, scores)


def _step(state: Walk, scores: Any, gradient: Any) -> Walk:
    off = reach(state.aim, scores) - state.aim.level
    counted = state.steps > 0  # the start is not a step's arrival
    valid = (tf.abs(off) <= state.tolerance) & counted
    valid_run = tf.where(valid, state.valid_run + 1, 0)
    invalid_run = tf.where(valid | ~counted, 0, state.invalid_run + 1)
    over = (state.steps >= state.limit) | (tf.maximum(valid_run, invalid_run) >= state.patience)

    change = state.x - state.origin
    distance = rows_sum(tf.abs(change))
    closer = valid & (distance < state.best_distance)

    slope = per_row(2 * off, change) * gradient + per_row(state.weight, change) * tf.sign(change)
    mean = _BETA1 * state.mean + (1 - _BETA1) * slope
    square = _BETA2 * state.square + (1 - _BETA2) * slope**2
    taken = tf.cast(state.steps, tf.float32)
    rate = state.rate * (1 - taken / state.horizon)
    rate *= tf.sqrt(1 - _BETA2 ** (taken + 1)) / (1 - _BETA1 ** (taken + 1))
    ahead = state.x - per_row(rate, change) * mean / (tf.sqrt(square) + _EPSILON)
    return state._replace(
        x=tf.where(per_row(over, change), state.x, project(ahead, state.low, state.high)),
        active=state.active & ~over,
        steps=state.steps + tf.cast(~over, tf.int32),
        mean=mean,
        square=square,
        hits=state.hits + tf.cast(valid, tf.int32),
        valid_run=valid_run,
        invalid_run=invalid_run,
        best=tf.where(per_row(closer, change), state.x, state.best),
        best_scores=tf.where(closer[:, None], scores, state.best_scores),
        best_distance=tf.where(closer, distance, state.best_distance),
    )
