"""What is to be seen of attributions: the image, and what of it speaks for and against a class."""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards, hiding
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, image, name, number

ENDS = "against", "for"
"""What blue and red say."""
_SUPERPIXELS = ("shap", "rise", "hsic")
_SHOWN = 5
"""Superpixels that are shown of an algorithm for pixels, as many as are named."""
_IDEAS = {
    "shap": "What each part of the image adds to the score of a class; together they add up to it.",
    "rise": "How much higher the score of a class is where a part is shown, whatever half of the rest is.",
    "hsic": "How much the score of a class depends on whether a part is shown, for better or worse.",
    "integrated_gradients": "What each pixel adds on the way from everything hidden to the image.",
    "smooth_grad": "What each pixel adds to first order, on average over noisy copies of the image.",
    "grad_cam": "Where a layer of the model sees what speaks for a class.",
}
_ADDS = {
    "shap": "The parts add up to what the image's score is above that with everything hidden. ",
    "integrated_gradients": "But for what is unaccounted for, the pixels add up to what the score is "
    "above that with everything hidden, and what is smaller than that is not named. ",
}


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    spec: Any = explanation.meta.get("spec", {})
    algorithm = spec.get("algorithm", "shap")

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        added, segments = (explanation[key][row] for key in ("attribution", "segments"))
        called = name(int(explanation["target_class"][row]), inputs)
        surely, error = _sure(explanation, row, algorithm)
        pixels, strengths = algorithm in ("integrated_gradients", "smooth_grad"), np.abs(added)
        limit = max(float(np.quantile(strengths, 0.99) if pixels else strengths.max()), 1e-6)
        most = f"99 of 100 pixels within {number(limit)}" if pixels else f"up to {number(limit)}"
        marks, shown = surely[segments], image(x[row], inputs)
        strongest = "" if algorithm in _SUPERPIXELS else "the strongest "
        parts = f"{strongest}{int(surely.sum())} of {len(surely)} superpixels"
        if algorithm == "grad_cam":  # it speaks for the class everywhere, somewhat
            marks, parts = added >= limit / 2, "half as much as the most, or more"
        if algorithm == "hsic":
            titles, what = ("how much", "matters"), f"What {called} depends on"
            signed = f"How much {called} depends on each part: {most}"
        else:
            titles, what = ("for and against", "speaks for it"), f"What speaks for {called}"
            signed = f"For and against {called}: {most}; red is for, blue and striped is against"
        value, base = (number(float(explanation[key][row])) for key in ("value", "base_value"))
        detail = f"{value} for the image, {base} with everything hidden"
        if algorithm in (*_SUPERPIXELS, "smooth_grad"):
            detail += f" · standard error {number(error)} at most"
        if "completeness_gap" in explanation.arrays:
            detail += f" · {number(float(explanation['completeness_gap'][row]))} unaccounted for"
        pictures = (
            start,
            Picture(titles[0], most, signed, added[..., None], "change", limit=limit, ends=ENDS),
            Picture(titles[1], parts, f"{what}: {parts}", shown, "spotlight", marks),
        )
        unsure = "No part surely speaks for it: none is two standard errors above zero. More n_samples tell."
        note = "" if surely.any() or algorithm not in _SUPERPIXELS else unsure
        return Card(True, what, detail, pictures, note)

    return View(
        "Attributions",
        _IDEAS.get(algorithm, _IDEAS["shap"]),
        cards(explanation, x, inputs, "no attribution", card),
        {"value": "of the image", "base_value": "with all hidden"},
        _ADDS.get(algorithm, "")
        + "Only parts whose value is more than two standard errors above zero are said to matter.",
        hiding(explanation)
        + " It is an average over many hidings:" * (algorithm in _SUPERPIXELS)
        + (" which" if algorithm in _SUPERPIXELS else " Which")
        + " parts would have to go for another answer is another question.",
    )


def _sure(explanation: Explanation, row: int, algorithm: str) -> tuple[np.ndarray, float]:
    """Which superpixels are shown as surely speaking for the class `(K,)`, and the largest standard error."""
    added, each, segments = (
        explanation[key][row] for key in ("attribution", "attribution_error", "segments")
    )
    sizes = np.bincount(segments.ravel())
    values, errors = (
        np.zeros(len(sizes)) + np.bincount(segments.ravel(), of.ravel()) for of in (added, each)
    )
    if algorithm in (*_SUPERPIXELS, "grad_cam"):
        values, errors = values / sizes, errors / sizes
    elif explanation.raw:  # errors of pixels say of that of their sum that it is no larger
        errors = np.asarray(explanation.raw[row]["errors"])
    gap = explanation.arrays.get("completeness_gap")
    doubt = 2 * errors + (0 if gap is None else abs(float(gap[row])))
    sure = values > np.maximum(doubt, 1e-9)
    if algorithm not in _SUPERPIXELS:  # where little is random nearly all is sure: the strongest are shown
        sure &= values >= np.sort(values)[-_SHOWN:].min()
    return sure, float(errors.max())
