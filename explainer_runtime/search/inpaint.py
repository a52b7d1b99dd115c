"""What would fit in: hidden parts of an image take their colours from what is shown around them.

Push and pull (Gortler et al. 1996): the image is halved again and again, and only what is shown is averaged,
until something of it is known everywhere; on the way back every hidden pixel takes what the coarser image has
in its place. So a small hole shows what lies right beside it, a large one what lies around at large, and no
edge of the hole stays visible. It is linear in the pixels and takes a few sums a pixel.
"""

from __future__ import annotations

import numpy as np


def inpainted(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """An image whose hidden pixels show what is around them.

    Args:
        image: `(H, W, C)`, float32.
        hidden: `(M, H, W)`, bool; where all is hidden the whole shows the image's mean.

    Returns:
        `(M, H, W, C)`, float32; what is not hidden is as it was, to the bit.
    """
    known = ~hidden[..., None]
    nothing = hidden.reshape(len(hidden), -1).all(axis=1).reshape(-1, 1, 1, 1)
    weight = np.where(nothing, 1, known).astype(np.float32)
    filled = _filled(weight * image, weight)
    mean = filled.mean(axis=(1, 2), keepdims=True)
    # Weights add up to one but for rounding, which may lead past the range of the image by one bit.
    made = np.clip(np.where(nothing, mean, filled), image.min(axis=(0, 1)), image.max(axis=(0, 1)))
    return np.asarray(np.where(known, image, made))


def _filled(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours `(M, H, W, C)`, given their sums over what is known and how much that is `(M, H, W, 1)`."""
    share = np.minimum(weight, 1)
    here = colour / np.maximum(weight, 1e-12)
    if max(colour.shape[1:3]) == 1 or (share == 1).all():
        return np.asarray(here, np.float32)
    coarse = _filled(_halved(colour), _halved(weight))
    return np.asarray(share * here + (1 - share) * _doubled(coarse, colour.shape[1:3]), np.float32)


def _halved(values: np.ndarray) -> np.ndarray:
    """Sums of two by two pixels, with nothing beyond the edge."""
    _, height, width, _ = values.shape
    values = np.pad(values, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    return values[:, ::2, ::2] + values[:, 1::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, 1::2]


def _doubled(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Twice as many pixels, between their centres in a straight line."""
    for axis, length in zip((1, 2), size, strict=True):
        moved = np.moveaxis(values, axis, 0)
        edge = np.concatenate([moved[:1], moved, moved[-1:]])
        pairs = np.stack([0.75 * moved + 0.25 * edge[:-2], 0.75 * moved + 0.25 * edge[2:]], axis=1)
        values = np.moveaxis(pairs.reshape(-1, *moved.shape[1:])[:length], 0, axis)
    return values
