"""A model as notebooks have it at hand, as a predictor.

A Keras model is a white box: it is called through one compiled function, and its gradients are exact. So is
a model whose own `predict` was passed, which would cost tens of milliseconds a call and hide the gradients.
Anything else that can be called with rows is a black box.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from explainer_runtime.alibi.older import check_eager, quiet
from explainer_runtime.errors import InvalidPrediction, InvalidSpec
from explainer_runtime.predictors import CallablePredictor, Predictor, connect
from explainer_runtime.predictors.connecting import keras_model
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.spec import Value


def as_predictor(given: Any, shape: tuple[int, ...], **contract: Any) -> Predictor:
    """A predictor over `given`.

    Args:
        given: A Keras model; its bound `predict`; a `tf.function`, an eager TensorFlow function or a plain
            one of rows `(N, *S)` -> class probabilities `(N, K)`; or anything else that `connect` takes.
        shape: `S`, the shape of one row.
        contract: What its numbers mean, where they are no probabilities; see `predictors.connect`.

    Raises:
        InvalidSpec: It is none of these.
    """
    if not callable(given) and not isinstance(given, str | os.PathLike | Mapping | Value):
        raise InvalidSpec(
            f"predict: expected a Keras model or a function of rows, got {type(given).__name__}"
        )
    check_eager()
    return connect(given if keras_model(given) is not None else quiet(given), shape=shape, **contract)


def classes_of(predictor: Predictor, shape: tuple[int, ...]) -> int:
    """How many classes it scores; it is asked about one row of zeros."""
    return int(predictor(np.zeros((1, *shape), np.float32)).shape[1])


def said_of_model(settings: dict[str, Any]) -> dict[str, Any]:
    """What `settings` say about the model, by fields of `spec.ModelContract`; taken out of them."""
    return {name: settings.pop(name) for name in [*settings] if name in ModelContract.model_fields}


class Labels:
    """A function of rows `(N, *S)` that answers with labels, whole numbers or words `(N,)` or `(N, 1)`,
    instead of class scores. Fractions are never labels."""

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function

    @classmethod
    def of(cls, predictor: Predictor, x: np.ndarray) -> Labels | None:
        """`predictor` as one of these, if it answers so for one row `x`, and nothing else was said of it."""
        if not isinstance(predictor, CallablePredictor) or predictor.contract != ModelContract():
            return None
        said = np.asarray(predictor.function(x))
        return cls(predictor.function) if said.size == 1 and said.dtype.kind in "iubUSO" else None

    def label(self, x: np.ndarray) -> Any:
        """The label of one row `(1, *S)`."""
        return self._labels(x)[0]

    def against(self, own: Any) -> CallablePredictor:
        """The same as scores of two classes: any other label, and `own`."""

        def scores(x: np.ndarray) -> np.ndarray:
            same = self._labels(x) == own
            return np.stack([~same, same], axis=1)

        return CallablePredictor(scores)

    def _labels(self, x: np.ndarray) -> np.ndarray:
        said = np.asarray(self.function(x))
        if said.shape not in ((len(x),), (len(x), 1)) or said.dtype.kind == "f":
            raise InvalidPrediction(f"the predictor: expected {len(x)} labels, got {said.dtype} {said.shape}")
        return said.reshape(len(x))
