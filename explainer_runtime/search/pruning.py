"""Taking back what was not needed: fewer changes, then smaller ones, always asking the model.

No gradients and no luck: each function makes a ladder of candidates between the point and its origin,
asks about the whole ladder in one go, and keeps the closest that is valid. A point that is valid stays so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.search.asks import Rows, Search

Judge = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`(points (M, *S), their scores (M, K), which row each belongs to (M,)) -> verdicts (M,)`, bool."""


def drop_smallest(
    origin: np.ndarray, x: np.ndarray, judge: Judge, *, rungs: int = 40, done: float = 0.0
) -> Search[np.ndarray]:
    """Undo the smallest changes, as many as the model lets go.

    Args:
        origin: The inputs being explained `(L, *S)`.
        x: Points `(L, *S)`.
        judge: Says which candidates are valid.
        rungs: Most candidates for each row: numbers of changes to undo, evenly spaced.
        done: Progress before this ask.

    Returns:
        `(L, *S)`: each row with its smallest changes undone, or as it was where no candidate is valid.
    """
    change = (x - origin).reshape(len(x), -1)
    order = np.argsort(np.abs(change), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(change.shape[1])[None], axis=1)
    changed = (change != 0).sum(axis=1)
    ladder, owner = [], []
    for row, count in enumerate(changed):
        drops = np.unique(np.linspace(1, count, min(rungs, count)).round().astype(int))
        unchanged = change.shape[1] - count  # these rank lowest, and are dropped already
        for drop in drops:
            ladder.append(rank[row] < unchanged + drop)
            owner.append(row)
    if not ladder:
        return x
    dropped = np.stack(ladder).reshape(-1, *x.shape[1:])
    candidates = np.where(dropped, origin[owner], x[owner])
    return (yield from _closest(origin, x, candidates, np.asarray(owner), judge, done))


def drop_harmless(
    origin: np.ndarray,
    x: np.ndarray,
    judge: Judge,
    value: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    groups: int = 64,
    rungs: int = 24,
    done: float = 0.0,
) -> Search[np.ndarray]:
    """Undo the changes that matter least, as many as the model lets go.

    Changed features are taken in groups of neighbours (in the order of the array). One ask finds what each
    group alone is worth; another asks about undoing the least worthy one, two, three ... groups.

    Args:
        origin, x, judge, done: As for `drop_smallest`.
        value: `(scores (M, K), owner (M,)) -> (M,)`: how good a candidate is; larger is better.
        groups: Most groups for each row.
        rungs: Most candidates of the second ask for each row, evenly spaced.
    """
    parts, owner = [], []
    for row, change in enumerate((x != origin).reshape(len(x), -1)):
        changed = np.flatnonzero(change)
        for group in np.array_split(changed, min(groups, len(changed))) if len(changed) else []:
            part = np.zeros(change.shape, bool)
            part[group] = True
            parts.append(part)
            owner.append(row)
    if not parts:
        return x
    undone, rows = np.stack(parts), np.asarray(owner)

    def without(undone: np.ndarray) -> np.ndarray:
        return np.where(undone.reshape(-1, *x.shape[1:]), origin[rows], x[rows])

    worth = value((yield Rows(without(undone), done)), rows)
    ladder = []
    for row in np.unique(rows):
        own = np.flatnonzero(rows == row)
        order = own[np.argsort(-worth[own], kind="stable")]
        undone[own] = np.logical_or.accumulate(undone[order], axis=0)
        ladder.append(own[np.unique(np.linspace(0, len(own) - 1, min(rungs, len(own))).round().astype(int))])
    chosen = np.concatenate(ladder)
    rows, undone = rows[chosen], undone[chosen]
    return (yield from _closest(origin, x, without(undone), rows, judge, done))


def pull_in(
    origin: np.ndarray, x: np.ndarray, judge: Judge, *, rungs: int = 24, rounds: int = 1, done: float = 0.0
) -> Search[np.ndarray]:
    """Shrink each change along the line to its origin, as far as the model lets it.

    Args, returns: as `drop_smallest`; the candidates are `rungs` points evenly spaced on the line, and in
        each further round as many between the closest that is valid and the one before it.
    """
    return (yield from land(origin, x, judge, rungs=rungs, rounds=rounds, done=done))


def land(
    origin: np.ndarray,
    x: np.ndarray,
    over: Judge,
    *,
    rungs: int = 16,
    rounds: int = 3,
    done: float = 0.0,
) -> Search[np.ndarray]:
    """The point on each line from `origin` to `x` where the model first says `over`, to `rungs ** -rounds`.

    For a goal that can be overshot: on the way from an input that has not reached it to a point beyond,
    a continuous model passes through it.

    Args:
        origin: Where it is not over `(L, *S)`.
        x: Where it is `(L, *S)`.
        over: Says which points are over.
        rungs: Points asked about in each round.
        rounds: Rounds; each is one ask.
        done: Progress before the first.
    """
    lanes = np.arange(len(x))
    near, far = np.zeros(len(x)), np.ones(len(x))
    for _ in range(rounds):
        share = near[:, None] + (far - near)[:, None] * np.linspace(0, 1, rungs + 1)[None]
        owner = np.repeat(lanes, rungs)
        points = _between(origin[owner], x[owner], share[:, 1:].reshape(-1))
        beyond = over(points, (yield Rows(points, done)), owner).reshape(len(x), rungs)
        beyond[:, -1] = True  # known from the round before, whatever the last bit says now
        first = beyond.argmax(axis=1)
        near, far = share[lanes, first], share[lanes, first + 1]
    return _between(origin, x, far)


def _between(origin: np.ndarray, x: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Points on the lines from `origin` (share 0) to `x` (share 1), never past either by a rounding."""
    along = share.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return np.clip(origin + along * (x - origin), np.minimum(origin, x), np.maximum(origin, x))


def _closest(
    origin: np.ndarray, x: np.ndarray, candidates: np.ndarray, owner: np.ndarray, judge: Judge, done: float
) -> Search[np.ndarray]:
    """Each row's closest valid candidate, or the row itself."""
    scores = yield Rows(candidates, done)
    distance = np.abs(candidates - origin[owner]).reshape(len(owner), -1).sum(axis=1)
    distance[~judge(candidates, scores, owner)] = np.inf
    best = np.abs(x - origin).reshape(len(x), -1).sum(axis=1)
    kept = x.copy()
    for index in np.lexsort((-distance, owner)):  # the closest of each row comes last
        if distance[index] < best[owner[index]]:
            best[owner[index]], kept[owner[index]] = distance[index], candidates[index]
    return kept
