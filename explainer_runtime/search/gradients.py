"""Gradients from answers alone: ask around a point, and infer the slope.

An estimator names the offsets to ask at and turns the values found there into a gradient. The offsets
depend on the seed and the step only, never on the row, so that explaining a batch is explaining each row.

Probes may leave the feature range by `eps`; models are defined there, and a one-sided difference at the
border would bias exactly the features that matter.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Estimator(Protocol):
    """Where to ask around a point, and what the answers say about the slope there."""

    memory: float
    """How much of the estimate before, in [0, 1), is added to each: 0 where one step's is good enough."""

    def offsets(self, shape: tuple[int, ...], step: int) -> np.ndarray:
        """Offsets `(P, *S)` from the point, in input units, for this step."""
        ...

    def gradient(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Gradients `(L, *S)` from the values `(L, P)` of each lane at its point plus each offset."""
        ...


class CentralDifferences:
    """Two rows a feature: exact to second order in `eps`, and as dear as it sounds.

    Args:
        eps: Half the distance between the two rows, in input units.
    """

    memory = 0.0

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def offsets(self, shape: tuple[int, ...], step: int) -> np.ndarray:
        """One feature up, then the same down, for every feature."""
        features = int(np.prod(shape))
        up = (self.eps * np.eye(features, dtype=np.float32)).reshape(features, *shape)
        return np.concatenate([up, -up])

    def gradient(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`(f(x + eps e_i) - f(x - eps e_i)) / 2 eps` for each feature `i`."""
        up, down = np.split(values, 2, axis=1)
        return ((up - down) / (2 * self.eps)).reshape(len(values), *offsets.shape[1:])


class RandomDirections:
    """Antithetic pairs of random smooth directions: `2 * pairs` rows whatever the image's size.

    Directions are Gaussian on a coarse grid and interpolated to the image, because the slope of a
    classifier that is worth following is smooth, and a subspace of 100 dimensions takes far fewer pairs
    than one of 784. The estimate is the sum of the directional slopes times their directions, divided by
    the expected squared length of a direction in the subspace; its expectation is the gradient projected
    on the subspace (Nesterov, Spokoiny 2017, with antithetic pairs as in arXiv:1804.08598).

    Args:
        eps: Root mean square of one offset, in input units.
        pairs: Directions asked along at each step.
        grid: Height and width of the coarse grid; inputs that are not images get no grid.
        seed: Seed of the directions.
    """

    memory = 0.6
    """Each step's directions are new, and slopes change slowly: what the last steps saw is worth keeping."""

    def __init__(self, eps: float, pairs: int = 32, grid: int = 10, seed: int = 0) -> None:
        self.eps, self.pairs, self.grid, self.seed = eps, pairs, grid, seed

    def offsets(self, shape: tuple[int, ...], step: int) -> np.ndarray:
        """Each direction up, then the same down."""
        rng = np.random.default_rng([self.seed, step])
        if len(shape) == 3:
            height, width, channels = shape
            coarse = rng.standard_normal(
                (self.pairs, min(self.grid, height), min(self.grid, width), channels)
            )
            up = np.einsum(
                "hi,pijc,wj->phwc",
                _interpolation(height, coarse.shape[1]),
                coarse,
                _interpolation(width, coarse.shape[2]),
            )
        else:
            up = rng.standard_normal((self.pairs, *shape))
        axes = tuple(range(1, up.ndim))
        up *= self.eps / np.sqrt((up**2).mean(axis=axes, keepdims=True))
        up = up.astype(np.float32)
        return np.concatenate([up, -up])

    def gradient(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The mean over pairs of directional slope times direction, in input units."""
        up, down = np.split(values, 2, axis=1)
        slopes = (up - down) / (2 * self.eps)
        directions = np.split(offsets, 2)[0].astype(np.float64) / self.eps
        # A sum over pairs row by row, not a matrix product, whose last bits depend on the batch.
        return np.stack(
            [(row[(...,) + (None,) * (directions.ndim - 1)] * directions).mean(axis=0) for row in slopes]
        )


def _interpolation(size: int, knots: int) -> np.ndarray:
    """The `(size, knots)` matrix of linear interpolation from `knots` cell centres to `size` pixels."""
    position = np.clip((np.arange(size) + 0.5) * knots / size - 0.5, 0, knots - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None]))
