"""A student: a small network taught to answer as the model does, so that slopes can be had without it.

A black box is asked once about rows like those it will explain, and about mixtures of them, for a search
leads away from the data. What it answers is softened before it is taught (Hinton, Vinyals, Dean 2015,
arXiv:1503.02531): each probability is raised to `1 / TEMPERATURE`. A sure answer then still says which other
classes are near, and the student does not saturate where a search has to find a slope.

A student is never believed. It only says where to look; whatever it leads to is put to the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

TEMPERATURE = 3.0
"""What log-odds are divided by; the student's are those of the model, this much flatter."""
_FLOOR = 0.05
"""Probability, after softening, that classes of no probability at all share: they keep the slopes finite."""
_EPOCHS = 8
_BATCH = 64
_RATE = 2e-3
_SMALL = 8
"""Height and width to which strided convolutions bring an image down before the dense layers."""


def soften(scores: np.ndarray) -> np.ndarray:
    """Probabilities `(M, K)` as a student is taught them: flatter, and none of them zero."""
    floor = (_FLOOR / scores.shape[1]) ** TEMPERATURE
    flat = np.clip(scores.astype(np.float64), floor, 1.0) ** (1 / TEMPERATURE)
    return np.asarray(flat / flat.sum(axis=1, keepdims=True), np.float32)


def mixtures(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows between rows `(count, *S)`: half of them on the line between two, half with features of either."""
    one, other = (x[rng.integers(len(x), size=count)] for _ in range(2))
    each = (count, *[1] * (x.ndim - 1))
    share = rng.random(each, np.float32)
    taken = rng.random(one.shape, np.float32) < share
    on_the_line = (np.arange(count) % 2 == 0).reshape(each)
    mixed = np.where(on_the_line, one + share * (other - one), np.where(taken, other, one))
    return np.asarray(mixed, np.float32)


def teach(x: np.ndarray, scores: np.ndarray, seed: int = 0) -> Any:
    """A Keras model that answers rows like `x` as a model did that gave them these scores.

    Args:
        x: Rows `(M, *S)`, float32.
        scores: The model's probabilities of them `(M, K)`.
        seed: Of the first weights and of the order in which rows are taught.

    Returns:
        A Sequential model; its probabilities are softened, as by `soften`.
    """
    import keras

    student = network(x.shape[1:], scores.shape[1], seed)
    steps = _EPOCHS * math.ceil(len(x) / _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    student.compile(keras.optimizers.Adam(rate), loss="kl_divergence")
    rng, taught = np.random.default_rng([seed, 1]), soften(scores)
    for _ in range(_EPOCHS):  # an order of our own: Keras would take it from a generator all threads share
        order = rng.permutation(len(x))
        student.fit(x[order], taught[order], batch_size=_BATCH, shuffle=False, verbose=0)
    return student


def network(shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """A student that knows nothing: strided convolutions where rows are images, then two dense layers."""
    from keras import Input, Sequential, initializers, layers

    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def dense(units: int, activation: str) -> Any:
        start = initializers.GlorotUniform(next(seeds))
        return layers.Dense(units, activation=activation, kernel_initializer=start)

    def halve(channels: int) -> Any:
        start = initializers.GlorotUniform(next(seeds))
        return layers.Conv2D(
            channels, 4, strides=2, padding="same", activation="relu", kernel_initializer=start
        )

    halvings = 0
    if len(shape) == 3 and min(shape[:2]) >= _SMALL:
        halvings = max(2, math.ceil(math.log2(max(shape[:2]) / _SMALL)))
    convolutions = [halve(min(16 * 2**depth, 64)) for depth in range(halvings)]
    return Sequential(
        [Input(shape), *convolutions, layers.Flatten(), dense(64, "relu"), dense(classes, "softmax")]
    )
