"""gRPC messages that a stranger sent: counted before they are parsed.

An empty input is two bytes on the wire, a few when it is packed, and a thousand once it is an object. So the
fields of a message are counted on its bytes first (protocol buffers' encoding: a tag, then a number or a
length), and no further than is allowed. What is malformed is refused here: no parser reads it differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explainer_runtime.hosts.door.documents import Bounds
from explainer_runtime.hosts.limits import inflate

_PACKED = (b"\x1f\x8b\x08", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How gzip and deflate begin: in protocol buffers, a wire type that is none and a field nobody has."""
NO_MESSAGE = "body: expected a V2 request"

_PARAMETER: Mapping[int, Any] = {2: {}}
_CONTENTS: Mapping[int, Any] = {}
_REQUEST: Mapping[int, Any] = {4: _PARAMETER, 5: {4: _PARAMETER, 5: _CONTENTS}, 6: {2: _PARAMETER}}
"""Which fields of `ModelInferRequest` hold messages, and what those hold. Other requests have no such."""
_WIDTHS = {6: 4, 7: 8}
"""Bytes of one number in `fp32_contents` and `fp64_contents`; other numbers take one at least."""
_FIXED = {1: 8, 5: 4}


def packed(message: bytes) -> bool:
    """Whether a message was compressed."""
    return message.startswith(_PACKED)


def unpacked(message: bytes, most: int) -> bytes:
    """A message as it was before it was compressed.

    Raises:
        TooLarge: It would have more than `most` bytes.
        ValueError: It begins like gzip or deflate, and is neither.
    """
    return inflate(message, most) if packed(message) else message


def count(message: bytes, bounds: Bounds) -> int:
    """How many objects, texts and numbers a request will be, rows that came raw left out.

    Raises:
        ValueError: It is malformed, or exceeds `bounds`.
    """
    fields = values = 0
    spans = [(0, len(message), _REQUEST)]
    while spans:
        at, end, inner = spans.pop()
        while at < end:
            tag, at = _number(message, at, end)
            number, kind, size = tag >> 3, tag & 7, 0
            fields += 1
            if fields > bounds.names:
                raise ValueError(f"body: expected at most {bounds.names} fields")
            if kind == 0:
                _, at = _number(message, at, end)
            elif kind == 2:
                size, at = _number(message, at, end)
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                raise ValueError(NO_MESSAGE)
            if number == 0 or size > end - at:
                raise ValueError(NO_MESSAGE)
            if kind == 2 and number in inner:
                spans.append((at, at + size, inner[number]))
            elif kind == 2 and inner is not _REQUEST:  # packed numbers, a name, a text
                values += size // _WIDTHS.get(number, 1) if inner is _CONTENTS and number != 8 else 1
            if values > bounds.values:
                raise ValueError(f"body: expected at most {bounds.values} values")
            at += size
    return fields + values


def _number(message: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(NO_MESSAGE)
