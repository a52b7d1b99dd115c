"""What is to be seen of attributions: the image, and what of it speaks for and against a class."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, image, name, number, photograph, why


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    return View(
        "Attributions",
        "What each part of the image adds to the score of a class; together they add up to it.",
        tuple(_card(explanation, row, values, inputs) for row, values in enumerate(x)),
        {"value": "of the image", "base_value": "with all hidden"},
    )


def _card(explanation: Explanation, row: int, values: np.ndarray, inputs: Inputs) -> Card[Picture]:
    own, target = (int(explanation[key][row]) for key in ("original_class", "target_class"))
    sure = (
        f"{name(own, inputs)} {chance(explanation['original_proba'][row].max())}" if own >= 0 else "not asked"
    )
    start = photograph("input", sure, values, inputs)
    if not explanation["found"][row]:
        return Card(False, "no attribution", "", (start,), why(explanation, row), told=False)
    added, errors, segments = (
        explanation[key][row] for key in ("attribution", "attribution_error", "segments")
    )
    called, limit = name(target, inputs), max(float(np.abs(added).max()), 1e-6)
    most, speaks = f"up to {number(limit)} a superpixel", added > 2 * errors
    parts = f"{len(np.unique(segments[speaks]))} of {len(np.unique(segments))} superpixels"
    signed = f"For and against {called}: {most}; red is for, blue is against"
    surely = f"What surely speaks for {called}: {parts}"
    pictures = (
        start,
        Picture("for and against", most, signed, added[..., None], "change", limit=limit),
        Picture("speaks for it", parts, surely, image(values, inputs), "spotlight", speaks),
    )
    value, base = (number(float(explanation[key][row])) for key in ("value", "base_value"))
    error = f"standard error {number(float(errors.max()))} at most"
    detail = f"{value} for the image, {base} with everything hidden · {error}"
    return Card(True, f"What speaks for {called}", detail, pictures)
