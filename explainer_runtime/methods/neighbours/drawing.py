"""What is to be seen of neighbours: the row, and the nearest of its own class and of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.drawing import cards
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, name, number, photograph


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`."""

    def known(key: str, title: str, row: int, called: str) -> Picture:
        caption = f"{called}, at {number(float(explanation[f'{key}_distance'][row]))}"
        return photograph(title, caption, explanation[key][row], inputs, another=True)

    def card(row: int, own: int, start: Picture) -> Card[Picture]:
        was, might = name(own, inputs), name(int(explanation["unlike_class"][row]), inputs)
        like, unlike = (
            known("like", "of its own class", row, was),
            known("unlike", "of another class", row, might),
        )
        headline = f"{was}; the nearest of another class is {might}"
        score = float(explanation["trust_score"][row])
        trust = f"trust score {number(score)}{', it is more like the other class' if score < 1 else ''}"
        return Card(True, headline, trust, (start, like, unlike))

    def unlike(row: int, missing: Card[Picture]) -> Card[Picture]:
        """Where no row of its own class is known, one of another often is."""
        if missing.found or (other := int(explanation["unlike_class"][row])) < 0:
            return missing
        might = name(other, inputs)
        return replace(
            missing,
            headline=f"{name(int(explanation['original_class'][row]), inputs)}; the nearest known is {might}",
            detail="no known picture is of its own class",
            panels=(*missing.panels, known("unlike", "of another class", row, might)),
            note="",
        )

    note = "A class without known pictures has no neighbour."
    return View(
        "Neighbours",
        "The known pictures that are most like this one, of the class that it is given, and of another.",
        tuple(
            unlike(row, one)
            for row, one in enumerate(cards(explanation, x, inputs, "no neighbours", card, note))
        ),
        {"like_distance": "to its own class", "unlike_distance": "to another", "trust_score": "trust score"},
        "Of the rows that the explainer keeps, by the classes that the model gives them, these are nearest.",
        "Near is measured in pixels, or in codes where an encoder was fitted; the model may look at "
        "something else. Other rows kept would give other neighbours.",
    )
