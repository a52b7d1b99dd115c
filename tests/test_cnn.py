"""The same laws on a real network and real images, whose last bits depend on the batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from explainer_runtime import data
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Grid, Inputs, Limits

SHAPE = (28, 28, 1)
INPUTS = Inputs(shape=SHAPE, low=-0.5, high=0.5, classes=10)
PATIENT = Limits(max_seconds=3600)
"""No law here depends on the clock."""


@pytest.fixture(scope="module")
def images():
    return data.load("fashion_mnist", sample=True)


@pytest.fixture(scope="module")
def network(images):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(images.x_train[:3000], images.y_train[:3000], batch_size=64, epochs=2, verbose=0)
    return network


@pytest.fixture(scope="module")
def model(network):
    return KerasPredictor.of(network)


@pytest.fixture(scope="module")
def networks(images):
    """A small autoencoder and its encoder."""
    keras.utils.set_random_seed(1)
    conv = keras.layers.Conv2D
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE), conv(8, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(), keras.layers.Dense(16),
        ]
    )  # fmt: skip
    decoder = keras.Sequential(
        [
            keras.Input((16,)), keras.layers.Dense(14 * 14 * 4, activation="relu"),
            keras.layers.Reshape((14, 14, 4)), keras.layers.UpSampling2D(2), conv(1, 3, padding="same"),
        ]
    )  # fmt: skip
    rows = keras.Input(SHAPE)
    autoencoder = keras.Model(rows, decoder(encoder(rows)))
    autoencoder.compile(keras.optimizers.Adam(0.005), "mse")
    some = images.x_train[:2000]
    autoencoder.fit(some, some, batch_size=64, epochs=2, verbose=0)
    return {"autoencoder": autoencoder, "encoder": encoder}


SPECS = {
    "counterfactual": Counterfactual(),
    "counterfactual smallest": Counterfactual(objective="smallest", effort="quick"),
    "counterfactual reference": Counterfactual(schedule="reference", max_iter=40, max_lam_steps=2),
    "prototype": CounterfactualProto(theta=1.0, gamma=1.0),
    "prototype without networks": CounterfactualProto(theta=1.0, effort="quick"),
    "prototype reference": CounterfactualProto(
        theta=1.0, gamma=1.0, schedule="reference", max_iterations=20, c_steps=2, c_init=10.0, beta=0.01
    ),
    "negative": CEM(no_info_val=-0.5, gamma=1.0),
    "positive": CEM(no_info_val=-0.5, mode="PP", effort="quick"),
    "anchor": AnchorImage(segmentation=Grid(rows=4, columns=7), p_sample=0.8, fill="image_mean"),
}
PREPARED = {}


@pytest.fixture
def explain(request, model, images, networks):
    case = request.param
    if case not in PREPARED:
        spec = SPECS[case]
        given = {}
        if getattr(spec, "gamma", 0):
            given = (
                networks
                if isinstance(spec, CounterfactualProto)
                else {"autoencoder": networks["autoencoder"]}
            )
        rows = images.x_train[:300] if isinstance(spec, CounterfactualProto) else None
        PREPARED[case] = prepare(fit(spec, rows, predictor=model, inputs=INPUTS, **given), model)
    run = PREPARED[case]
    return lambda rows, options=None: run(rows, options, limits=PATIENT)


FAST = [case for case in SPECS if "reference" not in case]
ALONE = [case for case in SPECS if "reference" in case]


@pytest.mark.parametrize("explain", ALONE, indirect=True)
def test_the_reference_schedules_answer_a_batch_as_each_row_alone_to_the_byte(explain, images):
    # Hundreds of steps by sign and momentum make much of a last bit: the model is asked row by row.
    x = images.x_test[:4]
    together, alone = explain(x), [explain(row[None]) for row in x]
    for name, rows in together.arrays.items():
        if name.endswith(("_proba", "_error", "_distance")):  # scored with the batch: 2e-7 of values near one
            np.testing.assert_allclose(
                rows, np.concatenate([one[name] for one in alone]), rtol=1e-4, atol=1e-6
            )
            continue
        assert rows.tobytes() == b"".join(one[name].tobytes() for one in alone), name


@pytest.mark.parametrize("explain", FAST, indirect=True)
def test_explaining_a_batch_equals_explaining_each_row(explain, images):
    x = images.x_test[:6]
    together, alone = explain(x), [explain(row[None]) for row in x]
    joined = {name: np.concatenate([one[name] for one in alone]) for name in together.arrays}
    # The network's scores differ by up to 2e-7 with the batch; at a kink of a ReLU the slope is another then,
    # so that the same border may be met a little elsewhere. What is said of the row itself does not differ.
    for name in ("found", "status", "original_class", "gradient_source", "prediction", "id_proto"):
        if name in joined:
            np.testing.assert_array_equal(together[name], joined[name], err_msg=name)
    np.testing.assert_allclose(together["original_proba"], joined["original_proba"], atol=1e-6)
    for name in ("distance_l1", "elastic_net"):
        if name in joined:
            np.testing.assert_allclose(together[name], joined[name], rtol=0.05, err_msg=name)
    if together.kind == "anchor_image":
        np.testing.assert_array_equal(together["anchor_mask"], joined["anchor_mask"])


@pytest.mark.parametrize("explain", SPECS, indirect=True)
def test_what_is_found_holds_on_the_network_and_the_request_repeats_to_the_byte(explain, model, images):
    x = images.x_test[:6]
    answer = explain(x)
    assert explain(x).to_json() == answer.to_json()
    if answer.kind == "anchor_image":
        assert answer["found"].sum() >= 5
        return
    spec = answer.meta["spec"]
    assert answer["found"].sum() >= (5 if spec["schedule"] == "fast" else 1)
    noun = "pertinent" if answer.kind == "cem" else "counterfactual"
    point, found = answer[noun], answer["found"]
    scores = model(point)
    np.testing.assert_allclose(answer[f"{noun}_proba"], scores, atol=1e-6)
    stays = scores.argmax(axis=1) == answer["original_class"]
    np.testing.assert_array_equal(stays[found], spec.get("mode") == "PP")
    np.testing.assert_array_equal(point[~found], x[~found])
    assert (np.abs(point) <= 0.5).all()
    if answer.kind == "counterfactual":
        assert (scores[np.arange(6), answer["target_class"]] >= 0.95)[found].all()
    if answer.kind == "counterfactual_proto" and spec["schedule"] == "fast":
        np.testing.assert_array_equal(answer["counterfactual_class"][found], answer["id_proto"][found])
    if answer.kind == "cem":
        # -0.5 is black, the lowest there is: what is added is brighter, what is kept no brighter.
        difference = point - x
        assert (difference >= 0).all() if spec["mode"] == "PN" else (difference <= 0).all()


@pytest.mark.parametrize("explain", ["counterfactual", "prototype", "negative"], indirect=True)
def test_what_may_not_change_does_not(explain, images):
    x = images.x_test[:2]
    free = np.zeros(SHAPE, bool)
    free[:, 7:] = True
    answer = explain(x, {"region": free.tolist()})
    noun = "pertinent" if answer.kind == "cem" else "counterfactual"
    assert answer["found"].any()
    np.testing.assert_array_equal(answer[noun][:, ~free], x[:, ~free])


def test_threads_that_race_to_compile_get_what_one_gets(model, networks, images):
    spec = CounterfactualProto(theta=1.0, gamma=1.0, threshold=0.5, effort="quick")
    run = prepare(
        fit(spec, images.x_train[:300], predictor=model, inputs=INPUTS, **networks), model, warm=False
    )
    x = images.x_test[:2]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: run(x[i % 2][None], limits=PATIENT).to_json(), range(8)))
    assert answers == [run(x[i % 2][None], limits=PATIENT).to_json() for i in range(8)]


def test_a_network_whose_probabilities_vanish_is_explained_as_well(network, images):
    sharp = keras.models.clone_model(network)
    sharp.set_weights(network.get_weights())
    kernel, bias = sharp.layers[-1].get_weights()
    x = images.x_test[:6]
    distances = []
    for scale in (1, 30):
        sharp.layers[-1].set_weights([scale * kernel, scale * bias])
        model = KerasPredictor.of(sharp)
        run = prepare(fit(Counterfactual(effort="quick"), inputs=INPUTS), model, warm=False)
        answer = run(x, limits=PATIENT)
        assert answer["found"].all()
        distances.append(np.median(answer["distance_l1"]))
    assert distances[1] <= distances[0] * 1.05  # the same border, less far to go beyond it


def test_an_anchor_keeps_its_promise_on_fresh_draws(model, images):
    x = images.x_test[:4]
    answer = prepare(fit(SPECS["anchor"], inputs=INPUTS), model)(x)
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
