"""The fewest regions of an image whose hiding changes the answer.

Martens, Provost (2014) grow such a set by best-first search, Vermeire et al. (arXiv:2004.07511) one of
superpixels (SEDC): take away what costs the class most, until it is gone. Here every call carries many
candidates, since a round trip is dear and a row is cheap, and whatever the model has said of any of them is
kept: it teaches a linear model of the margin, which proposes the sets that are asked about next. It proposes
only: a set counts where the model itself says that the answer changes, and the set that is returned is
irreducible, for the model has been asked about it without each of its members.

The margin of a set is how far the answer has changed with its regions hidden: positive where it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search, Stop

Set = frozenset[int]
_LADDER = 12
"""Sets of one order that one call asks about: the first regions of it, ever more of them."""
_PAIRS = 6
"""Regions of the greatest effect that are hidden two at a time as well."""
_PROPOSED = 12
"""Sets a call that the linear model proposes."""
_ROUNDS = 8
"""Calls after the first two at most."""
_RIDGE = 0.05
"""What keeps the linear model's weights small, in squared regions."""


class Hidden(NamedTuple):
    """What was found.

    Attributes:
        regions: The set, ascending; the one that comes nearest where none changes the answer.
        found: Whether it changes the answer; the model was asked about it a second time, at last,
            unless the search was stopped before that.
        irreducible: Whether the model was asked about it without each of its members.
        effects: What hiding each region alone adds to the margin; empty where that was not asked.
        stopped: The status of a search that was stopped, or None.
    """

    regions: tuple[int, ...]
    found: bool
    irreducible: bool
    effects: list[float]
    stopped: str | None = None


class Pool:
    """What the model has said of sets of hidden regions.

    Args:
        count: Regions there are.
        ask: Masks of what is hidden `(M, K)`, bool -> margins `(M,)`.
    """

    def __init__(self, count: int, ask: Callable[[np.ndarray], Search[np.ndarray]]) -> None:
        self.count, self._ask = count, ask
        self.margin: dict[Set, float] = {}

    def ask(self, sets: Iterable[Set], again: Iterable[Set] = ()) -> Search[None]:
        """Learn the margins of those that are not known, and of some `again`, in one call."""
        fresh = list(dict.fromkeys([*(one for one in sets if one not in self.margin), *again]))
        if fresh:
            margins = yield from self._ask(self.masks(fresh))
            self.margin.update(zip(fresh, margins.tolist(), strict=True))

    def masks(self, sets: Iterable[Set]) -> np.ndarray:
        """Sets as masks `(M, K)`, bool."""
        masks = np.zeros((len(sets := list(sets)), self.count), bool)
        for mask, one in zip(masks, sets, strict=True):
            mask[list(one)] = True
        return masks

    def best(self) -> Set | None:
        """The smallest set that changes the answer; of several the one that changes it most."""
        changing = [one for one, margin in self.margin.items() if margin > 0]
        return min(changing, key=lambda one: (len(one), -self.margin[one]), default=None)

    def nearest(self) -> Set:
        """The set of the largest margin; nothing hidden where nothing is known."""
        return max(self.margin, key=lambda one: self.margin[one], default=frozenset())

    def effects(self) -> np.ndarray:
        """What hiding each region adds to the margin `(K,)`: ridge regression on all that is known."""
        masks = self.masks(self.margin).astype(float)
        margins = np.array(list(self.margin.values()))
        # What lies near the border says most of it; the margin with everything hidden says least.
        weight = 1 / (1 + np.abs(margins))
        middle = np.average(masks, axis=0, weights=weight)
        x, y = masks - middle, margins - np.average(margins, weights=weight)
        left = (x * weight[:, None]).T @ x + _RIDGE * np.eye(self.count)
        return np.asarray(np.linalg.solve(left, (x * weight[:, None]).T @ y))


def hide(
    count: int,
    ask: Callable[[np.ndarray], Search[np.ndarray]],
    rivals: Sequence[int] = (),
) -> Search[Hidden]:
    """The search for the fewest regions whose hiding changes the answer.

    Args:
        count: Regions there are, K.
        ask: Masks of what is hidden `(M, K)`, bool -> margins `(M,)`.
        rivals: Sizes that searches beside this one have ended with so far: it gives up where it has nothing
            smaller by then.
    """
    pool = Pool(count, ask)
    try:
        ended = yield from _search(pool, rivals)
    except Stop as stop:
        return _held(pool, stop.status)
    held = _held(pool, None)
    return held if ended else held._replace(found=False)


def _search(pool: Pool, rivals: Sequence[int]) -> Search[bool]:
    """Whether it came to its end, and did not give up."""
    everyone = range(pool.count)
    none, singles = frozenset[int](), [frozenset({one}) for one in everyone]
    yield from pool.ask([none, *singles, frozenset(everyone)])
    order = sorted(everyone, key=lambda one: -pool.margin[singles[one]])
    best = pool.best()
    if best is None:
        first = order[:_PAIRS]
        pairs = [frozenset({one, other}) for one in first for other in first if one < other]
        yield from pool.ask([*_ladder(order, pool.count), *pairs])
    for _ in range(_ROUNDS):
        best, near = pool.best(), pool.nearest()
        if best is not None and len(best) >= min(rivals, default=len(best) + 1):
            return False
        yield from pool.ask(_candidates(pool, best), again=[] if best is None else [best])
        # A round that bettered nothing was the last, and asked about the answer a second time.
        if pool.best() == best and (pool.nearest() == near if best is None else _irreducible(pool, best)):
            return True
    while (best := pool.best()) is not None:
        yield from pool.ask((), again=[best])
        if pool.best() == best:
            break
    return True


def _held(pool: Pool, stopped: str | None) -> Hidden:
    best, none = pool.best(), frozenset[int]()
    singles = [pool.margin.get(frozenset({one})) for one in range(pool.count)]
    effects = [alone - pool.margin[none] for alone in singles if alone is not None]
    if best is None:
        return Hidden(tuple(sorted(pool.nearest())), False, False, effects, stopped)
    return Hidden(tuple(sorted(best)), True, _irreducible(pool, best), effects, stopped)


def _candidates(pool: Pool, best: Set | None) -> list[Set]:
    """Sets worth asking about: the best one without each of its members and without the least worthy of them
    together, and smaller ones that the linear model thinks would do."""
    effects = pool.effects()
    order = np.argsort(-effects, kind="stable").tolist()
    if best is None:  # what comes nearest, with a region more or less
        near = pool.nearest()
        swapped = [near ^ {one} for one in range(pool.count)]
        return [*_ladder(order, pool.count), *swapped]
    size = len(best) - 1
    if size < 1:
        return []
    without = [best - {one} for one in best]
    # What the set loses without a member, where that is known; elsewhere what the model thinks.
    worth = {
        one: pool.margin[best] - pool.margin[rest] if (rest := best - {one}) in pool.margin else effects[one]
        for one in best
    }
    kept = sorted(best, key=lambda one: -worth[one])
    thought = sorted(best, key=lambda one: -effects[one])
    return [
        *without,
        *_ladder(kept, size),
        *_ladder(thought, size),
        *_ladder(order, size),
        *_proposed(pool, effects, order, size),
    ]


def _proposed(pool: Pool, effects: np.ndarray, order: list[int], size: int) -> list[Set]:
    """The sets of this size that are not known and have the greatest effects together."""
    top = frozenset(order[:size])
    inside, outside = order[:size][::-1], order[size : size + _PROPOSED]
    swaps = [top - {one} | {other} for one in inside[:_PROPOSED] for other in outside]
    fresh = [one for one in dict.fromkeys([top, *swaps]) if one not in pool.margin]
    fresh.sort(key=lambda one: -effects[list(one)].sum())
    return fresh[:_PROPOSED]


def _ladder(order: list[int], most: int) -> list[Set]:
    """The first regions of an order, for some sizes from one to `most`."""
    sizes = np.unique(np.geomspace(1, most, min(most, _LADDER)).round().astype(int))
    return [frozenset(order[:size]) for size in sizes]


def _irreducible(pool: Pool, best: Set) -> bool:
    return all(pool.margin.get(best - {one}, 1.0) <= 0 for one in best)
