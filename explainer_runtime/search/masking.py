"""Images with some superpixels masked: what is shown instead, and all of a wave drawn at once.

A mask says for each superpixel whether it is shown. What a masked one shows is a *fill*: an image of the
same shape, worked out once, so that drawing a mask is one gather and one choice a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explainer_runtime.search.inpaint import inpainted


class Canvas(NamedTuple):
    """What masks are drawn with.

    Attributes:
        image: `(H, W, C)` or, as the model takes it, `(C, H, W)`; float32, in input units.
        segments: Superpixel of each pixel `(H, W)`, 0 to K-1.
        fills: What masked pixels show, `(B, ...)` like the image: one fill, or several to choose from; None
            is whatever is shown around them.
        channels: Axis of the image that holds its channels: -1 or 0.
        snap: Images as the model sees them, where it takes whole numbers only; None is as they are.
        soft: Pixels over which what is masked turns into its fill, from the edge inwards; 0 is as cut.
    """

    image: np.ndarray
    segments: np.ndarray
    fills: np.ndarray | None
    channels: int = -1
    snap: Callable[[np.ndarray], np.ndarray] | None = None
    soft: int = 0

    def draw(self, shown: np.ndarray, fill: np.ndarray | None = None) -> np.ndarray:
        """Images `(M, ...)`, float32, of masks `shown` `(M, K)`, bool; every channel is masked alike.

        `fill` `(M,)` is the index of the fill of each; None is the first for all.
        """
        pixels = np.take(shown, self.segments, axis=1)
        if self.fills is None:
            made = inpainted(np.moveaxis(self.image, self.channels, -1), ~pixels)
            drawn = np.moveaxis(made, -1, self.channels or 1)
        else:
            fills = self.fills[:1] if fill is None else self.fills[fill]
            drawn = np.where(np.expand_dims(pixels, self.channels or 1), self.image, fills)
            if self.soft:
                share = np.expand_dims(feathered(~pixels, self.soft), self.channels or 1)
                drawn = np.where((share > 0) & (share < 1), self.image + share * (fills - self.image), drawn)
        return drawn if self.snap is None else self.snap(drawn)


def feathered(masked: np.ndarray, soft: int) -> np.ndarray:
    """How much of its fill each pixel shows `(M, H, W)`, float32: none where it is not `masked` `(M, H, W)`,
    bool, ever more of it from the edge inwards, and all of it from `soft` steps inside; the border of the
    image is no edge."""
    inside, depth = masked, masked.astype(np.float32)
    for _ in range(soft):
        inner = inside.copy()
        inner[:, 1:] &= inside[:, :-1]
        inner[:, :-1] &= inside[:, 1:]
        inner[:, :, 1:] &= inside[:, :, :-1]
        inner[:, :, :-1] &= inside[:, :, 1:]
        inside = inner
        depth += inside
    return np.asarray(depth / np.float32(soft + 1))


def segment_mean(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Every superpixel in its own mean colour, `(H, W, C)`, float32."""
    labels = segments.ravel()
    counts = np.bincount(labels)
    sums = [np.bincount(labels, weights=channel) for channel in image.reshape(len(labels), -1).T]
    means = np.stack(sums, axis=1) / counts[:, None]
    return means[segments].astype(np.float32)


def image_mean(image: np.ndarray) -> np.ndarray:
    """The whole image in its mean colour, `(H, W, C)`, float32."""
    colour = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.broadcast_to(colour, image.shape)


def blurred(image: np.ndarray) -> np.ndarray:
    """The image seen from afar, `(H, W, C)`, float32: a Gaussian of an eighth of its shorter side.

    At the border only what lies inside is averaged, so that no value leaves the range of the image.
    """
    height, width = image.shape[:2]
    sigma = min(height, width) / 8
    down, across = _gaussian(height, sigma), _gaussian(width, sigma)
    return np.einsum("ij,jkc,lk->ilc", down, image, across, optimize=True).astype(np.float32)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """Row-normalised Gaussian weights `(size, size)`."""
    place = np.arange(size)
    weights = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
