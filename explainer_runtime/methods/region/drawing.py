"""What is to be seen of regions: the image, what has to be hidden, and the image without it."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, image, name, photograph


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        new = int(explanation["hidden_class"][row])
        was, now = name(own, inputs), name(new, inputs)
        before, after = (explanation[key][row] for key in ("original_proba", "hidden_proba"))
        size, mask = int(explanation["size"][row]), explanation["region_mask"][row].astype(bool)
        if size == 0:
            return Card(True, f"{was}, as was asked", "nothing has to be hidden", (start,))
        parts = f"{size} of {len(np.unique(explanation['segments'][row]))} superpixels"
        area = f"{float(explanation['area'][row]):.0%} of the image"
        left = f"{was} {chance(before[own])} before, {chance(after[own])} after"
        told, shown = f"What has to be hidden: {parts}, {area}", image(x[row], inputs)
        pictures = (
            start,
            Picture("to be hidden", parts, told, shown, "spotlight", mask),
            photograph("without it", f"{now} {chance(after[new])}", explanation["hidden"][row], inputs),
        )
        headline = f"No longer {was} without {size} superpixel{'' if size == 1 else 's'}"
        note = "" if explanation["irreducible"][row] else "It may be that part of it could be shown again."
        return Card(True, headline, f"{left}; {now} {chance(after[new])} · {parts} · {area}", pictures, note)

    return View(
        "Regions",
        "The fewest parts of the image that would have to be hidden for the model to give another answer.",
        cards(
            explanation,
            x,
            inputs,
            "nothing to hide was found",
            card,
            "No set of superpixels that was tried changes the class.",
        ),
        {"size": "superpixels", "area": "share of the image"},
    )
