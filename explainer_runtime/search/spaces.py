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
