"""What is to be seen of an explanation, as values: a method says it, `render` alone draws it.

Words are plain, for people who did not write the method: which class it was, which it becomes, how sure the
model is, how much had to change. A row without an explanation says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np

from explainer_runtime.explanation import BUDGET_EXHAUSTED, NOT_FOUND, Explanation

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

Look = Literal["photograph", "change", "outlined", "spotlight"]

_WHY = {
    BUDGET_EXHAUSTED: "The budget was spent first.",
    NOT_FOUND: "The search ended without one.",
}


@dataclass(frozen=True)
class Picture:
    """One image of a card, before it is drawn.

    Attributes:
        title: What it is, in a word or two.
        caption: What the model says of it, or its numbers.
        alt: The same for those who cannot see it.
        image: `(H, W, C)`, float32, in input units.
        look: How it is shown: as people see it; as a signed map of changes; with lines between the parts
            that `marks` numbers; or dimmed but for where `marks` holds.
        marks: `(H, W)`: numbers of parts, or truths; None where the look needs none.
        limit: Of a signed map, the change that has the full colour, in input units; else None.
        another: Whether it shows another row than the one that is explained.
    """

    title: str
    caption: str
    alt: str
    image: np.ndarray
    look: Look = "photograph"
    marks: np.ndarray | None = None
    limit: float | None = None
    another: bool = False


P_co = TypeVar("P_co", bound=Picture, covariant=True)


@dataclass(frozen=True)
class Card(Generic[P_co]):
    """One explained row.

    Attributes:
        found: Whether there is an explanation.
        headline: The answer in a few words.
        detail: Its numbers.
        panels: Its pictures: three of them, or the input alone.
        note: What stands where panels are missing, or what should be known about the answer; or empty.
        told: Whether the numbers of this row mean something, found or not.
    """

    found: bool
    headline: str
    detail: str
    panels: tuple[P_co, ...]
    note: str = ""
    told: bool = True


@dataclass(frozen=True)
class View:
    """All that is to be seen of one explanation.

    Attributes:
        title: What such explanations are called.
        idea: What they are, in a sentence.
        cards: One a row.
        numbers: Fields of one number a row that people ask for, and what they mean in a word or two.
    """

    title: str
    idea: str
    cards: tuple[Card[Picture], ...]
    numbers: Mapping[str, str] = field(default_factory=dict)


def photograph(
    title: str, caption: str, values: np.ndarray, inputs: Inputs, *, another: bool = False
) -> Picture:
    """A row `(*S)` as people see it; `another` is not the one that is explained."""
    said = f"{title.capitalize()}: {caption}"
    return Picture(title, caption, said, image(values, inputs), another=another)


def change(title: str, difference: np.ndarray) -> Picture:
    """A signed map of a difference `(H, W, C)`, in input units; its caption counts the pixels."""
    count, of = int((np.abs(difference) > 1e-6).any(axis=-1).sum()), difference[..., 0].size
    limit = max(float(np.abs(difference).max()), 1e-6)
    pixels = f"{count} of {of} pixels"
    told = f"{title.capitalize()}: {pixels}, by up to {number(limit)}; red is brighter, blue is darker"
    return Picture(title, pixels, told, difference, "change", limit=limit)


def image(values: np.ndarray, inputs: Inputs) -> np.ndarray:
    """A row as `(H, W, C)`, float32, wherever the model wants its channels."""
    values = values.astype(np.float32)
    if values.ndim == 2:
        return values[..., None]
    return np.moveaxis(values, 0, -1) if inputs.layout == "channels_first" else values


# --- numbers and words as people read them ----------------------------------------------------------------


def name(index: int, inputs: Inputs) -> str:
    """What people call a class."""
    names = inputs.class_names
    return names[index] if names is not None and index < len(names) else f"class {index}"


def why(explanation: Explanation, row: int) -> str:
    """Why nothing was found for a row, in a sentence."""
    status = str(explanation["status"][row])
    return _WHY.get(status, f"Status: {status}.")


def chance(probability: float) -> str:
    """Two digits; what is not certain is never shown as 1.00, nor what is possible as 0.00."""
    if 0.995 <= probability < 1:
        return ">0.99"
    return "<0.01" if 0 < probability < 0.005 else f"{probability:.2f}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people would not use one."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def sentence(words: str) -> str:
    """The words with a capital to begin with."""
    return words[:1].upper() + words[1:]
