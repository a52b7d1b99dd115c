"""A Keras model in this process: scores, and gradients through its graph.

`keras.Model.predict` costs tens of milliseconds a call whatever the batch, so the model is called through
one compiled function, traced once for batches of any size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidInput, InvalidSpec, MissingExtra
from explainer_runtime.predictors.base import check_scores

_MICRO_BATCH = 64
"""Convolutions of small images are cheapest in batches whose activations stay in the cache."""


def import_tensorflow() -> Any:
    """TensorFlow, quietly.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingExtra(
            "TensorFlow is not installed; pip install 'explainer-runtime[tensorflow]'"
        ) from None
    return tf


def read_model(path: str | Path) -> Any:
    """The Keras model in a `.keras` file, read in safe mode.

    Raises:
        InvalidSpec: There is no such file, it is another format, or it holds code.
        MissingExtra: TensorFlow is not installed.
    """
    import_tensorflow()
    import keras

    path = Path(path)
    if not (path.is_file() and path.suffix == ".keras"):
        raise InvalidSpec(f"{path}: expected a .keras file or a SavedModel directory")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for one cause: this file is not a model
        raise InvalidSpec(f"{path}: cannot be loaded as a Keras model: {error}") from error


class KerasPredictor:
    """A model whose graph is in this process. Safe to call from several threads.

    Args:
        graph: Differentiable function from a `(N, *S)` tensor to `(N, K)` class probabilities, in
            inference mode: `KerasPredictor.of(model)` makes it from a Keras model.
        shape: Shape of one row, without the batch; None where an axis may have any size.
        classes: How many classes it scores, where that is known beforehand.
        name: What to call it in messages.
        keep: Anything that has to live as long as the graph.
    """

    def __init__(
        self,
        graph: Callable[[Any], Any],
        shape: Sequence[int | None],
        classes: int | None = None,
        name: str = "the Keras model",
        keep: Any = None,
    ) -> None:
        tf = import_tensorflow()
        self.graph, self.shape, self.classes, self.name = graph, tuple(shape), classes, name
        self.loops: dict[Any, Callable[..., Any]] = {}
        self._keep = keep
        rows = tf.TensorSpec((None, *shape), tf.float32)
        self._scores = tf.function(graph, autograph=False, input_signature=[rows])

    @classmethod
    def of(cls, model: Any, *, logits: bool = False) -> KerasPredictor:
        """A predictor over a Keras model object.

        Args:
            model: Functional or Sequential; one input, one output `(N, K)`.
            logits: Whether it answers with logits, to be put through a softmax.
        """
        tf = import_tensorflow()

        def graph(x: Any) -> Any:
            scores = tf.cast(model(x, training=False), tf.float32)
            return tf.nn.softmax(scores) if logits else scores

        name = getattr(model, "name", "the Keras model")
        return cls(graph, model.input_shape[1:], int(model.output_shape[-1]), name)

    @classmethod
    def load(cls, path: str | Path, *, logits: bool = False) -> KerasPredictor:
        """A predictor over a `.keras` file (in safe mode) or a SavedModel directory.

        Raises:
            InvalidSpec: There is no such file, it is another format, or it holds code.
        """
        tf = import_tensorflow()
        path = Path(path)
        if path.is_dir() and (path / "saved_model.pb").is_file():
            return cls._of_saved_model(tf, path, logits)
        return cls.of(read_model(path), logits=logits)

    @classmethod
    def _of_saved_model(cls, tf: Any, path: Path, logits: bool) -> KerasPredictor:
        loaded = tf.saved_model.load(path)
        try:
            signature = loaded.signatures["serving_default"]
            (name, spec), *more = signature.structured_input_signature[1].items()
            (output,) = signature.structured_outputs
        except (KeyError, ValueError):
            raise InvalidSpec(
                f"{path}: expected a SavedModel with one input and one output in serving_default"
            ) from None
        if more:
            raise InvalidSpec(f"{path}: expected a model with one input, got {1 + len(more)}")

        def graph(x: Any) -> Any:
            scores = tf.cast(signature(**{name: tf.cast(x, spec.dtype)})[output], tf.float32)
            return tf.nn.softmax(scores) if logits else scores

        classes = signature.structured_outputs[output].shape[-1]
        return cls(graph, spec.shape[1:], classes, path.name, keep=loaded)

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        if not _fits(x.shape[1:], self.shape):
            raise InvalidInput(f"{self.name}: expected rows of shape {self.shape}, got {x.shape[1:]}")
        parts = range(0, len(x), _MICRO_BATCH)
        answers = [self._scores(x[start : start + _MICRO_BATCH]).numpy() for start in parts]
        return check_scores(np.concatenate(answers) if answers else np.empty((0, 2)), len(x), self.name)

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """As many as keep one call well under a second for small images."""
        return max(8, 2**21 // max(1, int(np.prod(shape))))

    def close(self) -> None:
        """Nothing is open."""


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))
