"""One explanation's view of a model that it cannot see into: is it the same one, and are its rows in order?

Three things go wrong that no single answer shows: a model behind a network is exchanged while an explanation
runs; something in between (a batcher, a gateway) hands rows back in another order; or the model answers by
chance (dropout or augmentation left on). Each way scores would be pinned on rows that never had them. So one
row goes along as a canary: the first that the explanation asked about, normally the instance itself, at
another place in each call. Its scores must stay what they were. It costs one row a call, and is counted as
one. Where the model says its version, that must stay as well.

Where they have moved, the canary alone is asked again, many times over in two calls: a model of chance shows
there, one that permutes rows cannot, and what is left is another model.

A canary finds what moves the canary. Two other rows that change places are not found in that call, only in
a later one if it puts the canary at one of those places.
"""

from __future__ import annotations

import threading

import numpy as np

from explainer_runtime.errors import InvalidPrediction, PredictorChanged
from explainer_runtime.predictors.base import Around, Predictor, named, told
from explainer_runtime.predictors.meaning import PAGE

_COPIES = 8
"""Copies of the canary in each of the two calls that tell why its scores have moved."""
_TURN = 0.6180339887498949
"""Golden ratio: its multiples, modulo 1, come near every place soon and repeat none."""


class Canary(Around):
    """A predictor for the length of one explanation. Safe to share by threads.

    Args:
        predictor: Who is asked: the model, or what stands before it.
        model: The model itself. Where it is served it knows how often it has changed; its settings say how
            far the canary's scores may move, because the last bits of a model depend on the batch.
        classes: How many class scores a row must have.
    """

    def __init__(self, predictor: Predictor, model: Predictor, classes: int) -> None:
        super().__init__(predictor)
        self._model, self._classes = model, classes
        self.name = named(model)
        self._tolerance = told(model).canary
        self._changes: int | None = None
        self._lock = threading.Lock()
        self._calls = 0
        self._canary: np.ndarray | None = None
        self._known: np.ndarray | None = None

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`.

        Raises:
            PredictorChanged: Another version answered than at first, or the canary's scores have moved.
            InvalidPrediction: The canary's scores came back with another row, or depend on chance; or the
                width is wrong.
        """
        if self._tolerance is None or not len(x):
            return self._checked(self._predictor(x, timeout=timeout))
        canary, at = self._place(x)
        scores = self._checked(self._predictor(np.insert(x, at, canary, axis=0), timeout=timeout))
        own = np.delete(scores, at, axis=0)
        self._compare(scores[at], own[0], self._tolerance, timeout)
        return own

    @property
    def extra_rows(self) -> int:
        """Rows that go along with each call; whoever counts rows counts them too."""
        return 0 if self._tolerance is None else 1

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """As many as the predictor takes beside the canary. A row that fills a message alone travels alone,
        and the canary in a second one."""
        return max(1, super().rows_per_call(shape) - self.extra_rows)

    def close(self) -> None:
        """Nothing: the connections are not this explanation's own."""

    def _checked(self, scores: np.ndarray) -> np.ndarray:
        if scores.shape[1] != self._classes:
            raise InvalidPrediction(
                f"{self.name}: the explainer is for {self._classes} classes; expected {self._classes} class "
                f"scores, got {scores.shape[1]}; {PAGE}"
            )
        changes = getattr(self._model, "changes", 0)  # a function has none
        with self._lock:
            if self._changes is None:  # from the first answer on: what came before concerns nobody here
                self._changes = changes
        if changes != self._changes:
            raise PredictorChanged(f"{self.name} was replaced by another version; ask again")
        return scores

    def _place(self, x: np.ndarray) -> tuple[np.ndarray, int]:
        with self._lock:
            if self._canary is None:
                # Next to its twin: neither reversing nor rolling the rows leaves the two where they were.
                self._canary = x[0].copy()
                return self._canary, 1
            self._calls += 1
            at = int(self._calls * _TURN % 1 * (len(x) + 1))
            return self._canary, at + (2 * at == len(x))  # not in the middle, where reversing leaves it

    def _compare(self, found: np.ndarray, first: np.ndarray, tolerance: float, timeout: float | None) -> None:
        with self._lock:
            begun = self._known is not None
            if self._known is None:
                self._known = first.copy()  # the very same row: in the first call, the canary is its twin
            canary, known = self._canary, self._known
        moved = np.abs(found - known).max()
        if moved <= tolerance or canary is None:
            return
        copies = np.repeat(canary[None], _COPIES, axis=0)
        again = np.concatenate([self._checked(self._predictor(copies, timeout=timeout)) for _ in range(2)])
        check_chance(again, tolerance, self.name)
        if not begun or np.abs(again - known).max() <= tolerance:  # within one call nothing is exchanged
            raise InvalidPrediction(f"{self.name} answers rows in another order than they came in")
        raise PredictorChanged(
            f"{self.name} answers the same row with scores that are off by {moved:.2g}: another model has "
            "taken its place"
        )


def check_chance(scores: np.ndarray, tolerance: float, name: str) -> None:
    """Refuse a model by its scores `(N, K)` of N copies of one row, if they differ by more than `tolerance`.

    Raises:
        InvalidPrediction: They do.
    """
    if (spread := np.ptp(scores, axis=0).max(initial=0.0)) > tolerance:
        raise InvalidPrediction(
            f"{name} answers by chance: copies of one row got scores that differ by {spread:.2g}; serve it "
            f"in inference mode, without dropout or augmentation, or allow for it by `canary`; {PAGE}"
        )
