"""What is configured, and by whom: frozen values that know their own limits.

Three places, three kinds of value. A **spec** shapes the mathematics and lives in the artifact; each method
has its own, told apart by `kind` (`methods/*/settings.py`). **Options** are what a request may change for its
own rows: the fields of a spec that are marked `Requestable`. A **predictor address**
(`predictors/settings.py`) and the **limits** belong to whoever operates the server and are never part of a
request or an artifact.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from explainer_runtime.spec.contract import Inputs, layout_of
from explainer_runtime.spec.limits import Limits
from explainer_runtime.spec.options import BudgetOptions, Requestable, options_of, parse_options, with_options
from explainer_runtime.spec.values import Spec, Value, parse

__all__ = [
    "BudgetOptions",
    "Inputs",
    "Limits",
    "Requestable",
    "Spec",
    "Value",
    "layout_of",
    "options_of",
    "parse",
    "parse_options",
    "parse_spec",
    "with_options",
]


def parse_spec(value: Any) -> Spec:
    """See `methods.parse_spec`, which knows the methods."""
    parsed: Spec = import_module("explainer_runtime.methods").parse_spec(value)
    return parsed


def __getattr__(name: str) -> Any:
    # Settings are with what they set. They can be had from here as well, as they always could; they are
    # fetched when they are asked for, since this floor lies below theirs.
    for place in (
        "explainer_runtime.predictors.settings",
        "explainer_runtime.methods.segmentation",
        "explainer_runtime.methods",
    ):
        found = getattr(import_module(place), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
