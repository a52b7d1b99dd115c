"""What every predictor promises: rows in, class scores out.

A predictor is the model being explained, seen from outside. It is called with a batch and answers with
one row of scores for each; whatever it wraps, the answer has been checked here before anyone uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from explainer_runtime.errors import InvalidInput, PredictorTimeout
from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.settings import Endpoint, ModelContract


@runtime_checkable
class Predictor(Protocol):
    """Rows in, class scores out. Safe to call from several threads at once."""

    @property
    def exclusive(self) -> bool:
        """Whether the scores of a row are one distribution (a softmax, [1 - p, p], a label made one-hot);
        false where each is independent (output `scores`)."""
        ...

    @property
    def integers(self) -> bool:
        """Whether the model takes whole numbers, in the units of the rows; others are rounded before it
        sees them, and brought into the range of its datatype."""
        ...

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """Class scores `(N, K)`, float32, of rows `(N, *S)`, float32 in input units.

        Args:
            x: The rows; any number of them, sent as several messages where they do not fit one.
            timeout: Seconds the whole call may take; None is the predictor's own time-out.

        Raises:
            PredictorUnavailable: It cannot be reached now.
            PredictorTimeout: It did not answer in time.
            InvalidPrediction: It answered with something that is not N rows of finite scores, or that its
                contract does not allow.
            PredictorError: It answered with an error.
        """
        ...

    def snap(self, x: np.ndarray) -> np.ndarray:
        """Rows `(N, *S)` as the model sees them, float32 in input units: of a model of whole numbers, those
        nearest to `x`; else `x` itself."""
        ...

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """How many rows of this shape fit in one message to the model; at least 1."""
        ...

    def close(self) -> None:
        """Let go of connections. Nothing is lost: a later call opens them again."""
        ...


@runtime_checkable
class WhiteBox(Predictor, Protocol):
    """A predictor that can be differentiated. NumPy in, NumPy out, whatever computes in between."""

    def log_scores(self, x: np.ndarray) -> np.ndarray:
        """Logarithms of the class scores `(N, K)`, float32, of rows `(N, *S)`, float32 in input units.

        They do not vanish where scores do: a softmax or sigmoid at the end of the graph is cut off, and its
        logarithm taken of what goes into it. Where the graph ends in something else they are the logarithms
        of the scores, floored at the least normal float32 (about -87.3).
        """
        ...

    def slope(self, x: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the scores, and where they would be pulled: one pass forward and one back.

        Args:
            x: Rows `(N, *S)`, float32 in input units.
            pull: Given the log-scores `(N, K)`, the weight `w` `(N, K)`, float32, of each; called once.

        Returns:
            Log-scores `(N, K)`, and the gradient `(N, *S)` with respect to `x` of
            `sum_k w_k log_score_k`, row by row; both float32.
        """
        ...


@runtime_checkable
class Layered(WhiteBox, Protocol):
    """A white box whose layers can be told apart."""

    def halves(self, layer: str | None) -> tuple[Callable[[np.ndarray], np.ndarray], WhiteBox]:
        """The model cut at the output of a layer; None is its last convolution.

        Returns:
            Rows `(N, *S)` -> feature maps `(N, h, w, c)`, float32; and the model of such maps.

        Raises:
            InvalidSpec: It is not of layers, there is no such one, or it cannot be cut there.
        """
        ...


@runtime_checkable
class ServedPredictor(Predictor, Protocol):
    """A predictor whose model is behind an endpoint, where it may be exchanged at any time."""

    settings: Endpoint
    """Where and how it is asked."""
    name: str
    """What to call it in messages."""
    changes: int
    """How often an answer has come from another model or version than the answer before."""


@runtime_checkable
class LocalPredictor(Predictor, Protocol):
    """A predictor whose model is in this process, and cannot change."""

    name: str
    """What to call it in messages."""
    shape: tuple[int | None, ...]
    """Shape of one row, without the batch; None where an axis may have any size."""
    classes: int | None
    """How many classes it scores; None where that shows in its answers only."""
    whole: tuple[float, float] | None
    """Lowest and highest whole number that it takes; None where it takes fractions."""


def served(predictor: Predictor) -> ServedPredictor | None:
    """`predictor` if its model is behind an endpoint, also where something that passes attributes on stands
    before it; else None."""
    return cast(ServedPredictor, predictor) if hasattr(predictor, "changes") else None


def fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Whether rows of `shape` are rows of the shape that is expected, where None is any size."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def told(predictor: Predictor) -> ModelContract:
    """What was said about the model; a predictor of somebody else's making is taken to answer as agreed."""
    given = getattr(predictor, "contract", None) or getattr(predictor, "settings", None)
    return given if isinstance(given, ModelContract) else ModelContract()


def named(predictor: Predictor) -> str:
    """What to call it in messages."""
    return str(getattr(predictor, "name", type(predictor).__name__))


_TOGETHER = 512
"""Rows asked about in one call at most where nobody waits for the answer."""


class Around:
    """A predictor before another one: what it does not say itself is what that one says.

    Args:
        predictor: The one behind it.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def exclusive(self) -> bool:
        """See `Predictor`."""
        return self._predictor.exclusive

    @property
    def integers(self) -> bool:
        """See `Predictor`."""
        return self._predictor.integers

    def snap(self, x: np.ndarray) -> np.ndarray:
        """See `Predictor`."""
        return self._predictor.snap(x)

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """See `Predictor`."""
        return self._predictor.rows_per_call(shape)

    def close(self) -> None:
        """See `Predictor`."""
        self._predictor.close()


class InProcess:
    """What predictors over a model in this process have in common. They set these:

    Attributes:
        contract: What was said about the model.
        name, shape, whole: See `LocalPredictor`.
    """

    contract: ModelContract
    name: str
    shape: tuple[int | None, ...]
    whole: tuple[float, float] | None

    @property
    def exclusive(self) -> bool:
        """See `Predictor`."""
        return meaning.exclusive(self.contract)

    @property
    def integers(self) -> bool:
        """See `Predictor`."""
        return self.whole is not None and meaning.unscaled(self.contract)

    def snap(self, x: np.ndarray) -> np.ndarray:
        """See `Predictor`."""
        return meaning.snap(x, self.whole, self.contract)

    def checked(self, x: np.ndarray) -> np.ndarray:
        """Rows as the model is given them, contiguous float32.

        Raises:
            InvalidInput: They are not of its shape.
        """
        x = np.ascontiguousarray(x, dtype=np.float32)
        if not fits(x.shape[1:], self.shape):
            raise InvalidInput(f"{self.name}: expected rows of shape {self.shape}, got {x.shape[1:]}")
        return x

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """As many as keep one call well under a second for small images."""
        return max(8, 2**21 // max(1, int(np.prod(shape))))

    def close(self) -> None:
        """Nothing is open."""


class CallablePredictor:
    """A plain function as a predictor: for notebooks and tests.

    Args:
        function: Rows `(N, *S)` -> class scores `(N, K)`, or what `contract` says; it must be safe to call
            from several threads.
        contract: What its numbers mean. Its names of inputs and outputs have no use here.

    Attributes:
        name: What to call it in messages.
    """

    integers = False

    def __init__(self, function: Callable[[np.ndarray], Any], contract: ModelContract | None = None) -> None:
        self.function, self.contract = function, contract or ModelContract()
        self.name = getattr(function, "__name__", type(function).__name__)

    @property
    def exclusive(self) -> bool:
        """See `Predictor`."""
        return meaning.exclusive(self.contract)

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`; the time-out cannot be enforced on a function and is ignored."""
        given = self.contract
        # Its own copy: functions scale rows in place.
        x = np.array(meaning.units(x, given, self.name), np.float32)
        numbers = self.function(x)
        if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu" and numbers.shape[1:] > (1,):
            numbers = np.asarray(numbers, np.float32)  # a rule may say 0 and 1 of each class
        return meaning.scores(numbers, len(x), given, self.name)

    def snap(self, x: np.ndarray) -> np.ndarray:
        """The rows themselves."""
        return x

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """A few thousand small rows, so that cancellation and budgets are looked at now and then."""
        return max(1, 2**22 // max(1, int(np.prod(shape))))

    def close(self) -> None:
        """Nothing is open."""


def answered(
    predictor: Predictor, x: np.ndarray, progress: Callable[[float], None] | None = None
) -> np.ndarray:
    """Scores `(M, K)` of many rows `(M, *S)`, in as many calls as they take: each has the time of one, and a
    model that is too slow for that is asked about fewer rows from then on.

    Raises:
        PredictorError: The model failed.
    """
    size, start, answers = max(1, min(_TOGETHER, predictor.rows_per_call(x.shape[1:]))), 0, []
    while start < len(x):
        part = x[start : start + size]
        try:
            answers.append(predictor(part))
        except PredictorTimeout:
            if len(part) == 1:
                raise
            size = max(1, len(part) // 8)
            continue
        start += len(part)
        if progress is not None:
            progress(start / len(x))
    return np.concatenate(answers)
