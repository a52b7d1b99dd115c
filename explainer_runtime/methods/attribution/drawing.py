"""What is to be seen of attributions: the image, and what of it speaks for and against a class."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards, hiding
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, image, name, number

ENDS = "against", "for"
"""What blue and red say."""


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        added, errors, segments = (
            explanation[key][row] for key in ("attribution", "attribution_error", "segments")
        )
        called = name(int(explanation["target_class"][row]), inputs)
        limit, speaks = max(float(np.abs(added).max()), 1e-6), added > 2 * errors
        most = f"up to {number(limit)} a superpixel"
        parts = f"{len(np.unique(segments[speaks]))} of {len(np.unique(segments))} superpixels"
        signed = f"For and against {called}: {most}; red is for, blue and striped is against"
        surely, shown = f"What surely speaks for {called}: {parts}", image(x[row], inputs)
        pictures = (
            start,
            Picture("for and against", most, signed, added[..., None], "change", limit=limit, ends=ENDS),
            Picture("speaks for it", parts, surely, shown, "spotlight", speaks),
        )
        value, base = (number(float(explanation[key][row])) for key in ("value", "base_value"))
        error = f"standard error {number(float(errors.max()))} at most"
        detail = f"{value} for the image, {base} with everything hidden · {error}"
        unsure = "No part surely speaks for it: none is two standard errors above zero. More n_samples tell."
        note = "" if speaks.any() else unsure
        return Card(True, f"What speaks for {called}", detail, pictures, note)

    return View(
        "Attributions",
        "What each part of the image adds to the score of a class; together they add up to it.",
        cards(explanation, x, inputs, "no attribution", card),
        {"value": "of the image", "base_value": "with all hidden"},
        "The parts add up to what the image's score is above that with everything hidden. Only parts whose "
        "value is more than two standard errors above zero are said to speak for the class.",
        hiding(explanation)
        + " It is an average over many hidings: which parts would have to go for another answer "
        "is another question.",
    )
