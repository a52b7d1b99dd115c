"""Asking the model again: does what the explainers found hold?

Nothing here is taken from the methods. Whatever class an explainer says the model gives an image that it
shows, the model is asked once more about it; for anchors fresh images are drawn, by the definition of
precision and with another seed than the search had; attributions have to add up.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.predictors import Predictor
from explainer_runtime.spec import Inputs

SAMPLES, FEWER = 5_000, 500
"""Images drawn for an anchor, and for it with something else in place of what is hidden."""
_CHUNK = 1_000
_CHANGED = {
    "counterfactual": ("counterfactual", "counterfactual_class"),
    "counterfactual_proto": ("counterfactual", "counterfactual_class"),
    "cem": ("pertinent", "pertinent_class"),
    "region": ("hidden", "hidden_class"),
}
"""Of methods that make an image of their own: the fields that hold it, and the class that it is to have."""


def made(explanation: Explanation) -> tuple[np.ndarray, np.ndarray] | None:
    """The images that an explainer has made `(N, *S)` and the classes it says they have `(N,)`; None where it
    makes none."""
    fields = _CHANGED.get(explanation.kind)
    return None if fields is None else (explanation[fields[0]], explanation[fields[1]])


def confirmed(explanation: Explanation, predictor: Predictor, contract: Inputs) -> np.ndarray:
    """Whether each row `(N,)` was found, and the model gives all images shown the classes that are said.

    Args:
        explanation: Of any method but anchors and attributions.
        predictor: The model.
        contract: The range, which what was made has to keep to.
    """
    found, own = explanation["found"], explanation["original_class"]
    if (one := made(explanation)) is not None:
        x, said = one
        # A pertinent positive keeps the class; everything else that is made has another.
        kept = explanation.meta.get("spec", {}).get("mode") == "PP"
        inside = ((x >= contract.low) & (x <= contract.high)).reshape(len(x), -1).all(axis=1)
        claims, sound = [one], inside & ((said == own) == kept)
    else:
        like, unlike = explanation["like"], explanation["unlike"]
        claims = [(like, own), (unlike, explanation["unlike_class"])]
        sound = explanation["unlike_class"] != own
    for x, said in claims:
        sound = sound & (predictor(x).argmax(axis=1) == said)
    return np.asarray(found & sound)


def valid_counterfactuals(
    explanation: Explanation, predictor: Predictor, spec: Counterfactual, contract: Inputs
) -> np.ndarray:
    """Whether each row `(N,)` is `confirmed`, and its class as likely as was asked for.

    Args:
        explanation: Counterfactuals of `target_class='other'`.
        predictor: The model.
        spec: What was asked for.
        contract: The range.
    """
    scores = predictor(explanation["counterfactual"])
    scores[np.arange(len(scores)), explanation["original_class"]] = 0
    sure = np.abs(scores.max(axis=1) - spec.target_proba) <= spec.tol
    return confirmed(explanation, predictor, contract) & sure


def added_up(explanation: Explanation, x: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Whether attributions `(N,)` were found, are of the score that the model gives the images `x`, and add
    up to it."""
    rows, total = np.arange(len(x)), explanation["base_value"].astype(np.float64)
    for row in rows:
        _, first = np.unique(explanation["segments"][row], return_index=True)
        total[row] += explanation["attribution"][row].ravel()[first].sum()
    score = predictor(x)[rows, explanation["target_class"]]
    near = (np.abs(total - score) < 1e-3) & (np.abs(explanation["value"] - score) < 1e-4)
    return np.asarray(explanation["found"] & near)


def anchor_precision(
    explanation: Explanation,
    x: np.ndarray,
    predictor: Predictor,
    spec: AnchorImage,
    *,
    samples: int = SAMPLES,
    seed: int = 1,
    instead: np.ndarray | None = None,
) -> np.ndarray:
    """How often the class stays while everything outside the anchor may be masked `(N,)`, estimated afresh.

    Args:
        explanation: Anchors with `fill='image_mean'`.
        x: What was explained `(N, H, W, C)`.
        predictor: The model.
        spec: Probability of masking.
        samples: Images drawn for each row.
        seed: Seed of the draws.
        instead: Images `(B, H, W, C)`, one of which, at random, is seen where something is masked; None is
            the mean of the image, as the search had it.
    """
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(x))
    for row, image in enumerate(x):
        fills, segments = image.mean(axis=(0, 1))[None], explanation["segments"][row]
        anchor = np.unique(segments[explanation["anchor_mask"][row]])
        for start in range(0, samples, _CHUNK):
            count = min(_CHUNK, samples - start)
            shown = rng.random((count, segments.max() + 1)) >= spec.p_sample
            shown[:, anchor] = True
            if instead is not None:
                fills = instead[rng.integers(len(instead), size=count)]
            drawn = np.where(shown[:, segments][..., None], image, fills)
            kept[row] += (predictor(drawn).argmax(axis=1) == explanation["prediction"][row]).sum()
    return kept / samples
