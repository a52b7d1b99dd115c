"""What is wrong with settings that a person has written, in words of whoever wrote the file.

pydantic says what its own code does ("Input should be a valid integer, unable to parse string as an
integer"). Here it is said what is expected; the caller adds where, and what came.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from explainer_runtime.errors import InvalidSpec

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    **dict.fromkeys(("list", "tuple", "set", "frozen"), "a list"),
    **dict.fromkeys(("dict", "model", "mapping", "dataclass"), "an object"),
}
"""By how pydantic's names of errors begin."""
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def expected(error: Mapping[str, Any], known: Collection[str] = ()) -> str:
    """One of pydantic's errors as what was expected.

    Args:
        error: As `ValidationError.errors` has it.
        known: Names that may stand where one was found that is not known.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"expected {words} {context[name]}"
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"is not known here{nearest(str(error['loc'][-1]), known)}"
        case "literal_error" | "enum":
            return f"expected {context['expected']}"
        case "union_tag_invalid":
            return f"expected {context['discriminator']} to be one of {context['expected_tags']}"
        case "union_tag_not_found":
            return f"expected an object with {context['discriminator']}"
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch":
            return f"expected text that matches {context['pattern']}"
        case "string_too_short":
            return f"expected at least {context['min_length']} characters"
        case "string_too_long":
            return f"expected at most {context['max_length']} characters"
    word = _KINDS.get(kind.partition("_")[0])
    return str(error["msg"]) if word is None else f"expected {word}"


def printable(text: str, kept: str = "") -> str:
    """`text` without line ends and anything else that a terminal would obey, but for what is `kept`."""
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


def json_object(text: str, name: str, refuse: Callable[[str], Exception] = InvalidSpec) -> dict[str, Any]:
    """The object written in `text`, as JSON; `name` is what it was given for.

    Raises:
        InvalidSpec: It is none; or what `refuse` makes of the message.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise refuse(f"{name}: expected a JSON object, {error}") from None
    if not isinstance(value, dict):
        raise refuse(f"{name}: expected a JSON object")
    return value


def nearest(name: str, known: Collection[str]) -> str:
    """The name among those `known` that was most likely meant, or all of them, to end a sentence with."""
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""
