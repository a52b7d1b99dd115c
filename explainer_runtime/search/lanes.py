"""Book-keeping of lanes: tries, of which several may belong to one row, and how they share the work.

All lanes of a row race for some steps; those that look like costing least go on. What has found nothing is
given more time, and at last is allowed to look like anything. The answer of each row is then sought once more
on the features alone that mattered, and what was not needed is taken back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search
from explainer_runtime.search.best import Best
from explainer_runtime.search.least_change import SHALLOW, Pace, Problem, begin, descend
from explainer_runtime.search.sparsify import sparsify

_WORTH = 1.02
"""What fewer changed features may cost."""


class Effort(NamedTuple):
    """How much is done.

    Attributes:
        pace: Of each descent.
        race: After how many more steps how many lanes of a row go on, and so on.
        thin: Changes smaller than this, in ranges of a feature, are done without in the end; 0 leaves that
            out.
        rungs: Candidates in each of two asks that take back what was not needed; 0 leaves one out.
        groups: Groups of neighbouring changes that a black box is asked the worth of; see `sparsify`.
        rounds: How often what was not needed is taken back.
        answers: Lanes of a row that are searched to the end.
    """

    pace: Pace = Pace()
    race: tuple[tuple[int, int], ...] = ((8, 2), (12, 1))
    thin: float = 0.04
    rungs: tuple[int, int] = (12, 10)
    groups: int = 0
    rounds: int = 1
    answers: int = 1


def seek(problem: Problem, effort: Effort, owner: np.ndarray, lanes: np.ndarray, best: Best) -> Search[None]:
    """Search these lanes for valid points of small cost.

    Args:
        problem: What is sought.
        effort: How much is done for it.
        owner: Which row each lane of the problem belongs to `(L,)`, ascending.
        lanes: Which lanes are searched: all those of some rows.
        best: What each lane has found `(L, ...)`; bettered as the search goes.
    """
    live, state, pace = lanes, None, effort.pace
    for steps, kept in effort.race:
        if len(np.unique(owner[live])) < len(live):
            state = yield from descend(problem, pace, live, best, state, most=steps, done=(0.05, 0.3))
            on = winners(owner[live], state.promise(), max(kept, effort.answers))
            live, state = live[on], state.only(on)
    yield from descend(problem, pace, live, best, state, done=(0.3, 0.7))
    slow = pace._replace(reach=3 * pace.reach, memory=0.7)
    for again, other in enumerate((slow, slow._replace(rho=0.0)), 1):
        # The lanes of rows that have nothing yet with the lead that is aimed for.
        missing = lanes[~np.isin(owner[lanes], owner[lanes[best.cost[lanes] < SHALLOW]])]
        yield from descend(problem, other, missing, best, draw=again, done=(0.7, 0.75))
        _reprice(problem, pace.rho, best, missing)
    lanes = lanes[winners(owner[lanes], best.cost[lanes], effort.answers)]
    lanes = lanes[best.found[lanes]]
    if effort.thin and len(lanes):
        yield from _thinned(problem, effort, best, lanes)
    for _ in range(effort.rounds):
        yield from sparsify(problem, best, lanes, pace.rho, rungs=effort.rungs, groups=effort.groups)


def winners(owner: np.ndarray, cost: np.ndarray, count: int = 1) -> np.ndarray:
    """The indices, ascending, of the `count` smallest costs of each owner; the first wins a tie."""
    order = np.lexsort((cost, owner))
    place = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    return np.asarray(np.sort(order[place < count]))


def _reprice(problem: Problem, rho: float, best: Best, lanes: np.ndarray) -> None:
    """Let lanes that were searched without the penalties count them again."""
    lanes = lanes[best.found[lanes]]
    if len(lanes) and problem.penalty is not None and rho:
        rows = problem.space.rows(best.x[lanes], lanes)
        objective = problem.objective(best.x[lanes], rows, lanes, rho)
        best.cost[lanes] = objective + np.where(best.cost[lanes] >= SHALLOW, SHALLOW, 0.0)


def _thinned(problem: Problem, effort: Effort, best: Best, lanes: np.ndarray) -> Search[None]:
    """The same once more, on the features alone that matter: fewer of them are worth two in a hundred."""
    small = np.abs(best.x) < effort.thin * (problem.high - problem.low)
    rest = np.clip(0, problem.low, problem.high)
    low, high, start = (np.where(small, rest, part) for part in (problem.low, problem.high, best.x))
    fewer = problem._replace(low=low, high=high, start=start)
    found = Best(best.x, best.log_scores)
    pace = effort.pace._replace(reach=1, refine=8, region=effort.pace.stride)
    state = begin(start[lanes])._replace(mu=best.tag[lanes])
    yield from descend(fewer, pace, lanes, found, state, draw=3, done=(0.75, 0.85))
    taken = lanes[found.cost[lanes] <= _WORTH * best.cost[lanes]]
    best.take(taken, found)
