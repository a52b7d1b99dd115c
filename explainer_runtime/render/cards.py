"""Cards with their pixels: what a method wants seen of each explained row, drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

import numpy as np

from explainer_runtime import methods
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.render.panels import outlined, photograph, signed, spotlight
from explainer_runtime.views import Card, Picture, View

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

SIZE = 168
"""Pixels that the longer side of a panel should about have; small images are enlarged by a whole factor."""


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
    return methods.of(explanation.kind).draw(explanation, x, inputs)


def cards(explanation: Explanation, x: np.ndarray, inputs: Inputs, *, size: int = SIZE) -> list[Card[Panel]]:
    """One card a row; see `view`. `size` is what the longer side of a panel should about have, in pixels."""
    return drawn(view(explanation, x, inputs), inputs, size)


def drawn(seen: View, inputs: Inputs, size: int) -> list[Card[Panel]]:
    """The cards of a view, with their pixels."""
    return [
        Card(**{**vars(card), "panels": tuple(_panel(picture, inputs, size) for picture in card.panels)})
        for card in seen.cards
    ]


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


def _panel(picture: Picture, inputs: Inputs, size: int) -> Panel:
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
