"""The least change that will do: sequential convex programmes with one constraint.

    least   l1 |d|_1 + l2 |d|^2 + rho P(d)      where   margin(model(d)) >= 0,   low <= d <= high

`d` is what is changed, in units of the range of a feature; `margin` how far the model's log-odds are beyond
what is asked (criterion.py); `P` whatever smooth penalties say how plausible a point looks. Near a point the
margin is a plane and the penalties a parabola. Each step takes one gradient of both and solves that problem
exactly, inside the box and a trust region: given its multiplier `mu` every element is a soft threshold of its
own, so all that is left is a root in one dimension. There is no rate, and no weight to search for: `mu` is
Wachter's 1 / lambda and the `c` of CEM and prototypes, and comes for free.

First the margin is made up for in about `reach` steps from where the search stands (*reach*). Then each step
starts from the origin again, in a region that shrinks (*refine*): what was not needed falls back to nothing
by itself. The cheapest valid point met on the way is the answer, not where the steps end.

Lanes are tries, several of one row perhaps (the likeliest other classes); no lane reads another's values.

Prior art: SLIDE (arXiv:1904.13000), steepest descent in the L1 norm; JSMA; Brendel-Bethge (arXiv:1907.01003),
which solves the linearised problem in a trust region along the border, in L2; DDN, FMN and PDPGD
(arXiv:2106.01538), minimum-norm attacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from explainer_runtime.search.asks import Search, Slopes
from explainer_runtime.search.best import Best
from explainer_runtime.search.criterion import SLACK, Criterion
from explainer_runtime.search.networks import Penalty

SHALLOW = 1e6
"""Added to the cost of a point that is valid, but has not the lead that was aimed for."""
_ROOTS = 6
"""Evaluations in the search for a multiplier, warm from the step before."""
_BLOCK = 64
"""Rows of one step that are taken together; a step's dozen arrays of small images fit a cache then."""
_DEAREST = np.float32(1e12)
"""Largest multiplier: what that cannot pay for cannot be had inside the bounds."""
_DRAWS = 10_000
"""More than a descent has steps."""
_FLAT = 1e-3
"""Least curvature: what makes the linear programme of the L1 distance alone a convex one."""


class Space(Protocol):
    """Where a change lives, and what the model is shown for it."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest change of each element `(L, *D)`."""
        ...

    def rows(self, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The rows `(M, *S)`, in input units, that changes `(M, *D)` of these lanes stand for."""
        ...

    def back(self, slope: np.ndarray, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """A slope `(M, *S)` with respect to the rows as one with respect to the changes `(M, *D)`."""
        ...

    def toward(self, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The changes `(M, *D)` of these lanes that lead to rows `(M, *S)`, or near them."""
        ...

    def smooth(self, d: np.ndarray) -> np.ndarray:
        """Each element of `(M, *D)` averaged with its neighbours; itself where there are none."""
        ...


class Problem(NamedTuple):
    """What is sought, one entry a lane.

    Attributes:
        space: What a change is.
        low, high: Least and largest change of each element `(L, *D)`; equal where nothing may change.
        start: Where to begin `(L, *D)`: nothing changed, or for a pertinent positive all that is there.
        criterion: What is asked of the model.
        l1, l2: Weights of the distances `(L,)`.
        penalty: What else is minimised, or None.
        bend: Its curvature at most, with respect to changes `(L,)`.
        trusted: `(rows, log-scores, lanes) -> (M,)` bool: what else a valid point has to be; or None.
    """

    space: Space
    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    criterion: Criterion
    l1: np.ndarray
    l2: np.ndarray
    penalty: Penalty | None = None
    bend: np.ndarray = np.zeros(1, np.float32)
    trusted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    def net(self, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """`l1 |d|_1 + l2 |d|^2` of changes of these lanes `(M,)`."""
        flat = d.reshape(len(d), -1)
        return np.asarray(
            self.l1[lanes] * np.abs(flat).sum(axis=1) + self.l2[lanes] * np.einsum("ij,ij->i", flat, flat)
        )

    def objective(self, d: np.ndarray, rows: np.ndarray, lanes: np.ndarray, rho: float) -> np.ndarray:
        """What is minimised, of changes and the rows they stand for `(M,)`."""
        net = self.net(d, lanes)
        return net if self.penalty is None or not rho else net + rho * self.penalty.values(rows, lanes)

    def judge(
        self,
        rows: np.ndarray,
        log_scores: np.ndarray,
        lanes: np.ndarray,
        objective: np.ndarray,
        slack: float = SLACK,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What points cost `(M,)`, infinite where they are not valid, and log-odds to spare `(M,)`."""
        asked = self.criterion.only(lanes)
        spare = asked.spare(log_scores)
        valid = spare >= slack
        if self.trusted is not None and valid.any():
            some = np.flatnonzero(valid)
            valid[some] = self.trusted(rows[some], log_scores[some], lanes[some])
        short = asked.margin(log_scores) < slack
        return np.where(valid, objective + np.where(short, SHALLOW, 0.0), np.inf), spare


class Pace(NamedTuple):
    """How a descent goes; distances are shares of the range of a feature.

    Attributes:
        rho: How much of the penalties counts; 1 is the loss as it is written.
        reach: Steps in which the margin is to be made up for.
        refine: Steps after that.
        stride: Trust region while the margin is being made up for,
        region: from where it is met,
        last: and at the end.
        memory: Share of the slope before in each slope: a network of ReLUs has kinks.
        pad: Log-odds by which the margin is overshot.
        coherent: How much an element's neighbours have a say in what it costs to change it: a change that its
            neighbours share is a more plausible one (Dong et al. 2019).
    """

    rho: float = 1.0
    reach: int = 8
    refine: int = 16
    stride: float = 0.15
    region: float = 1.0
    last: float = 0.005
    memory: float = 0.5
    pad: float = 0.02
    coherent: float = 0.0


class State(NamedTuple):
    """Where lanes stand: lanes first in every array.

    Attributes:
        d: Changes.
        steps: Steps taken, and
        clock: of those, since the margin was met or should have been.
        slope: Of the margin, averaged.
        pull: Slope of the penalties.
        before: The change before this one.
        mu: The multiplier of the last step.
        margin, objective: At the last point that the model was asked about.
    """

    d: np.ndarray
    steps: np.ndarray
    clock: np.ndarray
    slope: np.ndarray
    pull: np.ndarray
    before: np.ndarray
    mu: np.ndarray
    margin: np.ndarray
    objective: np.ndarray

    def only(self, which: np.ndarray) -> State:
        """These lanes."""
        return State(*(part[which] for part in self))

    def promise(self) -> np.ndarray:
        """What each lane looks like costing: its objective, and what its margin lacks at the last price."""
        return self.objective + np.maximum(0, -self.margin) * self.mu


def begin(start: np.ndarray) -> State:
    """Before the first step, at `start` `(L, *D)`."""
    none, zero = np.zeros_like(start), np.zeros(len(start), np.float32)
    return State(start, zero, zero, none, none, start, zero, zero, zero)


def descend(
    problem: Problem,
    pace: Pace,
    lanes: np.ndarray,
    best: Best,
    state: State | None = None,
    *,
    most: int = 10_000,
    draw: int = 0,
    done: tuple[float, float] = (0.0, 1.0),
) -> Search[State]:
    """Run these lanes to their end, or for `most` steps.

    Args:
        problem: What is sought, by all lanes.
        pace: How.
        lanes: Which lanes run `(M,)`.
        best: Holds the cheapest valid point of every lane of the problem; bettered as the search goes.
        state: Where these lanes stand; None is at their start.
        most: Most steps.
        draw: Which descent of these lanes it is: where slopes are estimated, each draws anew.
        done: Progress before and after.

    Returns:
        Where they stand afterwards.
    """
    state = begin(problem.start[lanes]) if state is None else state
    whole = min(most, pace.reach + pace.refine)
    for k in range(most):
        live = np.flatnonzero(state.clock <= pace.refine)
        if not len(live):
            break
        share = done[0] + (done[1] - done[0]) * min(1.0, k / whole)
        part = state if len(live) == len(lanes) else state.only(live)
        part = yield from _step(problem, pace, lanes[live], best, part, draw, share)
        state = part if len(live) == len(lanes) else _put(state, live, part)
    return state


def _step(
    problem: Problem, pace: Pace, lanes: np.ndarray, best: Best, state: State, draw: int, done: float
) -> Search[State]:
    asked, d = problem.criterion.only(lanes), state.d
    rows = problem.space.rows(d, lanes)
    log_scores, slope = yield Slopes(
        rows, lambda said, which: asked.only(which).pull(said), done, best.cost, state.steps + draw * _DRAWS
    )
    margin = asked.margin(log_scores).astype(np.float32)
    slope = problem.space.back(slope, d, lanes)
    first = state.steps == 0
    slope = np.where(_per(first, d), slope, pace.memory * state.slope + (1 - pace.memory) * slope)

    objective, pull, bend = problem.net(d, lanes), np.zeros_like(d), np.full(len(d), _FLAT, np.float32)
    if problem.penalty is not None and pace.rho:
        value, pull = problem.penalty(rows, lanes)
        pull = pace.rho * problem.space.back(pull, d, lanes)
        objective = objective + pace.rho * value
        bend = _curvature(pace.rho * problem.bend[lanes] + _FLAT, state, pull, first)
    cost, spare = problem.judge(rows, log_scores, lanes, objective)
    best.offer(lanes, d, log_scores, cost, spare, state.mu)

    on_time = (state.clock == 0) & (margin < 0) & (state.steps < pace.reach)
    clock = np.where(on_time, 0, state.clock + 1)
    share = np.clip((clock - 1) / max(1, pace.refine - 1), 0, 1)
    region = np.where(on_time, pace.stride, pace.region * (pace.last / pace.region) ** share)
    short = pace.pad - margin
    need = np.where(on_time, (short + 0.3) / np.maximum(1, pace.reach - state.steps), short)
    room = _per(region.astype(np.float32), d)
    low, high = np.maximum(problem.low[lanes], d - room), np.minimum(problem.high[lanes], d + room)
    weight = _per(problem.l1[lanes], d) * _lonely(problem.space, slope, pace.coherent)
    onward, mu = nearest(
        d, low, high, slope, pull, weight, problem.l2[lanes], bend, need.astype(np.float32),
        np.maximum(state.mu, 1e-3),
    )  # fmt: skip
    return State(onward, state.steps + 1, clock, slope, pull, d, mu, margin, objective)


def nearest(
    d: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    slope: np.ndarray,
    pull: np.ndarray,
    l1: np.ndarray,
    l2: np.ndarray,
    bend: np.ndarray,
    need: np.ndarray,
    mu: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The least change that raises a linear margin by what it needs, and its multiplier.

        least over y   |l1 y|_1 + l2 |y|^2 + pull.(y - d) + bend / 2 |y - d|^2   with   slope.(y - d) >= need,
        low <= y <= high

    For a multiplier mu each element of y is the soft threshold of its own, and what is gained rises with mu:
    Newton's steps in a bracket, then the share between its two ends that meets the need. Where the need
    cannot be met, all that can be done.

    Args:
        d: Changes `(M, *D)`.
        low, high: Bounds there, box and trust region.
        slope, pull: Slopes of the margin and of the penalties.
        l1: Weight of each element, broadcasting to `(M, *D)`.
        l2, bend, need: `(M,)`.
        mu: Where to begin `(M,)`, positive.

    Returns:
        `y` `(M, *D)` and mu `(M,)`.
    """
    flat = (len(d), -1)
    wide = [part.reshape(flat) for part in (d, low, high, slope, pull, np.broadcast_to(l1, d.shape))]
    y, price = np.empty(wide[0].shape, np.float32), np.empty(len(d), np.float32)
    for start in range(0, len(d), _BLOCK):
        rows = slice(start, start + _BLOCK)
        y[rows], price[rows] = _nearest(
            [part[rows] for part in wide], *(one[rows] for one in (l2, bend, need, mu))
        )
    return y.reshape(d.shape), price


def _nearest(
    wide: list[np.ndarray], l2: np.ndarray, bend: np.ndarray, need: np.ndarray, mu: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest`, of rows that stay in a cache: `wide` is d, low, high, slope, pull and l1 `(M, E)`."""
    d, low, high, slope, pull, l1 = wide
    steep = 1 / (2 * l2 + bend)[:, None]
    middle, push, threshold = (bend[:, None] * d - pull) * steep, slope * steep, l1 * steep
    above, below, worth = middle - threshold, middle + threshold, slope * push
    need = need + np.einsum("ij,ij->i", slope, d)  # so that gains count from nothing changed
    z, y, nought = np.empty_like(d), np.empty_like(d), np.zeros_like(d)
    inside, moved = np.empty(d.shape, bool), np.empty(d.shape, bool)

    def at(mu: np.ndarray) -> np.ndarray:
        """What is gained; leaves the soft threshold in `z`, and within the bounds in `y`."""
        np.multiply(push, mu[:, None], out=z)
        np.minimum(np.add(below, z, out=y), nought, out=y)
        np.maximum(np.add(above, z, out=z), y, out=z)
        np.minimum(np.maximum(z, low, out=y), high, out=y)
        return np.einsum("ij,ij->i", slope, y)

    def rising() -> np.ndarray:
        """How fast that rises there with the multiplier."""
        np.logical_and(np.equal(z, y, out=inside), np.not_equal(z, nought, out=moved), out=inside)
        return np.einsum("ij,ij->i", worth, inside)

    least, most = np.zeros_like(mu), np.full_like(mu, np.inf)
    got_under, got_over = at(least), np.zeros_like(mu)
    free = got_under >= need
    for _ in range(_ROOTS):
        got = at(mu)
        enough = got >= need
        got_over, got_under = np.where(enough, got, got_over), np.where(enough, got_under, got)
        least, most = np.where(enough, least, mu), np.where(enough, mu, most)
        newton, known = mu + (need - got) / np.maximum(rising(), 1e-12), np.isfinite(most)
        width = np.where(known, most, least) - least
        first = np.where(known, least + 0.05 * width, 1.2 * mu)
        last = np.where(known, most - 0.05 * width, 16 * mu)
        mu = np.where(
            (newton > first) & (newton < last), newton, np.where(known, least + 0.5 * width, 4 * mu)
        )
        mu = np.minimum(mu, _DEAREST)
    known = np.isfinite(most)
    at(np.where(known, most, 0))
    over, far = y.copy(), np.flatnonzero(~known)  # of those, all that can be done
    over[far] = np.where(slope[far] > 0, high[far], np.where(slope[far] < 0, low[far], y[far]))
    got_over[far] = np.einsum("ij,ij->i", slope[far], over[far])
    least = np.where(free, 0, least)
    at(least)
    gap = got_over - got_under
    share = np.clip(np.divide(need - got_under, gap, out=np.ones_like(gap), where=gap > 0), 0, 1)
    share = np.where(free, 0, share)
    over -= y
    over *= share[:, None]
    over += y
    mu = least + share * (np.where(known, most, least) - least)
    return np.minimum(np.maximum(over, low), high), mu.astype(np.float32)


def _lonely(space: Space, slope: np.ndarray, coherent: float) -> np.ndarray | float:
    """What the L1 distance of each element counts, where its slope stands out from its neighbours' more,
    where less than 1."""
    if not coherent:
        return 1.0
    around = np.abs(space.smooth(slope)) + np.float32(1e-9)
    return np.clip(((np.abs(slope) + np.float32(1e-9)) / around) ** np.float32(coherent), 0.3, 3)


def _curvature(most: np.ndarray, state: State, pull: np.ndarray, first: np.ndarray) -> np.ndarray:
    """How much the penalties bent along the last step (Barzilai, Borwein 1988); at most what was measured at
    fit."""
    moved, axes = state.d - state.before, tuple(range(1, pull.ndim))
    along, length = (moved * (pull - state.pull)).sum(axis=axes), (moved * moved).sum(axis=axes)
    bend = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    return np.where(first, most, np.clip(bend, most / 500, most)).astype(np.float32)


def _put(state: State, which: np.ndarray, part: State) -> State:
    """`state` with these lanes replaced."""
    whole = State(*(np.array(old) for old in state))
    for old, new in zip(whole, part, strict=True):
        old[which] = new
    return whole


def _per(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (like.ndim - 1))
