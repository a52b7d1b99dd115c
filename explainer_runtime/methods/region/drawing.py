"""What is to be seen of regions: the image, what has to be hidden or pasted, and the image as it is then."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards, hiding
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, image, name, photograph


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""

    target = explanation.meta.get("spec", {}).get("target_class", "other")
    sought = "changes the class" if target == "other" else f"gives the class {name(int(target), inputs)}"

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        new = int(explanation["hidden_class"][row])
        was, now = name(own, inputs), name(new, inputs)
        before, after = (explanation[key][row] for key in ("original_proba", "hidden_proba"))
        size, mask = int(explanation["size"][row]), explanation["region_mask"][row].astype(bool)
        donor = int(explanation["neighbour_class"][row]) if "neighbour_class" in explanation.arrays else -1
        if size == 0:
            return Card(True, f"{was}, as was asked", "nothing has to be changed", (start,))
        parts = f"{size} of {len(np.unique(explanation['segments'][row]))} superpixels"
        area, many = f"{float(explanation['area'][row]):.0%} of the image", "" if size == 1 else "s"
        left = f"{was} {chance(before[own])} before, {chance(after[own])} after"
        shown, made = image(x[row], inputs), f"{now} {chance(after[new])}"
        if donor >= 0:
            other = name(donor, inputs)
            headline, ending = f"{now} with {size} superpixel{many} of a known {other}", "with it"
            told = f"What has to be there: {parts}, {area}, of a known image of class {other}"
            shown = image(explanation["neighbour"][row], inputs)
            part = Picture("to be pasted", f"of a known {other}", told, shown, "spotlight", mask)
        else:
            headline, ending = f"No longer {was} without {size} superpixel{many}", "without it"
            told = f"What has to be hidden: {parts}, {area}"
            part = Picture("to be hidden", parts, told, shown, "spotlight", mask)
        pictures = (start, part, photograph(ending, made, explanation["hidden"][row], inputs))
        note = (
            ""
            if explanation["irreducible"][row]
            else f"It may be that part of it could be {'left out' if donor >= 0 else 'shown again'}."
        )
        return Card(True, headline, f"{left}; {made} · {parts} · {area}", pictures, note)

    return View(
        "Regions",
        "The fewest parts of the image that would have to be hidden, or to be those of another image, for "
        "the model to give another answer.",
        cards(
            explanation,
            x,
            inputs,
            "no such superpixels were found",
            card,
            f"No set of superpixels that was tried {sought}.",
        ),
        {"size": "superpixels", "area": "share of the image"},
        "The model, asked about just this picture with those parts changed, gave another class.",
        hiding(explanation) + " Other parts may do as well. Which class is reached is often incidental.",
    )
