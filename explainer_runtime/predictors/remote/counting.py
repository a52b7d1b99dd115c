"""Messages of protocol buffers that somebody else wrote, counted before they are parsed.

An empty tensor is two bytes on the wire, a few when it is packed, and a thousand once it is an object. So the
fields of a message are counted on its bytes first (a tag, then a number or a length), and no further than is
allowed. What is malformed is refused here: no parser reads it differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIXED = {1: 8, 5: 4}
"""Bytes of a number by its wire type."""


class TooMany(ValueError):
    """More fields or values than are allowed; the message says which."""


class Malformed(ValueError):
    """Bytes that are no message."""


def layout(message: Any) -> Mapping[int, Any]:
    """What `count` has to know of a kind of message, from its class.

    By number, those fields that hold messages, with the layout of these, and those that hold packed numbers,
    with the bytes that one takes at least.
    """
    return _layout(message.DESCRIPTOR)


def _layout(descriptor: Any) -> Mapping[int, Any]:
    found: dict[int, Any] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            found[field.number] = _layout(field.message_type)
        elif field.default_value == [] and field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
            found[field.number] = {field.TYPE_FLOAT: 4, field.TYPE_DOUBLE: 8}.get(field.type, 1)
    return found


def count(message: bytes, of: Mapping[int, Any], most_fields: int, most_values: int) -> int:
    """How many objects, texts and numbers a message will be; bytes are one, however many.

    Raises:
        TooMany: It exceeds a bound.
        Malformed: It is no message.
    """
    fields = values = 0
    spans = [(0, len(message), of)]
    while spans:
        at, end, inner = spans.pop()
        while at < end:
            tag, at = _number(message, at, end)
            number, kind, size = tag >> 3, tag & 7, 0
            fields += 1
            if fields > most_fields:
                raise TooMany(f"expected at most {most_fields} fields")
            if kind == 0:
                _, at = _number(message, at, end)
            elif kind == 2:
                size, at = _number(message, at, end)
            elif kind in _FIXED:
                size = _FIXED[kind]
            else:
                raise Malformed
            if number == 0 or size > end - at:
                raise Malformed
            if kind == 2:
                held = inner.get(number, 0)
                if isinstance(held, int):
                    values += size // held if held else 1
                else:
                    spans.append((at, at + size, held))
            if values > most_values:
                raise TooMany(f"expected at most {most_values} values")
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
    raise Malformed
