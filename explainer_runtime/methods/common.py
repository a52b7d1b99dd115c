"""What the methods that change a row have in common: open, seek, confirm, answer.

Each of them says what a change is, in which box, what is asked of the model and what else is minimised: a
`Plan`. The rest is here. Whatever is answered as found, the model itself has said so when it was asked last,
about the very row that is answered; where it takes its word back, the runner-up is put to it, and at last the
row is given back as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Explanation, Fields
from explainer_runtime.fitted import Fitted, Shape, check_arrays, need
from explainer_runtime.methods import latent, teaching
from explainer_runtime.methods.ground import CHANGED, Ground, feature_range, numbered, region
from explainer_runtime.search import neighbours
from explainer_runtime.search.asks import Rows, Search, Stop
from explainer_runtime.search.best import Best
from explainer_runtime.search.feedback import climb
from explainer_runtime.search.kept import Kept
from explainer_runtime.search.lanes import Effort, seek, winners
from explainer_runtime.search.least_change import Pace, Problem
from explainer_runtime.search.sparsify import shown

EFFORTS = {
    "quick": Effort(Pace(reach=5, refine=8), race=((5, 1),), thin=0.04, rungs=(8, 6)),
    "standard": Effort(Pace(reach=8, refine=16)),
    "thorough": Effort(Pace(reach=8, refine=80), race=(), rungs=(24, 16)),
}
"""How much is done; a method changes what its own problem takes, see `Counterfactual` and `ElasticNet`."""


class Plan(NamedTuple):
    """What a method wants searched.

    Attributes:
        problem: What is sought, lane by lane.
        owner: Which row each lane belongs to `(L,)`, ascending; a row without a lane is given back.
        effort: How much is done.
        schedule: `(lanes, best)` -> another search of these lanes than the engine's, or None.
        known: Rows `(M, *S)` known from the fit, and what the model says of them `(M, K)`: a way out where
            there is no slope.
    """

    problem: Problem
    owner: np.ndarray
    effort: Effort
    schedule: Callable[[np.ndarray, Best], Search[None]] | None = None
    known: tuple[Kept, np.ndarray] | None = None


class Outcome(NamedTuple):
    """What became of the rows `(N, ...)`.

    Attributes:
        x: The answers; the row itself where nothing was found.
        log_scores: What the model says of exactly that.
        original: What it says of the rows as they came.
        asked: Whether it could be asked at all; where not, both are zero.
        found: Whether the model, asked last, said so.
        status: One word a row.
        mu: The multiplier that led there; -1 where there is none: nothing was found, nothing had to change,
            or it was not a multiplier that led there, as behind a surrogate.
        ways: The valid points on the way: multiplier, row and log-scores; empty lists where they were not
            kept.
    """

    x: np.ndarray
    log_scores: np.ndarray
    original: np.ndarray
    asked: bool
    found: np.ndarray
    status: np.ndarray
    mu: np.ndarray
    ways: list[list[tuple[float, np.ndarray, np.ndarray]]]
    answers: list[list[_Answer]]


class _Answer(NamedTuple):
    """A point that the model has confirmed: whose it is, what it costs, what it is, what the model says of
    it."""

    row: int
    cost: float
    x: np.ndarray
    log_scores: np.ndarray
    mu: float
    lane: int


def run(
    x: np.ndarray, ground: Ground, plan: Callable[[np.ndarray], Plan], *, keep: bool = False
) -> Search[Outcome]:
    """Search for an answer to each row.

    Args:
        x: Rows `(N, *S)`, float32.
        ground: What the search stands on.
        plan: What to search, given what the model says of the rows `(N, K)`.
        keep: Whether to keep the valid points on the way.
    """
    try:
        original = yield Rows(x)
    except Stop as stop:
        scores = np.zeros((len(x), ground.inputs.classes), np.float32)
        return _settled(x, scores, False, stop.status, [])
    made = plan(original)
    problem, owner, best = made.problem, made.owner, Best(made.problem.start, original[made.owner], keep)
    answers: list[_Answer] = []
    status = OK

    def hold(lanes: np.ndarray, rows: np.ndarray, log_scores: np.ndarray, cost: np.ndarray) -> None:
        for lane, row, said in zip(lanes, rows, log_scores, strict=True):
            whose, price, mu = int(owner[lane]), float(cost[lane]), float(best.tag[lane])
            answers.append(_Answer(whose, price, row, said, mu, int(lane)))
            best.cost[lane] = np.inf  # it has been dealt with

    try:
        yield from _seek(x, ground, made, original, best)
        lanes = winners(owner, best.cost, made.effort.answers)
        for points, cost in ((best.x, best.cost.copy()), (best.second, best.second_cost)):
            lanes = lanes[np.isfinite(cost[lanes])]
            if not len(lanes):
                break
            rows = problem.space.rows(points[lanes], lanes)
            log_scores = yield Rows(rows, 0.98, best.median())
            held = np.isfinite(problem.judge(rows, log_scores, lanes, cost[lanes], slack=0.0)[0])
            hold(lanes[held], rows[held], log_scores[held], cost)
            lanes = lanes[~held]
            best.cost[lanes] = np.inf  # the model has taken its word back
    except Stop as stop:
        status = stop.status
        lanes = winners(owner, best.cost, made.effort.answers)
        # The model has said so, if not a second time.
        lanes = lanes[best.found[lanes] & ~np.isin(owner[lanes], [one.row for one in answers])]
        hold(lanes, problem.space.rows(best.x[lanes], lanes), best.log_scores[lanes], best.cost.copy())
    outcome = _settled(x, original, True, status, answers)
    return outcome._replace(ways=_ways(problem, outcome, best))


def _settled(
    x: np.ndarray, original: np.ndarray, asked: bool, status: str, answers: list[_Answer]
) -> Outcome:
    """What became of each row: the cheapest of its answers, or the row as it came."""
    rows, said, mu = x.copy(), original.copy(), np.full(len(x), -1, np.float32)
    found = np.zeros(len(x), bool)
    each: list[list[_Answer]] = [[] for _ in x]
    for one in sorted(answers, key=lambda one: (one.row, one.cost, one.lane)):
        each[one.row].append(one)
        if not found[one.row]:
            found[one.row], rows[one.row], said[one.row] = True, one.x, one.log_scores
            mu[one.row] = one.mu if one.mu > 0 else -1
    words = np.where(found & (status == OK), OK, NOT_FOUND if status == OK else status)
    return Outcome(rows, said, original, asked, found, words, mu, [[] for _ in x], each)


def _seek(x: np.ndarray, ground: Ground, plan: Plan, original: np.ndarray, best: Best) -> Search[None]:
    """Look where the lanes start, which may do already, and for a pertinent positive should; then search."""
    problem, owner, effort = plan.problem, plan.owner, plan.effort
    lanes = np.arange(len(owner))
    if not len(lanes):
        return
    rows, log_scores = problem.space.rows(problem.start, lanes), original[owner]
    if not np.array_equal(rows, x[owner]):
        log_scores = yield Rows(rows)
    objective = problem.objective(problem.start, rows, lanes, effort.pace.rho)
    cost, spare = problem.judge(rows, log_scores, lanes, objective, slack=0.0)
    best.offer(lanes, problem.start, log_scores, cost, spare)
    finished = best.found & ~problem.start.reshape(len(owner), -1).any(axis=1)  # nothing has to change at all
    lanes = np.flatnonzero(~np.isin(owner, owner[finished]))
    if not len(lanes):
        return
    if plan.schedule is not None:
        yield from plan.schedule(lanes, best)
    elif ground.guide is not None:
        yield from climb(problem, effort, owner, lanes, best, ground.guide)
    else:
        yield from seek(problem, effort, owner, lanes, best)
    missing = lanes[~np.isin(owner[lanes], owner[best.found])]
    if plan.known is not None and len(missing):
        d, which = neighbours.lines(problem, missing, *plan.known)
        if len(d):
            yield from shown(problem, effort.pace.rho, best, d, which, 0.9)


def _ways(problem: Problem, outcome: Outcome, best: Best) -> list[list[tuple[float, np.ndarray, np.ndarray]]]:
    """Of several lanes of a row, the way of the one that won."""
    ways: list[list[tuple[float, np.ndarray, np.ndarray]]] = [[] for _ in outcome.x]
    led = {some[0].lane: some[0].row for some in outcome.answers if some}
    for lane, mu, d, log_scores in best.way or ():
        if lane in led:
            x = problem.space.rows(d[None], np.array([lane]))[0]
            ways[led[lane]].append((mu, x, log_scores))
    return ways


def changed(outcome: Outcome, x: np.ndarray, ground: Ground, field: str) -> dict[str, np.ndarray]:
    """The fields that all methods answer with that change a row; `field` is what the changed row is
    called."""
    fields = {
        "found": outcome.found,
        "status": outcome.status,
        field: outcome.x,
        "original_class": _class(outcome.original, outcome.asked),
        "original_proba": _proba(outcome.original, outcome.asked),
        f"{field}_class": _class(outcome.log_scores, outcome.asked),
        f"{field}_proba": _proba(outcome.log_scores, outcome.asked),
        **distances(outcome.x - x, ground.unit),
    }
    networks = ground.plausible()
    if networks.autoencoder is not None:
        fields["autoencoder_error"] = networks.errors(outcome.x).astype(np.float32)
    return fields


def changed_fields(fitted: Fitted, field: str) -> Fields:
    """The fields of `changed`."""
    row, classes = fitted.inputs.shape, (fitted.inputs.classes,)
    number, count = ("FP32", ()), ("INT64", ())
    return {
        **COMMON,
        field: ("FP32", row),
        "original_class": count,
        "original_proba": ("FP32", classes),
        f"{field}_class": count,
        f"{field}_proba": ("FP32", classes),
        "distance_l1": number,
        "distance_l2": number,
        "distance_l0": count,
        "sparsity": number,
        **({"autoencoder_error": number} if "autoencoder" in fitted.models else {}),
    }


def check_changed(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """What any explainer that changes rows has to be; see `Method.check`."""
    numbered(fitted.spec, fitted.inputs)
    spec: Any = fitted.spec
    low, high = feature_range(spec, fitted.inputs)
    if not (low <= high).all():
        raise InvalidSpec("feature_range: expected finite bounds, every lower one at or below its upper one")
    if spec.region is not None:
        region(spec, fitted.inputs)
    teaching.check(fitted)
    latent.check(fitted, asked)
    if getattr(spec, "gamma", 0):
        need("model", "autoencoder", fitted.models, "gamma")
    arrays: dict[str, tuple[str, Shape]] = {"curvature": ("f", (2,)), "bend": ("f", (2,))}
    check_arrays(fitted, {name: shape for name, shape in arrays.items() if name in fitted.arrays})


def distances(change: np.ndarray, unit: float) -> dict[str, np.ndarray]:
    """The fields that measure a change `(N, *S)`.

    Returns:
        `distance_l1` and `distance_l2` `(N,)` float32 in input units, `distance_l0` `(N,)`, the number of
        features changed, and `sparsity` `(N,)` float32, the share of features that were not.
    """
    size = np.abs(change).reshape(len(change), -1)
    count = (size > CHANGED * unit).sum(axis=1)
    return {
        "distance_l1": size.sum(axis=1),
        "distance_l2": np.sqrt(np.einsum("ij,ij->i", size, size)),
        "distance_l0": count,
        "sparsity": (1 - count / size.shape[1]).astype(np.float32),
    }


def explanation(
    kind: str,
    fields: Mapping[str, np.ndarray],
    rows: np.ndarray,
    outcome: Outcome,
    weight: Callable[[float], float],
) -> Explanation:
    """The answer. Where the way there was kept, `raw` has it as `path`: ever cheaper valid points, in order;
    where several answers were asked for, they are its `answers`, the cheapest first.

    Args:
        kind: Which method.
        fields: What it answers.
        rows: The rows as they came.
        outcome: What it came from.
        weight: What a multiplier is called by the method's paper: lambda is its inverse, c the same.
    """
    raw: list[dict[str, Any]] = [{} for _ in rows]
    for entry, row, way, answers in zip(raw, rows, outcome.ways, outcome.answers, strict=True):
        if any(outcome.ways):
            path = [{"weight": weight(mu), "x": x, "proba": np.exp(said)} for mu, x, said in way if mu > 0]
            entry |= {"row": row, "path": path}
        if max(map(len, outcome.answers)) > 1:
            entry["answers"] = [
                {
                    "class": int(one.log_scores.argmax()),
                    "proba": np.exp(one.log_scores),
                    "distance_l1": float(np.abs(one.x - row).sum()),
                    "x": one.x,
                }
                for one in answers
            ]
    return Explanation(kind, fields, raw=tuple(raw) if any(raw) else ())


def _class(log_scores: np.ndarray, asked: bool) -> np.ndarray:
    return log_scores.argmax(axis=1) if asked else np.full(len(log_scores), -1)


def _proba(log_scores: np.ndarray, asked: bool) -> np.ndarray:
    return (np.exp(log_scores) if asked else np.zeros_like(log_scores)).astype(np.float32)
