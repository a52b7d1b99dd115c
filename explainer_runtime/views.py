"""What is to be seen of an explanation, as values: a method says it, `render` alone draws it.

Words are plain, for people who did not write the method: which class it was, which it becomes, how sure the
model is, how much had to change. A row without an explanation says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
        ends: What the two ends of its scale mean: less, more.
    """

    title: str
    caption: str
    alt: str
    image: np.ndarray
    look: Look = "photograph"
    marks: np.ndarray | None = None
    limit: float | None = None
    another: bool = False
    ends: tuple[str, str] = ("darker", "brighter")


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
        beside: Cards of other answers about the same row.
    """

    found: bool
    headline: str
    detail: str
    panels: tuple[P_co, ...]
    note: str = ""
    told: bool = True
    beside: tuple[Card[P_co], ...] = ()


@dataclass(frozen=True)
class View:
    """All that is to be seen of one explanation.

    Attributes:
        title: What such explanations are called.
        idea: What they are, in a sentence.
        cards: One a row.
        numbers: Fields of one number a row that people ask for, and what they mean in a word or two.
        found: What it means that an answer was found, in sentences.
        limits: When it would not hold, in sentences.
    """

    title: str
    idea: str
    cards: tuple[Card[Picture], ...]
    numbers: Mapping[str, str] = field(default_factory=dict)
    found: str = ""
    limits: str = ""


def side_by_side(shown: Iterable[Card[P_co]]) -> list[Card[P_co]]:
    """Each card, and after it those of the other answers about its row."""
    return [one for card in shown for one in (card, *card.beside)]


def one_scale(seen: Iterable[View]) -> list[View]:
    """The same, with one scale of colours for all signed maps whose ends mean the same: on one page a colour
    stands for one number."""
    views = list(seen)
    widest: dict[tuple[str, str], float] = {}
    shown = side_by_side(card for view in views for card in view.cards)
    for picture in (picture for card in shown for picture in card.panels):
        widest[picture.ends] = max(widest.get(picture.ends, 0.0), picture.limit or 0.0)

    def scaled(picture: Picture) -> Picture:
        return picture if picture.limit is None else replace(picture, limit=widest[picture.ends])

    def one(card: Card[Picture]) -> Card[Picture]:
        return replace(card, panels=tuple(map(scaled, card.panels)), beside=tuple(map(one, card.beside)))

    return [replace(view, cards=tuple(map(one, view.cards))) for view in views]


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
    most = f"{pixels}, by up to {number(limit)}"
    told = f"{title.capitalize()}: {most}; red is brighter, blue and striped is darker"
    return Picture(title, pixels, told, difference, "change", limit=limit)


def image(values: np.ndarray, inputs: Inputs) -> np.ndarray:
    """A row as `(H, W, C)`, float32, wherever the model wants its channels."""
    values = values.astype(np.float32)
    if values.ndim == 2:
        return values[..., None]
    return np.moveaxis(values, 0, -1) if inputs.layout == "channels_first" else values


MEANINGS = {
    "L1": "all changes added up, in the units of the input",
    "L2": "the root of all squared changes added up, in the units of the input",
    "values": "how many of the input's values were changed",
    "L1 kept": "all that was kept added up, by its distance from nothing",
    "L2 kept": "the root of all squares of what was kept, by its distance from nothing",
    "values kept": "how many of the input's values were kept",
    "probability": "what the model gives the class of the answer, from 0 to 1",
    "precision": "share of random hidings in which the class stayed, with the anchor shown",
    "coverage": "share of random hidings that happen to show all of the anchor; less for a larger one",
    "superpixels": "pieces of the image that are shown or hidden as a whole",
    "of the image": "the model's score of the class for the image",
    "with all hidden": "its score where every superpixel is hidden; the parts add up to the difference",
    "share of the image": "how much of its area has to be hidden",
    "to its own class": "distance to the nearest kept row of the same class",
    "to another": "distance to the nearest kept row of another class",
    "trust score": "distance to another class in distances to its own: below 1 it is more like the other",
}
"""What the words for numbers mean, in a sentence, where a person may not know."""


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
