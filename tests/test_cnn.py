"""The same laws on a real network and real images, whose last bits depend on the batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from explainer_runtime import data
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, Grid, Inputs


@pytest.fixture(scope="module")
def images():
    return data.load("fashion_mnist", sample=True)


@pytest.fixture(scope="module")
def model(images):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images.x_train[:3000], images.y_train[:3000], batch_size=64, epochs=2, verbose=0)
    return KerasPredictor.of(model)


SPECS = {
    "counterfactual": Counterfactual(),
    "counterfactual reference": Counterfactual(schedule="reference", max_iter=200, max_lam_steps=4),
    "anchor": AnchorImage(segmentation=Grid(rows=4, columns=7), p_sample=0.8, fill="image_mean"),
}


@pytest.fixture(params=SPECS)
def explain(request, model, images):
    inputs = Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10, class_names=images.class_names)
    return prepare(fit(SPECS[request.param], inputs=inputs), model)


RUNG = 1 / 24  # of the distance: the steps in which a change is pulled in, and so the grain of an answer


def test_explaining_a_batch_equals_explaining_each_row(explain, images):
    x = images.x_test[:6]
    together, alone = explain(x), [explain(row[None]) for row in x]
    for name, rows in together.arrays.items():
        joined = np.concatenate([one[name] for one in alone])
        if name in ("counterfactual", "distance_l0", "distance_l2", "sparsity", "lam"):
            continue  # which of two pixels of equal worth is changed may hang on a last bit
        if name == "distance_l1":
            np.testing.assert_allclose(rows, joined, rtol=RUNG, err_msg=name)
        elif name in ("counterfactual_proba", "target_proba"):
            # A change that is one rung longer moves a probability by no more than the tolerance it met.
            np.testing.assert_allclose(rows, joined, atol=0.05, err_msg=name)
        elif rows.dtype.kind == "f":
            # The network's scores differ by up to 2e-7 with the batch.
            np.testing.assert_allclose(rows, joined, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(rows, joined, err_msg=name)


def test_what_is_found_holds_on_the_network_and_the_request_repeats_to_the_byte(explain, model, images):
    x = images.x_test[:6]
    answer = explain(x)
    assert answer["found"].sum() >= 5
    assert explain(x).to_json() == answer.to_json()
    if answer.kind == "counterfactual":
        scores = model(answer["counterfactual"])
        reached = scores[np.arange(6), answer["target_class"]]
        assert (reached[answer["found"]] >= 0.95).all()
        assert (answer["counterfactual"] >= -0.5).all()
        assert (answer["counterfactual"] <= 0.5).all()


def test_an_anchor_keeps_its_promise_on_fresh_draws(model, images):
    inputs = Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10)
    x = images.x_test[:4]
    answer = prepare(fit(SPECS["anchor"], inputs=inputs), model)(x)
    rng = np.random.default_rng(99)
    draws = 4000
    for row in np.flatnonzero(answer["found"]):
        segments, kept = answer["segments"][row], answer["anchor_mask"][row]
        shown = rng.random((draws, 28)) >= 0.8
        shown[:, np.unique(segments[kept])] = True
        fresh = np.where(shown[:, segments][..., None], x[row], x[row].mean()).astype("f")
        precision = (model(fresh).argmax(axis=1) == answer["prediction"][row]).mean()
        # Accepted means at least .94; three standard deviations of 4,000 draws at .94 are .011.
        assert precision >= 0.94 - 0.011


@pytest.mark.parametrize("mode", ["PN", "PP"])
def test_a_contrast_repeats_to_the_byte_and_holds_on_the_network(mode, model, images):
    inputs = Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10)
    explain = prepare(fit(CEM(mode=mode, no_info_val=-0.5), inputs=inputs), model)
    x = images.x_test[:6]
    answer = explain(x)
    assert explain(x).to_json() == answer.to_json()
    assert answer["found"].sum() >= 5
    stays = model(answer["pertinent"]).argmax(axis=1) == answer["original_class"]
    np.testing.assert_array_equal(stays[answer["found"]], mode == "PP")
    # -0.5 is black, the lowest there is: what is added is brighter, what is kept no brighter.
    difference = answer["pertinent"] - x
    assert (difference >= 0).all() if mode == "PN" else (difference <= 0).all()
