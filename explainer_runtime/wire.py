"""V2, V1 and Seldon bodies <-> arrays: what may be sent to an explainer, and what it sends back.

No server is known here. A host hands over the tensors of a request as it got them, lists or arrays, and
turns the tensors of the answer into its own types. The servers around us check little (a null becomes NaN,
a negative shape is reshaped, a string fails deep inside a codec), so everything is checked in this file,
and every refusal names the part of the body that it is about: `inputs[0].data`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import orjson

from explainer_runtime import methods
from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.explanation import Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.spec import Inputs

EXPLANATION = "explanation"
"""Name of the output that holds the whole answer as one JSON document."""
PICTURE = "picture"
"""Name of the output that holds the answer as a PNG, base64; only made for who asks for it."""

_FLOATS: dict[str, type[np.number[Any]]] = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_INTEGERS: dict[str, type[np.number[Any]]] = {
    f"{kind.upper()}{bits}": np.dtype(f"{kind}{bits}").type
    for kind in ("uint", "int")
    for bits in (8, 16, 32, 64)
}
_AXES = 32
"""Axes that rows may have; NumPy has 64."""
_PIECE = 16 * 1024
"""Values looked at without a break: Python's lock is held meanwhile, and others wait."""
_LONGEST = 64 * 1024
"""Characters of JSON in a parameter."""
_DEEPEST = 8
"""Axes that rows may have where a body does not say their shape, and levels of an option."""
_NUMBERS = {**_FLOATS, **_INTEGERS}
_DATATYPES = {np.dtype(dtype): name for name, dtype in _NUMBERS.items()}


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


# --- requests -----------------------------------------------------------------------------------------


def decode_rows(inputs: Sequence[Tensor]) -> np.ndarray:
    """The rows `(N, ...)`, float32 and finite, N >= 1, of a request's only input.

    Raises:
        InvalidInput: Not exactly one input, not a datatype of numbers, a shape that is negative or holds
            no row, data that is ragged, of another size than the shape, not numbers of the datatype, or
            not finite as float32.
    """
    if len(inputs) != 1:
        got = ", ".join(repr(tensor.name) for tensor in inputs) or "none"
        _refuse("inputs", f"expected exactly one tensor, the rows; got {got}")
    (tensor,) = inputs
    dtype = _NUMBERS.get(tensor.datatype)
    if dtype is None:
        _refuse("inputs[0].datatype", f"expected one of {', '.join(_NUMBERS)}; got {tensor.datatype}")
    shape = _checked_shape(tensor.shape)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        rows = _numbers(tensor.data, tensor.datatype, shape).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        _refuse("inputs[0].data", f"expected finite numbers, got {rows[where]} at {list(where)}")
    return rows


def unpack(datatype: str, content: bytes) -> np.ndarray | None:
    """The numbers `(M,)` of one raw tensor, as gRPC carries them: little-endian, without a copy.

    Returns:
        None for a datatype that is not of numbers.

    Raises:
        InvalidInput: The bytes are no whole number of elements.
    """
    dtype = _NUMBERS.get(datatype)
    if dtype is None:
        return None
    width = np.dtype(dtype).itemsize
    if len(content) % width:
        _refuse("raw_input_contents", f"{datatype} takes {width} bytes a number, got {len(content)} bytes")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def decode_options(parameters: Mapping[str, Any] | None, names: Collection[str]) -> dict[str, Any]:
    """The options that a request sets, not yet validated.

    They stand in `parameters.explain_parameters`, an object or (where a transport carries scalars only) a
    JSON string, or each as a parameter of its own. Such a parameter may be a string that holds JSON, since
    not every transport carries fractions or lists: "0.9", "[1, 2]". Parameters that are no option belong to
    servers and proxies and are left alone; unknown keys of `explain_parameters` are kept, for
    `parse_options` to refuse.

    Args:
        parameters: The request's parameters, or None.
        names: Every option there is.

    Raises:
        InvalidOption: `explain_parameters` is not an object, or an option is set in both places.
    """
    parameters = parameters or {}
    options = _object(parameters.get("explain_parameters"))
    for name, value in parameters.items():
        if name not in names or value is None:
            continue
        if name in options:
            raise InvalidOption(f"{name}: set both as a parameter and in explain_parameters", name)
        options[name] = _scalar(name, value)
    return options


def decode_body(body: Mapping[str, Any]) -> tuple[np.ndarray, Mapping[str, Any]]:
    """The rows (see `decode_rows`) and parameters of a body that is not V2: V1 or a SeldonMessage.

    V1 is `{"instances": rows}`, a SeldonMessage `{"data": {"ndarray": rows}}` or `{"data": {"tensor":
    {"shape": ..., "values": ...}}}`; the V1 body may also stand in its `jsonData`. Options stand in
    `parameters`, in `meta.tags`, or as `explain_parameters` beside the rows.

    Raises:
        InvalidInput: None of these, or what `decode_rows` refuses.
    """
    parameters = {**_part(_part(body, "meta"), "tags"), **_part(body, "parameters")}
    if body.get("explain_parameters") is not None:
        parameters["explain_parameters"] = body["explain_parameters"]
    if "jsonData" in body:
        rows, inner = decode_body(_part(body, "jsonData"))
        return rows, {**parameters, **inner}
    data = _part(body, "data")
    if "instances" in body:
        return _rows(body["instances"], "instances"), parameters
    if "ndarray" in data:
        return _rows(data["ndarray"], "data.ndarray"), parameters
    if "tensor" not in data:
        _refuse("body", "expected V2 `inputs`, V1 `instances`, or Seldon `data` with ndarray or tensor")
    tensor = _part(data, "tensor")
    return _rows(tensor.get("values"), "data.tensor", tensor.get("shape")), parameters


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        _refuse(name, f"expected an object, got {_json_type(part)}")
    return part


def _rows(values: Any, name: str, shape: Any = None) -> np.ndarray:
    """Rows of a body that names no datatype; without a shape, it is that of the first of each list."""
    if shape is None:
        shape, level = [], values
        while isinstance(level, list | tuple) and len(shape) <= _DEEPEST:
            shape.append(len(level))
            level = level[0] if level else None
    if not isinstance(shape, list) or not 1 <= len(shape) <= _DEEPEST:
        _refuse(name, f"expected rows as nested lists, at most {_DEEPEST} deep")
    try:
        return decode_rows([Tensor(name, "FP32", tuple(shape), values)])
    except InvalidInput as error:
        where, _, message = str(error).partition(": ")
        _refuse(where.replace("inputs[0].data", name).replace("inputs[0]", name), message)


def _scalar(name: str, value: Any) -> Any:
    """What a parameter holds: a string that is JSON other than a string is what it says."""
    if isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            parsed = _parsed(name, value)
            return value if isinstance(parsed, str) else parsed
    return value


def _parsed(name: str, text: str | bytes) -> Any:
    """JSON in a parameter: options are short and shallow."""
    if len(text) > _LONGEST:
        raise InvalidOption(f"{name}: expected at most {_LONGEST} characters, got {len(text)}", name)
    value = orjson.loads(text)
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise InvalidOption(f"{name}: expected at most {_DEEPEST} levels of nesting", name)
        inner = [part for part in level if isinstance(part, list | dict)]
        level = [one for part in inner for one in (part.values() if isinstance(part, dict) else part)]
    return value


def check_outputs(wanted: Sequence[str], known: Collection[str]) -> None:
    """Refuse outputs that do not exist, before anything is computed.

    Raises:
        InvalidOption: With the names that there are.
    """
    for index, name in enumerate(wanted):
        if name not in known:
            field = f"outputs[{index}].name"
            raise InvalidOption(f"{field}: no output {name!r}; there are {', '.join(known)}", field)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape)
    if not shape or not whole:
        _refuse("inputs[0].shape", f"expected sizes that are not negative, rows first; got {list(shape)}")
    if len(shape) > _AXES:
        _refuse("inputs[0].shape", f"expected at most {_AXES} axes, got {len(shape)}")
    if shape[0] == 0:
        _refuse("inputs[0].shape", f"expected at least one row, got {list(shape)}")
    if 0 in shape:  # NumPy cannot hold every empty shape: [1, 0, 2**63]
        _refuse("inputs[0].shape", f"expected at least one value a row, got {list(shape)}")
    return tuple(shape)


def _numbers(data: Any, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        flat = _flat(data, shape)
        data = np.empty(len(flat), _NUMBERS[datatype])
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE]
            _check_types(piece, datatype, start)
            try:
                data[start : start + _PIECE] = piece
            except OverflowError:
                _refuse("inputs[0].data", f"expected numbers that {datatype} can hold")
    if data.dtype.kind not in "fiu":
        _refuse("inputs[0].data", f"expected {datatype} numbers, got {data.dtype}")
    if data.size != math.prod(shape):
        _refuse_size(shape, data.size)
    return np.asarray(data).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...]) -> list[Any]:
    if not isinstance(data, list):
        _refuse("inputs[0].data", f"expected a list of numbers, got {_json_type(data)}")
    if data and isinstance(data[0], list | tuple):
        # Nested: level by level, so that neither depth nor raggedness can surprise anyone.
        level = [data]
        for depth, size in enumerate(shape):
            parts, level = level, []
            for start in range(0, len(parts), _PIECE):
                piece = parts[start : start + _PIECE]
                if not all(isinstance(part, list | tuple) and len(part) == size for part in piece):
                    _refuse(
                        "inputs[0].data", f"expected shape {list(shape)}: lists of {size} at depth {depth}"
                    )
                level += chain.from_iterable(piece)
        return level
    if len(data) != math.prod(shape):
        _refuse_size(shape, len(data))
    return data


def _check_types(flat: list[Any], datatype: str, start: int) -> None:
    # By exact type: bool is an int to Python and None a NaN to NumPy.
    allowed = {int, float} if datatype in _FLOATS else {int}
    if set(map(type, flat)) <= allowed:
        return
    index, value = next((i, value) for i, value in enumerate(flat, start) if type(value) not in allowed)
    what = "numbers" if datatype in _FLOATS else "integers"
    _refuse("inputs[0].data", f"expected {what}, got {_json_type(value)} at {index}")


def _json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", str: "a string", int: "a number", float: "a fraction"}
    names |= {dict: "an object", tuple: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _object(value: Any) -> dict[str, Any]:
    name = "explain_parameters"
    if isinstance(value, (str, bytes)):
        try:
            value = _parsed(name, value)
        except orjson.JSONDecodeError as error:
            raise InvalidOption(f"{name}: expected a JSON object, {error}", name) from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOption(f"{name}: expected an object, got {_json_type(value)}", name)
    return dict(value)


def _refuse_size(shape: tuple[int, ...], size: int) -> NoReturn:
    _refuse("inputs[0].data", f"expected {math.prod(shape)} numbers for shape {list(shape)}, got {size}")


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidInput(f"{field}: {message}", field)


# --- answers ------------------------------------------------------------------------------------------


def encode(explanation: Explanation, wanted: Collection[str] = ()) -> list[Tensor]:
    """The tensors of an answer: `explanation` first, then one a field, rows first.

    Args:
        explanation: What a method answered.
        wanted: Names of the outputs asked for; none are all. `explanation` is whole where no field is asked
            for beside it, and short where any is. Unknown names are left out (see `check_outputs`).
    """
    tensors = []
    if not wanted or EXPLANATION in wanted:
        short = not wanted or any(name in wanted for name in explanation.arrays)
        tensors.append(Tensor(EXPLANATION, "BYTES", (1, 1), [explanation.to_json(short=short)]))
    for name, array in explanation.arrays.items():
        if not wanted or name in wanted:
            tensors.append(_encode(name, array))
    return tensors


def listed(array: np.ndarray) -> list[Any]:
    """An array as a flat list of Python's numbers. Of a float32, which Python has not, it is the one that is
    written with as few digits."""
    flat = np.ascontiguousarray(array).ravel()
    pieces = (flat[at : at + _PIECE] for at in range(0, flat.size, _PIECE))
    return [
        *chain.from_iterable(
            orjson.loads(orjson.dumps(one, option=orjson.OPT_SERIALIZE_NUMPY)) for one in pieces
        )
    ]


def decode(tensors: Iterable[Tensor], seconds: float = 0.0) -> Explanation:
    """The answer that `encode` made these tensors of, `explanation` among them.

    Args:
        tensors: As they came: flat lists (REST), or bytes (gRPC's raw contents).
        seconds: What it cost, which is said beside the tensors.
    """
    arrays = {one.name: _decoded(one) for one in tensors}
    answer = Explanation.from_json(arrays.pop(EXPLANATION).item(), arrays)
    return replace(answer, cost=replace(answer.cost, seconds=seconds))


def _decoded(tensor: Tensor) -> np.ndarray:
    data = tensor.data
    if tensor.datatype == "BYTES" and isinstance(data, bytes):
        data, left = [], tensor.data
        while left:  # each with its length in front, four bytes, little end first
            end = 4 + int.from_bytes(left[:4], "little")
            data, left = [*data, left[4:end].decode()], left[end:]
    dtype: Any = {"BYTES": np.str_, "BOOL": np.bool_, **_NUMBERS}[tensor.datatype]
    flat = np.frombuffer(data, dtype) if isinstance(data, bytes) else np.array(data, dtype)
    return flat.reshape(tuple(tensor.shape))


def describe_input(inputs: Inputs) -> Tensor:
    """The input of an explainer, for its metadata."""
    return Tensor("input", "FP32", (-1, *inputs.shape))


def describe_outputs(fitted: Fitted) -> list[Tensor]:
    """Every output of an explainer, for its metadata, in the order of `encode`."""
    return [
        Tensor(EXPLANATION, "BYTES", (1, 1)),
        *(Tensor(name, datatype, (-1, *shape)) for name, (datatype, shape) in methods.fields(fitted).items()),
    ]


def _encode(name: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind == "U":
        return Tensor(name, "BYTES", array.shape, [word.encode() for word in array.ravel().tolist()])
    datatype = "BOOL" if array.dtype.kind == "b" else _DATATYPES[array.dtype]
    return Tensor(name, datatype, array.shape, array)
