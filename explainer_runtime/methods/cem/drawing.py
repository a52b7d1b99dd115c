"""What is to be seen of contrastive explanations."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import BORDER, CHANGED, DISTANCES, NUMBERS, cards, changed
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, change, image, name, number, photograph


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    spec = explanation.meta.get("spec", {})
    if spec.get("mode") != "PP":
        seen = changed(explanation, x, inputs, "pertinent", "pertinent negative")
        idea = "The least addition found, away from what says nothing, that takes the class away."
        return View("Pertinent negatives", idea, seen, NUMBERS, CHANGED, BORDER)

    def part(row: int, before: int, original: Picture) -> Card[Picture]:
        """The input, the part of it that is enough for its class, and how that part differs from nothing.

        Its numbers are those of the part kept. Where the explanation does not say what the value of nothing
        is, the map shows the difference from the input instead, with a count of its own.
        """
        kept, after = explanation["pertinent"][row], int(explanation["pertinent_class"][row])
        nothing = 0.0 if spec.get("pp_space") == "difference" else spec.get("no_info_val")
        if nothing is None:
            map_ = change("difference", image(kept, inputs) - image(x[row], inputs))
        else:
            map_ = change("kept", image(kept - np.broadcast_to(np.float32(nothing), kept.shape), inputs))
        said = f"{name(after, inputs)} {chance(explanation['pertinent_proba'][row][after])}"
        count = f"{explanation['distance_l0'][row]} of {kept.size} values"
        return Card(
            True,
            f"{name(before, inputs)}, from part of the image",
            f"kept: {count}, which add up to {number(explanation['distance_l1'][row])} (L1)",
            (original, photograph("pertinent positive", said, kept, inputs), map_),
        )

    # What is measured is the part, not what was taken away.
    numbers = {field: f"{word} kept" if field in DISTANCES else word for field, word in NUMBERS.items()}
    idea = "The least part found that is enough for the image's class."
    seen = cards(explanation, x, inputs, "no pertinent positive found", part)
    held = "The model, asked last about this part alone, gave it the class of the image."
    part_of = (
        "It is enough for this model, on a ground of nothing, and need not look like anything to people."
    )
    return View("Pertinent positives", idea, seen, numbers, held, part_of)
