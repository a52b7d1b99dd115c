"""What is shown and said of each explained row: a headline, a few panels, a line of numbers.

Words are plain, for people who did not write the method: which class it was, which it becomes, how sure the
model is, how much had to change. A row without an explanation says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.render.panels import outlined, photograph, signed, spotlight
from explainer_runtime.render.words import chance, number

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
    if x.ndim not in (3, 4) or x.shape[3:] not in ((), (1,), (3,)):
        shape = ", ".join(map(str, x.shape[1:]))
        raise InvalidInput(f"pictures need images (H, W), (H, W, 1) or (H, W, 3), got rows of ({shape})")
    if len(x) != len(explanation):
        raise InvalidInput(f"expected the {len(explanation)} rows that were explained, got {len(x)}")
    # By what is there, not by its name: several methods answer with a counterfactual.
    draw = next((draw for field, draw in _DRAWN.items() if field in explanation.arrays), None)
    if draw is None:
        raise InvalidInput(f"there are no pictures of {explanation.kind}")
    factor = max(1, round(size / max(x.shape[1:3])))
    return [draw(explanation, row, _Canvas(x[row], inputs, factor)) for row in range(len(x))]


@dataclass(frozen=True)
class _Canvas:
    """One input, and how images of its kind are drawn."""

    x: np.ndarray
    inputs: Inputs
    factor: int

    def image(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(*self.x.shape[:2], -1).astype(np.float32)

    def photograph(self, title: str, caption: str, values: np.ndarray) -> Panel:
        pixels = photograph(self.image(values), self.inputs.low, self.inputs.high, self.factor)
        return Panel(title, caption, f"{title.capitalize()}: {caption}", pixels)

    def name(self, index: int) -> str:
        names = self.inputs.class_names
        return names[index] if names is not None and index < len(names) else f"class {index}"


def _counterfactual(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    return _changed(explanation, row, canvas, "counterfactual", "counterfactual")


def _pertinent(explanation: Explanation, row: int, canvas: _Canvas) -> Card:
    spec = explanation.meta.get("spec", {})
    if spec.get("mode") != "PP":
        return _changed(explanation, row, canvas, "pertinent", "pertinent negative")
    shows = "kept" if spec.get("pp_space") == "difference" else "taken away"
    return _changed(explanation, row, canvas, "pertinent", "pertinent positive", shows)


def _changed(
    explanation: Explanation, row: int, canvas: _Canvas, field: str, title: str, shows: str = "difference"
) -> Card:
    """The input, what it was changed into (`field`), and what the change is.

    A pertinent positive is measured by the part that was kept, but what can be drawn is mostly what was
    `taken away`; both are said, each by its name. Only where it is a difference itself is it what was `kept`.
    """
    before = int(explanation["original_class"][row])
    own = f"{canvas.name(before)} {chance(explanation['original_proba'][row][before])}"
    original = canvas.photograph("input", own, canvas.x)
    if not explanation["found"][row]:
        headline = f"{canvas.name(before)}: no {title} found"
        return Card(False, headline, "", (original,), _why(explanation, row))

    after = int(explanation[f"{field}_class"][row])
    scores = explanation[f"{field}_proba"][row]
    other = canvas.name(after)
    changed = explanation[field][row]
    difference = canvas.image(changed) - (0 if shows == "kept" else canvas.image(canvas.x))
    count, of = int((np.abs(difference) > 1e-6).any(axis=-1).sum()), difference[..., 0].size
    limit = max(float(np.abs(difference).max()), 1e-6)
    pixels, size = f"{count} of {of} pixels", f"L1 {number(explanation['distance_l1'][row])}"
    detail = f"{size} · {pixels}"
    if shows != "difference":
        detail = f"kept: {size}, {explanation['distance_l0'][row]} of {difference.size} values"
    if shows == "taken away":
        detail += f" · taken away: {pixels}"
    return Card(
        True,
        f"{canvas.name(before)} → {other}" if before != after else f"{other}, now {chance(scores[after])}",
        detail,
        (
            original,
            canvas.photograph(title, f"{other} {chance(scores[after])}", changed),
            Panel(
                shows,
                pixels,
                f"{shows.capitalize()}: {pixels}, by up to {number(limit)}; red is brighter, blue is darker",
                signed(difference, limit, canvas.factor),
                limit,
            ),
        ),
    )


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
        headline = f"{name}, whatever is masked"
        note = "The anchor is empty: masking superpixels at random hardly ever changes the class."
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
                "anchor" if found else "best candidate",
                f"precision {precision}",
                f"The anchor in full, the rest dimmed: {held}",
                spotlight(image, mask, *look),
            ),
        ),
        note,
    )


def _why(explanation: Explanation, row: int) -> str:
    status = str(explanation["status"][row])
    return _WHY.get(status, f"Status: {status}.")


_DRAWN = {"counterfactual": _counterfactual, "pertinent": _pertinent, "anchor_mask": _anchor}
