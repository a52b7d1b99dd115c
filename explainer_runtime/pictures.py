"""Pictures as rows: what a person sends becomes what a model is shown, and it is known how.

Bytes are pixels: 0 to 255 become the range of the explainer, linearly. A picture of another size is refused,
unless `resize` of the input contract says how it is made to fit. Whoever draws an explanation draws it on
the picture that was sent: `Sent` says which part of that the row shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from explainer_runtime.errors import ExplainerError, InvalidInput
from explainer_runtime.search.kept import scaled
from explainer_runtime.spec import Inputs

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Those of the suffixes, and no other: some of Pillow's readers start programs."""
_SAMPLE_FORMAT = 339
"""Tag of a TIFF: 1 are whole numbers without a sign, and the reader takes all others for those."""
_MODES = {(): "L", (1,): "L", (3,): "RGB"}
_MOST = 50_000_000
"""Pixels of a picture that is resized; they are three bytes each in memory."""
_WHILE_READ = 16
"""Bytes that each pixel takes at most while it is decoded, turned and brought to the mode asked for."""
_PIECES, _SCANS = 10_000, 100
"""Pieces of a JPEG, and scans among them; a photograph has some dozens, a progressive one ten scans."""
_PIECE = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What begins the next piece of a JPEG; in the data of a scan there is no such thing."""


@dataclass(frozen=True)
class Sent:
    """A picture as it was sent, and the row that was made of it.

    Attributes:
        row: `(*S)`, float32, in input units.
        pixels: The picture upright, `(H, W, 1)` or `(H, W, 3)`, uint8.
        box: The part of it that the row shows, in its pixels: left, top, right, bottom.
        resize: How the row was made of that part; `none` where they are of one size.
    """

    row: np.ndarray
    pixels: np.ndarray
    box: tuple[int, int, int, int]
    resize: str = "none"

    def said(self) -> dict[str, Any]:
        """What an answer says of it, as JSON values."""
        tall, wide = self.pixels.shape[:2]
        return {"size": [wide, tall], "box": list(self.box), "resize": self.resize}


def taken(inputs: Inputs) -> bool:
    """Whether rows of this contract can be pictures."""
    return _shape(inputs) is not None


def read(
    source: Path | IO[bytes],
    inputs: Inputs,
    name: str,
    field: str = "input",
    hold: Callable[[int], None] = lambda more: None,
) -> Sent:
    """One picture as a row of the contract: grey or RGB as it asks, its bytes scaled to its range.

    It is turned as its EXIF data say. What is resized is so bilinearly, over all pixels that fall into one.

    Args:
        source: A file, or its bytes.
        inputs: The input contract; its `resize` says what is done with a picture of another size.
        name: What to call it in messages.
        field: What a refusal is about.
        hold: Told how many bytes more are held, or fewer, before they are; it may raise, and then nothing
            has been decoded. The pixels that are returned are held in the end.

    Raises:
        InvalidInput: Not an image, of a size that is not taken, with more than 8 bits, of several frames, or
            partly transparent.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    first, shape = inputs.layout == "channels_first", _shape(inputs)
    if shape is None:
        said = f" with layout {inputs.layout}" if len(inputs.shape) == 3 else ""
        raise InvalidInput(
            f"{name}: this explainer takes rows of shape {inputs.shape}{said}, not images", field
        )
    size, mode, held = (shape[1], shape[0]), _MODES[shape[2:]], 0
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                return read(file, inputs, name, field, hold)
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be read as an image: {error}", field) from None
    _refuse_what_takes_long(source, name, field)
    try:
        with Image.open(source, formats=_FORMATS) as image:
            _refuse_size(image.size, size, inputs.resize, name, field, turned=True)
            _refuse_what_would_be_cut(image, name, field)
            hold(_WHILE_READ * image.width * image.height)
            held = _WHILE_READ * image.width * image.height
            ImageOps.exif_transpose(image, in_place=True)
            _refuse_size(image.size, size, inputs.resize, name, field)
            if image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise InvalidInput(f"{name}: is partly transparent; put it on a background first", field)
            seen = image.convert(mode)
            same = seen.size == size
            box = _middle(seen.size, size) if inputs.resize == "centre_crop" else (0, 0, *seen.size)
            # Cut first: `resize(box=...)` would let pixels beside the box into the row.
            shown = seen if same else seen.crop(box).resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(shown).reshape(shape)
            whole = np.asarray(seen).reshape(*seen.size[::-1], -1)
    except ExplainerError:
        raise
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS)
        raise InvalidInput(f"{name}: cannot be read as an image; expected one of {kinds}", field) from None
    except Exception as error:  # decoders meet damage with errors of every kind, IndexError among them
        raise InvalidInput(f"{name}: cannot be read as an image: {error}", field) from None
    finally:
        hold(-held)
    hold(whole.size)
    row = scaled(np.moveaxis(pixels, -1, 0) if first else pixels, inputs.low, inputs.high)
    return Sent(np.ascontiguousarray(row), whole, box, "none" if same else inputs.resize)


def _shape(inputs: Inputs) -> tuple[int, ...] | None:
    """A row's shape, channels last; None where it is no picture, or nobody says where its channels are."""
    first = inputs.layout == "channels_first"
    shape = (*inputs.shape[1:], inputs.shape[0]) if first else inputs.shape
    unknown = len(shape) == 3 and inputs.layout is None
    return None if len(shape) not in (2, 3) or shape[2:] not in _MODES or unknown else shape


def _middle(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest part in the middle of a picture that has the proportions wanted."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    wide, tall = (min(all_, max(1, round(one * scale))) for all_, one in zip(size, wanted, strict=True))
    left, top = (size[0] - wide) // 2, (size[1] - tall) // 2
    return left, top, left + wide, top + tall


def _refuse_size(
    size: tuple[int, int],
    wanted: tuple[int, int],
    resize: str,
    name: str,
    field: str,
    *,
    turned: bool = False,
) -> None:
    """Refuse a picture of another size, before it is decoded: a small file can hold a very large one."""
    if resize == "none" and size != wanted and not (turned and size == wanted[::-1]):
        raise InvalidInput(
            f"{name}: expected an image {wanted[0]} pixels wide and {wanted[1]} high, got {size[0]} by "
            f"{size[1]}; resize it first, or let `resize` say how: fit, centre_crop",
            field,
        )
    if size[0] * size[1] > _MOST and size != wanted:
        raise InvalidInput(f"{name}: expected at most {_MOST:,} pixels, got {size[0]} by {size[1]}", field)


def _refuse_what_takes_long(source: IO[bytes], name: str, field: str) -> None:
    """Refuse a JPEG of very many pieces, before it is opened: the reader keeps each, however short it is, and
    goes over the whole picture for each scan, of which eleven bytes are one.
    """
    start = source.tell()
    content = source.read() if source.read(2) == b"\xff\xd8" else b""
    source.seek(start)
    at = pieces = scans = 0
    while (found := _PIECE.search(content, at)) and pieces <= _PIECES and scans <= _SCANS:
        kind = content[found.start() + 1]
        if kind == 0xD9 and scans:  # what follows is another picture, or none
            break
        pieces += 1 if scans else 1 + found.start() - at  # in its head each byte between them is read alone
        scans += kind == 0xDA
        bare = kind in (0x01, 0xD8, 0xD9)
        at = found.end() if bare else found.end() + int.from_bytes(content[found.end() : found.end() + 2])
    if pieces > _PIECES or scans > _SCANS:
        raise InvalidInput(
            f"{name}: expected a JPEG of at most {_PIECES:,} pieces and {_SCANS} scans; save it anew", field
        )


def _refuse_what_would_be_cut(image: ImageFile, name: str, field: str) -> None:
    """Refuse what the reader would silently reduce: 16 bits to their upper eight, a film to one frame."""
    # Of 16 bits a channel, colour and grey with transparency are decoded to 8; only the decoder's mode tells.
    deep = image.format in ("PNG", "TIFF") and any(";16" in str(part) for part in image.tile)
    if deep or image.mode.startswith(("I", "F")):
        raise InvalidInput(
            f"{name}: expected 8 bits a channel, got more (mode {image.mode}); convert it first, stretched "
            "as the images were that the model was trained on",
            field,
        )
    if image.format == "TIFF" and np.any(np.asarray(image.tag_v2.get(_SAMPLE_FORMAT, 1)) != 1):  # type: ignore[attr-defined]
        raise InvalidInput(f"{name}: expected bytes from 0 to 255, got samples with a sign", field)
    # A JPEG of several pictures (MPO) is a photograph with its previews. Counting frames takes as long as a
    # stranger likes; whether there is a second one is soon known.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InvalidInput(
            f"{name}: expected one picture, got several frames; save one of them as a file of its own", field
        )
