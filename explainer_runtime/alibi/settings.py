"""Settings as notebooks write them, made into what a spec takes."""

from __future__ import annotations

from typing import Any
from warnings import warn

import numpy as np

from explainer_runtime.errors import InvalidSpec


def row_shape(shape: Any) -> tuple[int, ...]:
    """The shape of one row, from a `shape` that has the batch axis in front.

    Raises:
        InvalidSpec: It has not.
    """
    try:
        one, *row = (int(size) for size in shape)
    except (TypeError, ValueError):
        one, row = 0, []
    if one != 1 or not row:
        raise InvalidSpec(
            f"shape: expected that of one instance with its batch axis, (1, ...), got {shape!r}"
        )
    return tuple(row)


def of_features(eps: Any) -> Any:
    """Of two steps of finite differences the second: the first is for probabilities, whose slopes are exact
    here."""
    return eps[1] if isinstance(eps, tuple | list) else eps


def no_effect(**given: Any) -> None:
    """Say of those that were given that they have no effect."""
    for name, value in given.items():
        if value is not None and value is not False:
            warn(f"{name} has no effect here; see docs/notebooks.md", stacklevel=3)


def plain(value: Any) -> Any:
    """`value` with numbers and nested tuples in place of NumPy's numbers and arrays, and of lists."""
    match value:
        case np.generic() | np.ndarray():
            return plain(value.tolist())
        case dict():
            return {key: plain(one) for key, one in value.items()}
        case list() | tuple():
            return tuple(plain(one) for one in value)
        case _:
            return value
