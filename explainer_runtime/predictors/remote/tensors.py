"""Tensors, whatever carries them: datatypes, rows made ready to be sent, arrays made from what came back.

REST and gRPC say the same thing in several spellings. What all must get right is here once: how rows become
the numbers that the model takes, which output holds the answer, and whether its numbers fill the shape they
claim. What those numbers mean is said in `meaning.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidPrediction, InvalidSpec, PredictorError, PredictorTimeout

FLOATS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DTYPES: dict[str, np.dtype[Any]] = {**FLOATS, "UINT8": np.dtype("u1")}
"""Datatypes that rows can be sent as; the floats among them are those that scores can come back as."""
TEXT = {"FP16": 14, "FP32": 16, "FP64": 25, "UINT8": 4}
"""Most characters that a number takes in JSON, with its comma: -1.1754944e-38 is a float32."""
_AXES = 32
"""Axes that an answer may have; NumPy has 64."""
MOST_VALUES = 10_000_000
"""Of one answer: a message has at most 8,192 rows, and a thousand scores a row are many."""
WHOLE: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
"""Datatypes that class numbers can come back as."""


class Tensor(NamedTuple):
    """A named batch in the datatype that goes over the wire; `data` is C-contiguous, rows first."""

    name: str
    datatype: str
    data: np.ndarray


class Declared(NamedTuple):
    """An input as a model's metadata declares it; `shape` has the batch in front, and may be anything."""

    datatype: str
    shape: tuple[int, ...] = ()


class Described(NamedTuple):
    """What a model's metadata says: its inputs by name, in order, and what it runs on."""

    inputs: dict[str, Declared]
    platform: str = ""


class Answer(NamedTuple):
    """What a model answered: float32 or int64 numbers in the shape it gave them, and who it says it is."""

    numbers: np.ndarray
    model: str = ""


def encode(values: np.ndarray, datatype: str) -> np.ndarray:
    """Values as the numbers that the model takes, in the datatype it declares.

    Whole numbers are the nearest ones, and not outside the range of their datatype: what a search makes up
    need not be whole.

    Raises:
        PredictorError: Some value has no such form: it is infinite or NaN, or too large for FP16.
    """
    if datatype not in FLOATS and np.isfinite(values).all():
        limits = np.iinfo(DTYPES[datatype])
        values = np.rint(values).clip(limits.min, limits.max)
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.ascontiguousarray(values, dtype=DTYPES[datatype])
    if not (np.isfinite(values).all() and np.isfinite(data).all()):
        raise PredictorError(f"the rows hold values that are not finite as {datatype}")
    return data


def held(name: str, value: Any, datatype: str | None, rows: int) -> Tensor:
    """An input that is the same for all rows: `value`, without the batch, in the datatype that is declared.

    Raises:
        InvalidSpec: It is not numbers, or cannot be of that datatype.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidSpec(f"predictor.hold.{name}: expected a number or nested lists, not ragged") from None
    if array.dtype.kind not in "fiub":
        raise InvalidSpec(f"predictor.hold.{name}: expected numbers, got {array.dtype}")
    default = {"f": "FP32", "b": "BOOL"}.get(array.dtype.kind, "INT64")
    dtype = {**DTYPES, **WHOLE}.get(datatype or default)
    if dtype is None:
        raise InvalidSpec(f"predictor.hold.{name}: the model takes {datatype} there, which holds no numbers")
    data = np.broadcast_to(array.astype(dtype), (rows, *array.shape))
    return Tensor(name, datatype or default, np.ascontiguousarray(data))


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
        raise InvalidPrediction(f"{source} has no output {wanted!r}; it has {_some(names)}")
    return list(names).index(wanted)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(one_line(str(name), 60)) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown}, and {len(names) - 10} more"


def decode(numbers: Any, datatype: str, shape: Sequence[int], source: str) -> np.ndarray:
    """The numbers of one output in the shape it claims: float32 of floats, int64 of whole numbers.

    Args:
        numbers: An array, or (nested) lists.
        datatype: What the model calls them.
        shape: The shape it claims.
        source: Who answered, for messages.

    Raises:
        InvalidPrediction: Another datatype, not numbers, or more or fewer than the shape holds.
    """
    if datatype not in FLOATS and datatype not in WHOLE:
        got = one_line(str(datatype), 60)
        raise InvalidPrediction(f"{source}: expected class scores in {', '.join(FLOATS)}, got {got}")
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise InvalidPrediction(f"{source} answered with a ragged list") from None
    if array.dtype.kind not in "fiub":  # a null, which is how JSON spells NaN, makes it an array of objects
        raise InvalidPrediction(f"{source} answered with something that is not numbers (NaN, text or null)")
    if len(shape) > _AXES:
        raise InvalidPrediction(f"{source} answered with a shape of {len(shape)} axes")
    # A shape that holds nothing is none of rows, and not every one of them is one to NumPy: [0, 2**63].
    if any(type(axis) is not int or axis < 1 for axis in shape) or math.prod(shape) != array.size:
        claimed = one_line(str(list(shape)))
        raise InvalidPrediction(f"{source} answered with {array.size} numbers for the shape {claimed}")
    if datatype in WHOLE and array.dtype.kind == "f":
        raise InvalidPrediction(f"{source} answered with fractions and called them {datatype}")
    with np.errstate(over="ignore"):  # infinite is refused later, with NaN
        return array.astype(np.float32 if datatype in FLOATS else np.int64).reshape(tuple(shape))


def unpacked(raw: bytes | memoryview, datatype: str, source: str) -> np.ndarray:
    """The numbers of an output that came as bytes.

    Raises:
        InvalidPrediction: The bytes do not hold numbers of that datatype.
    """
    dtype = FLOATS.get(datatype) or WHOLE.get(datatype)
    if dtype is None:
        return np.empty(0)  # `decode` refuses the datatype
    if len(raw) % dtype.itemsize:
        raise InvalidPrediction(f"{source} answered with raw contents that do not hold {datatype}")
    return np.frombuffer(raw, dtype)


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
    line = " ".join(text[: 10 * most].split())  # of a whole answer it would be millions of words
    return line if len(line) <= most else line[: most - 3] + "..."
