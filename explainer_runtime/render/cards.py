"""What is shown and said of each explained row: a headline, a few panels, a line of numbers.

Words are plain, for people who did not write the method: which class it was, which it becomes, how sure the
model is, how much had to change. A row without an explanation says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import EMPTY_ANCHOR, Explanation
from explainer_runtime.render.panels import outlined, photograph, signed, spotlight
from explainer_runtime.render.words import chance, number, sentence

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

SIZE = 168
"""Pixels that the longer side of a panel should about have; small images are enlarged by a whole factor."""

_WHY = {
    "budget_exhausted": "The budget was spent first.",
    "not_found": "The search ended without one.",
}


@dataclass(frozen=True)
class Panel:
    """One image of a card.

    Attributes:
        title: What it is, in a word or two.
        caption: What the model says of it, or its numbers.
        alt: The same for those who cannot see it.
        pixels: `(h, w, 3)` uint8.
        limit: Of a signed map, the change that has the full colour, in input units; else None.
    """

    title: str
    caption: str
    alt: str
    pixels: np.ndarray
    limit: float | None = None


@dataclass(frozen=True)
class Card:
    """One explained row.

    Attributes:
        found: Whether there is an explanation.
        headline: The answer in a few words.
        detail: Its numbers.
        panels: Three of them, or the input alone.
        note: What stands where panels are missing, or what should be known about the answer; or empty.
    """

    found: bool
    headline: str
    detail: str
    panels: tuple[Panel, ...]
    note: str = ""


def cards(explanation: Explanation, x: np.ndarray, inputs: Inputs, *, size: int = SIZE) -> list[Card]:
    """One card a row.

    Args:
        explanation: Of the rows `x`.
        x: What was explained `(N, H, W)` or `(N, H, W, C)`, in input units, C being 1 or 3.
        inputs: The input contract: range and class names.
        size: Pixels that the longer side of a panel should about have.

    Raises:
        InvalidInput: The rows are not images, or the explanation has nothing to show.
    """
    x = np.asarray(x, np.float32)
    check(inputs, x.shape[1:])
    if len(x) != len(explanation):
        raise InvalidInput(f"expected the {len(explanation)} rows that were explained, got {len(x)}")
    # By what is there, not by its name: several methods answer with a counterfactual.
    draw = next((draw for field, draw in _DRAWN.items() if field in explanation.arrays), None)
    if draw is None:
        raise InvalidInput(f"there are no pictures of {explanation.kind}")
    first = inputs.layout == "channels_first" and x.ndim == 4
    factor = max(1, round(size / max(x.shape[2:] if first else x.shape[1:3])))
    return [draw(explanation, row, _Canvas(x[row], inputs, factor)) for row in range(len(x))]


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


@dataclass(frozen=True)
class _Canvas:
    """One input, and how images of its kind are drawn."""

    x: np.ndarray
    inputs: Inputs
    factor: int

    def image(self, values: np.ndarray) -> np.ndarray:
        """`(H, W, C)`, float32, wherever the model wants its channels."""
        values = values.astype(np.float32)
        if values.ndim == 2:
            return values[..., None]
        return np.moveaxis(values, 0, -1) if self.inputs.layout == "channels_first" else values

    def photograph(self, title: str, caption: str, values: np.ndarray) -> Panel:
        pixels = photograph(self.image(values), self.inputs.low, self.inputs.high, self.factor)
        return Panel(title, caption, f"{title.capitalize()}: {caption}", pixels)

    def change(self, title: str, difference: np.ndarray) -> Panel:
        """A signed map; its caption counts the pixels."""
        count, of = int((np.abs(difference) > 1e-6).any(axis=-1).sum()), difference[..., 0].size
        limit = max(float(np.abs(difference).max()), 1e-6)
        pixels = f"{count} of {of} pixels"
        told = f"{title.capitalize()}: {pixels}, by up to {number(limit)}; red is brighter, blue is darker"
        return Panel(title, pixels, told, signed(difference, limit, self.factor), limit)

    def name(self, index: int) -> str:
        names = self.inputs.class_names
        return names[index] if names is not None and index < len(names) else f"class {index}"


def _counterfactual(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    return _changed(explanation, row, canvas, "counterfactual", "counterfactual")


def _pertinent(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    if explanation.meta.get("spec", {}).get("mode") == "PP":
        return _positive(explanation, row, canvas)
    return _changed(explanation, row, canvas, "pertinent", "pertinent negative")


def _changed(explanation: Explanation, row: int, canvas: _Canvas, field: str, title: str) -> Card:
    """The input, what it was changed into (`field`), and what the change is."""
    before, original = _original(explanation, row, canvas)
    if not explanation["found"][row]:
        headline = f"{canvas.name(before)}: no {title} found"
        return Card(False, headline, "", (original,), _why(explanation, row))

    after = int(explanation[f"{field}_class"][row])
    scores = explanation[f"{field}_proba"][row]
    other = canvas.name(after)
    changed = explanation[field][row]
    change = canvas.change("difference", canvas.image(changed) - canvas.image(canvas.x))
    return Card(
        True,
        f"{canvas.name(before)} → {other}" if before != after else f"{other}, now {chance(scores[after])}",
        f"L1 {number(explanation['distance_l1'][row])} · {change.caption}",
        (original, canvas.photograph(title, f"{other} {chance(scores[after])}", changed), change),
    )


def _positive(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    """The input, the part of it that is enough for its class, and how that part differs from nothing.

    Its numbers are those of the part kept. Where the explanation does not say what the value of nothing is,
    the map shows the difference from the input instead, with a count of its own.
    """
    title = "pertinent positive"
    before, original = _original(explanation, row, canvas)
    if not explanation["found"][row]:
        return Card(
            False, f"{canvas.name(before)}: no {title} found", "", (original,), _why(explanation, row)
        )
    spec, kept = explanation.meta.get("spec", {}), explanation["pertinent"][row]
    nothing = 0.0 if spec.get("pp_space") == "difference" else spec.get("no_info_val")
    if nothing is None:
        change = canvas.change("difference", canvas.image(kept) - canvas.image(canvas.x))
    else:
        change = canvas.change("kept", canvas.image(kept - np.broadcast_to(np.float32(nothing), kept.shape)))
    after = int(explanation["pertinent_class"][row])
    said = f"{canvas.name(after)} {chance(explanation['pertinent_proba'][row][after])}"
    count = f"{explanation['distance_l0'][row]} of {kept.size} values"
    return Card(
        True,
        f"{canvas.name(before)}, from part of the image",
        f"kept: {count}, L1 {number(explanation['distance_l1'][row])}",
        (original, canvas.photograph(title, said, kept), change),
    )


def _original(explanation: Explanation, row: int, canvas: _Canvas) -> tuple[int, Panel]:
    before = int(explanation["original_class"][row])
    own = f"{canvas.name(before)} {chance(explanation['original_proba'][row][before])}"
    return before, canvas.photograph("input", own, canvas.x)


def _anchor(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    name = canvas.name(int(explanation["prediction"][row]))
    own = name
    if "original_proba" in explanation.arrays:
        own = f"{name} {chance(explanation['original_proba'][row].max())}"
    found, size = bool(explanation["found"][row]), int(explanation["size"][row])
    precision, coverage = (chance(explanation[key][row]) for key in ("precision", "coverage"))
    segments, mask = explanation["segments"][row], explanation["anchor_mask"][row].astype(bool)
    pieces = len(np.unique(segments))
    held = f"{size} of {pieces} superpixels"
    look = (canvas.inputs.low, canvas.inputs.high, canvas.factor)
    image = canvas.image(canvas.x)
    if not found:
        headline = f"{name}: no anchor found"
        note = f"{_why(explanation, row)} The best candidate is shown."
    elif size == 0:
        headline = f"{name}: an empty anchor"
        note = _why_empty(explanation, row)
    else:
        headline, note = f"{name}, held by {size} superpixel{'' if size == 1 else 's'}", ""
    return Card(
        found,
        headline,
        f"precision {precision} · coverage {coverage} · {held}",
        (
            canvas.photograph("input", own, canvas.x),
            Panel(
                "superpixels",
                f"{pieces} superpixels",
                f"The input, cut into {pieces} superpixels",
                outlined(image, segments, *look),
            ),
            Panel(
                ("anchor" if size else "empty anchor") if found else "best candidate",
                f"precision {precision}",
                f"The anchor in full, the rest dimmed: {held}",
                spotlight(image, mask, *look),
            ),
        ),
        note,
    )


def _why_empty(explanation: Explanation, row: int) -> str:
    """As the method says it or, where its words did not come along, that it is so and what to try."""
    said = explanation.raw[row].get("note") if explanation.raw else None
    return sentence(said or f"{EMPTY_ANCHOR}. Try another fill, a larger p_sample or smaller superpixels.")


def _why(explanation: Explanation, row: int) -> str:
    status = str(explanation["status"][row])
    return _WHY.get(status, f"Status: {status}.")


_DRAWN = {"counterfactual": _counterfactual, "pertinent": _pertinent, "anchor_mask": _anchor}
