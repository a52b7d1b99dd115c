"""What is to be seen of neighbours: the row, and the nearest of its own class and of another."""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, name, number, photograph, why


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""
    return View(
        "Neighbours",
        "The known pictures that are most like this one, of the class that it is given, and of another.",
        tuple(_card(explanation, row, values, inputs) for row, values in enumerate(x)),
        {"like_distance": "to its own class", "unlike_distance": "to another", "trust_score": "trust score"},
    )


def _card(explanation: Explanation, row: int, values: np.ndarray, inputs: Inputs) -> Card[Picture]:
    own, other = (int(explanation[key][row]) for key in ("original_class", "unlike_class"))
    sure = chance(explanation["original_proba"][row].max())
    start = photograph("input", f"{name(own, inputs)} {sure}" if own >= 0 else "not asked", values, inputs)
    if not explanation["found"][row]:
        note = f"{why(explanation, row)} A class without known pictures has no neighbour."
        return Card(False, "no neighbours", "", (start,), note, told=False)
    like, unlike = (number(float(explanation[f"{key}_distance"][row])) for key in ("like", "unlike"))
    was, might = name(own, inputs), name(other, inputs)
    pictures = (
        start,
        photograph("most like it", f"{name(own, inputs)}, at {like}", explanation["like"][row], inputs),
        photograph(
            "of another class", f"{name(other, inputs)}, at {unlike}", explanation["unlike"][row], inputs
        ),
    )
    headline = f"{was}; the nearest of another class is {might}"
    return Card(True, headline, f"trust score {number(float(explanation['trust_score'][row]))}", pictures)
