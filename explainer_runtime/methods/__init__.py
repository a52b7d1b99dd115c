"""One paper, one room: how it is fitted (if it is), how it searches, what it answers.

Methods are told apart here and nowhere else, by the `kind` of their settings; each is imported when it is
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS = {
    "counterfactual": "counterfactual",
    "counterfactual_proto": "prototype",
    "cem": "cem",
    "anchor_image": "anchor",
}
"""The kind of a spec -> the module in this folder that knows it."""


def of(kind: str) -> Any:
    """The module of a method: `fields`, `search`, ..."""
    return import_module(f"{__name__}.{METHODS[kind]}")
