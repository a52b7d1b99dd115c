"""What is to be seen of anchors: the image, its superpixels, and those that hold its class in place."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import hiding
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, image, name, photograph, sentence, why

EMPTY = "the anchor is empty: masking superpixels at random hardly ever changes the class"
"""What is said of an anchor that holds nothing, wherever it is shown."""


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    spec = explanation.meta.get("spec", {})
    least = f"{spec['threshold']:.0%} or more" if "threshold" in spec else "as many as were asked for"
    hidden = f", with a chance of {spec['p_sample']:.0%}" if "p_sample" in spec else ""
    return View(
        "Anchors",
        "The part of the image that holds its class in place while the rest is hidden at random.",
        tuple(_card(explanation, row, values, inputs) for row, values in enumerate(x)),
        {"precision": "precision", "coverage": "coverage", "size": "superpixels"},
        f"With the anchor shown the class stayed in {least} of the pictures in which each other superpixel "
        f"was hidden at random{hidden}; they were drawn after the anchor was chosen.",
        hiding(explanation) + " An empty anchor says that nothing in particular holds the class.",
    )


def _card(explanation: Explanation, row: int, values: np.ndarray, inputs: Inputs) -> Card[Picture]:
    own = called = name(int(explanation["prediction"][row]), inputs)
    if "original_proba" in explanation.arrays:
        own = f"{called} {chance(explanation['original_proba'][row].max())}"
    found, size = bool(explanation["found"][row]), int(explanation["size"][row])
    precision, coverage = (chance(explanation[key][row]) for key in ("precision", "coverage"))
    segments, mask = explanation["segments"][row], explanation["anchor_mask"][row].astype(bool)
    pieces, shown = len(np.unique(segments)), image(values, inputs)
    held = f"{size} of {pieces} superpixels"
    if not found:
        headline, note = f"{called}: no anchor found", f"{why(explanation, row)} The best candidate is shown."
    elif size == 0:
        headline, note = f"{called}: an empty (vacuous) anchor", _why_empty(explanation, row)
    else:
        headline = f"{called}, held by {size} superpixel{'' if size == 1 else 's'}"
        note = _reservations(explanation, row, shown[mask], inputs)
    best = ("anchor" if size else "empty anchor") if found else "best candidate"
    cut, dimmed = f"{pieces} superpixels", f"The anchor in full, the rest dimmed: {held}"
    pictures = (
        photograph("input", own, values, inputs),
        Picture("superpixels", cut, f"The input, cut into {cut}", shown, "outlined", segments),
        Picture(best, f"precision {precision}", dimmed, shown, "spotlight", mask),
    )
    return Card(found, headline, f"precision {precision} · coverage {coverage} · {held}", pictures, note)


def _reservations(explanation: Explanation, row: int, pixels: np.ndarray, inputs: Inputs) -> str:
    """What should be known of an anchor of these pixels `(P, C)`; nothing, as a rule."""
    said = []
    levels = np.round((pixels - inputs.low) / (inputs.high - inputs.low) * 50)
    even = np.unique(levels, axis=0, return_counts=True)[1].max() / len(pixels)
    if even >= 1 / 3:
        said.append(
            f"{even:.0%} of its pixels are one even tone, such as a background: "
            "that nothing is shown there may be part of what holds the class."
        )
    if explanation.raw and explanation.raw[row].get("holds_masked"):
        said.append("With everything hidden the class is the same, so what hides holds part of it.")
    return " ".join(said)


def _why_empty(explanation: Explanation, row: int) -> str:
    """As the method says it or, where its words did not come along, that it is so and what to try."""
    said = explanation.raw[row].get("note") if explanation.raw else None
    return sentence(said or f"{EMPTY}. Try another fill, a larger p_sample or smaller superpixels.")
