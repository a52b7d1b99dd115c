"""What values a feature may have, where notebooks do not say.

The classes that people know allow +-1e10 unless told otherwise. Here steps are measured in the range, and
an artifact refuses rows outside it, so a bound that was left open is closed: to what `fit` has seen, else to
the instance being explained.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from explainer_runtime.alibi.settings import plain
from explainer_runtime.artifact import Fitted
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.spec import Inputs

OPEN = 1e10
"""A bound that is none."""
_UNBOUNDED = 1e9
_SCALES = ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (0.0, 255.0))
"""Ranges that pixels usually have."""


def contract(shape: tuple[int, ...], classes: int, feature_range: tuple[Any, Any] = (-OPEN, OPEN)) -> Inputs:
    """The input contract of an explainer with this range, which may be open."""
    low, high = (np.asarray(bound, np.float64) for bound in feature_range)
    return Inputs(shape=shape, low=float(low.min()), high=float(high.max()), classes=classes)


def bounds(feature_range: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A range as notebooks write it, two numbers or arrays with or without the batch axis, as a spec's.

    Raises:
        InvalidSpec: It is not a lower and an upper bound.
    """
    try:
        low, high = (np.asarray(bound, np.float64) for bound in feature_range)
    except (TypeError, ValueError):
        raise InvalidSpec("feature_range: expected a lower and an upper bound, numbers or arrays") from None
    low, high = (bound[0] if bound.ndim == 1 + len(shape) else bound for bound in (low, high))
    if not (low <= high).all() or (low.ndim == high.ndim == 0 and low == high):
        raise InvalidSpec("feature_range: expected every lower bound at or below its upper bound")
    return plain(low), plain(high)


def within(fitted: Fitted, x: np.ndarray | None) -> Fitted:
    """`fitted`, with its open bounds closed to the values of `x`, and a contract that `x` keeps.

    The bounds that were given stay: a row outside is explained from the nearest point inside.

    Raises:
        InvalidSpec: A bound is open, and `x` is None or has only one value.
    """
    given = getattr(fitted.spec, "feature_range", None) or (fitted.inputs.low, fitted.inputs.high)
    low, high = (np.asarray(bound, np.float64) for bound in given)
    if x is None:
        if (low <= -_UNBOUNDED).any() or (high >= _UNBOUNDED).any():
            raise InvalidSpec("feature_range: is not known; give it, or call fit with training data first")
        return fitted
    least, most = _ends(x)
    low, high = np.where(low <= -_UNBOUNDED, least, low), np.where(high >= _UNBOUNDED, most, high)
    if not (low < high).all():
        raise InvalidSpec("feature_range: cannot be taken from an instance with only one value; give it")
    spec = fitted.spec.model_copy(update={"feature_range": (plain(low), plain(high))})
    inputs = fitted.inputs.model_copy(
        update={"low": min(least, float(low.min())), "high": max(most, float(high.max()))}
    )
    return dataclasses.replace(fitted, spec=spec, inputs=inputs)


def pixels(fitted: Fitted, images: np.ndarray | None) -> Fitted:
    """The same for images, which have a contract and no other range: the usual one that holds `images`.

    Raises:
        InvalidSpec: It is open, and there are no images.
    """
    low, high = fitted.inputs.low, fitted.inputs.high
    closed = max(-low, high) < _UNBOUNDED
    if images is None:
        if not closed:
            raise InvalidSpec("feature_range: is not known; give the lowest and highest value of a pixel")
        return fitted
    least, most = _ends(images)
    if not closed:
        scales = [scale for scale in _SCALES if scale[0] <= least and most <= scale[1]]
        low, high = scales[0] if scales else (least, most if most > least else least + 1)
    inputs = fitted.inputs.model_copy(update={"low": min(least, low), "high": max(most, high)})
    return dataclasses.replace(fitted, inputs=inputs)


def _ends(x: np.ndarray) -> tuple[float, float]:
    """The least and the largest finite value; what is not finite is refused later, by those who say so."""
    numbers = np.asarray(x)
    if numbers.dtype.kind not in "fiu" or not np.isfinite(numbers).any():
        return 0.0, 1.0
    finite = numbers[np.isfinite(numbers)]
    return float(finite.min()), float(finite.max())
