"""How the methods that change a row show it: the row, what it was changed into, and what the change is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, View, chance, change, image, name, number, photograph, why

DISTANCES = {"distance_l1": "L1", "distance_l2": "L2", "distance_l0": "values"}
NUMBERS = {**DISTANCES, "target_proba": "probability"}
"""Numbers that people ask for of a change, and what they mean."""
CHANGED = (
    "The model, asked last about just this changed image, gave it the class, as surely as was asked for."
)
"""What it means that a change was found."""
BORDER = (
    "It shows where this model draws its line, not what makes the other class: such a small change may "
    "mean nothing to people, and another model as good need not follow it. Other changes may do as well."
)
"""When an answer that is a change would not hold."""
_FILLS = {
    "image_mean": "the mean colour of the image",
    "mean": "their own mean colour",
    "blur": "a blur",
    "constant": "one even tone",
    "background": "pieces of other images",
    "inpaint": "what is around them",
}


def counterfactuals(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """What is to be seen of counterfactuals, whoever found them."""
    cards = changed(explanation, x, inputs, "counterfactual", "counterfactual")
    idea = "The smallest change found that gives the image another class."
    return View("Counterfactuals", idea, cards, NUMBERS, CHANGED, BORDER)


def hiding(explanation: Explanation) -> str:
    """What hidden parts showed in the search, in a sentence."""
    spec = explanation.meta.get("spec", {})
    if spec.get("change") == "paste":
        return "It was sought with parts of one known image: with those of another it may be another."
    shown = _FILLS.get(spec.get("fill"), "what its fill shows")
    return f"It was sought with hidden parts showing {shown}: with another way of hiding it may be another."


def changed(
    explanation: Explanation, x: np.ndarray, inputs: Inputs, field: str, title: str
) -> tuple[Card[Picture], ...]:
    """A card for each row `(N, *S)`: the input, what it was changed into (`field`), and the change."""

    def card(row: int, before: int, original: Picture) -> Card[Picture]:
        after, answer = int(explanation[f"{field}_class"][row]), explanation[field][row]
        sure, other = chance(explanation[f"{field}_proba"][row][after]), name(after, inputs)
        difference = change("difference", image(answer, inputs) - image(x[row], inputs))
        return Card(
            True,
            f"{name(before, inputs)} → {other}" if before != after else f"{other}, now {sure}",
            f"{difference.caption}, changes add up to {number(explanation['distance_l1'][row])} (L1)",
            (original, photograph(title, f"{other} {sure}", answer, inputs), difference),
        )

    return cards(explanation, x, inputs, f"no {title} found", card)


def cards(
    explanation: Explanation,
    x: np.ndarray,
    inputs: Inputs,
    missing: str,
    card: Callable[[int, int, Picture], Card[Picture]],
    note: str = "",
) -> tuple[Card[Picture], ...]:
    """A card for each row: what `card` says of it, given its number, its class and its picture; where nothing
    was found, what is `missing`, why, and a `note`. A row that the model was not asked about has no class."""
    made: list[Card[Picture]] = []
    for row in range(len(x)):
        before = int(explanation["original_class"][row])
        called = name(before, inputs) if before >= 0 else "not asked"
        sure = f" {chance(explanation['original_proba'][row][before])}" if before >= 0 else ""
        original = photograph("input", called + sure, x[row], inputs)
        if explanation["found"][row]:
            made.append(card(row, before, original))
        else:
            reason = f"{why(explanation, row)} {note}".rstrip()
            made.append(Card(False, f"{called}: {missing}", "", (original,), reason, told=False))
    return tuple(made)
