"""Counterfactuals: what is the least that would have had to be different?

Wachter, Mittelstadt, Russell (arXiv:1711.00399) ask for the input nearest to `x` that the model answers
otherwise: it minimises `(f(x') - p)^2 + lambda * ||x' - x||_1` for the largest lambda at which `f(x')`, the
probability of the class sought, still comes within `tol` of `p`.

Two schedules look for it. `reference` is the paper's loss as practice has it: Adam, a sweep over lambda,
then a bisection. `fast` seeks the same nearest valid point by other means, at a fraction of the steps and
with smaller changes (`search/sparse.py`): side by side towards each of the likeliest classes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.explanation import NOT_FOUND, OK, Explanation
from explainer_runtime.methods.quality import change
from explainer_runtime.search.adam import walk
from explainer_runtime.search.asks import Rows, Search, Stop
from explainer_runtime.search.bisection import UNBOUNDED, Bracket, raise_or_lower
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.ladder import Tutor, climb
from explainer_runtime.search.penalties import Networks, networks
from explainer_runtime.search.sparse import sparse_descent
from explainer_runtime.search.targets import Aim, one_hot
from explainer_runtime.spec import Counterfactual

_SLACK = 1e-5
"""Held back from `tol`: a model's last bits depend on the batch, and `found` must hold when asked again."""
_SWEEP = 10
"""Lambdas of the reference schedule's sweep, each a tenth of the one before."""
_ENOUGH = 5
"""Valid points that a lambda must lead to before a larger one is tried."""


def search(
    x: np.ndarray,
    spec: Counterfactual,
    low: np.ndarray,
    high: np.ndarray,
    *,
    classes: int,
    exact: bool,
    tutor: Tutor | None = None,
    autoencoder: Any | None = None,
) -> Search[Explanation]:
    """The search for a counterfactual of each row.

    Args:
        x: Rows `(N, *S)`, float32.
        spec: Settings, with the options of the request in force.
        low: Lower bounds, float32, `(1, ...)` or `(*S)`.
        high: Upper bounds, likewise.
        classes: How many classes the model scores.
        exact: Whether gradients are exact and cost a row, or are estimated from many.
        tutor: What was fitted to a model that is only asked for rows: the search is then on a student.
        autoencoder: Keras model that rebuilds rows. It takes no part in the search: its error says how
            plausible an answer is.

    Returns:
        An explanation with `counterfactual` `(N, *S)`, inside the bounds; `found` is true where the model,
        asked last, gave the probability sought. Rows without one hold the input, moved inside the bounds.
        A budget that does not even allow the first question leaves all scores 0 and the classes -1.
    """
    start = np.clip(x, low, high)
    status = OK
    try:
        scores = yield Rows(np.concatenate([x, start]) if (start != x).any() else x)
    except Stop as stop:
        scores, status = np.zeros((len(x), classes), np.float32), stop.status
    task = _Task(
        spec if exact else _frugal(spec), x, start, scores[: len(x)], low, high, networks(autoencoder, None)
    )
    everyone = np.arange(len(x))
    held = Incumbents(x, start, scores[-len(x) :])
    if status != OK:
        return _answer(task, held, status)
    held.offer(everyone, start, held.scores, task.valid(held.scores, everyone))
    try:
        yield from _fast(task, held, exact, tutor) if spec.schedule == "fast" else _reference(task, held)
        if held.found.any():
            held.scores[:] = yield Rows(held.x, 0.98, float(np.median(held.distance[held.found])))
            held.found &= task.valid(held.scores, everyone)
    except Stop as stop:
        status = stop.status
    return _answer(task, held, status)


class _Task(NamedTuple):
    """What is sought: settings, rows, what the model says of them, bounds."""

    spec: Counterfactual
    x: np.ndarray
    start: np.ndarray
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    networks: Networks

    @property
    def original(self) -> np.ndarray:
        """The class that the model gives each row `(N,)`."""
        return np.asarray(self.scores.argmax(axis=1))

    @property
    def mask(self) -> np.ndarray:
        """The classes that count for each row `(N, K)`, float32."""
        own = one_hot(self.original, self.scores.shape[1])
        match self.spec.target_class:
            case "other":
                return 1 - own
            case "same":
                return own
            case wanted:
                return one_hot(np.full(len(self.x), wanted), self.scores.shape[1])

    def valid(self, scores: np.ndarray, rows: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Whether the probability that counts is as near to the one asked for as `tol` says `(M,)`."""
        counted = scores * (self.mask[rows] if mask is None else mask)
        slack = min(_SLACK, self.spec.tol / 2)
        return np.asarray(np.abs(counted.max(axis=1) - self.spec.target_proba) <= self.spec.tol - slack)

    def bounds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bounds, once for each of these rows."""
        low, high = (np.broadcast_to(bound, (len(rows), *bound.shape)) for bound in (self.low, self.high))
        return low, high


# --- fast -----------------------------------------------------------------------------------------------


def _fast(task: _Task, held: Incumbents, exact: bool, tutor: Tutor | None) -> Search[None]:
    spec = task.spec
    owner, mask = _lanes(task, np.flatnonzero(~held.found))
    if not len(owner):
        return
    before = (held.scores[owner] * mask).max(axis=1)
    sign = np.where(before <= spec.target_proba, 1, -1).astype(np.float32)
    # Aim a little inside the tolerance, so that the last bit does not decide what is valid.
    level = spec.target_proba - sign * (spec.tol - min(2 * _SLACK, spec.tol / 2))

    def judge(points: np.ndarray, scores: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        # A lane answers for its own class only; what it finds is offered to the row it belongs to.
        valid = task.valid(scores, owner[lanes], mask[lanes])
        held.offer(owner[lanes], points, scores, valid)
        return valid

    search = sparse_descent if tutor is None else partial(climb, tutor=tutor)
    yield from search(
        task.start[owner],
        owner,
        Aim(mask, sign, level.astype(np.float32)),
        *task.bounds(owner),
        judge,
        width=spec.grow_features,
        patience=spec.grow_steps,
        refine_steps=spec.refine_steps,
        rough=not exact,
    )


def _frugal(spec: Counterfactual) -> Counterfactual:
    """The same search for gradients that cost tens of rows each: one lane, wider and fewer steps."""
    return spec.model_copy(
        update={
            "lanes": 1,
            "grow_features": 4 * spec.grow_features,
            "grow_steps": -(-spec.grow_steps // 2),
            "refine_steps": spec.refine_steps // 4,
        }
    )


def _lanes(task: _Task, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lanes for these rows: which row each belongs to `(L,)`, and which class counts `(L, K)`."""
    if task.spec.target_class != "other":
        return rows, task.mask[rows]
    tries = min(task.spec.lanes, task.scores.shape[1] - 1)
    likely = np.argsort(-task.scores[rows] * task.mask[rows], axis=1, kind="stable")
    # The row's own class has a product of zero, which may tie with classes of no probability at all.
    likely = likely[likely != task.original[rows][:, None]].reshape(len(rows), -1)[:, :tries]
    return np.repeat(rows, tries), one_hot(likely.reshape(-1), task.scores.shape[1])


# --- reference ------------------------------------------------------------------------------------------


def _reference(task: _Task, held: Incumbents) -> Search[None]:
    spec = task.spec
    rows = np.flatnonzero(~held.found)
    if not len(rows):
        return
    horizon = float(spec.max_iter) if spec.decay else np.inf
    count = len(rows)
    aim = Aim(task.mask[rows], np.ones(count, np.float32), np.full(count, spec.target_proba, np.float32))

    def run(
        start: np.ndarray, lam: np.ndarray, steps: int, patience: int, done: tuple[float, float]
    ) -> Search:
        state = yield walk(
            task.x[rows], start, aim, *task.bounds(rows), lam,
            tolerance=spec.tol - min(_SLACK, spec.tol / 2), rate=spec.learning_rate_init, horizon=horizon,
            steps=steps, patience=patience, done=done,
        )  # fmt: skip
        held.offer(rows, state.best, state.best_scores, np.isfinite(state.best_distance), lam)
        return state

    # The sweep: ever smaller lambdas, each starting where the one before ended.
    lams = spec.lam_init / 10.0 ** np.arange(_SWEEP)
    x, hits = task.start[rows], np.zeros((_SWEEP, count), np.int32)
    steps = max(1, spec.max_iter // 10)
    for i, lam in enumerate(lams):
        state = yield from run(x, np.full(count, lam), steps, steps + 1, _share(i, _SWEEP, 0.0, 0.5))
        x, hits[i] = state.x, state.hits

    # The bisection: the largest lambda that still leads to valid points.
    bracket, x = _bracket(lams, hits), task.start[rows]
    for i in range(spec.max_lam_steps):
        share = _share(i, spec.max_lam_steps, 0.5, 0.98)
        state = yield from run(x, bracket.value, spec.max_iter, spec.early_stop, share)
        x, bracket = state.x, raise_or_lower(bracket, state.hits >= _ENOUGH)


def _bracket(lams: np.ndarray, hits: np.ndarray) -> Bracket:
    """Where to look for lambda, from how often each of the sweep, `hits` `(sweep, N)`, led to a valid point.

    The lower end is the second largest lambda that did (one hit may be luck), the upper end the smallest
    that did not. Since each lambda starts where another ended, the two may come out in the wrong order.
    """
    low, high = np.zeros(hits.shape[1]), np.full(hits.shape[1], lams[0])
    for row, counts in enumerate(hits.T):
        hit, miss = np.flatnonzero(counts > 0), np.flatnonzero(counts == 0)
        if len(hit):
            low[row] = lams[hit[min(1, len(hit) - 1)]]
        high[row] = lams[miss[-1]] if len(miss) else lams[0]
    low, high = np.minimum(low, high), np.maximum(low, high)
    high = np.where(low == high, 2 * UNBOUNDED, high)
    return Bracket(low, high, np.where(high < UNBOUNDED, (low + high) / 2, low))


def _share(i: int, of: int, start: float, end: float) -> tuple[float, float]:
    return start + (end - start) * i / of, start + (end - start) * (i + 1) / of


# --- the answer -----------------------------------------------------------------------------------------


def _answer(task: _Task, held: Incumbents, status: str) -> Explanation:
    after = held.scores
    target = np.where(task.mask > 0, after, -1).argmax(axis=1)
    missing = NOT_FOUND if status == OK else status
    known = task.scores.any(axis=1)  # all zero where nothing could be asked
    return Explanation(
        "counterfactual",
        {
            "found": held.found,
            "status": np.where(held.found & (status == OK), OK, missing),
            "counterfactual": held.x,
            "original_class": np.where(known, task.original, -1),
            "original_proba": task.scores,
            "counterfactual_class": np.where(known, after.argmax(axis=1), -1),
            "counterfactual_proba": after,
            "target_class": np.where(known, target, -1),
            "target_proba": np.take_along_axis(after, target[:, None], axis=1)[:, 0],
            **change(task.x, held.x),
            "autoencoder_error": task.networks.errors(held.x),
            "lam": np.asarray(held.tag, np.float32),
        },
    )
