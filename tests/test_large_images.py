"""Every method on a 224 x 224 x 3 network of `keras.applications`, as it comes, with a budget of a few rows.

The weights are random, so what is found means nothing. What is asserted is what must hold at any size: the
method runs without a line of code for this model, answers for every row, keeps to the bounds and the
budget, and what it says was found is what the model says when asked again.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras")
import keras

from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Grid, Inputs

SHAPE = (224, 224, 3)
CLASSES = 5
CONTRACT = Inputs(shape=SHAPE, low=-1, high=1, classes=CLASSES)  # what MobileNetV2 is fed
CASES = {
    "counterfactual": Counterfactual(tol=0.3),
    "prototype": CounterfactualProto(theta=1e-3, gamma=1e-3, effort="quick"),
    "negative": CEM(no_info_val=-1.0, gamma=1e-3, effort="quick"),
    "positive": CEM(mode="PP", no_info_val=-1.0, gamma=1e-3, effort="quick"),
    "anchor": AnchorImage(segmentation=Grid(rows=2, columns=2), batch_size=10, min_samples_start=10),
}
BUDGET = {"max_rows": 60}


@pytest.fixture(scope="module")
def rows():
    """Two images that the model tells apart, and ten to fit on."""
    return np.random.default_rng(0).uniform(-1, 1, (12, 1, 1, 3)).astype("f") * np.ones(SHAPE, "f")


@pytest.fixture(scope="module")
def model(rows):
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(SHAPE, alpha=0.35, weights=None, include_top=False, pooling="avg")
    scores = keras.layers.Dense(CLASSES, activation="softmax", kernel_initializer=_apart(base(rows)))
    return KerasPredictor.of(keras.Sequential([base, scores]))


def _apart(features):
    """Weights for which the classes differ from image to image; random ones give all of them one class."""
    centred = np.asarray(features) - np.mean(features, axis=0)
    chosen = centred[:CLASSES] / (centred**2).sum(axis=1).max() * 8
    return keras.initializers.Constant(chosen.T)


@pytest.fixture(scope="module")
def autoencoder():
    conv = keras.layers.Conv2D
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            conv(4, 5, strides=4, padding="same", activation="relu"),
            keras.layers.UpSampling2D(4),
            conv(3, 3, padding="same", activation="tanh"),
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_a_large_network_is_explained_as_it_comes(case, model, autoencoder, rows):
    spec, x = CASES[case], rows[:2]
    networks = {"autoencoder": autoencoder} if hasattr(spec, "gamma") else {}
    fitted = fit(spec, rows[2:], predictor=model, inputs=CONTRACT, **networks)
    answer = prepare(fitted, model, warm=False)(x, BUDGET)
    assert len(answer["found"]) == 2
    assert answer.cost.rows <= BUDGET["max_rows"]
    point = next((answer[name] for name in ("counterfactual", "pertinent") if name in answer.arrays), None)
    if point is not None:
        assert point.shape == x.shape
        assert point.min() >= -1
        assert point.max() <= 1
        moved = model(point).argmax(axis=1) != model(x).argmax(axis=1)
        np.testing.assert_array_equal(moved[answer["found"]], case != "positive")
    else:
        np.testing.assert_array_equal(answer["prediction"], model(x).argmax(axis=1))
        assert answer["anchor_mask"].shape == (2, 224, 224)
