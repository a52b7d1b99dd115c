"""What white boxes share, whatever differentiates them: rows in parts, and logarithms of what comes out.

A framework gives a function of rows with its way back. Where the softmax or sigmoid at the model's end can
be cut off it gives what goes into that; the logarithms, and their part of the chain rule, are a few numbers a
row, and done in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.base import WhiteBox
from explainer_runtime.predictors.forms import Form, FormPredictor
from explainer_runtime.predictors.halves import halves
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.search.networks import Network

Back = Callable[[np.ndarray], np.ndarray]
"""Weights `(M, *T)` of values -> gradient `(M, *S)` of their sum with respect to the rows."""


class Engine(NamedTuple):
    """A function of rows as a framework computes it.

    Attributes:
        values: Rows `(M, *S)`, float32 -> values `(M, *T)`.
        forward: The same, and the way back from there.
        most: Rows that are computed together at most.
        filled: How many rows a part of so many is filled up to, with its last: what is compiled is compiled
            for a number of rows.
    """

    values: Callable[[np.ndarray], np.ndarray]
    forward: Callable[[np.ndarray], tuple[np.ndarray, Back]]
    most: int
    filled: Callable[[int], int] = lambda count: count


class Slopes:
    """An engine for any number of rows, its caller asked once between the ways: a `Network`. Safe to share by
    threads.

    Args:
        engine: Computes parts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """See `Network`; N is not 0."""
        parts = self._parts(x)
        return np.concatenate([self._engine.values(rows)[:count] for rows, count in parts])

    def slope(self, x: np.ndarray, pull: Back) -> tuple[np.ndarray, np.ndarray]:
        """See `Network`; N is not 0."""
        ahead = [(*self._engine.forward(rows), count) for rows, count in self._parts(x)]
        y = np.concatenate([values[:count] for values, _, count in ahead])
        w, start, slopes = np.asarray(pull(y), np.float32).reshape(y.shape), 0, []
        for values, back, count in ahead:
            given = np.zeros(values.shape, np.float32)
            given[:count] = w[start : start + count]
            slopes.append(back(given)[:count])
            start += count
        return y, np.concatenate(slopes)

    def _parts(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        x, most = np.ascontiguousarray(x, np.float32), self._engine.most
        for start in range(0, len(x), most):
            rows = x[start : start + most]
            more = self._engine.filled(len(rows)) - len(rows)
            yield (np.concatenate([rows, np.repeat(rows[-1:], more, axis=0)]) if more else rows), len(rows)


class Differentiable(FormPredictor):
    """A model in this process whose graph can be differentiated, by whatever framework: a `WhiteBox`."""

    def smooth(self) -> tuple[Network, Callable[[], str]]:
        """The model as a differentiable function, and the `end` of `meaning.logarithms` that its values go
        into, known once it was called."""
        raise NotImplementedError

    def halves(self, layer: str | None) -> tuple[Callable[[np.ndarray], np.ndarray], WhiteBox]:
        """See `Layered`."""
        if layer not in self._halves:
            front, back = halves(self.form, self.contract, layer)
            plain = self.contract.model_copy(update={"scale": 1.0, "offset": 0.0})
            self._halves[layer] = self.compiled(front), self.like(back, plain)
        return self._halves[layer]

    @cached_property
    def _halves(self) -> dict[str | None, tuple[Callable[[np.ndarray], np.ndarray], WhiteBox]]:
        return {}

    def compiled(self, form: Form) -> Callable[[np.ndarray], np.ndarray]:
        """A part of the model as a function of rows."""
        raise NotImplementedError

    def like(self, form: Form, contract: ModelContract) -> WhiteBox:
        """A predictor over another part of it."""
        raise NotImplementedError

    def log_scores(self, x: np.ndarray) -> np.ndarray:
        """See `WhiteBox`."""
        x, (function, end) = self.checked(x), self.smooth()
        if not len(x):
            return np.empty((0, self.classes or 2), np.float32)
        numbers = function(x)
        return meaning.logarithms(numbers, end(), self.contract)[0]

    def slope(self, x: np.ndarray, pull: Back) -> tuple[np.ndarray, np.ndarray]:
        """See `WhiteBox`."""
        said: list[np.ndarray] = []
        function, end = self.smooth()

        def through(numbers: np.ndarray) -> np.ndarray:
            logs, back = meaning.logarithms(numbers, end(), self.contract)
            said.append(logs)
            return back(np.asarray(pull(logs), np.float32))

        _, gradient = function.slope(self.checked(x), through)
        return said[0], gradient
