"""A model as notebooks have it at hand, as a predictor.

A Keras model is a white box: it is called through one compiled function, and its gradients are exact. So is
a model whose own `predict` was passed, which would cost tens of milliseconds a call and hide the gradients.
Anything else that can be called with rows is a black box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors import CallablePredictor, Predictor
from explainer_runtime.predictors.keras import KerasPredictor, import_tensorflow

_KERAS = ("keras", "tf_keras")
_FORWARD = ("predict", "predict_on_batch", "__call__")


def as_predictor(given: Any, shape: tuple[int, ...]) -> Predictor:
    """A predictor over `given`.

    Args:
        given: A Keras model; its bound `predict`; a `tf.function`, an eager TensorFlow function or a plain
            one of rows `(N, *S)` -> class probabilities `(N, K)`; or a predictor of this package.
        shape: `S`, the shape of one row.

    Raises:
        InvalidSpec: It is none of these.
    """
    model = _model(given)
    if model is not None:
        return _white_box(model, shape)
    if isinstance(given, Predictor):
        return given
    if not callable(given):
        raise InvalidSpec(
            f"predict: expected a Keras model or a function of rows, got {type(given).__name__}; "
            "sessions are gone, the model comes first"
        )
    return CallablePredictor(_traced_once(given, shape))


def classes_of(predictor: Predictor, shape: tuple[int, ...]) -> int:
    """How many classes it scores; it is asked about one row of zeros."""
    return int(predictor(np.zeros((1, *shape), np.float32)).shape[1])


class Labels:
    """A function of rows `(N, *S)` that answers with labels `(N,)` instead of class scores."""

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function

    @classmethod
    def of(cls, predictor: Predictor, x: np.ndarray) -> Labels | None:
        """`predictor` as one of these, if that is how it answers for rows `x`."""
        if isinstance(predictor, CallablePredictor) and np.ndim(predictor.function(x)) == 1:
            return cls(predictor.function)
        return None

    def label(self, x: np.ndarray) -> int:
        """The label of one row `(1, *S)`."""
        return int(np.asarray(self.function(x))[0])

    def against(self, own: int) -> CallablePredictor:
        """The same as scores of two classes: any other label, and `own`."""

        def scores(x: np.ndarray) -> np.ndarray:
            same = np.asarray(self.function(x)) == own
            return np.stack([~same, same], axis=1)

        return CallablePredictor(scores)


def _model(given: Any) -> Any | None:
    if _is_keras(given):
        return given
    # A `predict` of the model's own class may do anything; only Keras' own is known to be the model.
    function, owner = getattr(given, "__func__", None), getattr(given, "__self__", None)
    if _is_keras(owner) and given.__name__ in _FORWARD and _module(function) in _KERAS:
        return owner
    return None


def _is_keras(value: Any) -> bool:
    # By name, so that neither Keras nor TensorFlow is imported for a function that needs neither.
    return any(cls.__name__ == "Model" and _module(cls) in _KERAS for cls in type(value).__mro__)


def _module(value: Any) -> str:
    return str(value.__module__).partition(".")[0]


def _white_box(model: Any, shape: tuple[int, ...]) -> KerasPredictor:
    if getattr(model, "input_shape", None) is not None:
        return KerasPredictor.of(model)
    tf = import_tensorflow()  # a subclassed model does not know its shapes

    def graph(x: Any) -> Any:
        return tf.cast(model(x, training=False), tf.float32)

    return KerasPredictor(graph, shape, name=model.name)


def _traced_once(function: Any, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """`function`, or where it is a `tf.function` one that is not traced again for each number of rows."""
    if not hasattr(function, "get_concrete_function") or function.input_signature is not None:
        return function
    tf = import_tensorflow()
    rows = tf.TensorSpec((None, *shape), tf.float32)
    traced: Callable[[Any], Any] = tf.function(lambda x: function(x), autograph=False, input_signature=[rows])
    return traced
