"""V2 tensors, whatever carries them: datatypes, and arrays made from what a model answered.

REST and gRPC say the same thing in two spellings. What both must get right is here once: which datatypes
rows may be sent as, which output holds the scores, and whether the numbers fill the shape they claim.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidPrediction, PredictorError, PredictorTimeout

FLOATS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DTYPES: dict[str, np.dtype[Any]] = {**FLOATS, "UINT8": np.dtype("u1")}
"""Datatypes that rows can be sent as; the floats among them are those that scores can come back as."""


class Tensor(NamedTuple):
    """A named batch in the datatype that goes over the wire; `data` is C-contiguous, rows first."""

    name: str
    datatype: str
    data: np.ndarray


def encode(x: np.ndarray, datatype: str) -> np.ndarray:
    """Rows `x` in the datatype that the model declares.

    Raises:
        PredictorError: Some value has no such form: it is infinite or NaN, too large for FP16, or not a
            whole number in 0..255 for UINT8.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.ascontiguousarray(x, dtype=DTYPES[datatype])
    if datatype not in FLOATS and not np.array_equal(data, x):
        raise PredictorError(
            f"the model takes {datatype}, but the rows are not whole numbers in 0..255; "
            "put one that takes FP32 in front of it"
        )
    if not np.isfinite(data).all():
        raise PredictorError(f"the rows hold values that are not finite as {datatype}")
    return data


def pick(names: Sequence[str], wanted: str | None, source: str) -> int:
    """Index of the output `wanted`, or of the first where none is named.

    Raises:
        InvalidPrediction: There is no such output.
    """
    if not names:
        raise InvalidPrediction(f"{source} answered without outputs")
    if wanted is None:
        return 0
    if wanted not in names:
        raise InvalidPrediction(f"{source} has no output {wanted!r}; it has {', '.join(map(repr, names))}")
    return list(names).index(wanted)


def decode(numbers: Any, datatype: str, shape: Sequence[int], source: str) -> np.ndarray:
    """The numbers of one output as float32 of the shape it claims.

    Args:
        numbers: An array, or (nested) lists.
        datatype: What the model calls them; only floats can be class scores.
        shape: The shape it claims.
        source: Who answered, for messages.

    Raises:
        InvalidPrediction: Another datatype, not numbers, or more or fewer than the shape holds.
    """
    if datatype not in FLOATS:
        raise InvalidPrediction(f"{source}: expected class scores in {', '.join(FLOATS)}, got {datatype}")
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise InvalidPrediction(f"{source} answered with a ragged list") from None
    if array.dtype.kind not in "fiu":  # a null, which is how JSON spells NaN, makes it an array of objects
        raise InvalidPrediction(f"{source} answered with something that is not numbers (NaN, text or null)")
    if any(type(axis) is not int or axis < 0 for axis in shape) or math.prod(shape) != array.size:
        raise InvalidPrediction(f"{source} answered with {array.size} numbers for the shape {list(shape)}")
    with np.errstate(over="ignore"):  # infinite is refused later, with NaN
        return array.astype(np.float32).reshape(tuple(shape))


def seconds_left(until: float, source: str) -> float:
    """Seconds until the moment `until` of the monotonic clock.

    Raises:
        PredictorTimeout: It has passed.
    """
    left = until - time.monotonic()
    if left <= 0:
        raise PredictorTimeout(f"{source} did not answer in time")
    return left


def one_line(text: str, most: int = 200) -> str:
    """What a server said, on one line and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
