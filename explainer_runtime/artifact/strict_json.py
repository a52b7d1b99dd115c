"""JSON of which every document has one reading, in bounded time and memory.

JSON parsers differ in what they forgive: a key given twice, NaN, half a surrogate pair, a thousand nested
lists. What two readers may understand differently is refused here, so that what was checked is what is
used.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from explainer_runtime.errors import InvalidArtifact

LIMIT = 2**20
"""Most bytes of one document."""
DEPTH = 64
"""Most lists and objects inside one another; a Keras model nested in another takes about five."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def dump(value: Any, name: str) -> bytes:
    """`value` as JSON: sorted keys, UTF-8, floats in the shortest form that reads back the same.

    Raises:
        InvalidArtifact: It holds something without a JSON form, NaN or an infinity among them, or takes
            more than `LIMIT` bytes; `name` says which document.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        data = text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArtifact(f"{name}: cannot be written as JSON: {error}") from None
    if len(data) > LIMIT:
        raise InvalidArtifact(f"{name}: would take {len(data)} bytes, at most {LIMIT} are allowed")
    return data


def parse(data: bytes, name: str) -> dict[str, Any]:
    """The object written in `data`.

    Raises:
        InvalidArtifact: More than `LIMIT` bytes or `DEPTH` levels, not UTF-8, not JSON, not an object, a
            key given twice, NaN or an infinity, a number or a character that does not exist.
    """
    if len(data) > LIMIT:
        raise InvalidArtifact(f"{name}: has {len(data)} bytes, at most {LIMIT} are allowed")
    try:
        text = data.decode()
        _check_depth(text)
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a surrogate pair fails here
    except ValueError as error:
        raise InvalidArtifact(f"{name}: is not the JSON it should be: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArtifact(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def short(value: Any) -> str:
    """`value` as it may be shown: on one line, not long, and without what a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} lists and objects inside one another")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {short(twice)} is given twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{short(text)} is too large a number")
    return value
