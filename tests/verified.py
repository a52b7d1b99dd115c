"""The four methods, small enough to be quick, and what it takes for their answers to be verified.

The model is linear and answers rows one by one, so what an explanation claims can be asked anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from toys import CLASSES, SHAPE

from explainer_runtime import Explanation
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Grid, Inputs

CONTRACT = Inputs(shape=SHAPE, low=-1, high=1, classes=CLASSES)
IMAGE = np.random.default_rng(0).uniform(-1, 1, (1, *SHAPE)).astype(np.float32)
METHODS = {
    "counterfactual": Counterfactual(target_proba=0.6, tol=0.1, max_lam_steps=2, max_iter=10),
    "counterfactual_proto": CounterfactualProto(c_steps=1, max_iterations=10),
    "cem": CEM(no_info_val=0.0, c_steps=1, max_iterations=10),
    "anchor_image": AnchorImage(segmentation=Grid(rows=2, columns=2), batch_size=5, min_samples_start=5),
}


def verify(kind: str, answer: Explanation, model: Callable[[np.ndarray], np.ndarray]) -> None:
    """Check that an answer which calls itself found is one by the model's own word, asked here anew."""
    if not answer["found"][0]:
        return
    original = model(IMAGE).argmax()
    if kind == "anchor_image":
        assert answer["prediction"][0] == original
        # The estimate has a few dozen samples: 0.25 is three of their standard deviations.
        assert answer["precision"][0] == pytest.approx(_precision(answer, model), abs=0.25)
        return
    noun = "pertinent" if kind == "cem" else "counterfactual"
    probability = model(answer[noun])
    # Float32 sums of sixteen terms, in whatever order a server takes them.
    np.testing.assert_allclose(answer[f"{noun}_proba"], probability, atol=1e-5)
    assert answer[f"{noun}_class"][0] == probability.argmax() != original


def _precision(answer: Explanation, model: Callable[[np.ndarray], np.ndarray]) -> float:
    """The share of all pictures with the anchor's superpixels, the others shown or at their mean, that keep
    the class."""
    segments = answer["segments"][0]
    held = {int(segment) for segment in np.unique(segments[answer["anchor_mask"][0]])}
    free = [segment for segment in range(4) if segment not in held]
    means = np.stack([IMAGE[0][segments == segment].mean() for segment in range(4)])
    pictures = []
    for hidden in itertools.product([False, True], repeat=len(free)):
        masked = np.isin(segments, [s for s, hide in zip(free, hidden, strict=True) if hide])
        pictures.append(np.where(masked[..., None], means[segments][..., None], IMAGE[0]))
    kept = model(np.stack(pictures).astype(np.float32)).argmax(axis=1) == model(IMAGE).argmax()
    return float(kept.mean())
