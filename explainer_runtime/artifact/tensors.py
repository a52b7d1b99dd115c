"""Named arrays as the bytes of one safetensors file, and back.

The format cannot hold code, and its own reader refuses offsets that overlap, leave holes or point outside
the file. What is added here: only the dtypes NumPy has, a short header, and no values that would surface
as NaN in an answer much later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidArtifact

DTYPES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
"""The dtypes an artifact may hold: safetensors' names and NumPy's."""
HEADER_LIMIT = 2**20
"""Most bytes of the header, which names every array."""


def dump(arrays: Mapping[str, np.ndarray], name: str) -> bytes:
    """The bytes of a safetensors file; the same arrays give the same bytes.

    Raises:
        InvalidArtifact: An array of another dtype than `DTYPES`, or with NaN or infinite values; `name`
            says of which file.
    """
    # safetensors writes memory as it lies: a transposed view would come back scrambled without the copy.
    ready = {key: np.array(value, order="C", copy=True) for key, value in arrays.items()}
    for key, value in ready.items():
        if value.dtype.name not in DTYPES.values():
            raise InvalidArtifact(
                f"{name}: {short(key)} has dtype {value.dtype}, which an artifact cannot hold"
            )
        _check_values(value, key, name)
    return safetensors.numpy.save(ready)


def parse(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a safetensors file, read-only.

    Raises:
        InvalidArtifact: Not a safetensors file, too long a header, another dtype than `DTYPES`, NaN or
            infinite values, a bool that is neither 0 nor 1.
    """
    if (length := int.from_bytes(data[:8], "little")) > HEADER_LIMIT:
        raise InvalidArtifact(
            f"{name}: is not a safetensors file: a header of {length} bytes, at most {HEADER_LIMIT}"
        )
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise InvalidArtifact(f"{name}: is not a safetensors file: {short(str(error))}") from None
    arrays = {}
    for key, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise InvalidArtifact(f"{name}: {short(key)} has dtype {entry['dtype']}, which is not allowed")
        arrays[key] = _array(DTYPES[entry["dtype"]], entry["shape"], entry["data"], key, name)
    return arrays


def _array(dtype: str, shape: list[int], data: bytes, key: str, name: str) -> np.ndarray:
    try:
        array: np.ndarray = np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), buffer=data)
    except ValueError as error:  # more axes, or longer ones, than NumPy can index
        raise InvalidArtifact(f"{name}: {short(key)} has a shape that cannot be: {error}") from None
    if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidArtifact(f"{name}: {short(key)} has truth values that are neither 0 nor 1")
    _check_values(array, key, name)
    array.flags.writeable = False
    return array


def _check_values(array: np.ndarray, key: str, name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidArtifact(f"{name}: {short(key)} has NaN or infinite values; remove them and fit again")
