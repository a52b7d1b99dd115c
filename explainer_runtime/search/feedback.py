"""Black box in a handful of calls: search on a surrogate, ask the model about the whole way, aim again.

Each round searches on the surrogate, in this process and for nothing, and then asks the model in one call
about points short of, at and beyond what each lane came to. What the model says there, against what the
surrogate thought, moves the level that the lane aims at next time: it will be off by about as much. The
correction belongs to the lane; the surrogate is never changed, so requests share it. The first of these calls
carries the lines to the nearest unlike neighbours as well: something valid is nearly always known from there
on. In the end changes are taken back as far as the model itself lets them go.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search import neighbours
from explainer_runtime.search.asks import Aside, Search
from explainer_runtime.search.best import Best
from explainer_runtime.search.kept import Kept
from explainer_runtime.search.lanes import Effort, seek, winners
from explainer_runtime.search.least_change import Problem
from explainer_runtime.search.sparsify import shown, sparsify
from explainer_runtime.search.surrogate import Surrogate

_LANES = (3, 1)
"""Most lanes of a row in each round; those that promise the least cost go on."""
_ALONG = np.array([0.4, 0.6, 0.75, 0.85, 0.92, 1.0, 1.1, 1.25], np.float32)
"""Points asked about on the way from nothing changed (0) to what the surrogate proposes (1), and beyond."""
_AT = 5
"""Which of them is the proposal."""
_LESS = 2.0
"""Log-odds by which a lane asks for less where the surrogate has found no way."""
_MOST = 40.0
"""Largest correction."""


class Guide(NamedTuple):
    """What was fitted to a model that cannot be looked into.

    Attributes:
        surrogate: A small network that answers nearly as it does.
        rows: Reference rows `(M, *S)`.
        log_scores: What the model itself says of them `(M, K)`.
    """

    surrogate: Surrogate
    rows: np.ndarray | Kept
    log_scores: np.ndarray


def climb(
    problem: Problem, effort: Effort, owner: np.ndarray, lanes: np.ndarray, best: Best, guide: Guide
) -> Search[None]:
    """Search these lanes for valid points of small cost, as `lanes.seek` does, in seven calls where all goes
    well."""
    shift = np.zeros(len(owner))
    for number, most in enumerate(_LANES):
        proposed = yield Aside(_propose(problem, effort, lanes, best, shift), guide.surrogate)
        found = lanes[proposed.found[lanes]]
        d = (_ALONG.reshape(-1, *[1] * (problem.low.ndim - 1)) * proposed.x[found][:, None]).reshape(
            -1, *problem.low.shape[1:]
        )
        which = np.repeat(found, len(_ALONG))
        mu = proposed.tag[which]  # the surrogate's price
        d = np.clip(d, problem.low[which], problem.high[which])
        if number == 0:
            near, whose = neighbours.lines(problem, lanes, guide.rows, guide.log_scores)
            d, which = np.concatenate([d, near]), np.concatenate([which, whose])
            mu = np.concatenate([mu, np.zeros(len(whose), mu.dtype)])
        if len(d):
            log_scores = yield from shown(problem, effort.pace.rho, best, d, which, 0.2 + 0.2 * number, mu)
            at = log_scores[: len(found) * len(_ALONG)][_AT :: len(_ALONG)]
            asked = problem.criterion.only(found)
            off = asked.margin(proposed.log_scores[found]) - asked.margin(at)
            shift[found] = np.clip(off, -_MOST, _MOST)
            lacking = np.full(len(owner), np.inf)
            lacking[found] = proposed.cost[found] + np.maximum(0, -asked.margin(at)) * proposed.tag[found]
        shift[lanes[~proposed.found[lanes]]] -= _LESS
        lanes = lanes[winners(owner[lanes], lacking[lanes], max(most, effort.answers))] if len(d) else lanes
    lanes = np.flatnonzero(np.isin(owner, owner[lanes]))
    lanes = lanes[winners(owner[lanes], best.cost[lanes], effort.answers)]
    yield from sparsify(
        problem, best, lanes[best.found[lanes]], effort.pace.rho, rungs=effort.rungs, groups=effort.groups
    )


def _propose(
    problem: Problem, effort: Effort, lanes: np.ndarray, best: Best, shift: np.ndarray
) -> Search[Best]:
    """For each lane on its own, the best point that the surrogate has, at the level corrected by `shift`."""
    corrected = problem._replace(criterion=problem.criterion._replace(shift=shift))
    found = Best(problem.start, np.zeros_like(best.log_scores))
    yield from seek(corrected, effort, np.arange(len(shift)), lanes, found)
    return found
