"""What a change is, and what the model is shown for it.

A search moves a change `d` whose elements are shares of a feature's range, so no constant in it has a unit:
in bytes or in [-0.5, 0.5] the same image gets the same answer. A space says which row `d` stands for. Where
nothing is changed that is the row itself, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class Pixels:
    """Every feature by itself: the row is `origin + unit * d`, inside its bounds.

    Args:
        origin: The rows that changes are counted from `(L, *S)`, float32, in input units.
        unit: Range of a feature, in input units.
        low, high: Bounds of a row `(*S)`, or `(L, *S)`.
        snap: Rows as the model sees them, where it takes whole numbers only; None is as they are.
        plane: The axes of a row's height and width; none where it is no image.
    """

    def __init__(
        self,
        origin: np.ndarray,
        unit: float,
        low: np.ndarray,
        high: np.ndarray,
        *,
        snap: Callable[[np.ndarray], np.ndarray] | None = None,
        plane: tuple[int, ...] = (),
    ) -> None:
        self.origin, self.unit, self.snap, self.plane = origin, np.float32(unit), snap, plane
        self.low, self.high = (np.broadcast_to(bound, origin.shape) for bound in (low, high))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest change of each element `(L, *S)`."""
        low, high = ((bound - self.origin) / self.unit for bound in (self.low, self.high))
        return low.astype(np.float32), high.astype(np.float32)

    def rows(self, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The rows `(M, *S)` that changes `(M, *S)` of these lanes stand for."""
        x = np.clip(self.origin[lanes] + self.unit * d, self.low[lanes], self.high[lanes])
        return x if self.snap is None else self.snap(x)

    def toward(self, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The change of these lanes `(M, *S)` that leads to rows `(M, *S)`."""
        return np.asarray((x - self.origin[lanes]) / self.unit, np.float32)

    def back(self, slope: np.ndarray, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """A slope with respect to rows as one with respect to changes."""
        return np.asarray(self.unit * slope, np.float32)

    def smooth(self, d: np.ndarray) -> np.ndarray:
        """Each element averaged with its neighbours in the image; itself where a row is none."""
        for axis in self.plane:  # with weights 1, 2, 1; the edge is its own neighbour
            padded = np.moveaxis(d, 1 + axis, 0)
            padded = np.concatenate([padded[:1], padded, padded[-1:]])
            around = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / np.float32(4)
            d = np.moveaxis(around, 0, 1 + axis)
        return d


class Smooth:
    """A coarse grid over an image: each of its cells moves the pixels around it, the nearer the more.

    The row is `origin + unit * (d drawn large)`, inside its bounds. Drawn large, a cell is a bump of raised
    cosines that ends at the middles of the cells around it, and all of them together are 1 at every pixel, so
    none moves further than the largest change of a cell. Bounds that are met hold pixels back, and a pixel
    whose bounds are equal does not move.

    Args:
        pixels: The same rows with every feature by itself; they are images with channels.
        cells: Cells along height, and along width; at most as many as there are pixels.
        most: How far a cell may go, in ranges of a feature.

    Attributes:
        channels: Axis of a change `(*D)` that holds the channels: -1 or 0.
    """

    def __init__(self, pixels: Pixels, cells: int, most: float) -> None:
        self.pixels, self.origin, self.most = pixels, pixels.origin, np.float32(most)
        self.channels = 0 if pixels.plane == (1, 2) else -1
        height, width = (pixels.origin.shape[1 + axis] for axis in pixels.plane)
        self._down, self._across = _bumps(height, min(cells, height)), _bumps(width, min(cells, width))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest change of each cell `(L, *D)`: the furthest that a pixel of it may go."""
        low, high = self.pixels.bounds()
        least, most = -self._furthest(-low), self._furthest(high)
        return np.clip(least, -self.most, self.most), np.clip(most, -self.most, self.most)

    def rows(self, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The rows `(M, *S)` that changes `(M, *D)` of these lanes stand for."""
        return self.pixels.rows(self._through(d, self._down, self._across.T), lanes)

    def toward(self, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The change of these lanes `(M, *D)` that leads nearest to rows `(M, *S)`, where nothing is held
        back."""
        back = np.linalg.pinv(self._down), np.linalg.pinv(self._across).T
        return self._through(self.pixels.toward(x, lanes), *back)

    def back(self, slope: np.ndarray, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """A slope with respect to rows as one with respect to changes; bounds that are met hold it back."""
        low, high, made = self.pixels.low[lanes], self.pixels.high[lanes], self.rows(d, lanes)
        held = np.where(slope > 0, made >= high, made <= low) | (low >= high)
        free = self.pixels.back(np.where(held, 0, slope), d, lanes)
        return self._through(free, self._down.T, self._across)

    def smooth(self, d: np.ndarray) -> np.ndarray:
        """A cell is smooth as it is."""
        return d

    def _through(self, values: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """`left @ values @ right` of each channel, each row by itself to the last bit."""
        planes = np.moveaxis(values, self.channels or 1, 1)
        made = left.astype(np.float32) @ planes @ right.astype(np.float32)
        return np.ascontiguousarray(np.moveaxis(made, 1, self.channels or 1))

    def _furthest(self, far: np.ndarray) -> np.ndarray:
        """The largest of what lies below each cell `(L, *D)`."""
        for axis, bumps in zip(self.pixels.plane, (self._down, self._across), strict=True):
            parts = [np.compress(bump > 0, far, axis=1 + axis).max(axis=1 + axis) for bump in bumps.T]
            far = np.stack(parts, axis=1 + axis)
        return far


def _bumps(size: int, cells: int) -> np.ndarray:
    """How much each cell moves each of `size` pixels in a row `(size, cells)`: raised cosines, 1 together."""
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    far = np.abs(place[:, None] - np.arange(cells))
    return np.where(far < 1, (1 + np.cos(np.pi * far)) / 2, 0)
