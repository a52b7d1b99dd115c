"""Superpixels: an image cut into a few connected parts.

Every function takes plain arguments and answers with labels `(H, W)`, int64, numbered 0 to K-1 without
gaps, whatever the segmenter called them. The grid needs numpy only; the other three come from scikit-image,
which is imported when one of them is used.

They expect pixels in [0, 1] and are shown RGB: an image with another number of channels goes in as grey.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.errors import MissingExtra


def grid(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Cells of a grid of `rows` by `columns`, numbered along the rows.

    Heights and widths of cells differ by at most one pixel. A grid finer than the image has one cell a pixel.
    """
    down = np.arange(height) * min(rows, height) // height
    across = np.arange(width) * min(columns, width) // width
    return relabel(down[:, None] * columns + across[None, :])


def slic(image: np.ndarray, n_segments: int, compactness: float, sigma: float) -> np.ndarray:
    """About `n_segments` clusters in colour and space (Achanta et al. 2012).

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    labels = _segmenters().slic(
        _colours(image),
        n_segments=n_segments,
        compactness=compactness,
        sigma=sigma,
        start_label=0,
        channel_axis=-1,
    )
    return relabel(labels)


def felzenszwalb(image: np.ndarray, scale: float, sigma: float, min_size: int) -> np.ndarray:
    """Trees of similar neighbours, at least `min_size` pixels each (Felzenszwalb, Huttenlocher 2004).

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    labels = _segmenters().felzenszwalb(
        _colours(image), scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1
    )
    return relabel(labels)


def quickshift(image: np.ndarray, kernel_size: float, max_dist: float, ratio: float) -> np.ndarray:
    """Modes of the density of colour and place (Vedaldi, Soatto 2008).

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    labels = _segmenters().quickshift(
        _colours(image), kernel_size=kernel_size, max_dist=max_dist, ratio=ratio, channel_axis=-1
    )
    return relabel(labels)


def relabel(labels: np.ndarray) -> np.ndarray:
    """Any labels `(H, W)` as 0 to K-1, in the order of what they were; int64."""
    _, compact = np.unique(labels, return_inverse=True)
    return compact.reshape(np.shape(labels)).astype(np.int64)


def _colours(image: np.ndarray) -> np.ndarray:
    """`(H, W, 3)`, float64, which every segmenter computes in."""
    image = np.asarray(image, np.float64)
    return image if image.shape[2] == 3 else np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)


def _segmenters() -> Any:
    try:
        from skimage import segmentation
    except ImportError:
        raise MissingExtra(
            "scikit-image is not installed; pip install 'explainer-runtime[superpixels]', "
            "or use the segmentation 'grid'"
        ) from None
    return segmentation
