"""What a model may be called: a name becomes a part of paths, labels and lines of a log."""

from __future__ import annotations

from explainer_runtime.artifact.strict_json import short
from explainer_runtime.errors import InvalidSpec

_LONGEST = 200
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
