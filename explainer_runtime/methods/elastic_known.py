"""The `reference` schedule: full descents from the origin, for a bisection on c.

Everything is as people know it, with its settings under their names; see search/elastic.py for the step.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.methods.elastic_task import Task
from explainer_runtime.search import elastic
from explainer_runtime.search.asks import Search
from explainer_runtime.search.bisection import Bracket, lower_or_raise
from explainer_runtime.search.incumbents import Incumbents


def bisect(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Full descents from the origin, for the smallest c that leads to valid points."""
    spec, count = task.spec, len(rows)
    bracket = Bracket(np.zeros(count), np.full(count, 1e10), np.full(count, spec.c_init))
    for i in range(spec.c_steps):
        state = yield elastic.descend(
            task.begin(rows, bracket.value, known_slope(task, rows)),
            task.penalty,
            log=False,
            encode=task.encode,
            done=(0.02 + 0.95 * i / spec.c_steps, 0.02 + 0.95 * (i + 1) / spec.c_steps),
        )
        hit = np.isfinite(state.best_cost)
        held.offer(rows, state.best, state.best_scores, hit, bracket.value, state.best_cost)
        bracket = lower_or_raise(bracket, hit)


def known_slope(task: Task, rows: np.ndarray) -> elastic.Slope:
    """Steps that fall with the square root of the steps left, and shrink by beta whatever their size."""
    spec = task.spec
    return elastic.slopes(
        len(rows),
        rate=spec.learning_rate_init,
        decay=True,
        fixed=spec.beta,
        scaled=0,
        stride=np.inf,
        clip_low=spec.clip[0],
        clip_high=spec.clip[1],
        momentum=spec.momentum,
        limit=spec.max_iterations,
        patience=2**31 - 1,
    )
