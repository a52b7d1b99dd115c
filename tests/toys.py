"""Models small enough to know the answers of: linear softmax classifiers, row by row."""

from __future__ import annotations

import threading

import numpy as np

from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.search.asks import Search, Stop
from explainer_runtime.spec import ModelContract

SHAPE = (4, 4, 1)
CLASSES = 3


def weights(seed: int = 0, classes: int = CLASSES, features: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, features)).astype(np.float32) * 3


def rowwise(w: np.ndarray):
    """Class probabilities of a linear softmax; each row is computed on its own, to the last bit."""

    def predict(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1).astype(np.float64)
        logits = np.stack([(row[None] * w).sum(axis=1) for row in flat])
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)

    return predict


def graph(w: np.ndarray, shape: tuple[int, ...] = SHAPE):
    """The same model as a predictor with a TensorFlow graph."""
    import tensorflow as tf

    from explainer_runtime.predictors.keras import KerasPredictor

    def forward(x):
        flat = tf.reshape(x, [-1, 1, w.shape[1]])
        return tf.nn.softmax(tf.reduce_sum(flat * w[None], axis=2))

    return KerasPredictor(forward, shape, len(w), "a linear softmax")


def convolution(w: np.ndarray, shape: tuple[int, ...] = SHAPE):
    """The same model as layers of Keras, its first a convolution that changes nothing."""
    import keras

    from explainer_runtime.predictors.keras import KerasPredictor

    rows = keras.Input(shape)
    maps = keras.layers.Conv2D(shape[-1], 1, use_bias=False, name="same")(rows)
    scores = keras.layers.Dense(len(w), activation="softmax")(keras.layers.Flatten()(maps))
    model = keras.Model(rows, scores)
    model.layers[1].set_weights([np.eye(shape[-1], dtype=np.float32)[None, None]])
    model.layers[-1].set_weights([w.T, np.zeros(len(w), np.float32)])
    return KerasPredictor.of(model)


class Counting(CallablePredictor):
    """A predictor that counts, and whose calls can be watched."""

    def __init__(self, function, most: int = 64, contract: ModelContract | None = None) -> None:
        super().__init__(function, contract)
        self.calls, self.rows, self.most, self.lock = 0, 0, most, threading.Lock()

    def __call__(self, x, *, timeout=None):
        with self.lock:
            self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return super().__call__(x)

    def rows_per_call(self, shape):
        return self.most


class Linear(Counting):
    """The same model as a white box in NumPy: its log-scores and slopes are closed forms.

    Each row is computed on its own, to the last bit, so laws about batches can be exact. It counts what it is
    asked for, whichever way.

    Args:
        w: Weights `(K, F)`.
        bias: Of the logits `(K,)`.
        exclusive: Whether the scores are a softmax; else each is a sigmoid of its own.
        most: Rows a call.
    """

    exclusive = True

    def __init__(self, w: np.ndarray, bias=0.0, *, exclusive: bool = True, most: int = 4096) -> None:
        super().__init__(lambda x: np.exp(self._logs(x)), most)
        self.w, self.bias, self.exclusive = w.astype(np.float64), bias, exclusive
        self.contract = ModelContract(output="probabilities" if exclusive else "scores")

    def log_scores(self, x):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return self._logs(x)

    def slope(self, x, pull):
        said = self.log_scores(x)
        weight, scores = pull(said).astype(np.float64), np.exp(said.astype(np.float64))
        lost = weight.sum(axis=1, keepdims=True) if self.exclusive else weight
        back = ((weight - scores * lost)[:, :, None] * self.w).sum(axis=1)
        return said, back.astype(np.float32).reshape(x.shape)

    def _logs(self, x):
        logits = (x.reshape(len(x), 1, -1).astype(np.float64) * self.w).sum(axis=2) + self.bias
        if not self.exclusive:
            return -np.logaddexp(0, -logits).astype(np.float32)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def drive(search: Search, answer):
    """The least driver there is: answers every ask with a function; a `Stop` in its place is thrown."""
    try:
        ask = next(search)
        while True:
            told = answer(ask)
            ask = search.throw(told) if isinstance(told, Stop) else search.send(told)
    except StopIteration as end:
        return end.value
