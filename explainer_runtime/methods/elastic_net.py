"""What prototype counterfactuals and contrastive explanations have in common: the search.

Both look for the point near an origin, inside a box, at which some classes lead the others, by descents on

    c * hinge + beta * ||change||_1 + ||change||^2 + gamma * ||AE error||^2 + theta * ||to prototype||^2

They differ in the origin, the box, the classes and the prototype: a `Task` says which. `reference` has the
schedule that people know: full descents from the origin, for a bisection on c. `fast` takes the first
point on a proximal path with which the model, and most likely the next one too, agrees; a larger c, and in
the end growth feature by feature (`search/growth.py`), are for the rows for which there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explainer_runtime.search import elastic, pruning
from explainer_runtime.search.asks import Penalty, Rows, Search
from explainer_runtime.search.bisection import Bracket, lower_or_raise
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.penalties import Networks
from explainer_runtime.search.prototypes import trust as trust_score
from explainer_runtime.search.sparse import sparse_descent
from explainer_runtime.search.targets import Aim
from explainer_runtime.spec import ElasticNet

_ROUNDS = 3
"""Values of c, each ten times the one before, that the fast schedule tries at most."""
_POINTS = 36
"""Points of a path that are shown to the model where its gradient is not asked for."""
_REST = 100.0
"""What the elastic net weighs against gamma and theta, when the hinge is to push against all of them."""
_CARVES = 3
"""Times that what is known is pruned by what it is worth, by size, and along the line to the origin."""
_PULLS = (2.0, 8.0, 32.0, 128.0)
"""Weights of the prototype, in thetas, where it has to do the work of the prediction loss as well."""
_SPARSER = 3.2
"""Soft threshold on the way there, in that of a path with a prediction loss."""
_TOGETHER = 12
"""Of which so many at once."""


class Pace(NamedTuple):
    """How the fast schedule goes, as found on MNIST; see benchmarks/elastic.py.

    Attributes:
        push: Weight of the log-probability hinge for each unit of c, and of gamma and theta: in proportion to
            them the path stays the same path.
        sharp: Soft threshold for each unit of beta and step size. More than 1 keeps the path sparse; what
            it passes is compared by the elastic net as it is.
        patience: Steps after the last better point.
    """

    push: float
    sharp: float
    patience: int


class Task(NamedTuple):
    """What is sought, row by row.

    Attributes:
        spec: Settings, with the options of the request in force.
        pace: Of the fast schedule.
        origin: Where nothing has been changed `(N, *S)`.
        low, high: Bounds `(N, *S)`.
        wanted: Classes of which one is to lead `(N, K)`, float32.
        lead, level: See `elastic.Contrast`.
        networks: Of the penalties.
        curvature: See `Networks.curvature`.
        theta: Weight of the prototype `(N,)`.
        target: Codes to go to `(N, E)`, or None.
        trust: What else a valid point must be, or None.
    """

    spec: ElasticNet
    pace: Pace
    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wanted: np.ndarray
    lead: float
    level: float
    networks: Networks
    curvature: np.ndarray
    theta: np.ndarray
    target: np.ndarray | None = None
    trust: elastic.Trust | None = None

    @property
    def penalty(self) -> Penalty | None:
        """The smooth terms of the loss that the model has no part in."""
        return self.networks.penalty(self.spec.gamma > 0, self.target is not None)

    @property
    def encode(self) -> Callable | None:
        """Points to codes, where trust is asked for."""
        return None if self.trust is None else self.networks.codes

    def net(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The elastic net of points `(M, *S)` of these rows, `(M,)`."""
        change = (x - self.origin[rows]).reshape(len(x), -1).astype(np.float64)
        return self.spec.beta * np.abs(change).sum(axis=1) + (change**2).sum(axis=1)

    def attraction(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The squared distance of the codes of points to the prototypes of their rows `(M,)`; else 0."""
        if self.target is None:
            return np.zeros(len(x))
        change = (self.networks.encode(x) - self.target[rows]).astype(np.float64)
        return np.asarray((change**2).sum(axis=1))

    def loss(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Everything that is minimised but the prediction loss `(M,)`."""
        loss = self.net(x, rows)
        if self.spec.gamma:
            loss += self.spec.gamma * self.networks.errors(x)
        return loss + self.theta[rows] * self.attraction(x, rows)

    def valid(self, x: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which points of these rows are valid, and which also lead as they should, `(M,)` bool each."""
        valid, deep = (np.array(truth) for truth in elastic.leads(self.aim(rows, 0.0), scores))
        if self.trust is not None and valid.any():
            some = np.flatnonzero(valid)
            own = self.trust.prototypes[rows[some], self.trust.own[rows[some]].argmax(axis=1)]
            new = self.trust.prototypes[rows[some], scores[some].argmax(axis=1)]
            score = trust_score(self.networks.encode(x[some]), own, new)
            # What the descent has let pass must not fall by a last bit here.
            valid[some] = score > self.trust.least[rows[some]] * (1 - 1e-6)
        return valid, valid & deep

    def aim(self, rows: np.ndarray, c: float | np.ndarray) -> elastic.Contrast:
        """What the scores of these rows are to be, with weight `c`."""
        values = (c, self.spec.kappa, self.lead, self.level)
        return elastic.Contrast(
            self.wanted[rows], *(np.broadcast_to(np.float32(v), len(rows)).copy() for v in values)
        )

    def begin(self, rows: np.ndarray, c: float | np.ndarray, slope: elastic.Slope) -> elastic.Net:
        """A descent for each of these rows."""
        return elastic.begin(
            self.origin[rows],
            self.aim(rows, c),
            slope,
            self.low[rows],
            self.high[rows],
            start=np.clip(self.origin[rows], self.low[rows], self.high[rows]),
            beta=self.spec.beta,
            gamma=self.spec.gamma,
            theta=self.theta[rows],
            target=None if self.target is None else self.target[rows],
            trust=None if self.trust is None else elastic.Trust(*(part[rows] for part in self.trust)),
        )

    def offer(self, held: Incumbents, rows: np.ndarray, x: np.ndarray, scores: np.ndarray, c: float) -> None:
        """Let `held` have the points that are valid; those with their lead come before all others."""
        valid, deep = self.valid(x, scores, rows)
        cost = self.net(x, rows) + np.where(deep, 0.0, elastic.SHALLOW)
        held.offer(rows, x, scores, valid, c, cost)


def seek(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[None]:
    """Search for valid points of these rows of small elastic net; `held` keeps the best.

    Args:
        task: What is sought.
        held: The best so far.
        rows: Which rows to search for.
        exact: Whether gradients of the model are exact.
    """
    if not len(rows):
        return
    fast = task.spec.schedule == "fast"
    if not task.spec.c_init:
        yield from _pulled(task, held, rows) if fast else _along(task, held, rows, _known(task, rows))
    elif fast:
        yield from _rounds(task, held, rows, exact)
    else:
        yield from _bisect(task, held, rows)
    if fast:
        yield from _polish(task, held, rows)


# --- reference ------------------------------------------------------------------------------------------


def _bisect(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Full descents from the origin, for the smallest c that leads to valid points."""
    spec, count = task.spec, len(rows)
    bracket = Bracket(np.zeros(count), np.full(count, 1e10), np.full(count, spec.c_init))
    for i in range(spec.c_steps):
        state = yield elastic.descend(
            task.begin(rows, bracket.value, _known(task, rows)),
            task.penalty,
            log=False,
            encode=task.encode,
            done=(0.02 + 0.95 * i / spec.c_steps, 0.02 + 0.95 * (i + 1) / spec.c_steps),
        )
        hit = np.isfinite(state.best_cost)
        held.offer(rows, state.best, state.best_scores, hit, bracket.value, state.best_cost)
        bracket = lower_or_raise(bracket, hit)


def _known(task: Task, rows: np.ndarray) -> elastic.Slope:
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


# --- fast -----------------------------------------------------------------------------------------------


def _rounds(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[None]:
    """Short descents with ever larger c, for the rows that have nothing good yet."""
    spec, left = task.spec, rows
    push = task.pace.push * (_REST + spec.gamma + task.theta)
    for i in range(min(spec.c_steps, _ROUNDS)):
        c = spec.c_init * 10.0**i
        state = yield elastic.descend(
            task.begin(left, c * push[left], _slope(task, left)),
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
        yield from _carve(task, held, left[held.found[left]])
    if not held.found[left].all():
        yield from _grow(task, held, left[~held.found[left]], exact)


def _slope(task: Task, rows: np.ndarray) -> elastic.Slope:
    """Steps of one over the curvature: of the elastic net's square, and of the penalties'."""
    spec = task.spec
    rebuild, encode = map(float, task.curvature)
    curvature = 2 + 2 * spec.gamma * rebuild + 2 * task.theta[rows] * encode
    return elastic.slopes(
        len(rows),
        rate=1 / curvature,
        decay=False,
        fixed=0,
        scaled=spec.beta * task.pace.sharp,
        stride=0.1 * (task.high - task.low)[rows].reshape(len(rows), -1).max(axis=1),
        clip_low=spec.clip[0],
        clip_high=spec.clip[1],
        momentum=spec.momentum,
        limit=spec.steps,
        patience=task.pace.patience,
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


def _carve(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Where a descent from the origin leads nowhere, but something valid is known: take away from that."""

    def judge(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        task.offer(held, rows[which], points, scores, 0.0)
        return task.valid(points, scores, rows[which])[1]

    def value(scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.asarray((task.wanted[rows[which]] * scores).max(axis=1))

    for _ in range(_CARVES):
        origin, x = task.origin[rows], held.x[rows]
        yield from pruning.drop_harmless(origin, x, judge, value, done=0.7)
        yield from pruning.drop_smallest(origin, held.x[rows], judge, done=0.75)
        yield from pruning.pull_in(origin, held.x[rows], judge, done=0.8)


def _polish(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Undo the changes that neither the model nor the penalties need."""
    rows = rows[held.found[rows]]
    if not len(rows):
        return
    before = task.loss(held.x[rows], rows)
    shallow = held.distance[rows] >= elastic.SHALLOW

    def judge(points: np.ndarray, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        valid, deep = task.valid(points, scores, rows[which])
        kept = np.where(shallow[which], valid, deep)
        some = np.flatnonzero(kept)
        if len(some):  # the networks are asked about these alone
            kept[some] = task.loss(points[some], rows[which[some]]) <= before[which[some]]
            cost = task.net(points, rows[which]) + np.where(deep, 0.0, elastic.SHALLOW)
            held.offer(rows[which], points, scores, kept, held.tag[rows[which]], cost)
        return kept

    yield from pruning.drop_smallest(task.origin[rows], held.x[rows], judge, rungs=24, done=0.9)


# --- without the model's gradient -----------------------------------------------------------------------


def _pulled(task: Task, held: Incumbents, rows: np.ndarray) -> Search[None]:
    """Paths on which the prototype pulls ever harder, for the rows that have nothing yet."""
    for pull in _PULLS:
        pace = task.pace._replace(sharp=_SPARSER * task.pace.sharp)
        harder = task._replace(theta=pull * task.theta, pace=pace)
        slope = _slope(harder, rows)
        # Without the model's gradient a step is cheap, and the way may be long: with momentum.
        yield from _along(harder, held, rows, slope._replace(momentum=np.ones_like(slope.momentum)))
        rows = rows[~held.found[rows]]
        if not len(rows):
            return


def _along(task: Task, held: Incumbents, rows: np.ndarray, slope: elastic.Slope) -> Search[None]:
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
