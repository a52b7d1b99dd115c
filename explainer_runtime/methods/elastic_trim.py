"""Taking back what was not needed, once something valid is known: see search/pruning.py.

Two wishes pull at each other. The elastic net falls with every change that is undone; the penalties, which
say how plausible a point looks, mostly rise. `polish` undoes only what leaves the whole loss no larger.
`carve` looks at the elastic net alone, and may be given a ceiling for the penalties.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.methods.elastic_task import Task
from explainer_runtime.search import elastic, pruning
from explainer_runtime.search.asks import Search
from explainer_runtime.search.incumbents import Incumbents

Bearable = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(points (M, *S), which row each belongs to (M,)) -> verdicts (M,)`, bool, beside what the model says."""


def polish(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Undo the changes that neither the model nor the penalties need; something is held for each row."""
    if not len(rows):
        return
    before = task.loss(held.x[rows], rows)
    judge = _judge(task, held, rows, lambda x, which: task.loss(x, rows[which]) <= before[which])
    yield from pruning.drop_smallest(task.origin[rows], held.x[rows], judge, rungs=24, done=0.9)


def carve(
    task: Task,
    held: Incumbents,
    rows: np.ndarray,
    *,
    times: int,
    groups: int = 96,
    room: float | None = None,
) -> Search[None]:
    """Take away what is worth least to the model, then the smallest changes, then a part of all.

    Args:
        task: What is sought.
        held: The best so far; something valid for each of these rows.
        rows: Which rows to carve.
        times: How often; four asks each time.
        groups: Of neighbouring features, each weighed as one; of the other candidates there are as many.
        room: Most that the penalties of a point may be, in those of the point held now; None is no limit.
    """
    if not len(rows):
        return
    bearable = None
    if room is not None and task.penalty is not None:
        ceiling = room * task.penalties(held.x[rows], rows)

        def bearable(x: np.ndarray, which: np.ndarray) -> np.ndarray:
            return np.asarray(task.penalties(x, rows[which]) <= ceiling[which])

    judge = _judge(task, held, rows, bearable)

    def value(scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.asarray((task.wanted[rows[which]] * scores).max(axis=1))

    for _ in range(times):
        origin = task.origin[rows]
        yield from pruning.drop_harmless(origin, held.x[rows], judge, value, groups=groups, done=0.75)
        yield from pruning.drop_smallest(origin, held.x[rows], judge, rungs=groups // 2, done=0.8)
        yield from pruning.pull_in(origin, held.x[rows], judge, rungs=groups // 4, done=0.85)


def _judge(task: Task, held: Incumbents, rows: np.ndarray, bearable: Bearable | None) -> pruning.Judge:
    """Offers `held` the points that are valid and bearable; with their lead, where what is held has it."""
    shallow = held.distance[rows] >= elastic.SHALLOW

    def judge(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        valid, deep = task.valid(points, scores, rows[which])
        kept = np.where(shallow[which], valid, deep)
        some = np.flatnonzero(kept)
        if bearable is not None and len(some):  # the networks are asked about these alone
            kept[some] = bearable(points[some], which[some])
            some = some[kept[some]]
        if len(some):
            task.offer(held, rows[which[some]], points[some], scores[some], held.tag[rows[which[some]]])
        return np.asarray(kept)

    return judge
