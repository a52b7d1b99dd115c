"""What a search may ask of the model, and how it is told.

A method never calls the model. It is a generator that *asks* and is *told*: it yields one of the asks
below and receives the answer as the value of that `yield`.

    def search(x):
        scores = yield Rows(x)                       # told: class scores (N, K), float32
        state = yield Descend(state, objective, step, steps=100)     # told: the state afterwards
        return ...

Whoever drives the generator (`solve.py`; in a test, three lines and a plain function) is the only one that
knows about time, budgets, cancellation, compiled loops and networks. When the budget is spent it throws
`Stop` into the generator at its `yield`; a method that has a best answer so far catches it and returns
that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Ask for the class scores of these rows.

    Attributes:
        x: Rows `(M, *S)`, float32, in input units.
        done: How much of the search lies behind, between 0 and 1; for progress only.
        best: Distance of the best answers so far, or None; for progress only.
    """

    x: np.ndarray
    done: float = 0.0
    best: float | None = None


@dataclass(frozen=True, eq=False)
class Penalty:
    """A smooth loss of the point alone, from networks in this process: always exactly differentiable.

    Make one for each set of networks and keep it: what is compiled around it is kept here, and by
    predictors under its identity.

    Attributes:
        value: `(state) -> (L,)`, pure TensorFlow, row by row.
        loops: What has been compiled around it alone.
    """

    value: Callable[[Any], Any]
    loops: dict[Any, Callable[..., Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Descend:
    """Ask to run a step, again and again, on a state of many lanes.

    A lane is one search: a row being explained, times one target or one weight. Lanes are strangers: no
    lane may read another's values.

    Attributes:
        state: A NamedTuple of arrays, lanes first. Fields `x` (the points, `(L, *S)`), `active` (bool
            `(L,)`) and `aim` (a NamedTuple of small per-lane arrays) are required.
        objective: `(aim, scores (L, K)) -> values (L,)`, the scalar whose gradient is wanted. Pure
            TensorFlow, row by row. None leaves the model out: `penalty` alone is descended, the step is
            told None for the scores, and no row is spent.
        step: `(state, scores (L, K), gradient (L, *S)) -> state`. Pure TensorFlow, row by row. Scores and
            gradient are those at `state.x`, before the step. Lanes that are not active are left as they
            were, by whoever drives.
        penalty: A loss whose gradient is added to that of the objective, exact on every road.
        steps: Most steps; fewer when no lane is active any more, or when the budget allows fewer.
        done: Fractions of the whole search before and after this ask; for progress only.
    """

    state: Any
    objective: Callable[[Any, Any], Any] | None
    step: Callable[[Any, Any, Any], Any]
    steps: int
    done: tuple[float, float] = (0.0, 1.0)
    penalty: Penalty | None = None


@dataclass(frozen=True, eq=False)
class Aside:
    """Ask to run another search, aside, on a model of one's own in this process: it costs no call and no row.

    Attributes:
        search: What to run; it is told what its own model says. What it returns is the answer.
        model: A predictor with a graph, such as a student of the model being explained.
    """

    search: Search[Any]
    model: Any


Ask = Rows | Descend | Aside
Search = Generator[Ask, Any, T]


class Stop(Exception):
    """Thrown into a search whose budget is spent; `status` says how the answer is to be marked."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def lockstep(searches: Sequence[Search[T]]) -> Search[list[T]]:
    """One search made of many that ask for `Rows` only: their rows go out together.

    Each is told its own rows back, and a `Stop` reaches all of them, so a batch takes as many rounds as
    its longest member and no member sees another's answers.

    Returns:
        What each search returned, in order.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Rows] = {}

    def advance(index: int, act: Callable[[], Ask]) -> None:
        try:
            ask = act()
        except StopIteration as end:
            results[index] = end.value
            waiting.pop(index, None)
            return
        assert isinstance(ask, Rows), "lockstep drives searches that ask for rows only"
        waiting[index] = ask

    for index, search in enumerate(searches):
        advance(index, partial(next, search))
    while waiting:
        order = list(waiting)
        sizes = [len(waiting[i].x) for i in order]
        done = (len(results) + sum(ask.done for ask in waiting.values())) / len(searches)
        try:
            scores = yield Rows(np.concatenate([waiting[i].x for i in order]), done)
        except Stop as stop:
            for i in order:
                advance(i, partial(searches[i].throw, stop))
            continue
        for i, own in zip(order, np.split(scores, np.cumsum(sizes)[:-1]), strict=True):
            advance(i, partial(searches[i].send, own))
    return [results[i] for i in range(len(searches))]
