"""What is to be explained: an image, arrays or a V2 request, and the options that go with it.

Bytes are pixels: 0 to 255 become the range of the explainer, linearly. Other numbers are taken as they are.
Nothing is guessed beyond that: an image of another size is refused, not resized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from explainer_runtime import methods, wire
from explainer_runtime.cli import files
from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.search.kept import scaled
from explainer_runtime.spec import Inputs

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class Request(NamedTuple):
    """Rows to explain `(N, *S)` and the options that came with them."""

    x: np.ndarray
    options: Mapping[str, Any]


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
    if suffix in IMAGES:
        return Request(read_image(path, contract)[None], {})
    if suffix in (".npz", ".npy"):
        x = files.array(path, ("x", "x_test"), "input")
        if x.dtype == np.uint8:
            x = scaled(x, contract.low, contract.high)
        return Request(_shaped(files.finite(x, "input"), contract), {})
    if suffix == ".json":
        return _v2_request(path, kind)
    raise InvalidInput(f"{path}: expected an image ({', '.join(IMAGES)}), .npz, .npy or .json", "input")


def read_image(path: Path, contract: Inputs) -> np.ndarray:
    """One image file as a row of the contract: grey or RGB as it asks, its bytes scaled to its range.

    It is turned as its EXIF data say.

    Raises:
        InvalidInput: Not an image, of another size, with more than 8 bits, of several frames, or partly
            transparent.
    """
    from PIL import Image, ImageOps

    first = contract.layout == "channels_first"
    shape = (*contract.shape[1:], contract.shape[0]) if first else contract.shape
    modes = {(): "L", (1,): "L", (3,): "RGB"}
    if len(shape) not in (2, 3) or shape[2:] not in modes or (len(shape) == 3 and contract.layout is None):
        said = f" with layout {contract.layout}" if len(shape) == 3 else ""
        raise InvalidInput(
            f"{path}: this explainer takes rows of shape {contract.shape}{said}, not images", "input"
        )
    files.check(path, "input")
    try:
        with Image.open(path) as image:
            # Before decoding: a small file can hold a very large image.
            if image.size not in ((shape[1], shape[0]), (shape[0], shape[1])):
                _refuse_size(path, shape, image.size)
            _refuse_what_would_be_cut(path, image)
            upright = ImageOps.exif_transpose(image)
            if upright.size != (shape[1], shape[0]):
                _refuse_size(path, shape, upright.size)
            if upright.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise InvalidInput(f"{path}: is partly transparent; put it on a background first", "input")
            pixels = np.asarray(upright.convert(modes[shape[2:]])).reshape(shape)
    except InvalidInput:
        raise
    except Exception as error:  # decoders meet damage with errors of every kind, IndexError among them
        raise InvalidInput(f"{path}: cannot be read as an image: {error}", "input") from None
    row = np.moveaxis(pixels, -1, 0) if first else pixels
    return np.ascontiguousarray(scaled(row, contract.low, contract.high))


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options given as KEY=VALUE; a value is JSON where it can be, else a word.

    Raises:
        InvalidOption: No `=`, or a key given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark or not key:
            raise InvalidOption(f"expected KEY=VALUE, got {pair!r}", "option")
        if key in options:
            raise InvalidOption(f"{key}: given twice", key)
        try:
            options[key] = orjson.loads(text)
        except orjson.JSONDecodeError:
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
            wire.Tensor(one["name"], one["datatype"], tuple(one["shape"]), one["data"])
            for one in body["inputs"]
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


def _refuse_what_would_be_cut(path: Path, image: ImageFile) -> None:
    """Refuse what the reader would silently reduce: 16 bits to their upper eight, a film to one frame."""
    # Of 16 bits a channel, colour and grey with transparency are decoded to 8; only the decoder's mode tells.
    deep = image.format in ("PNG", "TIFF") and any(";16" in str(part) for part in image.tile)
    if deep or image.mode.startswith(("I", "F")):
        raise InvalidInput(
            f"{path}: expected 8 bits a channel, got more (mode {image.mode}); convert it first, stretched "
            "as the images were that the model was trained on",
            "input",
        )
    # A JPEG of several pictures (MPO) is a photograph with its previews.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise InvalidInput(
            f"{path}: expected one picture, got {frames} frames; save one of them as a file of its own",
            "input",
        )


def _refuse_size(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    raise InvalidInput(
        f"{path}: expected an image {shape[1]} pixels wide and {shape[0]} high, got {size[0]} by {size[1]}; "
        "resize it first",
        "input",
    )
