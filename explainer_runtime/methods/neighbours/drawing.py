"""What is to be seen of neighbours: the row, and the nearest of its own class and of another."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, name, number, photograph


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        was, might = name(own, inputs), name(int(explanation["unlike_class"][row]), inputs)
        like, unlike = (number(float(explanation[f"{key}_distance"][row])) for key in ("like", "unlike"))
        pictures = (
            start,
            photograph("most like it", f"{was}, at {like}", explanation["like"][row], inputs, another=True),
            photograph(
                "of another class", f"{might}, at {unlike}", explanation["unlike"][row], inputs, another=True
            ),
        )
        headline = f"{was}; the nearest of another class is {might}"
        return Card(True, headline, f"trust score {number(float(explanation['trust_score'][row]))}", pictures)

    note = "A class without known pictures has no neighbour."
    return View(
        "Neighbours",
        "The known pictures that are most like this one, of the class that it is given, and of another.",
        cards(explanation, x, inputs, "no neighbours", card, note),
        {"like_distance": "to its own class", "unlike_distance": "to another", "trust_score": "trust score"},
        "Of the rows that the explainer keeps, by the classes that the model gives them, these are nearest.",
        "Near is measured in pixels, or in codes where an encoder was fitted; the model may look at "
        "something else. Other rows kept would give other neighbours.",
    )
