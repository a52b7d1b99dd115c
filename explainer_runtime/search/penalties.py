"""What keeps an explanation plausible: an autoencoder that knows the data, an encoder that places it.

    gamma * ||x - AE(x)||^2 + theta * ||ENC(x) - prototype||^2

Both networks belong to the explainer, not to the model it explains, so their gradients are exact even when
that model is far away. Most autoencoders are their encoder with a decoder behind it; where that is so, the
encoder runs once for both terms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from explainer_runtime.search.asks import Penalty
from explainer_runtime.search.proximal import rows_sum

_BATCH = 32
_ITERATIONS = 15
"""Of a power iteration; a largest singular value is good to a few per cent by then."""
_NUDGE = 0.01
"""Length of a finite difference, in input units."""


class Networks:
    """An autoencoder and an encoder, either of which may be missing. Make them with `networks`.

    Args:
        autoencoder: Keras model `(N, *S)` -> `(N, *S)`, or None.
        encoder: Keras model `(N, *S)` -> `(N, ...)`, or None: then codes are the rows themselves.
    """

    def __init__(self, autoencoder: Any | None, encoder: Any | None) -> None:
        self.autoencoder, self.encoder = autoencoder, encoder
        self._decode = _decoder(autoencoder, encoder)
        self._encode = tf.function(self.codes, reduce_retracing=True)
        self._rebuild = tf.function(lambda x: self._rebuilt(x)[0], reduce_retracing=True)
        self._penalties: dict[tuple[bool, bool], Penalty] = {}

    def penalty(self, rebuild: bool, attract: bool) -> Penalty | None:
        """The loss of a state with `x`, `gamma`, `theta` `(L,)` and `target` `(L, E)`; always the same one.

        Args:
            rebuild: Whether the autoencoder's term is in it.
            attract: Whether the prototype's is.
        """
        if not (rebuild or attract):
            return None
        key = (rebuild, attract)
        return self._penalties.get(key) or self._penalties.setdefault(key, Penalty(self._loss(*key)))

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Codes of rows `(N, *S)` -> `(N, E)`, float32."""
        return _batched(self._encode, x)

    def errors(self, x: np.ndarray) -> np.ndarray:
        """`||x - AE(x)||^2` of each row `(N,)`; 0 without an autoencoder."""
        if self.autoencoder is None:
            return np.zeros(len(x), np.float32)
        return _batched(self._rebuild, x)

    def curvature(self, x: np.ndarray) -> np.ndarray:
        """Largest squared singular values at rows `x`: of the Jacobian of AE(x) - x, and of the encoder's.

        Twice these, times gamma and theta, bound the curvature of the penalty nearby, by Gauss and Newton.

        Returns:
            `(2,)` float32: the largest over the rows; 0 for no autoencoder, 1 for no encoder.
        """
        rows, autoencoder = tf.constant(x, tf.float32), self.autoencoder
        rebuild, encode = 0.0, 1.0
        if autoencoder is not None:
            rebuild = _steepest(lambda z: autoencoder(z, training=False) - z, rows)
        if self.encoder is not None:
            encode = _steepest(self.codes, rows)
        return np.asarray([rebuild, encode], np.float32)

    def codes(self, x: Any) -> Any:
        """Codes of a tensor `(N, *S)` -> `(N, E)`, differentiable."""
        return _flat(x if self.encoder is None else self.encoder(x, training=False))

    def _rebuilt(self, x: Any) -> tuple[Any, Any]:
        """The autoencoder's error `(L,)`, and codes `(L, E)` where they come with it, else None."""
        if self.autoencoder is None or self.encoder is None or self._decode is None:
            assert self.autoencoder is not None
            return rows_sum((x - self.autoencoder(x, training=False)) ** 2), None
        code = self.encoder(x, training=False)
        return rows_sum((x - self._decode(code)) ** 2), _flat(code)

    def _loss(self, rebuild: bool, attract: bool) -> Callable[[Any], Any]:
        def value(state: Any) -> Any:
            loss, code = 0.0, None
            if rebuild:
                error, code = self._rebuilt(state.x)
                loss = state.gamma * error
            if attract:
                code = self.codes(state.x) if code is None else code
                loss += state.theta * rows_sum((code - state.target) ** 2)
            return loss

        return value


@lru_cache(maxsize=64)
def networks(autoencoder: Any | None, encoder: Any | None) -> Networks:
    """The `Networks` of these two models: the same object for the same models, so nothing compiles twice."""
    return Networks(autoencoder, encoder)


def _decoder(autoencoder: Any | None, encoder: Any | None) -> Callable[[Any], Any] | None:
    """What the autoencoder does behind the encoder, if it is this encoder with layers in a row behind it."""
    if autoencoder is None or encoder is None:
        return None
    behind = [layer for layer in autoencoder.layers if type(layer).__name__ != "InputLayer"][1:]

    def decode(code: Any) -> Any:
        for layer in behind:
            code = layer(code, training=False)
        return code

    probe = np.random.default_rng(0).standard_normal((2, *autoencoder.input_shape[1:])).astype(np.float32)
    try:
        same = np.array_equal(decode(encoder(probe, training=False)), autoencoder(probe, training=False))
    except (TypeError, ValueError):  # the layers do not fit behind this encoder
        return None
    return decode if same else None


def _steepest(function: Callable[[Any], Any], x: Any) -> float:
    """The largest squared singular value of the Jacobian of `function` at any row of `x`.

    Power iteration on J^T J, all rows at once, from one fixed random direction a row.
    """

    @tf.function(autograph=False)
    def turned(direction: Any) -> Any:
        """J^T J times the direction: ahead by a central difference, back by a gradient."""
        length = tf.reshape(tf.sqrt(rows_sum(direction**2)), [-1] + [1] * (len(x.shape) - 1))
        nudge = _NUDGE * tf.math.divide_no_nan(direction, length)
        ahead = (function(x + nudge) - function(x - nudge)) / (2 * _NUDGE)
        with tf.GradientTape() as tape:
            tape.watch(x)
            along = tf.reduce_sum(function(x) * ahead)
        return tape.gradient(along, x)

    direction = tf.random.stateless_normal(x.shape, [1, 2])
    for _ in range(_ITERATIONS):
        direction = turned(direction)
    return float(tf.reduce_max(tf.sqrt(rows_sum(direction**2))))


def _flat(code: Any) -> Any:
    # The shape at run time: without an encoder, explainers of different input shapes share one tracing.
    return tf.reshape(code, [tf.shape(code)[0], tf.reduce_prod(tf.shape(code)[1:])])


def _batched(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    parts = [function(tf.constant(x[i : i + _BATCH])).numpy() for i in range(0, len(x), _BATCH)]
    return np.concatenate(parts)
