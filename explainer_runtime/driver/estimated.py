"""Slopes from answers alone: ask on either side of a point, and infer how the model would change there.

Pairs of rows lie inside the bounds that rows have, always: a model is defined there and may refuse the rest.
Where a point is too near a bound for a pair around it, the pair goes around a point that much farther inside.
What is drawn depends on the seed and on how many steps a row has behind it, never on the rows beside it, so
explaining a batch is explaining each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from explainer_runtime.driver.meter import Meter
from explainer_runtime.search.asks import Slopes
from explainer_runtime.spec import Inputs

_BYTES = 64 * 2**20
"""Of rows that are made up at a time."""


class Estimator(Protocol):
    """Where to ask around a point, and what the answers say about the slope there."""

    def rows(self, shape: tuple[int, ...]) -> int:
        """How many rows a slope takes, besides the point."""
        ...

    def pairs(self, x: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows `(P, *S)` above a point `(*S)`, and as many below, in parts small enough to be held."""
        ...

    def slope(self, rises: np.ndarray, x: np.ndarray, step: int) -> np.ndarray:
        """The slope `(*S)` at a point, from how much more there was above than below `(P,)`, all parts
        joined."""
        ...


def of(spec: Any, road: str | None, inputs: Inputs) -> Estimator | None:
    """What infers slopes from answers, by the settings of a method; None where they are exact or none are
    needed."""
    if road not in ("full", "random"):
        return None
    eps = spec.eps if spec.schedule == "reference" else spec.eps * (inputs.high - inputs.low)
    low, high = np.float32(inputs.low), np.float32(inputs.high)
    if road == "full":
        return CentralDifferences(eps, low, high)
    first = inputs.layout == "channels_first"
    return RandomDirections(eps, low, high, seed=spec.seed, channels_first=first)


def estimate(
    ask: Slopes, estimator: Estimator, log_scores: Callable[[np.ndarray], np.ndarray], meter: Meter
) -> tuple[np.ndarray, np.ndarray]:
    """Log-scores at the points of `ask`, and slopes there, as an estimator has them."""
    meter.allow(len(ask.x) * (1 + estimator.rows(ask.x.shape[1:])))  # before any of them is made
    steps = np.broadcast_to(ask.steps, len(ask.x)).astype(int).tolist()
    most = max(1, _BYTES // ask.x[0].nbytes)
    waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
    told: list[np.ndarray] = [np.empty((0,))] * len(ask.x)
    weights: list[np.ndarray] = [np.empty((0,))] * len(ask.x)
    rises: list[list[np.ndarray]] = [[] for _ in ask.x]

    def flush() -> None:
        """Ask about all that waits, in one go."""
        fresh = [lane for lane in dict.fromkeys(lane for lane, _, _ in waiting) if not len(told[lane])]
        sides = [side for _, up, down in waiting for side in (up, down)]
        said = log_scores(np.concatenate([ask.x[fresh], *sides]))
        for lane, own in zip(fresh, said, strict=False):
            told[lane], weights[lane] = own, ask.pull(own[None], np.array([lane]))[0]
        start = len(fresh)
        for lane, up, _ in waiting:
            above, below = said[start : start + len(up)], said[start + len(up) : start + 2 * len(up)]
            # A sum row by row, not a matrix product, whose last bits depend on the batch.
            rises[lane].append(((above - below).astype(np.float64) * weights[lane]).sum(axis=1))
            start += 2 * len(up)
        waiting.clear()

    for lane, x in enumerate(ask.x):
        for up, down in estimator.pairs(x, steps[lane]):
            if waiting and sum(2 * len(part) for _, part, _ in waiting) + 2 * len(up) > most:
                flush()
            waiting.append((lane, up, down))
    flush()
    slopes = [
        estimator.slope(np.concatenate(rise), x, step)
        for rise, x, step in zip(rises, ask.x, steps, strict=True)
    ]
    return np.stack(told), np.stack(slopes).astype(np.float32)


class CentralDifferences:
    """Two rows a feature: exact to second order in `eps`, and as dear as it sounds.

    Args:
        eps: Half the distance between the two rows, in input units.
        low, high: Bounds of a row, numbers or `(*S)`.
    """

    def __init__(self, eps: float, low: Any, high: Any) -> None:
        self.eps, self.low, self.high = eps, low, high

    def rows(self, shape: tuple[int, ...]) -> int:
        """How many rows a slope takes, besides the point."""
        return 2 * int(np.prod(shape))

    def pairs(self, x: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each feature up, and the same down, as far as the bounds allow."""
        size = max(1, _BYTES // (2 * x.nbytes))
        up, down = self._sides(x)
        for start in range(0, x.size, size):
            which = np.arange(start, min(x.size, start + size))
            yield tuple(  # type: ignore[misc]
                _replaced(x, which, side.reshape(-1)[which]) for side in (up, down)
            )

    def slope(self, rises: np.ndarray, x: np.ndarray, step: int) -> np.ndarray:
        """`(f(x + a e_i) - f(x - b e_i)) / (a + b)` for each feature `i`, a and b at most `eps`; 0 where it
        cannot move."""
        up, down = self._sides(x)
        gap = (up.astype(np.float64) - down).reshape(-1)
        return np.divide(rises, gap, out=np.zeros_like(gap), where=gap > 0).reshape(x.shape)

    def _sides(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        eps = np.float32(self.eps)
        return np.clip(x + eps, self.low, self.high), np.clip(x - eps, self.low, self.high)


class RandomDirections:
    """Antithetic pairs along random smooth directions: `2 * pairs` rows whatever the image's size.

    Directions lie on a coarse grid and are interpolated to the image, because the slope of a classifier that
    is worth following is smooth, and a subspace of 100 dimensions takes far fewer pairs than one of 784. At
    each step they are the first `pairs` of a random orthonormal basis of that subspace; the estimate is the
    sum of the directional slopes times their directions, times the subspace's dimensions a pair. Its mean
    over steps is the slope projected on the subspace (for a linear function exactly; Nesterov, Spokoiny 2017,
    with antithetic pairs as in arXiv:1804.08598).

    Args:
        eps: Root mean square of one offset, in input units.
        low, high: Bounds of a row, numbers or `(*S)`.
        pairs: Directions asked along at each step.
        grid: Height and width of the coarse grid; inputs that are not images get no grid.
        seed: Seed of the directions.
        channels_first: Whether an image's channels come before its height and width.
    """

    def __init__(
        self,
        eps: float,
        low: Any,
        high: Any,
        *,
        pairs: int = 32,
        grid: int = 10,
        seed: int = 0,
        channels_first: bool = False,
    ) -> None:
        self.eps, self.low, self.high, self.count, self.grid = eps, low, high, pairs, grid
        self.seed, self.channels_first = seed, channels_first

    def rows(self, shape: tuple[int, ...]) -> int:
        """How many rows a slope takes, besides the point."""
        return 2 * self.count

    def directions(self, shape: tuple[int, ...], step: int) -> tuple[np.ndarray, float]:
        """Orthonormal directions `(P, *S)` of this step, and dimensions of the subspace for each of them."""
        rng = np.random.default_rng([self.seed, step])
        if len(shape) != 3:
            size = int(np.prod(shape))
            basis, _ = np.linalg.qr(rng.standard_normal((size, min(self.count, size))))
            return basis.T.reshape(-1, *shape), size / basis.shape[1]
        channels, height, width = shape if self.channels_first else (shape[2], *shape[:2])
        rows, columns = (np.linalg.qr(_interpolation(n, min(self.grid, n)))[0] for n in (height, width))
        size = rows.shape[1] * columns.shape[1] * channels
        basis, _ = np.linalg.qr(rng.standard_normal((size, min(self.count, size))))
        coarse = basis.T.reshape(-1, rows.shape[1], columns.shape[1], channels)
        images = np.einsum(
            "hi,pijc,wj->pchw" if self.channels_first else "hi,pijc,wj->phwc", rows, coarse, columns
        )
        return images, size / basis.shape[1]

    def pairs(self, x: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Up and down along each direction of this step."""
        offsets = (self.directions(x.shape, step)[0] * (self.eps * np.sqrt(x.size))).astype(np.float32)
        room = np.minimum(np.abs(offsets).max(axis=0), (np.asarray(self.high) - self.low) / 2)
        centre = np.clip(x, self.low + room, self.high - room)
        yield tuple(
            np.clip(centre + side * offsets, self.low, self.high).astype(np.float32) for side in (1, -1)
        )

    def slope(self, rises: np.ndarray, x: np.ndarray, step: int) -> np.ndarray:
        """The directional slopes times their directions, times the dimensions for each of them."""
        directions, share = self.directions(x.shape, step)
        along = rises / (2 * self.eps * np.sqrt(x.size))
        return share * np.tensordot(along, directions, 1)


def _replaced(x: np.ndarray, which: np.ndarray, values: np.ndarray) -> np.ndarray:
    rows = np.repeat(x.reshape(1, -1), len(which), axis=0)
    rows[np.arange(len(which)), which] = values
    return rows.reshape(-1, *x.shape)


def _interpolation(size: int, knots: int) -> np.ndarray:
    """The `(size, knots)` matrix of linear interpolation from `knots` cell centres to `size` pixels."""
    position = np.clip((np.arange(size) + 0.5) * knots / size - 0.5, 0, knots - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None]))
