"""Cards with their pixels: what a method wants seen of each explained row, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, assert_never

import numpy as np

from explainer_runtime import methods
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.pictures import Sent
from explainer_runtime.render.onto import note, onto, smaller, veiled
from explainer_runtime.render.panels import outlined, photograph, signed, spotlight
from explainer_runtime.views import Card, Picture, View, chance, name, one_scale

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

SIZE = 168
"""Pixels that the longer side of a panel should about have; small images are enlarged by a whole factor."""
_MANY, _LIKELY = 10, 5
"""Of more classes than these so many are named."""
_TIMES = 3
"""How many times that a picture that was sent may be."""


@dataclass(frozen=True)
class Panel(Picture):
    """A picture, drawn.

    Attributes:
        pixels: `(h, w, 3)` uint8.
    """

    pixels: np.ndarray = field(kw_only=True)


def view(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """What is to be seen of an explanation, as its method says.

    Args:
        explanation: Of the rows `x`.
        x: What was explained `(N, H, W)` or `(N, H, W, C)`, in input units, C being 1 or 3.
        inputs: The input contract: range and class names.

    Raises:
        InvalidInput: The rows are not images, or not those that were explained.
    """
    x = np.asarray(x, np.float32)
    check(inputs, x.shape[1:])
    if len(x) != len(explanation):
        raise InvalidInput(f"expected the {len(explanation)} rows that were explained, got {len(x)}")
    (seen,) = one_scale([methods.of(explanation.kind).draw(explanation, x, inputs)])
    likely = _likeliest(explanation, inputs)
    if not likely:
        return seen
    noted = (
        replace(card, note=f"{card.note} {said}".strip())
        for card, said in zip(seen.cards, likely, strict=True)
    )
    return replace(seen, cards=tuple(noted))


def _likeliest(explanation: Explanation, inputs: Inputs) -> list[str]:
    """Of each row the classes that the model finds likeliest, where it has many; else nothing."""
    scores = explanation.arrays.get("original_proba")
    if inputs.classes <= _MANY or scores is None:
        return []
    first = np.argsort(-scores, axis=1, kind="stable")[:, :_LIKELY]
    said = [
        " · ".join(f"{name(int(one), inputs)} {chance(float(row[one]))}" for one in order)
        for row, order in zip(scores, first, strict=True)
    ]
    return [f"Likeliest: {one}." if row.any() else "" for one, row in zip(said, scores, strict=True)]


def cards(
    explanation: Explanation, x: np.ndarray, inputs: Inputs, *, size: int = SIZE, sent: Sequence[Sent] = ()
) -> list[Card[Panel]]:
    """One card a row; see `view` and `drawn`."""
    return drawn(view(explanation, x, inputs), inputs, size, sent)


def drawn(seen: View, inputs: Inputs, size: int, sent: Sequence[Sent] = ()) -> list[Card[Panel]]:
    """The cards of a view, with their pixels.

    Args:
        seen: Of the rows.
        inputs: The input contract.
        size: Pixels that the longer side of a panel should about have.
        sent: The pictures that the rows were: where one was resized it is drawn on at its own size, up to
            three times `size`. None draws on the rows.
    """
    were = (smaller(one, _TIMES * size) if one.resize != "none" else None for one in sent)
    pairs = zip(seen.cards, were if sent else repeat(None), strict=bool(sent))
    return [_drawn(card, inputs, size, picture) for card, picture in pairs]


def _drawn(card: Card[Picture], inputs: Inputs, size: int, picture: Sent | None) -> Card[Panel]:
    panels, said = tuple(_panel(panel, inputs, size, picture) for panel in card.panels), card.note
    if picture is not None:
        said = f"{said} {note(picture, inputs)}".strip()
    beside = tuple(_drawn(other, inputs, size, picture) for other in card.beside)
    return Card(**{**vars(card), "panels": panels, "note": said, "beside": beside})


def check(inputs: Inputs, shape: tuple[int, ...] | None = None) -> None:
    """Refuse rows that no picture can be drawn of; ask before anything is computed.

    Args:
        inputs: The input contract: shape and layout of a row.
        shape: Shape of the rows, where it may differ from the contract's by an axis for grey.

    Raises:
        InvalidInput: They are not images of one or three channels, or nobody has said where those are.
    """
    shape = inputs.shape if shape is None else shape
    channels = {"channels_last": shape[2:], "channels_first": shape[:1], None: ()}[inputs.layout]
    if len(shape) == 2 or (len(shape) == 3 and channels in ((1,), (3,))):
        return
    said = f" with layout {inputs.layout}" if len(shape) == 3 else ""
    raise InvalidInput(
        "pictures need images (H, W), or with 1 or 3 channels where the contract's layout says, "
        f"got rows of ({', '.join(map(str, shape))}){said}"
    )


def _panel(picture: Picture, inputs: Inputs, size: int, sent: Sent | None = None) -> Panel:
    if sent is not None and not picture.another:
        panel = _panel(onto(picture, sent, inputs), inputs, size)
        return replace(panel, pixels=veiled(panel.pixels, sent))
    image, factor = picture.image, max(1, round(size / max(picture.image.shape[:2])))
    match picture.look:
        case "photograph":
            pixels = photograph(image, inputs.low, inputs.high, factor)
        case "change":
            pixels = signed(image, picture.limit or 1.0, factor)
        case "outlined":
            pixels = outlined(image, _marks(picture), inputs.low, inputs.high, factor)
        case "spotlight":
            pixels = spotlight(image, _marks(picture), inputs.low, inputs.high, factor)
        case _:
            assert_never(picture.look)
    return Panel(**vars(picture), pixels=pixels)


def _marks(picture: Picture) -> np.ndarray:
    if picture.marks is None:
        raise InvalidInput(f"{picture.title}: a picture that is {picture.look} needs marks")
    return picture.marks
