"""A small answer of every method, found or not: what files and pages are made of in tests."""

import numpy as np
from toys import Linear, weights

from explainer_runtime.explainers import fit, prepare
from explainer_runtime.spec import (
    CEM,
    AnchorImage,
    Attribution,
    Counterfactual,
    CounterfactualProto,
    Grid,
    Inputs,
    Limits,
    Neighbours,
    Region,
)

SHAPE = (6, 6, 1)
CONTRACT = Inputs(
    shape=SHAPE, low=0, high=1, classes=3, class_names=("Ankle boot", "T-shirt/top", "Pullover")
)
MODEL = Linear(weights(seed=3, features=36))
TRAIN = np.random.default_rng(4).uniform(0, 1, (60, *SHAPE)).astype("f")
X = np.random.default_rng(2).uniform(0, 1, (2, *SHAPE)).astype("f")
CELLS = Grid(rows=3, columns=3)
SPECS = {
    "counterfactual": Counterfactual(effort="quick"),
    "prototype": CounterfactualProto(theta=1.0, effort="quick"),
    "negative": CEM(no_info_val=0.0, effort="quick"),
    "positive": CEM(no_info_val=0.0, mode="PP", effort="quick"),
    "anchor": AnchorImage(segmentation=CELLS),
    "region": Region(segmentation=CELLS, fill="constant"),
    "attribution": Attribution(segmentation=CELLS, n_samples=40),
    "neighbours": Neighbours(),
}


def answered(name, found):
    """What was fitted, and its answer to `X`."""
    if found or name != "neighbours":
        fitted = fit(SPECS[name], TRAIN, inputs=CONTRACT, predictor=MODEL)
    else:  # of one class alone, so that the nearest of another one is missing
        alike = TRAIN[MODEL(TRAIN).argmax(axis=1) == MODEL(X).argmax(axis=1)[0]]
        fitted = fit(SPECS[name], alike, inputs=CONTRACT, predictor=MODEL)
    # Two rows tell the classes of the images, and no more; a whole image is a pertinent positive of itself.
    rows = 10**6 if found or name == "neighbours" else 1 if name == "positive" else 2
    answer = prepare(fitted, MODEL)(X, limits=Limits(max_rows=rows, max_seconds=3600))
    assert answer["found"].tolist() == [found] * len(X)
    return fitted, answer
