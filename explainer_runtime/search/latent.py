"""A latent space: the row is what a decoder makes of its own code, changed by `d`: `D(z + d)`.

Joshi et al. (arXiv:1907.09615, REVISE) move the code of a row through a generative model instead of its
features, so that whatever comes out is something that the model makes of rows of its kind. Only where nothing
is changed the row is itself, to the bit. Elements of a code are shares of the range that the codes of the
training rows have, and stay inside it: beyond it nobody has seen what the decoder makes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.search.networks import Network

_STEPS = 60
"""Of the search for the code of a row, where there is no encoder."""


class Coder:
    """A decoder of codes whose elements are shares of their range, from 0 to 1; itself a `Network`.

    Args:
        decoder: Codes as it was trained with `(N, *Z)` -> rows `(N, *S)`.
        encoder: Rows -> codes, or None: then a row's code is the one that the decoder makes most of it of.
        low, high: Least and largest value of each element of a code `(*Z)`.
    """

    def __init__(self, decoder: Network, encoder: Network | None, low: np.ndarray, high: np.ndarray) -> None:
        self.decoder, self.encoder, self.low = decoder, encoder, low
        self.unit = np.maximum(high - low, np.float32(1e-6))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The rows `(N, *S)` that codes `(N, *Z)` stand for."""
        return self.decoder(self.low + x * self.unit)

    def slope(self, x: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """See `Network`."""
        made, back = self.decoder.slope(self.low + x * self.unit, pull)
        return made, back * self.unit

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Codes `(N, *Z)` of rows `(N, *S)`, inside their range."""
        if self.encoder is None:
            return inverted(self, x, np.full((len(x), *self.low.shape), 0.5, np.float32), 0.0, 1.0)
        code = self.encoder(x).reshape(len(x), *self.low.shape)
        return np.clip((code - self.low) / self.unit, 0, 1).astype(np.float32)


class Latent:
    """A space of changes of code; see `least_change.Space`.

    Args:
        origin: The rows that changes are counted from `(L, *S)`, float32, in input units.
        coder: The decoder.
        low, high: Bounds of a row `(*S)`, or `(L, *S)`; where they are equal nothing changes.
        snap: Rows as the model sees them, where it takes whole numbers only; None is as they are.
    """

    def __init__(
        self,
        origin: np.ndarray,
        coder: Coder,
        low: np.ndarray,
        high: np.ndarray,
        *,
        snap: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.origin, self.coder, self.snap = origin, coder, snap
        self.low, self.high = (np.broadcast_to(bound, origin.shape) for bound in (low, high))
        self.codes = coder.codes(origin)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest change of each element `(L, *Z)`."""
        return -self.codes, 1 - self.codes

    def rows(self, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The rows `(M, *S)` that changes `(M, *Z)` of these lanes stand for."""
        x, moved = self.origin[lanes], d.any(axis=tuple(range(1, d.ndim)))
        if moved.any():
            x[moved] = self.coder(self.codes[lanes[moved]] + d[moved])
        x = np.clip(x, self.low[lanes], self.high[lanes])
        return x if self.snap is None else self.snap(x)

    def toward(self, x: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The change of these lanes `(M, *Z)` that leads near rows `(M, *S)`."""
        return np.asarray(self.coder.codes(x) - self.codes[lanes], np.float32)

    def back(self, slope: np.ndarray, d: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """A slope with respect to rows as one with respect to changes; bounds that are met hold it back."""
        low, high = self.low[lanes], self.high[lanes]

        def free(made: np.ndarray) -> np.ndarray:
            held = np.where(slope > 0, made >= high, made <= low) | (low >= high)
            return np.where(held, 0, slope)

        return np.asarray(self.coder.slope(self.codes[lanes] + d, free)[1], np.float32)

    def smooth(self, d: np.ndarray) -> np.ndarray:
        """Elements of a code have no neighbours."""
        return d


def inverted(network: Network, x: np.ndarray, start: np.ndarray, low: float, high: float) -> np.ndarray:
    """The codes `(N, *Z)` in `[low, high]` that a network makes most of rows `(N, *S)` of.

    Steps down `|network(z) - x|^2` from `start`, as long as Barzilai and Borwein (1988) say; the best code on
    the way is kept.
    """
    code, before, slope_before = start, start, np.zeros_like(start)
    best, least = start.copy(), np.full(len(x), np.inf)
    for _ in range(_STEPS):
        made, slope = network.slope(code, lambda made: 2 * (made - x))
        away = made - x
        better = (size := _dot(away, away)) < least
        best[better], least[better] = code[better], size[better]
        moved, turned = code - before, slope - slope_before
        along, bent = _dot(moved, turned), _dot(turned, turned)
        first = 0.1 / np.maximum(np.abs(slope).reshape(len(x), -1).max(axis=1), 1e-12)
        rate = np.where((along > 0) & (bent > 0), along / np.maximum(bent, 1e-30), first)
        before, slope_before = code, slope
        onward = code - rate.reshape(-1, *[1] * (code.ndim - 1)) * slope
        code = np.clip(onward, low, high).astype(np.float32)
    return best


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).reshape(len(a), -1).sum(axis=1))
