"""What a search may ask of the model, and how it is told.

A method never calls the model. It is a generator that *asks* and is *told*: it yields one of the asks
below and receives the answer as the value of that `yield`.

    def search(x):
        log_scores = yield Rows(x)                # told: log-scores (N, K), float32
        log_scores, slope = yield Slopes(x, pull)    # told: the same, and a slope (N, *S) at each row
        return ...

Whoever drives the generator (`driver/`; in a test, three lines and a plain function) is the only one that
knows about time, budgets, cancellation, estimates and networks. When the budget is spent it throws
`Stop` into the generator at its `yield`; a method that has a best answer so far catches it and returns
that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Drawn:
    """Rows that are made when they are looked at, so that pictures by the hundred are never held together.

    Args:
        draw: Makes some of the rows: their numbers `(M',)` -> `(M', *S)`, float32.
        count: How many there are, M.
        shape: `(*S)`.
    """

    def __init__(self, draw: Callable[[np.ndarray], np.ndarray], count: int, shape: tuple[int, ...]) -> None:
        self._draw, self.shape = draw, (count, *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice | np.ndarray | list[int]) -> np.ndarray:
        return self._draw(np.arange(len(self))[which])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


def only(x: np.ndarray | Drawn, which: list[int]) -> np.ndarray | Drawn:
    """Some of these rows, made when they were to be made."""
    if isinstance(x, np.ndarray):
        return x[which]
    numbers = np.array(which, int)
    return Drawn(lambda some: x[numbers[some]], len(which), x.shape[1:])


def joined(parts: Sequence[np.ndarray | Drawn]) -> np.ndarray | Drawn:
    """Rows one after the other, made when the first that are to be made are."""
    if len(parts) == 1:  # not copied
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts])
    ends = np.cumsum([len(part) for part in parts])

    def draw(numbers: np.ndarray) -> np.ndarray:
        owners = np.searchsorted(ends, numbers, "right")
        rows = np.empty((len(numbers), *parts[0].shape[1:]), np.float32)
        for owner in np.unique(owners):
            own = owners == owner
            rows[own] = parts[owner][numbers[own] - ends[owner] + len(parts[owner])]
        return rows

    return Drawn(draw, int(ends[-1]), parts[0].shape[1:])


@dataclass(frozen=True)
class Rows:
    """Ask for the log-scores of these rows.

    Attributes:
        x: Rows `(M, *S)`, float32, in input units, or what draws them.
        done: How much of the search lies behind, between 0 and 1; for progress only.
        best: Distance of the best answers so far, or None; for progress only.
        names: A name for each row, or None. Rows of one name are equal, and are asked about once where
            searches go in `lockstep`.
    """

    x: np.ndarray | Drawn
    done: float = 0.0
    best: float | None = None
    names: Sequence[object] | None = None


@dataclass(frozen=True, eq=False)
class Slopes:
    """Ask what the model says of these rows, and how that would change.

    Attributes:
        x: Rows `(M, *S)`, float32, in input units.
        pull: `log-scores (M, K) -> weights (M, K)`: the slope that is wanted is that of the sum of the log-
            scores so weighted. Row by row: it may be called on parts of the rows, which it is told by `which`
            `(M',)`.
        done: How much of the search lies behind, between 0 and 1; for progress only.
        best: Costs of the best answers so far, infinite where there is none; for progress only.
        steps: A number of each row `(M,)`, or of all of them, such as how many steps lie behind it: what is
            random about an estimated slope depends on that, never on the rows beside it.
        alone: Whether each row is to be answered as it would be alone, to the last bit: what a model says of
            a row depends on the rows beside it in the last bit or two, and hundreds of steps by sign and
            momentum make much of them.
    """

    x: np.ndarray
    pull: Callable[[np.ndarray, np.ndarray], np.ndarray]
    done: float = 0.0
    best: np.ndarray | None = None
    steps: np.ndarray | int = 0
    alone: bool = False


@dataclass(frozen=True, eq=False)
class Maps:
    """Ask what a layer of the model says of these rows, and how the scores would change with that.

    It is told log-scores `(M, K)`, feature maps `(M, h, w, c)` and the slopes there, of the same shape.

    Attributes:
        x: Rows `(M, *S)`, float32, in input units.
        pull: As that of `Slopes`.
        layer: Its name; None is the last convolution.
    """

    x: np.ndarray
    pull: Callable[[np.ndarray, np.ndarray], np.ndarray]
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Aside:
    """Ask to run another search, aside, on a model of one's own in this process: it costs no call and no row.

    Attributes:
        search: What to run; it is told what its own model says. What it returns is the answer.
        model: A predictor with a graph, such as a surrogate of the model being explained.
    """

    search: Search[Any]
    model: Any


Ask = Rows | Slopes | Maps | Aside
Search = Generator[Ask, Any, T]


class Stop(Exception):
    """Thrown into a search whose budget is spent; `status` says how the answer is to be marked."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def lockstep(searches: Sequence[Search[T]]) -> Search[list[T]]:
    """One search made of many: their rows go out together, those of one name once.

    Each is told its own rows back, and a `Stop` reaches all of them, so a batch takes as many rounds as
    its longest member and no member sees another's answers. What is asked of a model in this process, other
    than rows, goes out by itself.

    Returns:
        What each search returned, in order.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Ask] = {}

    def advance(index: int, act: Callable[[], Ask]) -> None:
        try:
            waiting[index] = act()
        except StopIteration as end:
            results[index] = end.value
            waiting.pop(index, None)

    for index, search in enumerate(searches):
        advance(index, partial(next, search))
    while waiting:
        rows = {index: ask for index, ask in waiting.items() if isinstance(ask, Rows)}
        try:
            if rows:
                told = yield from _together(rows, len(results) / len(searches), len(searches))
            else:
                index, ask = next(iter(waiting.items()))
                told = {index: (yield ask)}
        except Stop as stop:
            for index in list(waiting):
                advance(index, partial(searches[index].throw, stop))
            continue
        for index, own in told.items():
            advance(index, partial(searches[index].send, own))
    return [results[index] for index in range(len(searches))]


def _together(asks: dict[int, Rows], done: float, count: int) -> Search[dict[int, np.ndarray]]:
    """What each of some asks is told, by one that holds all their rows, those of one name once."""
    places: dict[object, int] = {}
    parts, told = [], {}
    for index, ask in asks.items():
        names = ask.names or [(index, row) for row in range(len(ask.x))]
        fresh = []
        for row, name in enumerate(names):
            if name not in places:
                places[name] = len(places)
                fresh.append(row)
        parts.append(ask.x if len(fresh) == len(names) else only(ask.x, fresh))
        told[index] = [places[name] for name in names]
        done += ask.done / count
    scores = yield Rows(joined(parts), done)
    return {index: scores[own] for index, own in told.items()}
