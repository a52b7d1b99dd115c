"""Attributions of pixels, by gradients of the model.

What a pixel adds is counted from the image with everything hidden, the baseline, as it is for superpixels.
Channels are added up, as nobody sees them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explainer_runtime.methods.attribution.settings import Attribution
from explainer_runtime.search.asks import Maps, Search, Slopes
from explainer_runtime.search.occlusion import averaged

Pull = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BYTES = 2**25
"""Of points in one ask."""
_COPIES = 50


class Pixels(NamedTuple):
    """What is said of pixels.

    Attributes:
        added: What each adds `(H, W)`.
        errors: A standard error of that `(H, W)`, of what was drawn by chance.
        values: The same of superpixels `(K,)`: the sum of their pixels, or of feature maps the mean.
        value_errors: Theirs `(K,)`.
    """

    added: np.ndarray
    errors: np.ndarray
    values: np.ndarray
    value_errors: np.ndarray


def pull_of(target: int, output: str, exclusive: bool) -> Pull:
    """Weights of log-scores `(M, K)` whose slope is that of the score which is shared out."""

    def pull(log_scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        chances = np.exp(log_scores.astype(np.float64))
        own, weights = chances[:, target], np.zeros_like(chances)
        if output == "proba":
            weights[:, target] = own
            return weights
        others = chances.copy()
        others[:, target] = 0
        rest = np.maximum(others.sum(axis=1) if exclusive else 1 - own, np.finfo(np.float32).tiny)
        if exclusive:  # the log-odds fall as the logarithm of all the others together rises
            weights = -others / rest[:, None]
        weights[:, target] = 1 if exclusive else 1 / rest
        return weights

    return pull


def integrated(
    x: np.ndarray, baseline: np.ndarray, segments: np.ndarray, channels: int, steps: int, pull: Pull
) -> Search[Pixels]:
    """Integrated gradients (Sundararajan, Taly, Yan, arXiv:1703.01365, equation 1), by the midpoint rule."""
    total = np.zeros(x.shape, np.float64)
    shares = (np.arange(steps) + 0.5) / steps
    for part in _parts(shares, x):
        points = baseline + part.reshape(-1, *[1] * x.ndim) * (x - baseline)
        _, slope = yield Slopes(points.astype(np.float32), pull)
        total += slope.sum(axis=0, dtype=np.float64)
    added = ((x - baseline) * total / steps).sum(axis=channels)
    values = _sums(added, segments)
    return Pixels(added, np.zeros_like(added), values, np.zeros_like(values))


def smooth(
    x: np.ndarray,
    baseline: np.ndarray,
    segments: np.ndarray,
    channels: int,
    spec: Attribution,
    bounds: tuple[float, float],
    pull: Pull,
) -> Search[Pixels]:
    """SmoothGrad (Smilkov et al., arXiv:1706.03825): the mean gradient of noisy copies, here times what the
    image has beyond the baseline, and so what a pixel adds to first order. Copies stay within `bounds`, which
    the paper does not ask for: what is beyond is no row."""
    rng = np.random.default_rng(spec.seed)
    low, high = bounds
    copies = []
    for part in _parts(np.arange(spec.n_samples or _COPIES), x):
        noise = spec.stdev * (high - low) * rng.standard_normal((len(part), *x.shape))
        _, slope = yield Slopes(np.clip(x + noise, low, high).astype(np.float32), pull)
        copies.append(((x - baseline) * slope).sum(axis=channels or 1))  # -1 stays the last, 0 is now 1
    each = np.concatenate(copies).astype(np.float64)
    sums = np.stack([_sums(one, segments) for one in each])
    return Pixels(*averaged(each), *averaged(sums))


def activated(x: np.ndarray, segments: np.ndarray, layer: str | None, pull: Pull) -> Search[Pixels]:
    """Grad-CAM (Selvaraju et al., arXiv:1610.02391, equations 1 and 2): feature maps, each weighted by its
    mean slope, and of their sum what is positive; drawn out to the size of the image between the middles of
    its cells. The slope is that of the score which is shared out; the paper takes that of a logit."""
    _, maps, slope = yield Maps(x[None], pull, layer)
    heat = np.maximum((maps[0] * slope[0].mean(axis=(0, 1), dtype=np.float64)).sum(axis=-1), 0)
    for axis, size in enumerate(segments.shape):
        heat = np.moveaxis(_between(size, heat.shape[axis]) @ np.moveaxis(heat, axis, 0), 0, axis)
    values = _sums(heat, segments) / np.bincount(segments.ravel())
    return Pixels(heat, np.zeros_like(heat), values, np.zeros_like(values))


def _parts(all_: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    size = max(1, _BYTES // x.nbytes)
    return [all_[start : start + size] for start in range(0, len(all_), size)]


def _sums(added: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return np.bincount(segments.ravel(), weights=added.ravel())


def _between(size: int, cells: int) -> np.ndarray:
    """Weights `(size, cells)` of straight lines between the middles of cells."""
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(cells))))
