"""Without the model's gradient (`c_init=0`): paths of the penalties alone, shown to the model now and then.

A prototype shows the way, so no slope of the model is needed; an autoencoder's and an encoder's slopes cost
it nothing. The fast schedule lets the prototype pull ever harder until the model agrees. Such a path
crosses the border where it happens to, with changes that only the prototype asked for; rows are cheap where
many go in one call, so the model is then asked what of them it needs.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.methods.elastic_fast import path_slope
from explainer_runtime.methods.elastic_task import Task
from explainer_runtime.methods.elastic_trim import carve
from explainer_runtime.search import elastic
from explainer_runtime.search.asks import Rows, Search
from explainer_runtime.search.incumbents import Incumbents

_POINTS = 36
"""Points of a path that are shown to the model."""
_TOGETHER = 12
"""Of which so many at once."""
_PULLS = (2.0, 8.0, 32.0, 128.0)
"""Weights of the prototype, in thetas, where it has to do the work of the prediction loss as well."""
_SPARSER = 3.2
"""Soft threshold on the way there, in that of a path with a prediction loss."""
_ROOM = 1.75
"""Most that the penalties may rise, while changes that the model does not need are taken back. The path
goes farther than it must, so they lie well below where a search with a prediction loss would end."""


def pulled(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Paths on which the prototype pulls ever harder, for the rows that have nothing yet; then trim."""
    left, pace = rows, task.pace._replace(sharp=_SPARSER * task.pace.sharp)
    for pull in _PULLS:
        harder = task._replace(theta=pull * task.theta)
        slope = path_slope(harder, left, pace)
        # Without the model's gradient a step is cheap, and the way may be long: with momentum.
        yield from along(harder, held, left, slope._replace(momentum=np.ones_like(slope.momentum)))
        left = left[~held.found[left]]
        if not len(left):
            break
    yield from carve(task, held, rows[held.found[rows]], times=1, room=_ROOM)


def along(task: Task, held: Incumbents, rows: np.ndarray, slope: elastic.Slope) -> Search[None]:
    """Follow the penalties alone, and show the model points of the path, many at a time."""
    if task.penalty is None:
        return
    state = task.begin(rows, 0.0, slope)
    limit = int(slope.limit.max())
    stride = -(-limit // _POINTS)
    points = [state.x]
    while len(points) * stride <= limit and state.active.any():
        fresh, live = len(points), np.flatnonzero(state.active)
        share = len(points) * stride / limit
        for _ in range(_TOGETHER):
            state = yield elastic.descend(
                state, task.penalty, log=False, steps=stride, done=(0.02 + 0.6 * share, 0.02 + 0.6 * share)
            )
            points.append(state.x)
        before = held.distance[rows].copy()
        yield from _show(task, held, rows[live], [point[live] for point in points[fresh:]])
        # A row that has its answer, and saw no better one in a whole round, is done.
        settled = (held.distance[rows] < elastic.SHALLOW) & (held.distance[rows] == before)
        state = state._replace(active=state.active & ~settled)
    yield from _between(task, held, rows, points)


def _show(task: Task, held: Incumbents, rows: np.ndarray, points: list[np.ndarray]) -> Search[None]:
    scores = yield Rows(np.concatenate(points), 0.7)
    task.offer(held, np.tile(rows, len(points)), np.concatenate(points), scores, 0.0)


def _between(task: Task, held: Incumbents, rows: np.ndarray, points: list[np.ndarray]) -> Search[None]:
    """Look once more between the best point of each path and the one before it."""
    path = np.stack(points)  # (P, N, *S)
    pairs, owner = [], []
    for lane, row in enumerate(rows):
        same = (path[:, lane] == held.x[row]).reshape(len(path), -1).all(axis=1)
        if held.found[row] and same[1:].any():
            first = int(same.argmax())
            pairs.append((path[first - 1, lane], path[first, lane]))
            owner.append(row)
    if not pairs:
        return
    share = np.linspace(0, 1, 12, endpoint=False, dtype=np.float32)[1:]
    shown = [
        np.stack([(1 - part) * before + part * after for before, after in pairs]).astype(np.float32)
        for part in share
    ]
    yield from _show(task, held, np.asarray(owner), shown)
