"""What a model, and a request, may be called: a name becomes a part of paths, labels, headers and logs."""

from __future__ import annotations

from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidInput, InvalidSpec

_LONGEST, _LONGEST_ID = 200, 256
_NEVER = frozenset("/\\{}?#%:")
"""What separates the parts of a path, or begins something else in one."""


def check_name(name: str, field: str = "name") -> str:
    """`name`, if it can be one.

    Raises:
        InvalidSpec: It has more than 200 characters, is `.` or `..`, or has one that cannot be printed or
            stands for something else in a path.
    """
    good = name.isprintable() and name == name.strip() and not _NEVER & set(name)
    if not (good and 1 <= len(name) <= _LONGEST) or name in (".", ".."):
        raise InvalidSpec(
            f"{field}: {short(name)} cannot be a part of a path; use letters, digits, '.', '_' and '-'"
        )
    return name


def check_id(text: str | None) -> None:
    """Refuse an id that cannot go into a header, which is where MLServer puts it.

    Raises:
        InvalidInput: It is not printable ASCII, or longer than 256 characters: proxies refuse longer headers.
    """
    if text and not (len(text) <= _LONGEST_ID and text.isascii() and text.isprintable()):
        raise InvalidInput(f"id: expected printable ASCII, at most {_LONGEST_ID} characters", "id")
