"""The words of settings, and the one way in: what is wrong becomes one of our errors, naming the field."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from explainer_runtime.complaints import expected
from explainer_runtime.errors import InvalidSpec

Probability = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Class = Annotated[StrictInt, Field(ge=0)] | Annotated[StrictStr, Field(min_length=1)]
"""A class by its number, or by its name in the input contract; see `Inputs.number`."""
TargetClass = Literal["other", "same"] | Class
Bound = float | tuple[Any, ...]
"""One number for all features, or nested lists that broadcast to the shape of one row."""


class Value(BaseModel):
    """A frozen value without unknown fields, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Retired(NamedTuple):
    """A setting that is no more.

    Attributes:
        why: What there is instead.
        default: What it was where nobody had set it, of which there is nothing to say; None is nothing.
        option: Whether requests could set it.
    """

    why: str
    default: Any = None
    option: bool = False


def without(value: Any, retired: Mapping[str, Retired]) -> Any:
    """Settings without those that are no more; one that was set is warned of, for it does nothing now."""
    if not isinstance(value, Mapping):
        return value
    for name in (name for name in retired if name in value):
        if value[name] != retired[name].default:
            said = f"{name}: has no effect any more: {retired[name].why}"
            warnings.warn(said, DeprecationWarning, stacklevel=2)
    return {name: one for name, one in value.items() if name not in retired}


class Spec(Value):
    """Settings of a method. Every one has a `kind`, which tells methods apart, and a `seed`."""

    if TYPE_CHECKING:  # each method says them itself, where they have always stood in its artifacts
        kind: str
        seed: int

    called: ClassVar[tuple[str, ...]] = ()
    """What platforms call explainers of this kind, in small letters."""
    fitless: ClassVar[bool] = False
    """Whether nothing has to be fitted: these settings and an input contract make an explainer."""
    retired: ClassVar[Mapping[str, Retired]] = {}
    """Settings that are taken and have no effect any more: artifacts of earlier releases hold them."""

    @property
    def slopes(self) -> str | None:
        """Where slopes of the model come from: `exact`, `surrogate`, `random`, `full`, or `auto`, the best of
        them that there is; None where these settings ask for none."""
        return None

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, value: Any) -> Any:
        return without(value, cls.retired)


def plain(value: Any) -> Any:
    """Arrays as nested lists, which JSON can hold; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


V = TypeVar("V", bound=BaseModel)


def parse(model: type[V], value: Any, name: str) -> V:
    """`value` as a `model`, for settings and contracts.

    Raises:
        InvalidSpec: With `name` and the field in front of each complaint.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidSpec(complaints(error, name, model.model_fields)) from None


def complaints(error: ValidationError, prefix: str = "", known: Collection[str] = ()) -> str:
    """What is wrong with a value, each with the path of its field, below `prefix`; `known` are its fields."""
    lines = []
    for one in error.errors():
        loc = [str(part) for part in one["loc"]]
        path = ".".join(([prefix] if prefix else []) + loc) or "value"
        silent = one["type"] in ("missing", "extra_forbidden") or "headers" in loc  # they may be secret
        silent |= not loc and one["type"] == "value_error"  # the whole of it would be shown
        got = "" if silent else f", got {short(one['input'])}"
        lines.append(f"{path}: {expected(one, known if len(loc) == 1 else ())}{got}")
    return "; ".join(lines)


def short(value: Any) -> str:
    """A value as a message can bear it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
