"""The elastic net as people know it: proximal steps with a bisection on c. Kept to compare with.

    c * hinge(x') + beta * ||x' - o||_1 + ||x' - o||^2 + penalties(x')

The hinge is on probabilities (Dhurandhar et al., arXiv:1802.07623; Van Looveren, Klaise, arXiv:1907.02584):
it ends where the class leads by kappa. The implementation that people know shrinks by `beta` whatever the
step size, and ran without momentum unless its threads happened to fall otherwise (Beck, Teboulle 2009 for
what it means to be). Everything is in input units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search, Slopes
from explainer_runtime.search.best import Best
from explainer_runtime.search.bisection import Bracket, lower_or_raise
from explainer_runtime.search.least_change import Problem


class Fista(NamedTuple):
    """Settings of the schedule, by the names that people know.

    Attributes:
        c_init: First weight of the hinge.
        c_steps: Weights that are tried.
        max_iterations: Steps for each.
        learning_rate_init: First step size; it falls with the square root of the steps left.
        beta: Soft threshold.
        momentum: Whether steps carry on part of the last one.
        clip: Lowest and highest value of any element of a gradient.
    """

    c_init: float
    c_steps: int
    max_iterations: int
    learning_rate_init: float
    beta: float
    momentum: bool
    clip: tuple[float, float]


def bisect(problem: Problem, fista: Fista, lanes: np.ndarray, best: Best) -> Search[None]:
    """Full descents from the start, for the smallest c that leads to valid points; `best` has it as tag."""
    count = len(lanes)
    bracket = Bracket(np.zeros(count), np.full(count, 1e10), np.full(count, fista.c_init))
    for i in range(fista.c_steps):
        hit = yield from _descend(problem, fista, lanes, best, bracket.value, 0.02 + 0.95 * i / fista.c_steps)
        bracket = lower_or_raise(bracket, hit)


def _descend(
    problem: Problem, fista: Fista, lanes: np.ndarray, best: Best, c: np.ndarray, done: float
) -> Search[np.ndarray]:
    """Whether a descent with these weights has passed a valid point `(L,)`."""
    asked, low, high = problem.criterion.only(lanes), problem.low[lanes], problem.high[lanes]
    d = before = np.clip(np.zeros_like(low), low, high)
    hit = np.zeros(len(c), bool)
    for k in range(fista.max_iterations + 1):
        rows = problem.space.rows(d, lanes)
        told, slope = yield Slopes(
            rows, lambda said, which: _per(c[which], said) * asked.only(which).hinge(said)[1], done,
            best.cost, k, alone=True,
        )  # fmt: skip
        net = problem.net(d, lanes)
        cost, spare = problem.judge(rows, told, lanes, net)
        best.offer(lanes, d, told, cost, spare, c)
        hit |= np.isfinite(cost)
        if k == fista.max_iterations:
            return hit
        gradient = problem.space.back(slope, d, lanes) + 2 * d
        if problem.penalty is not None:
            # Alone, as the model is asked: see `asks.Slopes`.
            pulls = [problem.penalty(row[None], lanes[i : i + 1])[1] for i, row in enumerate(rows)]
            gradient = gradient + problem.space.back(np.concatenate(pulls), d, lanes)
        gradient = np.clip(gradient, np.float32(fista.clip[0]), np.float32(fista.clip[1]))
        rate = np.float32(fista.learning_rate_init * np.sqrt(max(0.0, 1 - k / fista.max_iterations)))
        ahead = d - rate * gradient
        threshold = np.float32(fista.beta)
        shrunk = np.clip(ahead - np.clip(ahead, -threshold, threshold), low, high)
        carried = np.float32((k + 1) / (k + 4) if fista.momentum else 0)
        d, before = np.clip(shrunk + carried * (shrunk - before), low, high), shrunk
    return hit


def _per(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (like.ndim - 1))
