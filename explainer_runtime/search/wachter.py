"""Wachter's loss as practice has it: Adam, a sweep over lambda, then a bisection. Kept to compare with.

    (f(x') - p)^2 + lambda * ||x' - x||_1

`f` is the probability sought, `p` the one it should have (Wachter, Mittelstadt, Russell, arXiv:1711.00399,
section on computing counterfactuals). Each point that a step arrives at is judged by the scores of the next
gradient, so validity costs no row of its own. Everything is in input units, as the settings are.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search, Slopes
from explainer_runtime.search.best import Best
from explainer_runtime.search.bisection import UNBOUNDED, Bracket, raise_or_lower
from explainer_runtime.search.criterion import SLACK, Criterion
from explainer_runtime.search.least_change import Space

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_SWEEP = 10
"""Lambdas of the sweep, each a tenth of the one before."""
_ENOUGH = 5
"""Valid points that a lambda must lead to before a larger one is tried."""


class Adam(NamedTuple):
    """Settings of the schedule, by the names that people know.

    Attributes:
        target_proba: `p`.
        lam_init: First lambda.
        max_lam_steps: Steps of the bisection on lambda.
        max_iter: Most steps for one lambda.
        early_stop: Consecutive valid, or invalid, steps after which one lambda is settled.
        learning_rate_init: Step size, in input units.
        decay: Whether it decays linearly to zero over `max_iter`.
    """

    target_proba: float
    lam_init: float
    max_lam_steps: int
    max_iter: int
    early_stop: int
    learning_rate_init: float
    decay: bool


def bisect(
    space: Space,
    low: np.ndarray,
    high: np.ndarray,
    asked: Criterion,
    adam: Adam,
    lanes: np.ndarray,
    best: Best,
) -> Search[None]:
    """Walk these lanes for a sweep of lambdas, then for those of a bisection.

    Args:
        space: Whose changes are in input units.
        low, high: Bounds of changes `(L, *S)`.
        asked: What is valid, lane by lane; which classes count.
        adam: Settings.
        lanes: Which lanes of the above.
        best: Of each lane the nearest valid point; its tag is the lambda that led to it.
    """
    count = len(lanes)
    lams = adam.lam_init / 10.0 ** np.arange(_SWEEP)
    d, hits = np.clip(np.zeros_like(low), low, high), np.zeros((_SWEEP, count), np.int64)
    start, steps = d, max(1, adam.max_iter // 10)
    for i, lam in enumerate(lams):  # each starting where the one before ended
        d, hits[i] = yield from _walk(
            space, low, high, asked, adam, lanes, best, d, np.full(len(low), lam), steps, steps + 1, 0.05 * i
        )
    bracket, d = _bracket(lams, hits), start
    for i in range(adam.max_lam_steps):
        lam = np.zeros(len(low))
        lam[lanes] = bracket.value
        d, hit = yield from _walk(
            space, low, high, asked, adam, lanes, best, d, lam, adam.max_iter, adam.early_stop,
            0.5 + 0.48 * i / adam.max_lam_steps,
        )  # fmt: skip
        bracket = raise_or_lower(bracket, hit >= _ENOUGH)


def _walk(
    space: Space, low: np.ndarray, high: np.ndarray, asked: Criterion, adam: Adam, lanes: np.ndarray, best:
        Best,
    d: np.ndarray, lam: np.ndarray, steps: int, patience: int, done: float,
) -> Search[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Where `steps` steps with fresh moments lead `(L, *S)`, and how many points on the way of `lanes` are
    valid."""
    d, hits = d.copy(), np.zeros(len(d), np.int64)
    mean, square = np.zeros_like(d), np.zeros_like(d)
    run = np.zeros((2, len(d)), np.int64)  # consecutive invalid points, and valid ones
    live = lanes
    for k in range(steps + 1):
        own = asked.only(live)
        rows, pull = space.rows(d[live], live), partial(_pull, own)
        told, slope = yield Slopes(rows, pull, done, best.cost, k, alone=True)
        off = own.chance(told)[0] - adam.target_proba
        if k:  # the start is not a step's arrival
            spare = own.spare(told)
            cost = np.abs(d[live]).reshape(len(live), -1).sum(axis=1)
            valid = spare >= SLACK
            best.offer(live, d[live], told, np.where(valid, cost, np.inf), spare, lam[live])
            hits[live] += valid
            for which, now in enumerate((~valid, valid)):
                run[which, live] = np.where(now, run[which, live] + 1, 0)
        on = run[:, live].max(axis=0) < patience
        if k == steps or not on.any():
            break
        live, off, slope = live[on], off[on], space.back(slope[on], d[live[on]], live[on])
        gradient = _per(2 * off, d) * slope + _per(lam[live], d) * np.sign(d[live])
        mean[live] = _BETA1 * mean[live] + (1 - _BETA1) * gradient
        square[live] = _BETA2 * square[live] + (1 - _BETA2) * gradient**2
        rate = adam.learning_rate_init * (1 - k / adam.max_iter if adam.decay else 1)
        rate *= np.sqrt(1 - _BETA2 ** (k + 1)) / (1 - _BETA1 ** (k + 1))
        onward = d[live] - np.float32(rate) * mean[live] / (np.sqrt(square[live]) + np.float32(_EPSILON))
        d[live] = np.clip(onward, low[live], high[live])
    return d, hits[lanes]


def _pull(asked: Criterion, log_scores: np.ndarray, which: np.ndarray) -> np.ndarray:
    return asked.only(which).chance(log_scores)[1]


def _bracket(lams: np.ndarray, hits: np.ndarray) -> Bracket:
    """Where to look for lambda, from how often each of the sweep, `hits` `(sweep, N)`, led to a valid point.

    The lower end is the second largest lambda that did (one hit may be luck), the upper end the smallest
    that did not. Since each lambda starts where another ended, the two may come out in the wrong order.
    """
    low, high = np.zeros(hits.shape[1]), np.full(hits.shape[1], lams[0])
    for row, counts in enumerate(hits.T):
        hit, miss = np.flatnonzero(counts > 0), np.flatnonzero(counts == 0)
        if len(hit):
            low[row] = lams[hit[min(1, len(hit) - 1)]]
        high[row] = lams[miss[-1]] if len(miss) else lams[0]
    low, high = np.minimum(low, high), np.maximum(low, high)
    high = np.where(low == high, 2 * UNBOUNDED, high)
    return Bracket(low, high, np.where(high < UNBOUNDED, (low + high) / 2, low))


def _per(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (like.ndim - 1))
