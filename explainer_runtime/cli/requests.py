"""What is to be explained: an image, arrays or a V2 request, and the options that go with it.

Bytes are pixels: 0 to 255 become the range of the explainer, linearly. Other numbers are taken as they are.
Nothing is guessed beyond that: an image of another size is refused, unless the contract says how it fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from explainer_runtime import methods, pictures, wire
from explainer_runtime.cli import files
from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.pictures import Sent
from explainer_runtime.search.kept import scaled
from explainer_runtime.spec import Inputs
from explainer_runtime.tensors import Tensor


class Request(NamedTuple):
    """Rows to explain `(N, *S)`, the options that came with them, and the pictures they were, if any."""

    x: np.ndarray
    options: Mapping[str, Any]
    sent: tuple[Sent, ...] = ()

    def select(self, chosen: str | None) -> Request:
        """The rows that are named by a list; see `select`."""
        places = select(np.arange(len(self.x)), chosen)
        return self._replace(x=self.x[places], sent=tuple(self.sent[place] for place in places if self.sent))


def read_rows(path: Path, contract: Inputs, kind: str) -> Request:
    """What to explain: an image, arrays, or a V2 request.

    Args:
        path: Its suffix says what it is.
        contract: What rows the explainer takes.
        kind: The explainer's method, whose options a request may carry.

    Raises:
        InvalidInput: It cannot be read, or is not for this explainer.
        InvalidOption: The options of a V2 request.
    """
    suffix = path.suffix.lower()
    if suffix in pictures.SUFFIXES:
        files.check(path, "input")
        sent = pictures.read(path, contract, str(path))
        return Request(sent.row[None], {}, (sent,))
    if suffix in (".npz", ".npy"):
        x = files.array(path, ("x", "x_test"), "input")
        if x.dtype == np.uint8:
            x = scaled(x, contract.low, contract.high)
        return Request(_shaped(files.finite(x, "input"), contract), {})
    if suffix == ".json":
        return _v2_request(path, kind)
    raise InvalidInput(
        f"{path}: expected an image ({', '.join(pictures.SUFFIXES)}), .npz, .npy or .json", "input"
    )


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options given as KEY=VALUE; a value is JSON where it can be, else a word. `@FILE` is what a `.npy` or
    `.npz` holds, or the JSON in any other file.

    Raises:
        InvalidOption: No `=`, or a key given twice.
        InvalidInput: The file cannot be read.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark or not key:
            raise InvalidOption(f"expected KEY=VALUE, got {pair!r}", "option")
        if key in options:
            raise InvalidOption(f"{key}: given twice", key)
        file = Path(text[1:]) if text.startswith("@") else None
        if file is not None and file.suffix.lower() in (".npy", ".npz"):
            options[key] = files.array(file, (key,), key, "fiub").tolist()
            continue
        try:
            options[key] = orjson.loads(text if file is None else files.text(file, key))
        except orjson.JSONDecodeError as error:
            if file is not None:
                raise InvalidOption(f"{key}: {file} is not JSON: {error}", key) from None
            options[key] = text
    return options


def select(x: np.ndarray, chosen: str | None) -> np.ndarray:
    """The rows of `x` named by a list such as `0,3,8:12`; None is all of them.

    Raises:
        InvalidInput: Not such a list, or a row that is not there.
    """
    if chosen is None:
        return x
    indices: list[int] = []
    for part in chosen.split(","):
        start, mark, stop = part.partition(":")
        try:
            first = int(start or 0)
            last = int(stop) if stop else len(x) if mark else first + 1
        except ValueError:
            raise InvalidInput(f"expected rows such as 0,3,8:12, got {chosen!r}", "rows") from None
        if not 0 <= first < last <= len(x):
            raise InvalidInput(f"expected rows from 0 to {len(x) - 1}, got {part!r}", "rows")
        indices.extend(range(first, last))
    return x[indices]


# --- helpers --------------------------------------------------------------------------------------------


def _v2_request(path: Path, kind: str) -> Request:
    try:
        body = orjson.loads(files.text(path, "input"))
        tensors = [
            Tensor(one["name"], one["datatype"], tuple(one["shape"]), one["data"]) for one in body["inputs"]
        ]
        parameters = body.get("parameters")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path}: expected a V2 request, an object with `inputs` of name, shape, datatype and data "
            f"({type(error).__name__}: {error})",
            "input",
        ) from None
    return Request(
        wire.decode_rows(tensors), wire.decode_options(parameters, methods.options(kind).model_fields)
    )


def _shaped(x: np.ndarray, contract: Inputs) -> np.ndarray:
    """`x` as rows of the contract: one row alone, or grey images without an axis for it, are understood."""
    shape = contract.shape
    if contract.layout == "channels_first":
        grey = shape[1:] if shape[0] == 1 else shape
    else:
        grey = shape[:-1] if shape[-1] == 1 and len(shape) > 1 else shape
    for allowed in (shape, grey):
        if x.shape == allowed:
            return x.reshape(1, *shape)
        if x.shape[1:] == allowed:
            return x.reshape(len(x), *shape)
    wanted = ", ".join(map(str, shape))
    raise InvalidInput(f"expected rows of shape (N, {wanted}), got {x.shape}", "input")
