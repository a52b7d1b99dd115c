"""What keeps an explanation plausible: an autoencoder that knows the data, an encoder that places it.

    gamma * ||x - AE(x)||^2 + theta * ||ENC(x) - prototype||^2

Both networks belong to the explainer, not to the model it explains: they are asked here, in this process, and
their slopes are exact even when that model is far away. Lengths are in units of the range of a feature, as
everywhere in a search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

_ITERATIONS = 15
"""Of a power iteration; a largest singular value is good to a few per cent by then."""
_NUDGE = 0.01
"""Length of a finite difference, in ranges of a feature."""


class Network(Protocol):
    """A differentiable function of rows `(N, *S)`, float32, row by row."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Its values `(N, *T)`, float32."""
        ...

    def slope(self, x: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Its values, and the slope `(N, *S)` of their sum weighted by `pull(values)` `(N, *T)`."""
        ...


class Networks(NamedTuple):
    """An autoencoder and an encoder, either of which may be missing.

    Attributes:
        autoencoder: `(N, *S)` -> `(N, *S)`, or None.
        encoder: `(N, *S)` -> `(N, ...)`, or None: then codes are the rows themselves, in ranges of a feature.
        unit: Range of a feature, in input units.
    """

    autoencoder: Network | None
    encoder: Network | None
    unit: float = 1.0

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes of rows `(N, *S)` -> `(N, E)`, float32."""
        code = x / np.float32(self.unit) if self.encoder is None else self.encoder(x)
        return np.asarray(code, np.float32).reshape(len(x), -1)

    def errors(self, x: np.ndarray) -> np.ndarray:
        """`||x - AE(x)||^2` of each row `(N,)`, in squared input units; there is an autoencoder."""
        assert self.autoencoder is not None
        return _squares(self.autoencoder(x) - x)


class Penalty(NamedTuple):
    """The smooth loss of a point alone, lane by lane.

    Attributes:
        networks: Which are asked.
        gamma: Weight of the autoencoder's error `(L,)`.
        theta: Weight of the squared distance to the prototype `(L,)`.
        target: Codes to go to `(L, E)`, or None.
        origin: Rows to stay near to `(L, *S)`, or None.
        near: Weight of the squared distance from them.
    """

    networks: Networks
    gamma: np.ndarray
    theta: np.ndarray
    target: np.ndarray | None = None
    origin: np.ndarray | None = None
    near: float = 1.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to ask of any network."""
        guided = self.target is not None and self.theta.any()
        return self.origin is None and not (self.gamma.any() or guided)

    def values(self, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The loss of rows of these lanes `(M,)`."""
        value = np.zeros(len(x), np.float32)
        if self.gamma.any():
            value += self.gamma[lanes] * self.networks.errors(x) / self.networks.unit**2
        if self.target is not None and self.theta.any():
            value += self.theta[lanes] * _squares(self.networks.codes(x) - self.target[lanes])
        if self.origin is not None:
            value += self.near * _squares(x - self.origin[lanes]) / self.networks.unit**2
        return value

    def __call__(self, x: np.ndarray, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The loss of rows of these lanes `(M,)`, and its slope `(M, *S)` with respect to them, per input
        unit."""
        nets, value, slope = self.networks, np.zeros(len(x), np.float32), np.zeros_like(x)
        if self.gamma.any():
            assert nets.autoencoder is not None
            rebuilt, back = nets.autoencoder.slope(x, lambda y: 2 * (y - x))
            weight = self.gamma[lanes] / nets.unit**2
            value += weight * _squares(rebuilt - x)
            slope += _per(weight, x) * (back - 2 * (rebuilt - x))
        if self.target is not None and self.theta.any():
            theta, target = self.theta[lanes], self.target[lanes]
            if nets.encoder is None:
                away = nets.codes(x) - target
                back = (2 / nets.unit) * away.reshape(x.shape)
            else:
                code, back = nets.encoder.slope(x, lambda y: 2 * (y - target.reshape(y.shape)))
                away = code.reshape(len(x), -1) - target
            value += theta * _squares(away)
            slope += _per(theta, x) * back
        if self.origin is not None:
            away, weight = x - self.origin[lanes], np.float32(self.near / nets.unit**2)
            value += weight * _squares(away)
            slope += 2 * weight * away
        return value, slope

    def bend(self, curvature: np.ndarray) -> np.ndarray:
        """Curvature of the loss at most `(L,)`, with respect to changes, from what `curvature` measured."""
        rebuild, encode = curvature
        return np.asarray(2 * self.gamma * rebuild + 2 * self.theta * encode, np.float32)


def curvature(networks: Networks, x: np.ndarray) -> np.ndarray:
    """Largest squared singular values at rows `x`: of the Jacobian of AE(x) - x, and of the encoder's.

    Twice these, times gamma and theta, bound the curvature of the penalty nearby, by Gauss and Newton.

    Returns:
        `(2,)` float32, per range of a feature: the largest over the rows; 0 for no autoencoder, 1 for no
        encoder.
    """
    rebuild, encode = 0.0, 1.0
    if networks.autoencoder is not None:
        rebuild = steepest(networks.autoencoder, x, networks.unit, identity=1.0)
    if networks.encoder is not None:
        encode = steepest(networks.encoder, x, networks.unit) * networks.unit**2
    return np.asarray([rebuild, encode], np.float32)


def steepest(network: Network, x: np.ndarray, unit: float, identity: float = 0.0) -> float:
    """The largest squared singular value of the Jacobian of `network(x) - identity * x` at any row of `x`.

    Power iteration on J^T J, all rows at once, from one fixed random direction a row: ahead by a central
    difference, back by a slope.
    """
    direction = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    length = np.zeros(len(x))
    for _ in range(_ITERATIONS):
        direction = direction / _per(np.maximum(np.sqrt(_squares(direction)), 1e-30), x)
        nudge = np.float32(_NUDGE * unit) * direction
        ahead = (network(x + nudge) - network(x - nudge)) / np.float32(2 * _NUDGE * unit)
        if identity:
            ahead = ahead - direction
        _, back = network.slope(x, lambda y, ahead=ahead: ahead)  # type: ignore[misc]
        direction = back - ahead if identity else back
        length = np.sqrt(_squares(direction))
    return float(length.max(initial=0.0))


def _squares(change: np.ndarray) -> np.ndarray:
    flat = change.reshape(len(change), -1)
    return np.asarray(np.einsum("ij,ij->i", flat, flat))


def _per(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (like.ndim - 1))
