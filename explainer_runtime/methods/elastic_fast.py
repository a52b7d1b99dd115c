"""The `fast` schedule: the first point on a proximal path that will do.

A path with steps as long as the curvature allows passes the border within tens of steps. What is kept is
the first point with which the model, and most likely the next one too, agrees. A larger c, and in the end
growth feature by feature (search/growth.py), are for the rows for which there is none.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.methods import elastic_trim
from explainer_runtime.methods.elastic_task import Pace, Task
from explainer_runtime.search import elastic
from explainer_runtime.search.asks import Search
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.sparse import sparse_descent
from explainer_runtime.search.targets import Aim

_ROUNDS = 3
"""Values of c, each ten times the one before, that are tried at most."""
_CARVES = 3
"""Times that what is known is carved where no path leads to it."""
_REST = 100.0
"""What the elastic net weighs against gamma and theta, when the hinge is to push against all of them."""


def rounds(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[None]:
    """Short descents with ever larger c, for the rows that have nothing good yet."""
    spec, left = task.spec, rows
    push = task.pace.push * (_REST + spec.gamma + task.theta)
    for i in range(min(spec.c_steps, _ROUNDS)):
        c = spec.c_init * 10.0**i
        state = yield elastic.descend(
            task.begin(left, c * push[left], path_slope(task, left, task.pace)),
            task.penalty,
            log=True,
            encode=task.encode,
            done=(0.05 + 0.25 * i, 0.3 + 0.25 * i),
        )
        held.offer(left, state.best, state.best_scores, np.isfinite(state.best_cost), c, state.best_cost)
        short = state.best_cost >= elastic.SHALLOW
        left, nothing = left[short], ~np.isfinite(state.best_cost[short])
        if not len(left):
            return
    left = left[nothing]
    if held.found[left].any():
        yield from elastic_trim.carve(task, held, left[held.found[left]], times=_CARVES)
    if not held.found[left].all():
        yield from _grow(task, held, left[~held.found[left]], exact)


def path_slope(task: Task, rows: np.ndarray, pace: Pace) -> elastic.Slope:
    """Steps of one over the curvature: of the elastic net's square, and of the penalties'."""
    spec = task.spec
    rebuild, encode = map(float, task.curvature)
    curvature = 2 + 2 * spec.gamma * rebuild + 2 * task.theta[rows] * encode
    return elastic.slopes(
        len(rows),
        rate=1 / curvature,
        decay=False,
        fixed=0,
        scaled=spec.beta * pace.sharp,
        stride=0.1 * (task.high - task.low)[rows].reshape(len(rows), -1).max(axis=1),
        clip_low=spec.clip[0],
        clip_high=spec.clip[1],
        momentum=spec.momentum,
        limit=spec.steps,
        patience=pace.patience,
    )


def _grow(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[None]:
    """The last resort: change feature after feature until the model gives in, whatever it looks like."""
    lanes = np.arange(len(rows))
    sure = np.full(len(rows), max(0.5, task.level) + task.spec.kappa / 2 + 0.05, np.float32)

    def judge(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        task.offer(held, rows[which], points, scores, 0.0)
        return task.valid(points, scores, rows[which])[0]

    start = np.clip(task.origin, task.low, task.high)[rows]
    aim = Aim(task.wanted[rows], np.ones(len(rows), np.float32), np.minimum(sure, 0.999))
    yield from sparse_descent(
        start, lanes, aim, task.low[rows], task.high[rows], judge,
        width=4, patience=40, refine_steps=0, rough=not exact,
    )  # fmt: skip
