"""Tensors of V2: what one is, and their binary form, which gRPC and REST share.

Numbers are little-endian and lie one behind the other; texts (`BYTES`) have each their length in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from explainer_runtime.errors import InvalidInput

FLOATS: dict[str, type[np.number[Any]]] = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
INTEGERS: dict[str, type[np.number[Any]]] = {
    f"{kind.upper()}{bits}": np.dtype(f"{kind}{bits}").type
    for kind in ("uint", "int")
    for bits in (8, 16, 32, 64)
}
NUMBERS = {**FLOATS, **INTEGERS}
_MOST = 100_000
DATATYPES = {np.dtype(dtype): name for name, dtype in NUMBERS.items()}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a V2 body, or its description in a model's metadata.

    Attributes:
        name: What the model calls it.
        datatype: A V2 datatype: `FP32`, `INT64`, `BOOL`, `BYTES`, ...
        shape: Rows first; -1 where a description leaves the size open.
        data: Numbers as a flat list, as lists or tuples nested like `shape`, or as an array; `BYTES` as a
            list of bytes. None in a description.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None


def unpack(datatype: str, content: bytes) -> np.ndarray | list[bytes] | None:
    """The numbers `(M,)` of one raw tensor, as gRPC carries them: little-endian, without a copy.

    Returns:
        Of `BYTES` each text, and None for another datatype that is not of numbers.

    Raises:
        InvalidInput: The bytes are no whole number of elements.
    """
    if datatype == "BYTES":
        return texts(content)
    dtype = NUMBERS.get(datatype)
    if dtype is None:
        return None
    width = np.dtype(dtype).itemsize
    if len(content) % width:
        refuse("raw_input_contents", f"{datatype} takes {width} bytes a number, got {len(content)} bytes")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def texts(content: bytes) -> list[bytes]:
    """Texts as one raw tensor holds them: each with its length in front, four bytes, little end first."""
    found: list[bytes] = []
    at = 0
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        if at + 4 > len(content) or end > len(content) or len(found) == _MOST:
            refuse(
                "raw_input_contents", f"BYTES are at most {_MOST} texts, each behind its length in four bytes"
            )
        found.append(content[at + 4 : end])
        at = end
    return found


def attach(document: Any, tail: bytes) -> None:
    """Put the binary tensors behind a V2 request where its JSON would have their data.

    Args:
        document: The request, whose inputs say `parameters.binary_data_size`.
        tail: The bytes behind it.

    Raises:
        InvalidInput: They are not those that it says.
    """
    inputs, at = document.get("inputs") if isinstance(document, dict) else None, 0
    for index, tensor in enumerate(inputs if isinstance(inputs, list) else ()):
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            continue
        field = f"inputs[{index}].parameters.binary_data_size"
        if type(size) is not int or not 0 <= size <= len(tail) - at or "data" in tensor:
            refuse(field, f"expected the bytes of a tensor without data, at most {len(tail) - at}")
        numbers = unpack(str(tensor.get("datatype")), tail[at : at + size])
        if numbers is None:
            refuse(f"inputs[{index}].datatype", f"expected BYTES or one of {', '.join(NUMBERS)}")
        tensor["data"], at = numbers, at + size
    if at != len(tail):
        refuse("body", f"expected {at} bytes behind the request, as its inputs say; got {len(tail)}")


def refuse(field: str, message: str) -> NoReturn:
    """Refuse a part of a body.

    Raises:
        InvalidInput: Always.
    """
    raise InvalidInput(f"{field}: {message}", field)
