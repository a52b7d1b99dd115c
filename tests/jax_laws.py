"""What holds of white boxes by JAX, where there is no TensorFlow; `test_jax.py` runs this in .venv-jax.

`JAX_LAWS` names a folder with models and what TensorFlow said of them.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import keras
import numpy as np
import pytest
from keras import layers

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidInput, InvalidSpec, MissingExtra
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor, WhiteBox, connect
from explainer_runtime.predictors.backends import network
from explainer_runtime.predictors.jax import JaxPredictor, JaxScores
from explainer_runtime.spec import Counterfactual, Inputs, Limits

HOME = Path(os.environ["JAX_LAWS"])
SHAPE = (4, 4, 1)
TINY = np.finfo(np.float32).tiny
LIMITS = Limits(max_batch=64)


@pytest.fixture(scope="module")
def known():
    with np.load(HOME / "said.npz") as said:
        return dict(said)


@pytest.fixture(scope="module")
def cnn():
    return connect(HOME / "cnn.keras")


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(-1, 1, (5, *SHAPE)).astype(np.float32)


WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def logits(x, steep=1.0):
    return x.reshape(len(x), 16) @ (WEIGHTS * np.float32(steep))


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def log_switch(z):
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1)


def log_sigmoid(z):
    return -np.logaddexp(0, -z)


def one_of_softmax(z):
    return np.stack([np.logaddexp(*log_softmax(z)[:, 1:].T), log_softmax(z)[:, 0]], axis=1)


# What comes after the logits, the contract it needs, and the logarithms in closed form.
ENDINGS = {
    "softmax": (jax.nn.softmax, {}, log_softmax),
    "compiled softmax": (jax.jit(lambda z: jax.nn.softmax(z)), {}, log_softmax),
    "softmax, reshaped": (lambda z: jax.nn.softmax(z[:, None]).reshape(-1, 3), {}, log_softmax),
    "logits": (lambda z: z, {"output": "logits"}, log_softmax),
    "sigmoids": (jax.nn.sigmoid, {"output": "scores"}, log_sigmoid),
    "label of sigmoids": (jax.nn.sigmoid, {"label": 2}, lambda z: log_switch(z[:, 2])),
    "label of logits": (lambda z: z, {"output": "logits", "label": 1}, lambda z: log_switch(z[:, 1])),
    "class of a softmax": (jax.nn.softmax, {"label": 0}, one_of_softmax),
    "one sigmoid": (lambda z: jax.nn.sigmoid(z[:, 1]), {}, lambda z: log_switch(z[:, 1])),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("steep", [1.0, 100.0])
def test_log_scores_are_exact_where_scores_vanish(x, ending, steep):
    head, contract, closed = ENDINGS[ending]
    predictor = connect(jax.jit(lambda x: head(logits(x, steep))), shape=SHAPE, **contract)
    assert isinstance(predictor, WhiteBox)
    exact = closed(x.reshape(5, 16).astype(np.float64) @ WEIGHTS * steep)
    np.testing.assert_allclose(predictor.log_scores(x), exact, rtol=1e-5, atol=2e-5 * steep)
    np.testing.assert_allclose(predictor(x), np.exp(exact), rtol=1e-2 if steep > 1 else 1e-4, atol=1e-5)
    assert predictor.classes == exact.shape[1]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_slope_is_the_derivative_of_what_is_pulled(x, ending):
    head, contract, closed = ENDINGS[ending]
    predictor = connect(jax.jit(lambda x: head(logits(x))), shape=SHAPE, **contract)
    w = np.random.default_rng(2).normal(size=(5, predictor.classes)).astype(np.float32)
    logs, gradient = predictor.slope(x, lambda logs: w)
    np.testing.assert_allclose(logs, predictor.log_scores(x), rtol=1e-6)
    z, step = x.reshape(5, 16).astype(np.float64) @ WEIGHTS, 1e-4
    around = [(w * (closed(z + step * one) - closed(z - step * one))).sum(axis=1) for one in np.eye(3)]
    exact = np.stack(around, axis=1) / (2 * step) @ WEIGHTS.T
    np.testing.assert_allclose(gradient.reshape(5, 16), exact, atol=1e-4)


def test_what_only_looks_like_a_softmax_is_not_cut_off(x):
    def halved(z):
        return jax.nn.softmax(z / 2, axis=0) / len(z) * 5 / 3  # over rows, not over classes

    def by_hand(z):
        return jax.numpy.exp(z) / jax.numpy.exp(z).sum(axis=1, keepdims=True)

    for head in (halved, by_hand):
        predictor = connect(jax.jit(lambda x, head=head: head(logits(x))), shape=SHAPE, output="scores")
        kept = predictor(x[:4])  # a power of four: nothing is filled up
        np.testing.assert_allclose(predictor.log_scores(x[:4]), np.log(np.maximum(kept, TINY)), rtol=1e-5)


def test_tensorflow_and_jax_say_the_same_of_a_keras_model(known, cnn):
    assert isinstance(cnn, JaxPredictor)
    np.testing.assert_allclose(cnn(known["x"]), known["scores"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(cnn.log_scores(known["x"]), known["log_scores"], rtol=1e-4, atol=1e-4)
    logs, gradient = cnn.slope(known["x"], lambda logs: known["w"])
    np.testing.assert_allclose(logs, known["log_scores"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, known["slope"], rtol=1e-3, atol=1e-4)


def test_a_model_is_known_again_on_another_back_end(known, cnn):
    assert cnn.identity()["digest"] == str(known["digest"])


@pytest.mark.parametrize("rows", [1, 3, 16, 37])
def test_rows_are_strangers_and_the_caller_is_asked_once(known, cnn, rows):
    x = np.resize(known["x"], (rows, *known["x"].shape[1:]))
    asked = []

    def pull(logs):
        asked.append(logs.shape)
        return -np.exp(2 * logs)  # by `-np.exp(logs)` the slope would be that of a sum of one

    logs, gradient = cnn.slope(x, pull)
    assert asked == [(rows, logs.shape[1])]
    alone = [cnn.slope(row[None], pull) for row in x]
    np.testing.assert_allclose(logs, np.concatenate([one for one, _ in alone]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, np.concatenate([one for _, one in alone]), rtol=1e-4, atol=1e-5)


def test_threads_get_the_bytes_that_one_gets(known, cnn):
    def both(_):
        logs, gradient = cnn.slope(known["x"], lambda logs: -np.exp(2 * logs))
        return logs.tobytes() + gradient.tobytes() + cnn(known["x"]).tobytes()

    alone = both(0)
    with ThreadPoolExecutor(4) as threads:
        assert {*threads.map(both, range(8))} == {alone}


def test_what_a_caller_raises_comes_back_as_it_was(known, cnn):
    with pytest.raises(KeyError, match="mine"):
        cnn.slope(known["x"], lambda logs: {}["mine"])


def test_no_rows_have_no_scores(cnn):
    none = np.empty((0, *cnn.shape), np.float32)
    assert cnn(none).shape == cnn.log_scores(none).shape == (0, cnn.classes)


@pytest.mark.parametrize("objective", ["balanced", "smallest"])
def test_counterfactuals_are_those_of_tensorflow(known, objective):
    explain = prepare(artifact.load(HOME / objective), HOME / "cnn.keras")
    answer = explain(known["x"], limits=LIMITS)
    assert answer["found"].all()
    # Sums in another order lead a search to another of two points that cost nearly the same.
    np.testing.assert_allclose(answer["distance_l1"], known[f"{objective}_l1"], rtol=0.1)
    assert abs(answer["distance_l1"].mean() / known[f"{objective}_l1"].mean() - 1) < 0.02
    again = explain(known["x"], limits=LIMITS)
    assert again["counterfactual"].tobytes() == answer["counterfactual"].tobytes()
    one = explain(known["x"][:1], limits=LIMITS)
    np.testing.assert_allclose(one["distance_l1"], answer["distance_l1"][:1], rtol=0.05)


def test_fitted_networks_are_asked_of_jax_as_well(known):
    explain = prepare(artifact.load(HOME / "proto"), HOME / "cnn.keras")
    answer = explain(known["x"], limits=LIMITS)
    assert answer["found"].all()
    np.testing.assert_allclose(answer["distance_l1"].mean(), known["proto_l1"].mean(), rtol=0.05)


def test_a_function_of_jax_is_explained_by_its_own_slopes(x):
    fitted = fit(Counterfactual(), inputs=Inputs(shape=SHAPE, low=-1, high=1, classes=3))
    explain = prepare(fitted, jax.jit(lambda x: jax.nn.softmax(logits(x))))
    answer = explain(x)
    assert answer["found"].all()
    assert {*answer["gradient_source"]} == {"exact"}


def test_a_network_is_a_function_of_arrays_with_slopes(x):
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(6), layers.Reshape((2, 3))])
    matrix, w = np.asarray(model.layers[1].kernel), np.ones((5, 2, 3), np.float32)
    y, gradient = network(model).slope(x, lambda y: w)
    np.testing.assert_allclose(y, (x.reshape(5, 16) @ matrix).reshape(5, 2, 3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient.reshape(5, 16), w.reshape(5, 6) @ matrix.T, rtol=1e-4, atol=1e-5)


def test_a_model_of_bytes_has_the_slopes_of_the_same_model_of_floats():
    dense = layers.Dense(3, activation="softmax")

    def model(dtype):
        image = keras.Input(SHAPE, dtype=dtype)
        return connect(keras.Model(image, dense(layers.Flatten()(layers.Rescaling(1 / 255)(image)))))

    bytes_, floats = model("uint8"), model("float32")
    assert isinstance(bytes_, WhiteBox)
    assert bytes_.integers
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (5, *SHAPE)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(np.exp(bytes_.log_scores(x)), bytes_(x), rtol=1e-4)
    slope = floats.slope(x, lambda logs: w)[1]
    assert np.abs(slope).max() > 1e-5
    np.testing.assert_allclose(bytes_.slope(x, lambda logs: w)[1], slope, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(bytes_(x + 0.4), bytes_(x))


def test_a_model_of_whole_numbers_without_a_slope_is_a_black_box():
    codes = keras.Input((4,), dtype="int32")
    head = layers.Flatten()(layers.Embedding(9, 2)(codes))
    predictor = connect(keras.Model(codes, layers.Dense(3, activation="softmax")(head)))
    assert isinstance(predictor, JaxScores)
    assert not isinstance(predictor, WhiteBox)


def test_other_inputs_are_held_and_a_batch_of_its_own_is_filled(x):
    image = keras.Input(batch_shape=(2, *SHAPE), name="image")
    shift = keras.Input(batch_shape=(2, 3), name="shift")
    head = layers.Add()([layers.Dense(3)(layers.Flatten()(image)), shift])
    model = keras.Model([image, shift], layers.Softmax()(head))
    held = [0.0, 1.0, -1.0]
    predictor = connect(model, hold={"shift": held})
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    exact = log_softmax(x.reshape(5, 16) @ np.asarray(dense.kernel) + np.float32(held))
    np.testing.assert_allclose(predictor.log_scores(x), exact, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidSpec, match="hold"):
        connect(model)


def test_what_cannot_be_called_is_refused_in_a_sentence(x):
    with pytest.raises(InvalidSpec, match="cannot be called"):
        connect(jax.jit(lambda x: x @ np.ones((5, 5))), shape=SHAPE)
    predictor = connect(jax.jit(lambda x: jax.nn.softmax(logits(x))), shape=SHAPE)
    with pytest.raises(InvalidInput, match="expected rows of shape"):
        predictor(x[:, :2])


def test_a_plain_function_stays_a_black_box(x):
    predictor = connect(lambda x: np.exp(log_softmax(logits(x))), shape=SHAPE)
    assert isinstance(predictor, CallablePredictor)


def test_a_saved_model_needs_tensorflow(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(MissingExtra, match="TensorFlow is not installed"):
        connect(tmp_path)


def test_tensorflow_was_never_imported():
    assert not [name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "torch")]


def test_scale_and_offset_have_a_number_for_each_channel():
    std, mean = np.array([0.2, 0.4, 0.5], "f"), np.array([0.5, 0.1, -0.3], "f")
    weights = np.random.default_rng(5).normal(size=(12, 3)).astype("f")
    network = jax.jit(lambda x: jax.nn.softmax(x.reshape(-1, 12) @ weights))
    whole = jax.jit(lambda x: jax.nn.softmax(((x - mean) / std).reshape(-1, 12) @ weights))
    x = np.random.default_rng(6).uniform(0, 1, (5, 2, 2, 3)).astype("f")
    normalised = {"scale": (1 / std).tolist(), "offset": (-mean / std).tolist()}
    given, built_in = connect(network, shape=(2, 2, 3), **normalised), connect(whole, shape=(2, 2, 3))
    np.testing.assert_allclose(given(x), built_in(x), atol=1e-6)
    slopes = [
        model.slope(x, lambda said: np.ones_like(said) * [1.0, 0, -1])[1] for model in (given, built_in)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-3, atol=1e-4)


def test_both_halves_of_a_model_say_what_the_whole_says():
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 2), layers.ReLU(), layers.Flatten(), layers.Dense(3, "softmax")]
    )
    whole, x = connect(model), np.random.default_rng(3).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    features, head = whole.halves(None)
    assert features(x).shape == (2, 3, 3, 3)
    np.testing.assert_allclose(head(features(x)), whole(x), atol=1e-6)
    assert head.slope(features(x), np.ones_like)[1].shape == (2, 3, 3, 3)
