"""A form with pictures in it, `multipart/form-data`: read by the parser that both servers bring; bounded."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from explainer_runtime.errors import InvalidInput

_MOST = 66
"""Parts of one form: 64 rows, as in any request, and what is said of them."""
_NAMES = ("image", "options", "outputs")


@dataclass
class Part:
    """One part of a form.

    Attributes:
        name: What it is.
        kind: Its content type, or that of a file of which nothing is said.
        content: What it holds.
    """

    name: str = ""
    kind: str = ""
    content: bytes = b""


@dataclass
class Form:
    """What a form holds.

    Attributes:
        images: Files of pictures, at least one.
        options: A JSON object, not yet looked at; None where there is none.
        outputs: A JSON list, not yet looked at; None where there is none.
    """

    images: list[Part] = field(default_factory=list)
    options: bytes | None = None
    outputs: bytes | None = None


def read(body: bytes, content_type: str) -> Form:
    """What is in a form.

    Args:
        body: The whole form.
        content_type: What the request says of it, its boundary among it.

    Raises:
        InvalidInput: It is none, or has other parts than `image`, once or more, `options` and `outputs`.
    """
    form = Form()
    for part in _parts(body, content_type):
        if part.name == "image":
            form.images.append(part)
        elif part.name not in _NAMES:
            raise InvalidInput(f"body: expected parts named {', '.join(_NAMES)}; got {part.name[:100]!r}")
        elif getattr(form, part.name) is not None:
            raise InvalidInput(f"{part.name}: expected one part of this name")
        else:
            setattr(form, part.name, part.content)
    if not form.images:
        raise InvalidInput("image: expected a part of this name, a picture's file")
    return form


def _parts(body: bytes, content_type: str) -> list[Part]:
    """The parts of a form, as they come."""
    parts: list[Part] = []
    pieces: list[bytes] = []
    name, value, ended = b"", b"", False

    def begin() -> None:
        if len(parts) == _MOST:
            raise InvalidInput(f"body: expected at most {_MOST} parts")
        parts.append(Part())

    def field_(data: bytes, start: int, end: int) -> None:
        nonlocal name
        name += data[start:end]

    def value_(data: bytes, start: int, end: int) -> None:
        nonlocal value
        value += data[start:end]

    def header() -> None:
        nonlocal name, value
        if name.lower() == b"content-disposition":
            parts[-1].name = parse_options_header(value)[1].get(b"name", b"").decode("latin-1")
        elif name.lower() == b"content-type":
            parts[-1].kind = value.decode("latin-1")
        name = value = b""

    def end() -> None:
        parts[-1].content = b"".join(pieces)
        pieces.clear()

    def last() -> None:
        nonlocal ended
        ended = True

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    try:
        MultipartParser(
            boundary or b"",
            {
                "on_part_begin": begin,
                "on_header_field": field_,
                "on_header_value": value_,
                "on_header_end": header,
                "on_part_data": lambda data, start, end: pieces.append(data[start:end]),
                "on_part_end": end,
                "on_end": last,
            },
        ).write(body)
    except FormParserError:
        ended = False
    if not (boundary and ended):
        raise InvalidInput("body: expected multipart/form-data, complete, with its boundary in content-type")
    return parts
