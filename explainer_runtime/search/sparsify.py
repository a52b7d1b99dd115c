"""Taking back what was not needed, once something valid is known: many candidates, each time in one ask.

No slopes and no luck. Whatever makes a point cheaper and keeps it valid is taken, so a point never gets
worse. What a change is worth to the model can be asked, too: groups of neighbouring changes are undone one at
a time, then the least worthy together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.search.asks import Rows, Search
from explainer_runtime.search.best import Best
from explainer_runtime.search.least_change import Problem


def sparsify(
    problem: Problem,
    best: Best,
    lanes: np.ndarray,
    rho: float,
    *,
    rungs: tuple[int, int],
    groups: int = 0,
    done: float = 0.9,
) -> Search[None]:
    """Undo what `best` holds for these lanes, where that makes it cheaper.

    Args:
        problem, best: What is sought and what is held.
        lanes: Whose points; each is valid.
        rho: How much of the penalties counts.
        rungs: Candidates with the smallest changes undone, and with a part of all undone: an ask each, 0
            leaves it out.
        groups: Groups of neighbouring changes that are each weighed: two asks instead of the first.
        done: Progress.
    """
    ladder: Callable[[int, np.ndarray], np.ndarray] = lambda _, d: _fewer(np.abs(d), d, rungs[0])  # noqa: E731
    if groups and len(lanes):
        worth = yield from _worth(problem, best, lanes, groups, done)
        ladder = lambda lane, d: _fewer(worth[lane], d, rungs[0])  # noqa: E731
    shorter: Callable[[int, np.ndarray], np.ndarray] = lambda _, d: _shorter(d, rungs[1])  # noqa: E731
    for count, steps in zip(rungs, (ladder, shorter), strict=True):
        if count and len(lanes):
            d, which = _candidates(problem, best, lanes, steps)
            yield from shown(problem, rho, best, d, which, done)


def shown(
    problem: Problem,
    rho: float,
    best: Best,
    d: np.ndarray,
    which: np.ndarray,
    done: float,
    mu: np.ndarray | None = None,
) -> Search[np.ndarray]:
    """What the model says of changes `(M, *D)` of these lanes `(M, K)`; `best` has had its choice of them.

    `mu` is the multiplier that led to each; None is that of what is held.
    """
    rows = problem.space.rows(d, which)
    log_scores = yield Rows(rows, done, best.median())
    cost, spare = problem.judge(rows, log_scores, which, problem.objective(d, rows, which, rho))
    best.offer(which, d, log_scores, cost, spare, best.tag[which] if mu is None else mu)
    return np.asarray(log_scores)


def _worth(
    problem: Problem, best: Best, lanes: np.ndarray, groups: int, done: float
) -> Search[dict[int, np.ndarray]]:
    """What each changed feature is worth, as its group of neighbours is: the margin left without it, negated
    `(*D)`."""
    parts: dict[int, list[np.ndarray]] = {}

    def without(lane: int, d: np.ndarray) -> np.ndarray:
        changed = np.flatnonzero(d)
        parts[lane] = np.array_split(changed, min(groups, len(changed))) if len(changed) else []
        ladder = np.repeat(d.reshape(1, -1), len(parts[lane]), axis=0)
        for rung, part in zip(ladder, parts[lane], strict=True):
            rung[part] = 0
        return ladder.reshape(-1, *d.shape)

    d, which = _candidates(problem, best, lanes, without)
    margin = np.zeros(0)
    if len(d):  # where nothing has changed, there is nothing to weigh
        log_scores = yield Rows(problem.space.rows(d, which), done)
        margin = problem.criterion.only(which).margin(log_scores)
    worth = {}
    for lane in lanes:
        worth[lane] = np.zeros(problem.low[0].size)
        for part, left in zip(parts[lane], margin[which == lane], strict=True):
            worth[lane][part] = -left
    return {lane: value.reshape(problem.low.shape[1:]) for lane, value in worth.items()}


def _candidates(
    problem: Problem, best: Best, lanes: np.ndarray, ladder: Callable[[int, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Points made of what is held, change by change from the least that is allowed, and whose they are."""
    rest = np.clip(0, problem.low[lanes], problem.high[lanes]).astype(np.float32)
    steps = [ladder(lane, best.x[lane] - least) for lane, least in zip(lanes, rest, strict=True)]
    counts = [len(part) for part in steps]
    return np.concatenate(steps) + np.repeat(rest, counts, axis=0), np.repeat(lanes, counts)


def _fewer(worth: np.ndarray, d: np.ndarray, rungs: int) -> np.ndarray:
    """`d` without its n least worthy changes, for some n between one and all `(R, *D)`."""
    order = np.where(d.reshape(-1) != 0, worth.reshape(-1).astype(np.float64), -np.inf)
    changed = int((d != 0).sum())
    rank = np.empty(d.size, np.int64)
    rank[np.argsort(order, kind="stable")] = np.arange(d.size) - (d.size - changed)
    counts = np.unique(np.linspace(1, max(1, changed), rungs).round())
    return np.stack([np.where(rank >= n, d.reshape(-1), 0).reshape(d.shape) for n in counts])


def _shorter(d: np.ndarray, rungs: int) -> np.ndarray:
    """`d` drawn in by up to six hundredths `(R, *D)`."""
    shares = 1 - np.linspace(0.006, 0.06, rungs, dtype=np.float32)
    return shares.reshape(-1, *[1] * d.ndim) * d
