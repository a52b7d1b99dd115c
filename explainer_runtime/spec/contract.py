"""The input contract: what a row may be, and the refusal of a contract that no row could keep."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from explainer_runtime.errors import InvalidOption
from explainer_runtime.spec.values import Value, short

_FAR = 1e15
"""Largest value of a feature: squares of them are summed in float32."""
_APART = 2.0**-20
"""Least range of a feature, as a share of its largest value: float32 has eight values in it."""


class Inputs(Value):
    """What rows an explainer accepts: fixed when it was fitted, checked at every request."""

    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=4)]
    """Shape of one row, without the batch: `(height, width, channels)` for an image, or as `layout` says."""
    layout: Literal["channels_last", "channels_first"] | None = None
    """Where a row that is an image has its channels; None for rows that are no images. Left out, it is taken
    from `shape`, if that can be read in one way only; see `layout_of`."""
    low: float
    """Smallest value a feature may have, in input units."""
    high: float
    """Largest value a feature may have, in input units."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """How many class scores the model answers with."""
    class_names: tuple[str, ...] | None = None
    """A name for each class, for people."""
    resize: Literal["none", "fit", "centre_crop"] = "none"
    """What is done with a picture of another size: it is refused (`none`); all of it is brought to the size
    of a row, each side by itself (`fit`); or the largest part in its middle with a row's proportions is
    (`centre_crop`). As the model was trained; arrays are never resized."""

    @model_validator(mode="before")
    @classmethod
    def _guess(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "layout" in value:
            return value
        shape: Any = value.get("shape")
        whole = isinstance(shape, tuple | list) and all(type(size) is int for size in shape)
        return {**value, "layout": layout_of(shape) if whole else None}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.layout is not None and len(self.shape) != 3:
            raise ValueError(f"layout {self.layout!r} needs rows of three axes, got shape {self.shape}")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        largest = max(-self.low, self.high)
        if largest > _FAR:
            raise ValueError(
                f"low and high must lie within {_FAR:g} of 0, got {self.low:g} and {self.high:g}"
            )
        if self.high - self.low < largest * _APART:
            raise ValueError(
                f"low ({self.low:.9g}) and high ({self.high:.9g}) are too near each other for "
                "float32 to tell apart; subtract `low` from the rows"
            )
        if self.class_names is not None and len(self.class_names) != self.classes:
            said = f"class_names: expected {self.classes}, one for each class, got {len(self.class_names)}"
            raise ValueError(said)
        return self

    def number(self, named: int | str, field: str, words: Sequence[str] = ()) -> int:
        """The number of a class that is named by it, or by its name.

        Args:
            named: What a person has said.
            field: Where, for messages.
            words: What else might have been said there.

        Raises:
            InvalidOption: No class has this number or name, or several have the name.
        """
        names = self.class_names or ()
        if isinstance(named, int):
            numbers = [named] if 0 <= named < self.classes else []
        else:
            numbers = [number for number, name in enumerate(names) if name == named]
        if len(numbers) == 1:
            return numbers[0]
        if numbers:
            which = ", ".join(map(str, numbers))
            raise InvalidOption(f"{field}: classes {which} are all called {short(named)}; say which", field)
        said = ", ".join(map(repr, words)) + " or " * bool(words) + f"a class from 0 to {self.classes - 1}"
        hint = ""
        if isinstance(named, str):
            near = difflib.get_close_matches(named, [*words, *names], 3)
            hint = f"; near to it are {', '.join(map(repr, near))}" if near else ""
            hint = hint if names else f"{hint}; this explainer knows no names of classes"
        raise InvalidOption(f"{field}: expected {said}, got {short(named)}{hint}", field)


def layout_of(shape: Sequence[int]) -> Literal["channels_last", "channels_first"] | None:
    """Where an image of this shape has its channels, if that is beyond doubt; else None.

    An axis is taken for channels where it has 1, 3 or 4 elements, or a quarter of the other two at most. If
    the first and the last both may be, one of them must be smaller than the two beside it: (4, 4, 1) is a
    grey image 4 pixels wide. (3, 3, 3) is anything.
    """
    if len(shape) != 3:
        return None
    first, middle, last = shape
    leads = first in (1, 3, 4) or 4 * first <= min(middle, last)
    trails = last in (1, 3, 4) or 4 * last <= min(first, middle)
    if leads and trails:
        leads, trails = first < min(middle, last), last < min(first, middle)
    if leads == trails:
        return None
    return "channels_first" if leads else "channels_last"
