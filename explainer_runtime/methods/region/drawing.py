"""What is to be seen of regions: the image, what has to be hidden, and the image without it."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, image, name, photograph, why


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    return View(
        "Regions",
        "The fewest parts of the image that would have to be hidden for the model to give another answer.",
        tuple(_card(explanation, row, values, inputs) for row, values in enumerate(x)),
        {"size": "superpixels", "area": "share of the image"},
    )


def _card(explanation: Explanation, row: int, values: np.ndarray, inputs: Inputs) -> Card[Picture]:
    classes = [int(explanation[key][row]) for key in ("original_class", "hidden_class")]
    was, now = (name(one, inputs) for one in classes)
    before, after = (explanation[key][row] for key in ("original_proba", "hidden_proba"))
    own = f"{was} {chance(before[classes[0]])}" if classes[0] >= 0 else "not asked"
    start = photograph("input", own, values, inputs)
    if not explanation["found"][row]:
        note = f"{why(explanation, row)} No set of superpixels that was tried changes the class."
        return Card(False, f"{was}: nothing to hide was found", "", (start,), note, told=False)
    size, mask = int(explanation["size"][row]), explanation["region_mask"][row].astype(bool)
    pieces = len(np.unique(explanation["segments"][row]))
    parts = f"{size} of {pieces} superpixels"
    area = f"{float(explanation['area'][row]):.0%} of the image"
    shown = image(values, inputs)
    if size == 0:
        return Card(True, f"{was}, as was asked", "nothing has to be hidden", (start,))
    left = f"{was} {chance(before[classes[0]])} before, {chance(after[classes[0]])} after"
    pictures = (
        start,
        Picture("to be hidden", parts, f"What has to be hidden: {parts}, {area}", shown, "spotlight", mask),
        photograph("without it", f"{now} {chance(after[classes[1]])}", explanation["hidden"][row], inputs),
    )
    headline = f"No longer {was} without {size} superpixel{'' if size == 1 else 's'}"
    note = "" if explanation["irreducible"][row] else "It may be that part of it could be shown again."
    detail = f"{left}; {now} {chance(after[classes[1]])} · {parts} · {area}"
    return Card(True, headline, detail, pictures, note)
