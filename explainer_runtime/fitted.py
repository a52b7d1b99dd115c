"""What `fit` makes and an artifact holds: an explainer, but for the model it explains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.spec import Inputs, Spec

Shape = tuple[int | str, ...]
"""Sizes of axes; the same word stands for the same size, whatever it is."""


@dataclass(frozen=True)
class Fitted:
    """Everything of an explainer but the model it explains.

    Attributes:
        spec: Settings of the method.
        inputs: What rows it accepts.
        arrays: Fitted arrays by name (`[a-z0-9_]+`); bool, integers or finite floats.
        models: Fitted Keras models by name; functional or Sequential, of built-in layers.
        model: What is known of the model that it was fitted to, in words: a `digest` of its weights, or its
            `name`, `version` and `platform`; its `accuracy` where labels were given.
        made: What it was made of, as `artifact/provenance.py` has it; empty where nobody knows.
    """

    spec: Spec
    inputs: Inputs
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)


def need(what: str, name: str, held: Collection[str], why: str) -> None:
    """Refuse an explainer that lacks an array or a model, `what`, which `why` needs.

    Raises:
        InvalidSpec: It does.
    """
    if name not in held:
        raise InvalidSpec(f"{what} {name!r}: is missing, and {why} needs it; fit with it, and save again")


def check_arrays(fitted: Fitted, wanted: Mapping[str, tuple[str, Shape]]) -> None:
    """Refuse an explainer whose arrays are not what they should be.

    Args:
        fitted: The explainer.
        wanted: Kind of dtype (`f`, `i`; `fB` for floats or bytes) and shape of arrays that it must have, by
            name; the word K stands for the number of classes.

    Raises:
        InvalidSpec: One is missing, or has another shape or dtype.
    """
    sizes: dict[str, int] = {"K": fitted.inputs.classes}
    for name, (kind, shape) in wanted.items():
        need("array", name, fitted.arrays, f"a {fitted.spec.kind}")
        array = fitted.arrays[name]
        fits = (
            bool({array.dtype.kind, array.dtype.char} & set(kind))
            and array.ndim == len(shape)
            and array.size > 0
        )
        for size, axis in zip(array.shape, shape, strict=False):
            fits &= size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
        if not fits:
            numbers = {"f": "floats", "i": "integers", "fB": "floats or bytes"}[kind]
            expected = ", ".join(
                str(sizes.get(axis, axis) if isinstance(axis, str) else axis) for axis in shape
            )
            raise InvalidSpec(
                f"array {name!r}: expected {numbers} of shape ({expected}), got {array.dtype} {array.shape}; "
                "fit and save again"
            )


def check_rows(x: Any, contract: Inputs, most: int) -> np.ndarray:
    """`x` as float32 rows that keep the input contract; always a copy.

    Raises:
        InvalidInput: What was expected, and what came.
    """
    try:
        rows = np.array(x)
    except ValueError:
        raise InvalidInput("expected rows of one shape, got a ragged list") from None
    if rows.dtype.kind not in "fiu":
        raise InvalidInput(f"expected numbers, got data of type {rows.dtype}")
    shape = ", ".join(str(size) for size in contract.shape)
    if rows.shape[1:] != contract.shape or rows.ndim == 0:
        raise InvalidInput(f"expected rows of shape (N, {shape}), got {rows.shape}")
    if not 1 <= len(rows) <= most:
        raise InvalidInput(f"expected 1 to {most} rows, got {len(rows)}")
    with np.errstate(over="ignore"):  # infinite is refused here
        rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise InvalidInput("expected finite values, got NaN or infinity")
    # A float32 near the bound is the bound: clients round.
    slack = 1e-5 * (contract.high - contract.low)
    if rows.min() < contract.low - slack or rows.max() > contract.high + slack:
        may_be = rows.min() >= 0 and contract.high < rows.max() <= 255 and (rows == np.rint(rows)).all()
        scale = (
            f"; if they are bytes, let 0 be {contract.low:g} and 255 be {contract.high:g}" if may_be else ""
        )
        raise InvalidInput(
            f"expected values in [{contract.low:g}, {contract.high:g}], "
            f"got [{rows.min():.4g}, {rows.max():.4g}]{scale}"
        )
    return rows
