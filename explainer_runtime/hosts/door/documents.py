"""JSON that a stranger sent: counted before it is parsed, and parsed without making others wait.

A parser makes an object of each bracket, and a validator a report of each wrong one: a kilobyte on the wire
can become gigabytes. So structure is counted first, on the bytes, in steps that hold no more than a few
times the body: depth, values, names. What passes has a bounded cost.

Python's parsers hold the interpreter's lock from the first byte to the last, in whichever thread. A large
document is therefore cut at its own commas and parsed piece by piece, so that a health check is answered in
between. The result is that of parsing it whole, but lists in long lists are tuples: Python looks for garbage
in every list there is, again and again, and nobody is answered meanwhile; tuples of numbers it lets be.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

_STEP = 16 * 1024
"""Bytes looked at, or parsed, without a break."""
_PIECES = 64
"""In which a long list goes, at least."""
_QUOTE, _LIST, _OBJECT, _CLOSE, _COMMA, _COLON = 1, 2, 3, 4, 5, 6
_KINDS = np.zeros(256, np.uint8)
for _kind, _characters in enumerate((b'"', b"[", b"{", b"]}", b",", b":"), 1):
    _KINDS[list(_characters)] = _kind
_CHANGE = np.array([0, 0, 1, 1, -1, 0, 0], np.int32)
"""How each kind changes the level."""
NO_JSON = "expected JSON"
"""Said of what is none; anything else that `scan` says is about a bound."""


class Bounds(NamedTuple):
    """What one document may hold.

    Attributes:
        depth: Lists and objects inside one another.
        values: Values of any kind: numbers, strings, lists, objects.
        names: Objects and strings, keys among them; rows are neither.
    """

    depth: int
    values: int
    names: int


class Marks(NamedTuple):
    """The structure of a document: each bracket, comma and colon outside of strings, in order.

    Attributes:
        at: Its place, `(M,)` int32.
        kind: What it is, `(M,)` uint8.
        level: How many containers are open after it, `(M,)` int32.
        values: Values there can be at most.
    """

    at: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    values: int


def scan(body: bytes, bounds: Bounds) -> Marks:
    """The structure of `body`, counted.

    Raises:
        ValueError: It exceeds `bounds`, or its brackets and quotes do not pair off.
    """
    escapes = body.count(b"\\")
    if escapes > bounds.names:
        raise ValueError(f"expected at most {bounds.names} escapes")
    if escapes:  # by others of the same length: places stay what they are
        body = body.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
    found, level, quotes, values, objects = [], 0, 0, 1, 0
    for start in range(0, len(body), _STEP):
        kinds = _KINDS[np.frombuffer(body, np.uint8, min(_STEP, len(body) - start), start)]
        at = np.flatnonzero(kinds)
        kind = kinds[at]
        quote = kind == _QUOTE
        before = quotes + np.cumsum(quote)
        quotes = int(before[-1]) if len(at) else quotes
        outside = ~quote & (before % 2 == 0)
        at, kind = at[outside], kind[outside]
        levels = level + np.cumsum(_CHANGE[kind], dtype=np.int32)
        count = np.bincount(kind, minlength=7)
        values += int(count[_COMMA] + count[_LIST] + count[_OBJECT])
        objects += int(count[_OBJECT])
        if len(at):
            level = int(levels[-1])
            if levels.max() > bounds.depth:
                raise ValueError(f"expected at most {bounds.depth} levels of nesting")
            if levels.min() < 0:
                raise ValueError(NO_JSON)
        if values > bounds.values:
            raise ValueError(f"expected at most {bounds.values} values")
        if objects + quotes // 2 > bounds.names:
            raise ValueError(f"expected at most {bounds.names} names, texts and objects")
        found.append(((at + start).astype(np.int32), kind, levels))
    if level or quotes % 2:
        raise ValueError(NO_JSON)
    columns = zip(*found, strict=True) if found else 3 * [[np.empty(0)]]
    at, kind, levels = (np.concatenate(column) for column in columns)
    return Marks(at, kind, levels, values)


def loads(body: bytes, marks: Marks) -> Any:
    """What is written in `body`, as `orjson.loads` would have it, but for tuples in place of inner lists.

    Args:
        body: The document.
        marks: Its structure, as `scan` has found it.

    Raises:
        ValueError: It is no JSON.
    """
    return _value(body, marks, 0, len(body))


def scatter(document: Any) -> None:
    """Let go of what is in a document, piece by piece: a million lists at once take a while."""
    if isinstance(document, dict):
        for value in document.values():
            scatter(value)
    elif isinstance(document, list) and len(document) >= _PIECES:
        piece = len(document) // _PIECES
        while document:
            del document[-piece:]
    elif isinstance(document, list):
        for value in document:
            scatter(value)


def _value(body: bytes, marks: Marks, start: int, end: int) -> Any:
    if end - start <= _STEP:
        return _parsed(body[start:end])
    start, end = _trimmed(body, start, end)
    first, last = np.searchsorted(marks.at, [start, end])
    if first == last or marks.at[first] != start:
        return _parsed(body[start:end])  # a long text, or a long number
    level = marks.level[first]
    inner = marks.level[first : last - 1]
    if marks.at[last - 1] != end - 1 or marks.level[last - 1] != level - 1 or inner.min() < level:
        raise ValueError(NO_JSON)
    commas = marks.at[first:last][(marks.level[first:last] == level) & (marks.kind[first:last] == _COMMA)]
    pair = body[start : start + 1], body[end - 1 : end]
    if pair == (b"[", b"]"):
        return _list(body, marks, start + 1, end - 1, commas)
    if pair == (b"{", b"}"):
        return _object(body, marks, start + 1, end - 1, commas)
    raise ValueError(NO_JSON)


def _list(body: bytes, marks: Marks, start: int, end: int, commas: np.ndarray) -> list[Any]:
    values: list[Any] = []
    for low, high in _groups(start, end, commas):
        if high - low > _STEP:
            values.append(_value(body, marks, low, high))
        else:
            values += _fixed(_parsed(b"[%b]" % _some(body[low:high])))
    return values


def _fixed(values: list[Any]) -> tuple[Any, ...]:
    kinds = set(map(type, values))
    if list not in kinds:
        return tuple(values)
    if kinds == {list} and list not in set(map(type, chain.from_iterable(values))):
        return tuple(map(tuple, values))  # as below, and four times as fast
    return tuple(_fixed(value) if type(value) is list else value for value in values)


def _object(body: bytes, marks: Marks, start: int, end: int, commas: np.ndarray) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for low, high in _groups(start, end, commas):
        if high - low <= _STEP:
            members.update(_parsed(b"{%b}" % _some(body[low:high])))
            continue
        colon = int(marks.at[np.searchsorted(marks.at, low)])
        members.update(_parsed(b"{%b:0}" % body[low:colon]))  # a name, or no JSON
        (name,) = _parsed(b"{%b:0}" % body[low:colon])
        members[name] = _value(body, marks, colon + 1, high)
    return members


def _groups(start: int, end: int, commas: np.ndarray) -> Iterator[tuple[int, int]]:
    """Spans between commas: as many elements as fit one step, or one that does not."""
    while True:
        rest = commas[np.searchsorted(commas, start) :]
        fitting = int(np.searchsorted(rest, start + _STEP, "right"))
        if end - start <= _STEP or not len(rest):
            yield start, end
            return
        cut = int(rest[max(0, fitting - 1)])
        yield start, cut
        start = cut + 1


def _some(piece: bytes) -> bytes:
    if not piece.strip():  # nothing before or behind a comma
        raise ValueError(NO_JSON)
    return piece


def _trimmed(body: bytes, start: int, end: int) -> tuple[int, int]:
    text = body[start:end].rstrip(b" \t\r\n")
    return start + len(text) - len(text.lstrip(b" \t\r\n")), start + len(text)


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(NO_JSON) from None
