"""What every predictor promises: rows in, class scores out.

A predictor is the model being explained, seen from outside. It is called with a batch and answers with
one row of scores for each; whatever it wraps, the answer has been checked here before anyone uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from explainer_runtime.errors import InvalidPrediction
from explainer_runtime.spec import Endpoint


@runtime_checkable
class Predictor(Protocol):
    """Rows in, class scores out. Safe to call from several threads at once."""

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """Class scores `(N, K)`, float32, of rows `(N, *S)`, float32 in input units.

        Args:
            x: The rows; any number of them, sent as several messages where they do not fit one.
            timeout: Seconds the whole call may take; None is the predictor's own time-out.

        Raises:
            PredictorUnavailable: It cannot be reached now.
            PredictorTimeout: It did not answer in time.
            InvalidPrediction: It answered with something that is not N rows of finite scores.
            PredictorError: It answered with an error.
        """
        ...

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """How many rows of this shape fit in one message to the model; at least 1."""
        ...

    def close(self) -> None:
        """Let go of connections. Nothing is lost: a later call opens them again."""
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
class GradientPredictor(Predictor, Protocol):
    """A predictor whose graph is in this process."""

    graph: Callable[[Any], Any]
    """`(N, *S)` tensor -> `(N, K)` tensor, differentiable TensorFlow, in inference mode."""
    loops: dict[Any, Callable[..., Any]]
    """What has been compiled around the graph; it lives as long as the model does."""


def served(predictor: Predictor) -> ServedPredictor | None:
    """`predictor` if its model is behind an endpoint, also where something that passes attributes on stands
    before it; else None."""
    return cast(ServedPredictor, predictor) if hasattr(predictor, "changes") else None


def check_scores(scores: Any, rows: int, source: str) -> np.ndarray:
    """`scores` as `(rows, K)` float32, or a refusal.

    Raises:
        InvalidPrediction: Not numbers, another number of rows, not two axes, one class only, NaN, infinite.
    """
    try:
        array = np.asarray(scores, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidPrediction(f"{source} answered with something that is not numbers") from None
    if array.ndim != 2 or len(array) != rows or array.shape[1] < 2:
        raise InvalidPrediction(
            f"{source}: expected class scores of shape ({rows}, classes), got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidPrediction(f"{source} answered with NaN or infinite scores")
    return array


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(N, K)`, each row shifted by its maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


class CallablePredictor:
    """A plain function as a predictor: for notebooks and tests.

    Args:
        function: Rows `(N, *S)` -> class scores `(N, K)`; it must be safe to call from several threads.
    """

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`; the time-out cannot be enforced on a function and is ignored."""
        return check_scores(self.function(x), len(x), getattr(self.function, "__name__", "the predictor"))

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """A few thousand small rows, so that cancellation and budgets are looked at now and then."""
        return max(1, 2**22 // max(1, int(np.prod(shape))))

    def close(self) -> None:
        """Nothing is open."""
