"""Black box in a handful of calls: search on a student, ask the model about the whole way, aim again.

Each round searches on the student, in this process and for nothing, and then asks the model in one call
about points short of, at and beyond what each lane came to. What the model says there, against what the
student thought, moves the level that the lane aims at on the student: its log-odds will be off by about as
much next time. The correction belongs to the lane; the student is never changed, so requests share it.

The first of these calls carries the lines to the nearest unlike neighbours as well (`unlike.py`): something
valid is nearly always known from there on. In the end changes are taken back as far as the model itself lets
them go (`pruning.py`). Everything valid goes through `judge`, as in `sparse.py`; nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.search import unlike
from explainer_runtime.search.asks import Aside, Rows, Search
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.pruning import Judge, drop_harmless, drop_smallest, land, pull_in
from explainer_runtime.search.sparse import sparse_descent
from explainer_runtime.search.student import TEMPERATURE
from explainer_runtime.search.targets import Aim

_LANES = (4, 2, 1)
"""Most lanes of a row in each round; those that promise the smallest change go on."""
_ALONG = (0.4, 0.6, 0.75, 0.85, 0.92, 1.0, 1.1, 1.25)
"""Points asked about on the way from the origin (0) to what the student proposes (1), and beyond."""
_MARGIN = 0.1
"""Log-odds on the student by which a level is overshot, so that a lane does not end just short of it."""
_LESS = 0.7
"""Log-odds by which a lane asks for less where the student has found no way."""
_MOST = 14.0
"""Largest log-odds asked of a student: float32 resolves no more."""
_RUNGS, _GROUPS, _PULLS = 24, 40, 12
"""Candidates of one lane in each way of taking back what was not needed."""


class Tutor(NamedTuple):
    """What was fitted to a model that cannot be looked into.

    Attributes:
        student: A small network that answers nearly as it does, softened, as a predictor with a graph.
        rows: Reference rows `(M, *S)`.
        scores: The model's own scores of them `(M, K)`.
    """

    student: Any
    rows: np.ndarray
    scores: np.ndarray


class _Lanes(NamedTuple):
    """Tries, as `sparse.sparse_descent` takes them: where each starts, whose it is, what it is after."""

    origin: np.ndarray
    owner: np.ndarray
    aim: Aim
    low: np.ndarray
    high: np.ndarray

    def only(self, which: np.ndarray) -> _Lanes:
        aim = Aim(*(part[which] for part in self.aim))
        return _Lanes(self.origin[which], self.owner[which], aim, self.low[which], self.high[which])

    def none(self) -> Incumbents:
        """Incumbents of these lanes: nothing yet."""
        return Incumbents(self.origin, self.origin, np.zeros_like(self.aim.mask))

    def reach(self, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The largest probability that counts `(M,)`, for points of these lanes."""
        return np.asarray((self.aim.mask[which] * scores).max(axis=1))

    def over(self, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        """`targets.arrived`, for points of these lanes, in NumPy."""
        sign = self.aim.sign[which]
        return np.asarray(sign * self.reach(scores, which) >= sign * self.aim.level[which])


def climb(
    origin: np.ndarray,
    owner: np.ndarray,
    aim: Aim,
    low: np.ndarray,
    high: np.ndarray,
    judge: Judge,
    *,
    tutor: Tutor,
    width: int,
    patience: int,
    refine_steps: int,
    rough: bool = False,
) -> Search[None]:
    """Search every lane for a valid point near its origin, in seven calls where all goes well.

    Args:
        origin, owner, aim, low, high, judge: As for `sparse.sparse_descent`.
        tutor: What was fitted.
        width, patience, refine_steps: As there; the searches on the student take half of the steps.
        rough: As there; a student's gradients are not.
    """
    lanes = _Lanes(origin, owner, aim, low, high)
    valid, over = lanes.none(), lanes.none()

    def seen(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        good = judge(points, scores, which)
        valid.offer(which, points, scores, good)
        over.offer(which, points, scores, lanes.over(scores, which))
        return good

    # The student is not the model: half the care is enough to see where it leads.
    patience, refine_steps = -(-patience // 2), refine_steps // 2
    descend = partial(sparse_descent, width=width, patience=patience, refine_steps=refine_steps, rough=rough)
    live = np.arange(len(origin))
    shift, cost = np.zeros(len(origin)), np.zeros(len(origin))
    points, whose = _neighbours(lanes, tutor)
    for number, most in enumerate(_LANES, 1):
        live = live[_cheapest(owner[live], cost[live], most)]
        own = lanes.only(live)
        proposed = yield Aside(_propose(descend, own, shift[live]), tutor.student)
        way, which = _along(own, proposed)
        points, whose = np.concatenate([way, points]), np.concatenate([live[which], whose])
        reached = np.full(len(live), np.nan)
        if len(points):
            scores = yield Rows(points, 0.2 * number, _median(valid))
            seen(points, scores, whose)
            ends = np.flatnonzero(np.tile(np.equal(_ALONG, 1.0), len(way) // len(_ALONG)))
            reached[which[ends]] = own.reach(scores[ends], which[ends])
        shift[live] = _shift(own, proposed, reached, shift[live])
        cost[live] = _cost(own, proposed, reached)
        points, whose = points[:0], whose[:0]

    yield from _landed(lanes, valid, over, seen)
    yield from _pruned(lanes, valid, seen)


# --- on the student -------------------------------------------------------------------------------------


def _propose(descend: Callable[..., Search[None]], lanes: _Lanes, shift: np.ndarray) -> Search[Incumbents]:
    """For each lane on its own, the nearest point the student finds at the level corrected by `shift`."""
    odds = _odds(lanes.aim.level) + lanes.aim.sign * _MARGIN
    aim = lanes.aim._replace(level=_probability(odds / TEMPERATURE + shift))
    corrected = lanes._replace(aim=aim, owner=np.arange(len(lanes.owner)))
    held = corrected.none()

    def judge(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        there = corrected.over(scores, which)
        held.offer(which, points, scores, there)
        return there

    yield from descend(*corrected, judge)
    return held


def _along(lanes: _Lanes, proposed: Incumbents) -> tuple[np.ndarray, np.ndarray]:
    """The points of `_ALONG` for each lane with a proposal, inside the bounds, and whose they are."""
    found = np.flatnonzero(proposed.found)
    start, low, high = (part[found][:, None] for part in (lanes.origin, lanes.low, lanes.high))
    share = np.asarray(_ALONG, np.float32).reshape(1, -1, *[1] * (lanes.origin.ndim - 1))
    points = np.clip(start + share * (proposed.x[found][:, None] - start), low, high)
    return points.reshape(-1, *lanes.origin.shape[1:]), np.repeat(found, len(_ALONG))


def _shift(lanes: _Lanes, proposed: Incumbents, reached: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """How much too sure, in its own log-odds, the student was of what each lane came to `(L,)`."""
    thought = lanes.reach(proposed.scores, np.arange(len(reached)))
    off = np.clip(_odds(thought) - _odds(reached) / TEMPERATURE, -_MOST, _MOST)
    return np.where(proposed.found, off, shift - lanes.aim.sign * _LESS)


def _cost(lanes: _Lanes, proposed: Incumbents, reached: np.ndarray) -> np.ndarray:
    """What each lane promises: the distance it proposes, and a unit for each log-odd that it lacks `(L,)`."""
    lacking = np.maximum(0.0, lanes.aim.sign * (_odds(lanes.aim.level) - _odds(reached)))
    return np.where(proposed.found, proposed.distance + lacking, np.inf)


# --- on the model ---------------------------------------------------------------------------------------


def _neighbours(lanes: _Lanes, tutor: Tutor) -> tuple[np.ndarray, np.ndarray]:
    """Points on the lines to each lane's nearest unlike neighbour, and whose they are."""
    each = np.zeros(len(tutor.scores), np.int64)
    wanted = np.stack([lanes.over(tutor.scores, each + lane) for lane in range(len(lanes.owner))])
    chosen = unlike.nearest(lanes.origin, tutor.rows, wanted)
    which = np.flatnonzero(chosen >= 0)
    target = np.clip(tutor.rows[chosen[which]], lanes.low[which], lanes.high[which])
    return unlike.lines(lanes.origin[which], target), np.repeat(which, len(unlike.SHARES))


def _landed(lanes: _Lanes, valid: Incumbents, over: Incumbents, seen: Judge) -> Search[None]:
    """Where the level was passed but the probability asked for was not hit: it lies on the way there."""
    served = np.isin(lanes.owner, lanes.owner[valid.found])
    which = np.flatnonzero(over.found & ~served)
    which = which[_cheapest(lanes.owner[which], over.distance[which], 1)]
    if not len(which):
        return

    def beyond(points: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        seen(points, scores, which[rows])
        return lanes.over(scores, which[rows])

    yield from land(lanes.origin[which], over.x[which], beyond)


def _pruned(lanes: _Lanes, valid: Incumbents, seen: Judge) -> Search[None]:
    """Take back what the model does not need of each row's nearest valid point."""
    which = np.flatnonzero(valid.found)
    which = which[_cheapest(lanes.owner[which], valid.distance[which], 1)]
    if not len(which):
        return
    origin, x = lanes.origin[which], valid.x[which]

    def judge(points: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return seen(points, scores, which[rows])

    def value(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.asarray(lanes.aim.sign[which[rows]] * lanes.reach(scores, which[rows]))

    x = yield from drop_smallest(origin, x, judge, rungs=_RUNGS, done=0.7)
    x = yield from drop_harmless(origin, x, judge, value, groups=_GROUPS, done=0.8)
    yield from pull_in(origin, x, judge, rungs=_PULLS, done=0.9)


# --- arithmetic -----------------------------------------------------------------------------------------


def _cheapest(owner: np.ndarray, cost: np.ndarray, most: int) -> np.ndarray:
    """Indices, in order, of the `most` smallest costs of each owner; the first wins a tie."""
    order = np.lexsort((cost, owner))
    place = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    return np.sort(order[place < most])


def _odds(probability: np.ndarray) -> np.ndarray:
    """Log-odds, finite wherever there is a probability."""
    safe = np.clip(np.asarray(probability, np.float64), 1e-9, 1 - 1e-7)
    return np.asarray(np.log(safe / (1 - safe)))


def _probability(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -_MOST, _MOST))), np.float32)


def _median(held: Incumbents) -> float | None:
    return float(np.median(held.distance[held.found])) if held.found.any() else None
