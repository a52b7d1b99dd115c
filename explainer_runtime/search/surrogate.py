"""A surrogate: a small network taught to answer as the model does, so that slopes can be had without it.

A black box is asked once about rows like those it will explain, and about mixtures of them, for a search
leads away from the data. What it answers is softened before it is taught (Hinton, Vinyals, Dean 2015,
arXiv:1503.02531): each probability is raised to `1 / TEMPERATURE`. A sure answer then still says which other
classes are near.

It is strided convolutions where rows are images, then two dense layers, in NumPy: an explainer of an endpoint
needs no framework, and its weights are arrays of the artifact like all others. It is never believed: it only
says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

TEMPERATURE = 3.0
"""What log-scores are divided by to be taught; the surrogate's own answers are multiplied by it again."""
_FLOOR = 0.05
"""Probability, after softening, that classes of no probability at all share: they keep the slopes finite."""
_EPOCHS, _BATCH, _RATE = 8, 64, 2e-3
_KERNEL = 4
_SMALL = 8
"""Height and width to which strided convolutions bring an image down before the dense layers."""
_HIDDEN, _CHANNELS = 64, 16

Weights = list[tuple[np.ndarray, np.ndarray]]
"""A kernel and a bias a layer; kernels of four axes are convolutions."""


class Surrogate:
    """A taught network, to be asked as a model in this process is.

    Args:
        weights: Of each layer, in order.
        low, high: Range of a feature; the network sees it as [-0.5, 0.5].
        channels_first: Whether images have their channels first.
    """

    exclusive, integers = True, False

    def __init__(self, weights: Weights, low: float, high: float, channels_first: bool = False) -> None:
        self.weights, self.low, self.high, self.channels_first = weights, low, high, channels_first

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], low: float, high: float, channels_first: bool) -> Surrogate:
        """The one that an artifact holds."""
        count = sum(name.startswith("surrogate_kernel_") for name in arrays)
        weights = [(arrays[f"surrogate_kernel_{i}"], arrays[f"surrogate_bias_{i}"]) for i in range(count)]
        return cls(weights, low, high, channels_first)

    def arrays(self) -> dict[str, np.ndarray]:
        """What an artifact holds of it."""
        kernels = {f"surrogate_kernel_{i}": kernel for i, (kernel, _) in enumerate(self.weights)}
        return kernels | {f"surrogate_bias_{i}": bias for i, (_, bias) in enumerate(self.weights)}

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """Probabilities `(N, K)` as it thinks the model's are."""
        return np.asarray(np.exp(self.log_scores(x)))

    def log_scores(self, x: np.ndarray) -> np.ndarray:
        """Log-scores `(N, K)`, float32, of rows `(N, *S)` in input units."""
        return _log_softmax(TEMPERATURE * _forward(self.weights, self._seen(x), len(x))[0])

    def slope(self, x: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Log-scores, and the slope `(N, *S)` of their sum weighted by `pull(log-scores)`."""
        logits, kept = _forward(self.weights, self._seen(x), len(x))
        said = _log_softmax(TEMPERATURE * logits)
        weight = pull(said)
        back = TEMPERATURE * (weight - np.exp(said) * weight.sum(axis=1, keepdims=True))
        slope, _ = _backward(self.weights, kept, back.astype(np.float32), len(x), learn=False)
        if self.channels_first and x.ndim == 4:
            slope = np.moveaxis(slope, -1, 1)
        return said, (slope / np.float32(self.high - self.low)).reshape(x.shape)

    def snap(self, x: np.ndarray) -> np.ndarray:
        """The rows themselves."""
        return x

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """As many as take a fraction of a second."""
        return max(8, 2**20 // max(1, int(np.prod(shape))))

    def close(self) -> None:
        """Nothing is open."""

    def _seen(self, x: np.ndarray) -> np.ndarray:
        x = (x - np.float32(self.low)) / np.float32(self.high - self.low) - np.float32(0.5)
        return np.moveaxis(x, 1, -1) if self.channels_first and x.ndim == 4 else x


def soften(scores: np.ndarray) -> np.ndarray:
    """Probabilities `(M, K)` as a surrogate is taught them: flatter, and none of them zero."""
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


def teach(
    x: np.ndarray,
    scores: np.ndarray,
    low: float,
    high: float,
    *,
    channels_first: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Surrogate:
    """A surrogate that answers rows like `x` as a model did that gave them these scores.

    Args:
        x: Rows `(M, *S)`, float32.
        scores: The model's probabilities of them `(M, K)`.
        low, high: Range of a feature.
        channels_first: Whether images have their channels first.
        seed: Of the first weights and of the order in which rows are taught.
        progress: Told the share that is done.

    Source: Adam, Kingma and Ba (arXiv:1412.6980), on the divergence from the softened scores, its rate
        falling as a cosine.
    """
    rng = np.random.default_rng([seed, 1])
    surrogate = Surrogate([], low, high, channels_first)
    seen, taught = surrogate._seen(x), soften(scores)
    weights = _start(seen.shape[1:], scores.shape[1], rng)
    moments = [(np.zeros_like(w), np.zeros_like(w)) for pair in weights for w in pair]
    steps, step = _EPOCHS * math.ceil(len(x) / _BATCH), 0
    for _ in range(_EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x), _BATCH):
            some = order[start : start + _BATCH]
            logits, kept = _forward(weights, seen[some])
            off = (np.exp(_log_softmax(logits)) - taught[some]) / np.float32(len(some))
            _, slopes = _backward(weights, kept, off)
            rate, step = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps)), step + 1
            rate *= math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            flat = [w for pair in weights for w in pair]
            for w, g, (mean, square) in zip(flat, slopes, moments, strict=True):
                mean += np.float32(0.1) * (g - mean)
                square += np.float32(0.001) * (g * g - square)
                w -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-7))
        if progress is not None:
            progress(step / steps)
    surrogate.weights = weights
    return surrogate


def _start(shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> Weights:
    """Weights of a network that knows nothing (Glorot, Bengio 2010)."""
    weights: Weights = []

    def layer(*size: int) -> None:
        fans = size[-1] * math.prod(size[:-2]) + math.prod(size[:-1])
        reach = math.sqrt(6 / fans)
        weights.append((rng.uniform(-reach, reach, size).astype(np.float32), np.zeros(size[-1], np.float32)))

    if len(shape) == 3 and min(shape[:2]) >= _SMALL:
        for depth in range(max(2, math.ceil(math.log2(max(shape[:2]) / _SMALL)))):
            layer(_KERNEL, _KERNEL, shape[2], min(_CHANNELS * 2**depth, 64))
            shape = (-(-shape[0] // 2), -(-shape[1] // 2), weights[-1][1].size)
    layer(math.prod(shape), _HIDDEN)
    layer(_HIDDEN, classes)
    return weights


def _forward(weights: Weights, x: np.ndarray, parts: int = 1) -> tuple[np.ndarray, list[Any]]:
    """Logits `(N, K)`, and what going back needs of each layer: its input's shape, its columns and its
    values. With as many `parts` as rows each row is computed on its own; see `_product`."""
    kept: list[Any] = []
    for i, (kernel, bias) in enumerate(weights):
        if kernel.ndim == 4:
            columns, shape = _columns(x), x.shape
            y = _product(columns, kernel.reshape(-1, kernel.shape[-1]), parts) + bias
            y = y.reshape(len(x), -(-shape[1] // 2), -(-shape[2] // 2), -1)
        else:
            columns, shape = x.reshape(len(x), -1), x.shape
            y = _product(columns, kernel, parts) + bias
        x = np.maximum(y, 0) if i < len(weights) - 1 else y
        kept.append((shape, columns, x))
    return x, kept


def _backward(
    weights: Weights, kept: list[Any], slope: np.ndarray, parts: int = 1, learn: bool = True
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The slope with respect to the input `(N, *S)`, and those of every kernel and bias."""
    slopes: list[np.ndarray] = []
    for i in reversed(range(len(weights))):
        (kernel, _), (shape, columns, y) = weights[i], kept[i]
        if i < len(weights) - 1:
            slope = np.where(y.reshape(slope.shape) > 0, slope, 0)
        flat, matrix = slope.reshape(-1, kernel.shape[-1]), kernel.reshape(-1, kernel.shape[-1])
        if learn:
            slopes[:0] = [(columns.T @ flat).reshape(kernel.shape), flat.sum(axis=0)]
            if i == 0:
                break
        back = _product(flat, matrix.T, parts)
        slope = _uncolumned(back, shape) if kernel.ndim == 4 else back.reshape(shape)
    return slope, slopes


def _product(rows: np.ndarray, matrix: np.ndarray, parts: int) -> np.ndarray:
    """`rows @ matrix` in so many parts. The last bits of one product depend on how many rows it has, and
    hundreds of steps make much of them."""
    return (rows.reshape(parts, -1, rows.shape[1]) @ matrix).reshape(len(rows), matrix.shape[1])


def _columns(x: np.ndarray) -> np.ndarray:
    """What each position of a strided convolution sees of images `(N, H, W, C)`: `(N * H' * W', 4 * 4 *
    C)`."""
    padded = np.pad(x, ((0, 0), _padding(x.shape[1]), _padding(x.shape[2]), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (_KERNEL, _KERNEL), (1, 2))[:, ::2, ::2]
    return np.ascontiguousarray(views.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, _KERNEL**2 * x.shape[3])


def _uncolumned(columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of `_columns`: what the columns add up to at each pixel of images of this shape."""
    count, height, width, channels = shape
    (top, bottom), (left, right) = _padding(height), _padding(width)
    rows, wide = -(-height // 2), -(-width // 2)
    parts = columns.reshape(count, rows, wide, _KERNEL, _KERNEL, channels)
    padded = np.zeros((count, height + top + bottom, width + left + right, channels), columns.dtype)
    for i in range(_KERNEL):
        for j in range(_KERNEL):
            padded[:, i : i + 2 * rows : 2, j : j + 2 * wide : 2] += parts[:, :, :, i, j]
    return padded[:, top : top + height, left : left + width]


def _padding(size: int) -> tuple[int, int]:
    """Zeros on either side that make a stride of two give half the size, rounded up."""
    missing = max(0, 2 * (-(-size // 2) - 1) + _KERNEL - size)
    return missing // 2, missing - missing // 2


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)
