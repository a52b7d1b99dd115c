"""V2, V1 and Seldon bodies <-> arrays: what may be sent to an explainer, and what it sends back.

No server is known here. A host hands over the tensors of a request as it got them, lists or arrays, and
turns the tensors of the answer into its own types. The servers around us check little (a null becomes NaN,
a negative shape is reshaped, a string fails deep inside a codec), so everything is checked in this file,
and every refusal names the part of the body that it is about: `inputs[0].data`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import numpy as np
import orjson

from explainer_runtime import methods
from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.explanation import Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.spec import Inputs
from explainer_runtime.tensors import DATATYPES, FLOATS, NUMBERS, Tensor, refuse, texts

EXPLANATION = "explanation"
"""Name of the output that holds the whole answer as one JSON document."""
PICTURE, CARD, PAGE = "picture", "card", "page"
"""Names of outputs that are only made for who asks for them: the answer as a PNG in base64, as a piece of
HTML, and as a page of its own."""
DRAWN = (PICTURE, CARD, PAGE)

_AXES = 32
"""Axes that rows may have; NumPy has 64."""
_PIECE = 16 * 1024
"""Values looked at without a break: Python's lock is held meanwhile, and others wait."""
_LONGEST = 64 * 1024
"""Characters of JSON in a parameter."""
_DEEPEST = 8
"""Axes that rows may have where a body does not say their shape, and levels of an option."""


class Files(NamedTuple):
    """Pictures of a request that are not yet decoded.

    Attributes:
        each: The bytes of each file.
        field: Where they stand in the body.
    """

    each: tuple[bytes, ...]
    field: str


# --- requests -----------------------------------------------------------------------------------------


def decode_input(inputs: Sequence[Tensor]) -> np.ndarray | Files:
    """The rows of a request's only input, see `decode_rows`; of `BYTES` the files that they are.

    A file is base64 where it came as text (JSON), and bytes where it came as bytes.

    Raises:
        InvalidInput: As `decode_rows`; or a shape other than one of so many files, or what is no base64.
    """
    if len(inputs) != 1 or inputs[0].datatype != "BYTES":
        return decode_rows(inputs)
    shape, data = _checked_shape(inputs[0].shape), inputs[0].data
    if (
        not isinstance(data, list | tuple | np.ndarray)
        or math.prod(shape) != shape[0]
        or len(data) != shape[0]
    ):
        numbers = ", ".join(NUMBERS)
        refuse("inputs[0].datatype", f"expected one of {numbers}; or BYTES [N], files; got {list(shape)}")
    return _files(data, "inputs[0].data")


def _files(values: Any, field: str) -> Files:
    each = list(values)
    for index, value in enumerate(each):
        if isinstance(value, str):
            try:
                each[index] = base64.b64decode(value, validate=True)
            except ValueError:
                refuse(f"{field}[{index}]", "expected a picture's file in base64")
        elif not isinstance(value, bytes):
            refuse(f"{field}[{index}]", f"expected a picture's file in base64, got {_json_type(value)}")
    return Files(tuple(each), field)


def decode_rows(inputs: Sequence[Tensor]) -> np.ndarray:
    """The rows `(N, ...)`, float32 and finite, N >= 1, of a request's only input.

    Raises:
        InvalidInput: Not exactly one input, not a datatype of numbers, a shape that is negative or holds
            no row, data that is ragged, of another size than the shape, not numbers of the datatype, or
            not finite as float32.
    """
    if len(inputs) != 1:
        got = ", ".join(repr(tensor.name) for tensor in inputs) or "none"
        refuse("inputs", f"expected exactly one tensor, the rows; got {got}")
    (tensor,) = inputs
    dtype = NUMBERS.get(tensor.datatype)
    if dtype is None:
        refuse("inputs[0].datatype", f"expected one of {', '.join(NUMBERS)}; got {tensor.datatype}")
    shape = _checked_shape(tensor.shape)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        rows = _numbers(tensor.data, tensor.datatype, shape).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        refuse("inputs[0].data", f"expected finite numbers, got {rows[where]} at {list(where)}")
    return rows


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
        options[name] = scalar(name, value)
    return options


def decode_body(body: Mapping[str, Any]) -> tuple[np.ndarray | Files, Mapping[str, Any]]:
    """The rows (see `decode_rows`) and parameters of a body that is not V2: V1 or a SeldonMessage.

    V1 is `{"instances": rows}`, where each row may be a picture's file, `{"b64": file}`; a SeldonMessage
    `{"data": {"ndarray": rows}}` or `{"data": {"tensor": {"shape": ..., "values": ...}}}`; the V1 body may
    also stand in its `jsonData`. Options stand in `parameters`, in `meta.tags`, or as `explain_parameters`
    beside the rows.

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
        refuse("body", "expected V2 `inputs`, V1 `instances`, or Seldon `data` with ndarray or tensor")
    tensor = _part(data, "tensor")
    return _rows(tensor.get("values"), "data.tensor", tensor.get("shape")), parameters


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        refuse(name, f"expected an object, got {_json_type(part)}")
    return part


def _rows(values: Any, name: str, shape: Any = None) -> np.ndarray | Files:
    """Rows of a body that names no datatype; without a shape, it is that of the first of each list."""
    if shape is None and isinstance(values, list | tuple) and values and isinstance(values[0], dict):
        if any(not isinstance(one, dict) or set(one) != {"b64"} for one in values):
            refuse(name, 'expected rows, or for each row that is a picture {"b64": file}')
        return _files([one["b64"] for one in values], name)
    if shape is None:
        shape, level = [], values
        while isinstance(level, list | tuple) and len(shape) <= _DEEPEST:
            shape.append(len(level))
            level = level[0] if level else None
    if not isinstance(shape, list) or not 1 <= len(shape) <= _DEEPEST:
        refuse(name, f"expected rows as nested lists, at most {_DEEPEST} deep")
    try:
        return decode_rows([Tensor(name, "FP32", tuple(shape), values)])
    except InvalidInput as error:
        where, _, message = str(error).partition(": ")
        refuse(where.replace("inputs[0].data", name).replace("inputs[0]", name), message)


def scalar(name: str, value: Any) -> Any:
    """What a parameter holds: a string that is JSON other than a string is what it says.

    Raises:
        InvalidOption: It is longer than 64 KiB, or deeper than eight levels.
    """
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
        refuse("inputs[0].shape", f"expected sizes that are not negative, rows first; got {list(shape)}")
    if len(shape) > _AXES:
        refuse("inputs[0].shape", f"expected at most {_AXES} axes, got {len(shape)}")
    if shape[0] == 0:
        refuse("inputs[0].shape", f"expected at least one row, got {list(shape)}")
    if 0 in shape:  # NumPy cannot hold every empty shape: [1, 0, 2**63]
        refuse("inputs[0].shape", f"expected at least one value a row, got {list(shape)}")
    return tuple(shape)


def _numbers(data: Any, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        flat = _flat(data, shape)
        data = np.empty(len(flat), NUMBERS[datatype])
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE]
            _check_types(piece, datatype, start)
            try:
                data[start : start + _PIECE] = piece
            except OverflowError:
                refuse("inputs[0].data", f"expected numbers that {datatype} can hold")
    if data.dtype.kind not in "fiu":
        refuse("inputs[0].data", f"expected {datatype} numbers, got {data.dtype}")
    if data.size != math.prod(shape):
        _refuse_size(shape, data.size)
    return np.asarray(data).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...]) -> list[Any]:
    if not isinstance(data, list):
        refuse("inputs[0].data", f"expected a list of numbers, got {_json_type(data)}")
    if data and isinstance(data[0], list | tuple):
        # Nested: level by level, so that neither depth nor raggedness can surprise anyone.
        level = [data]
        for depth, size in enumerate(shape):
            parts, level = level, []
            for start in range(0, len(parts), _PIECE):
                piece = parts[start : start + _PIECE]
                if not all(isinstance(part, list | tuple) and len(part) == size for part in piece):
                    refuse(
                        "inputs[0].data", f"expected shape {list(shape)}: lists of {size} at depth {depth}"
                    )
                level += chain.from_iterable(piece)
        return level
    if len(data) != math.prod(shape):
        _refuse_size(shape, len(data))
    return data


def _check_types(flat: list[Any], datatype: str, start: int) -> None:
    # By exact type: bool is an int to Python and None a NaN to NumPy.
    allowed = {int, float} if datatype in FLOATS else {int}
    if set(map(type, flat)) <= allowed:
        return
    index, value = next((i, value) for i, value in enumerate(flat, start) if type(value) not in allowed)
    what = "numbers" if datatype in FLOATS else "integers"
    refuse("inputs[0].data", f"expected {what}, got {_json_type(value)} at {index}")


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
    refuse("inputs[0].data", f"expected {math.prod(shape)} numbers for shape {list(shape)}, got {size}")


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
        data = [text.decode() for text in texts(data)]
    dtype: Any = {"BYTES": np.str_, "BOOL": np.bool_, **NUMBERS}[tensor.datatype]
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
    datatype = "BOOL" if array.dtype.kind == "b" else DATATYPES[array.dtype]
    return Tensor(name, datatype, array.shape, array)
