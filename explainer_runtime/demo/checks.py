"""Asking the model again: does what the explainers found hold?

Nothing here is taken from the methods. Counterfactuals are sent to the model once more; for anchors fresh
images are drawn, by the definition of precision and with another seed than the search had.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.predictors import Predictor
from explainer_runtime.spec import Inputs

SAMPLES = 10_000
_CHUNK = 1_000


def valid_counterfactuals(
    explanation: Explanation, predictor: Predictor, spec: Counterfactual, contract: Inputs
) -> np.ndarray:
    """Whether each row `(N,)` was found, lies in the range, and has another class, as sure as was asked for.

    Args:
        explanation: Counterfactuals of `target_class='other'`.
        predictor: The model.
        spec: What was asked for.
        contract: The range.
    """
    x = explanation["counterfactual"]
    scores = predictor(x)
    others = scores.copy()
    others[np.arange(len(x)), explanation["original_class"]] = 0
    sure = np.abs(others.max(axis=1) - spec.target_proba) <= spec.tol
    inside = ((x >= contract.low) & (x <= contract.high)).reshape(len(x), -1).all(axis=1)
    same = scores.argmax(axis=1) == explanation["counterfactual_class"]
    return np.asarray(explanation["found"] & sure & inside & same)


def anchor_precision(
    explanation: Explanation,
    x: np.ndarray,
    predictor: Predictor,
    spec: AnchorImage,
    *,
    samples: int = SAMPLES,
    seed: int = 1,
) -> np.ndarray:
    """How often the class stays while everything outside the anchor may be masked `(N,)`, estimated afresh.

    Args:
        explanation: Anchors with `fill='image_mean'`.
        x: What was explained `(N, H, W, C)`.
        predictor: The model.
        spec: Probability of masking.
        samples: Images drawn for each row.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(x))
    for row, image in enumerate(x):
        mean, segments = image.mean(axis=(0, 1)), explanation["segments"][row]
        anchor = np.unique(segments[explanation["anchor_mask"][row]])
        for start in range(0, samples, _CHUNK):
            count = min(_CHUNK, samples - start)
            shown = rng.random((count, segments.max() + 1)) >= spec.p_sample
            shown[:, anchor] = True
            drawn = np.where(shown[:, segments][..., None], image, mean)
            kept[row] += (predictor(drawn).argmax(axis=1) == explanation["prediction"][row]).sum()
    return kept / samples
