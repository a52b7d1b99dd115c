"""The options of a request: made from those fields of a method's settings that are marked `Requestable`.

An option has the type, the limits and the words of its setting; what is left out keeps the spec's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
    model_validator,
)

from explainer_runtime.errors import InvalidOption
from explainer_runtime.spec.values import Spec, Value, complaints, short, without


class _Mark:
    """Marks a setting that a request may change for its own rows."""

    def __repr__(self) -> str:
        return "requestable"


_MARK = _Mark()
T = TypeVar("T")
Requestable = Annotated[T, _MARK]
"""A setting that a request may change for its own rows: `seed: Requestable[Seed] = 0`."""


class BudgetOptions(Value):
    """What any request may ask of the budget: only ever less than the operator allows."""

    max_rows: PositiveInt | None = None
    """Most rows the predictor may be asked about for this request."""
    max_calls: PositiveInt | None = None
    """Most calls to the predictor for this request."""
    max_seconds: PositiveFloat | None = None
    """Seconds after which the best answer so far is returned."""


@cache
def options_of(settings: type[Spec]) -> type[BudgetOptions]:
    """The options of requests to explainers with these settings."""
    fields: dict[str, Any] = {}
    for name, field in settings.model_fields.items():
        if _MARK in field.metadata:
            limits = [one for one in field.metadata if one is not _MARK]
            kind: Any = Annotated[(field.annotation, *limits)] if limits else field.annotation
            fields[name] = (kind | None, Field(None, description=field.description))
    retired = {name: one for name, one in settings.retired.items() if one.option}
    validators: dict[str, Any] = {
        "_retired": model_validator(mode="before")(lambda value: without(value, retired))
    }
    return create_model(
        f"{settings.__name__}Options",
        __base__=BudgetOptions,
        __doc__=f"Options of one request to {settings.__name__}; what is left out keeps the spec's value.",
        __validators__=validators,
        **fields,
    )


def parse_options(spec: Spec, value: Mapping[str, Any] | None) -> BudgetOptions:
    """The options of one request for an explainer of this spec.

    Raises:
        InvalidOption: An unknown option, or a value out of range; the first is named.
    """
    if not isinstance(value, Mapping | None):
        raise InvalidOption(f"options: expected a mapping, got {short(value)}", "options")
    options = options_of(type(spec))
    try:
        return options.model_validate(dict(value or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "parameters"
        raise InvalidOption(complaints(error, known=options.model_fields), field) from None


S = TypeVar("S", bound=Spec)


def with_options(spec: S, options: BaseModel) -> S:
    """`spec` with the options that a request has set."""
    changes = {
        name: value for name, value in options if value is not None and name in type(spec).model_fields
    }
    return spec.model_copy(update=changes)
