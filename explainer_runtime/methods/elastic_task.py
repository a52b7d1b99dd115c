"""What an elastic-net search is after, row by row, and what its points are worth.

The search is for the point near an origin, inside a box, at which some classes lead the others, on

    c * hinge + beta * ||change||_1 + ||change||^2 + gamma * ||AE error||^2 + theta * ||to prototype||^2

Prototype counterfactuals and contrastive explanations differ in the origin, the box, the classes and the
prototype: a `Task` says which. The schedules in elastic_known.py, elastic_fast.py and elastic_blind.py
know nothing else of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explainer_runtime.search import elastic
from explainer_runtime.search.asks import Penalty
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.penalties import Networks
from explainer_runtime.search.prototypes import trust as trust_score
from explainer_runtime.spec import ElasticNet


class Pace(NamedTuple):
    """How the fast schedule goes, as found on MNIST; see benchmarks/elastic.py.

    Attributes:
        push: Weight of the log-probability hinge for each unit of c, and of gamma and theta: in proportion to
            them the path stays the same path.
        sharp: Soft threshold for each unit of beta and step size. More than 1 keeps the path sparse; what
            it passes is compared by the elastic net as it is.
        patience: Steps after the last better point.
        room: Most that the penalties of an answer may be, in those of the point on the path, while changes
            that the model does not need are taken back. None takes back what leaves the loss no larger.
    """

    push: float
    sharp: float
    patience: int
    room: float | None = None


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

    def penalties(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What `penalty` is at points of these rows `(M,)`."""
        value = self.theta[rows] * self.attraction(x, rows)
        if self.spec.gamma:
            value += self.spec.gamma * self.networks.errors(x)
        return np.asarray(value)

    def loss(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Everything that is minimised but the prediction loss `(M,)`."""
        return np.asarray(self.net(x, rows) + self.penalties(x, rows))

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


def lead(spec: ElasticNet) -> float:
    """The lead asked for by a hinge that can push for it; without one, the border is far enough."""
    if spec.schedule == "reference" or not spec.c_init:
        return 1.0
    return max(spec.lead, (1 + spec.kappa) / (1 - spec.kappa))
