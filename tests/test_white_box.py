"""Log-scores and their slopes: exact where probabilities have long vanished, whatever the graph ends in."""

from __future__ import annotations

import numpy as np
import pytest

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors import CallablePredictor, WhiteBox, connect
from explainer_runtime.spec import ModelContract

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from keras import layers  # noqa: E402

from explainer_runtime.predictors.keras import KerasNetwork, KerasPredictor, KerasScores  # noqa: E402

SHAPE = (4, 4, 1)
TINY = np.finfo(np.float32).tiny


def dense(units, activation=None, steep=1.0, head=()):
    """A linear model with whatever after it; `steep` times the weights, so that scores vanish."""
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(units, activation=activation), *head]
    )
    weights = np.random.default_rng(0).normal(size=(16, units)).astype(np.float32) * steep
    model.set_weights([weights, np.zeros(units, np.float32)])
    return model, weights


@pytest.fixture
def x(rng):
    return rng.uniform(-1, 1, (5, *SHAPE)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def log_switch(z):
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1)


# Each ending, the contract it needs, and the logarithms in closed form of its logits (float64).
ENDINGS = {
    "softmax": ("softmax", (), {}, log_softmax),
    "a softmax layer": (None, (layers.Softmax,), {}, log_softmax),
    "an activation layer": (None, (lambda: layers.Activation("softmax"),), {}, log_softmax),
    "a reshaped softmax": (
        None,
        (lambda: layers.Reshape((1, 1, 3)), layers.Softmax, layers.Flatten),
        {},
        log_softmax,
    ),
    "logits": (None, (), {"output": "logits"}, log_softmax),
    "independent sigmoids": ("sigmoid", (), {"output": "scores"}, lambda z: -np.logaddexp(0, -z)),
    "one label of sigmoids": ("sigmoid", (), {"label": 2}, lambda z: log_switch(z[:, 2])),
    "one label of logits": (None, (), {"output": "logits", "label": 1}, lambda z: log_switch(z[:, 1])),
    "one class of a softmax": (
        "softmax",
        (),
        {"label": 0},
        lambda z: np.stack([np.logaddexp(*log_softmax(z)[:, 1:].T), log_softmax(z)[:, 0]], axis=1),
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("steep", [1.0, 100.0])
def test_log_scores_are_exact_where_scores_vanish(x, ending, steep):
    activation, head, contract, closed = ENDINGS[ending]
    model, weights = dense(3, activation, steep, [make() for make in head])
    predictor = connect(model, **contract)
    assert isinstance(predictor, WhiteBox)
    exact = closed(x.reshape(5, 16).astype(np.float64) @ weights.astype(np.float64))
    assert steep == 1 or exact.min() < np.log(TINY)  # or the test would show nothing
    # A logit of 16 terms is off by some 16 roundings of its size.
    np.testing.assert_allclose(predictor.log_scores(x), exact, rtol=1e-5, atol=2e-5 * steep)


@pytest.mark.parametrize("ending", ENDINGS)
def test_scores_are_the_exponentials_of_log_scores(x, ending):
    activation, head, contract, _ = ENDINGS[ending]
    predictor = connect(dense(3, activation, 3.0, [make() for make in head])[0], **contract)
    scores = predictor(x)
    assert predictor.classes == scores.shape[1]
    assert predictor.exclusive == (contract.get("output") != "scores")
    np.testing.assert_allclose(np.exp(predictor.log_scores(x)), scores, rtol=1e-4, atol=1e-6)


def test_one_sigmoid_is_two_classes_with_tails_of_their_own(x):
    model, weights = dense(1, "sigmoid", 100.0)
    z = x.reshape(5, 16).astype(np.float64) @ weights[:, 0].astype(np.float64)
    predictor = connect(model)
    np.testing.assert_allclose(predictor.log_scores(x), log_switch(z), rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(predictor(x), np.exp(log_switch(z)), atol=1e-5)


def test_where_no_softmax_can_be_found_logarithms_end_at_the_least_float(x):
    model, _ = dense(3, "softmax", 100.0, [layers.Rescaling(1.0)])
    logs = KerasPredictor.of(model).log_scores(x)
    np.testing.assert_allclose(logs.min(), np.log(TINY), rtol=1e-6)
    assert np.isfinite(logs).all()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_slope_is_the_derivative_of_what_is_pulled(x, rng, ending):
    activation, head, contract, closed = ENDINGS[ending]
    model, weights = dense(3, activation, 1.0, [make() for make in head])
    predictor = connect(model, **contract)
    w = rng.normal(size=(5, predictor.classes)).astype(np.float32)
    logs, gradient = predictor.slope(x, lambda logs: w)
    np.testing.assert_array_equal(logs, predictor.log_scores(x))
    z = x.reshape(5, 16).astype(np.float64) @ weights.astype(np.float64)
    step = 1e-4  # in float64: the error of a central difference is some step^2
    around = [(w * (closed(z + step * one) - closed(z - step * one))).sum(axis=1) for one in np.eye(3)]
    exact = np.stack(around, axis=1) / (2 * step) @ weights.T
    np.testing.assert_allclose(gradient.reshape(5, 16), exact, atol=1e-4)


def test_slopes_do_not_vanish_where_scores_do(x):
    model, weights = dense(3, "softmax", 300.0)
    predictor = KerasPredictor.of(model)
    logs, gradient = predictor.slope(x, lambda logs: np.eye(3, dtype=np.float32)[logs.argmin(axis=1)])
    assert logs.min() < 5 * np.log(TINY)
    # The log of a share that is nothing has the slope of its logit, less that of the winner.
    least, most = logs.argmin(axis=1), logs.argmax(axis=1)
    np.testing.assert_allclose(gradient.reshape(5, 16), (weights[:, least] - weights[:, most]).T, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 32, 33, 70])
def test_rows_are_strangers_and_the_caller_is_asked_once(rng, rows):
    predictor = KerasPredictor.of(dense(3, "softmax")[0])
    x = rng.uniform(-1, 1, (rows, *SHAPE)).astype(np.float32)
    asked = []

    def pull(logs):
        asked.append(logs.shape)
        return -np.exp(2 * logs)  # by `-np.exp(logs)` the slope would be that of a sum of one

    logs, gradient = predictor.slope(x, pull)
    assert asked == [(rows, 3)]
    alone = [predictor.slope(row[None], pull) for row in x]
    np.testing.assert_allclose(logs, np.concatenate([one for one, _ in alone]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, np.concatenate([one for _, one in alone]), rtol=1e-4, atol=1e-6)


def test_what_a_caller_raises_comes_back_as_it_was(x):
    predictor = KerasPredictor.of(dense(3, "softmax")[0])
    for rows in (x, np.repeat(x, 20, axis=0)):
        with pytest.raises(KeyError, match="mine"):
            predictor.slope(rows, lambda logs: {}["mine"])


def test_a_network_is_a_function_of_arrays_with_slopes(x, rng):
    network = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(6), layers.Reshape((2, 3))]
    )
    matrix = network.layers[1].kernel.numpy()
    fitted = KerasNetwork(network)
    np.testing.assert_allclose(fitted(x), (x.reshape(5, 16) @ matrix).reshape(5, 2, 3), rtol=1e-5, atol=1e-6)
    w = rng.normal(size=(5, 2, 3)).astype(np.float32)
    y, gradient = fitted.slope(x, lambda y: w)
    np.testing.assert_array_equal(y, fitted(x))
    np.testing.assert_allclose(gradient.reshape(5, 16), w.reshape(5, 6) @ matrix.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "contract", "closed"),
    [
        ("softmax", {}, log_softmax),
        (None, {"output": "logits"}, log_softmax),
        ("sigmoid", {"label": 1}, lambda z: log_switch(z[:, 1])),
    ],
)
def test_a_saved_model_is_opened_up_for_its_tails(x, rng, tmp_path, activation, contract, closed):
    model, weights = dense(3, activation, 100.0)
    model.export(tmp_path / "m", verbose=False)
    predictor, own = connect(tmp_path / "m", **contract), connect(model, **contract)
    exact = closed(x.reshape(5, 16).astype(np.float64) @ weights.astype(np.float64))
    assert exact.min() < np.log(TINY)
    np.testing.assert_allclose(predictor.log_scores(x), exact, rtol=1e-5, atol=2e-3)
    w = rng.normal(size=exact.shape).astype(np.float32)
    for found, known in zip(predictor.slope(x, lambda _: w), own.slope(x, lambda _: w), strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-4)


def test_a_network_that_does_not_say_its_shape_takes_what_comes(x):
    inner = dense(3, "softmax")[0]

    class Wrapped(keras.Model):
        def call(self, x, training=False):
            return inner(x, training=training)

    network = KerasNetwork(Wrapped())
    for rows in (1, 2, 5):
        y, gradient = network.slope(x[:rows], np.ones_like)
        np.testing.assert_allclose(y, inner(x[:rows]), rtol=1e-5)
        assert gradient.shape == x[:rows].shape


# --- whole numbers, batches, several inputs ---------------------------------------------------------------


def of_bytes(head):
    image = keras.Input(SHAPE, dtype="uint8")
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(head(image))))


@pytest.mark.parametrize("head", [layers.Rescaling(1 / 255), lambda x: keras.ops.cast(x, "float32") / 255])
def test_a_model_of_bytes_that_begins_with_a_cast_has_the_slopes_of_the_same_model_of_floats(rng, head):
    model = of_bytes(head)
    predictor = connect(model)
    x = rng.integers(0, 256, (5, *SHAPE)).astype(np.float32)
    assert isinstance(predictor, WhiteBox)
    assert predictor.integers
    np.testing.assert_allclose(predictor(x), model(x.astype(np.uint8)), rtol=1e-5)
    matrix, bias = model.layers[-1].get_weights()
    w = rng.normal(size=(5, 3)).astype(np.float32)
    logs, gradient = predictor.slope(x, lambda logs: w)
    p = np.exp(log_softmax(x.reshape(5, 16) / 255 @ matrix + bias))
    np.testing.assert_allclose(np.exp(logs), p, rtol=1e-4)
    exact = (w - w.sum(axis=1, keepdims=True) * p) @ matrix.T / 255
    np.testing.assert_allclose(gradient.reshape(5, 16), exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batch", [None, 2])
def test_a_saved_model_of_bytes_has_the_slopes_of_the_model_it_was_exported_from(rng, tmp_path, batch):
    image = keras.Input(batch_shape=(batch, *SHAPE), dtype="uint8")
    flat = keras.ops.reshape(layers.Rescaling(1 / 255)(image), (-1, 16))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(flat))
    model.export(tmp_path / "m", verbose=False)
    predictor = connect(tmp_path / "m")
    assert isinstance(predictor, WhiteBox)
    assert predictor.integers
    x = rng.integers(0, 256, (5, *SHAPE)).astype(np.float32)
    matrix, bias = model.layers[-1].get_weights()
    w = rng.normal(size=(5, 3)).astype(np.float32)
    logs, gradient = predictor.slope(x, lambda logs: w)
    p = np.exp(log_softmax(x.reshape(5, 16) / 255 @ matrix + bias))
    np.testing.assert_allclose(predictor(x), p, rtol=1e-4)
    np.testing.assert_allclose(np.exp(logs), p, rtol=1e-4)
    exact = (w - w.sum(axis=1, keepdims=True) * p) @ matrix.T / 255
    np.testing.assert_allclose(gradient.reshape(5, 16), exact, rtol=1e-3, atol=1e-6)


def test_a_model_of_whole_numbers_without_a_slope_is_a_black_box(rng):
    codes = keras.Input((4,), dtype="int32")
    model = keras.Model(
        codes, layers.Dense(3, activation="softmax")(layers.Flatten()(layers.Embedding(9, 2)(codes)))
    )
    predictor = connect(model)
    assert isinstance(predictor, KerasScores)
    assert not isinstance(predictor, WhiteBox)
    x = rng.integers(0, 9, (5, 4)).astype(np.float32)
    np.testing.assert_allclose(predictor(x), model(x.astype(np.int32)), rtol=1e-5)
    with pytest.raises(InvalidSpec, match="no gradient"):
        KerasPredictor.of(model)


def test_a_model_of_bytes_sees_the_nearest_ones_and_says_which():
    predictor = connect(of_bytes(layers.Rescaling(1 / 255)))
    x = np.full((1, *SHAPE), 99.6, np.float32)
    x[0, 0, 0], x[0, 1, 1] = -3, 300
    seen = predictor.snap(x)
    assert {*seen.ravel().tolist()} == {0.0, 100.0, 255.0}
    np.testing.assert_array_equal(predictor(x), predictor(seen))


def test_a_model_of_bytes_may_be_explained_in_units_of_one(rng):
    model = of_bytes(layers.Rescaling(1 / 255))
    scaled, plain = connect(model, scale=255), connect(model)
    x = rng.integers(0, 256, (5, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(scaled(x / 255), plain(x))
    assert not scaled.integers  # not in the units of its rows
    np.testing.assert_allclose(scaled.snap(x / 255 + 1e-3), x / 255, atol=1e-6)
    (_, in_ones), (_, in_bytes) = (
        one.slope(rows, lambda logs: np.ones_like(logs)) for one, rows in ((scaled, x / 255), (plain, x))
    )
    np.testing.assert_allclose(in_ones, 255 * in_bytes, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 65])
def test_a_batch_of_its_own_is_filled_up_and_cut(rng, batch, rows):
    image = keras.Input(batch_shape=(batch, *SHAPE))
    fixed = keras.Model(
        image, layers.Dense(3, activation="softmax", name="p")(keras.ops.reshape(image, (batch, 16)))
    )
    free = dense(3, "softmax")[0]
    fixed.get_layer("p").set_weights(free.get_weights())
    x = rng.uniform(-1, 1, (rows, *SHAPE)).astype(np.float32)
    one, other = KerasPredictor.of(fixed), KerasPredictor.of(free)
    np.testing.assert_allclose(one(x), other(x), rtol=1e-5)
    for found, known in zip(one.slope(x, np.ones_like), other.slope(x, np.ones_like), strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)


def test_a_function_is_no_white_box():
    assert not isinstance(CallablePredictor(len), WhiteBox)
    assert not isinstance(connect(dense(3)[0], output="labels", classes=3), WhiteBox)
    assert ModelContract().output == "probabilities"


@pytest.mark.parametrize(("policy", "digits"), [("mixed_float16", 11), ("mixed_bfloat16", 8)])
def test_half_precision_has_slopes_where_its_softmax_is_zero(x, rng, policy, digits):
    """A softmax of float16 is 0 below 6e-8, and the slope of its logarithm then NaN; its logits are still
    there."""
    own, weights = dense(3, "softmax", 30.0)
    half = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(3, activation="softmax", dtype=policy)]
    )
    half.set_weights(own.get_weights())
    rough, fine = KerasPredictor.of(half), KerasPredictor.of(own)
    np.testing.assert_allclose(rough(x), fine(x), atol=0.05)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    (logs, gradient), (known, exact) = (one.slope(x, lambda _: w) for one in (rough, fine))
    assert (rough(x) < 1e-7).any()
    # Numbers of so many digits: sums of 16 terms of up to 100 are off by some of their last digits.
    off = 2.0**-digits
    np.testing.assert_allclose(logs, known, atol=16 * 100 * off)
    np.testing.assert_allclose(gradient, exact, atol=8 * off * np.abs(weights).max())


# --- feature maps ---------------------------------------------------------------------------------------


def cnn():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.Activation("tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(5, 3, padding="same", name="last"),
            layers.Activation("tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.mark.parametrize(("layer", "shape"), [(None, (4, 4, 5)), ("last", (4, 4, 5)), ("first", (8, 8, 4))])
def test_both_halves_of_a_model_say_what_the_whole_says(layer, shape):
    x = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
    whole = KerasPredictor.of(cnn(), ModelContract(scale=2.0, offset=-1.0))
    features, head = whole.halves(layer)
    maps = features(x)
    assert maps.shape == (3, *shape)
    if layer is None:  # what follows the last convolution is its activation
        np.testing.assert_allclose(maps, np.tanh(whole.halves("last")[0](x)), atol=1e-6)
    np.testing.assert_allclose(head(maps), whole(x), atol=1e-6)
    said, slope = head.slope(maps, lambda said: np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(said, whole.log_scores(x), atol=1e-5)
    sides = [head.log_scores(maps + step * slope)[np.arange(3), np.arange(3)] for step in (0.01, -0.01)]
    # What is left goes with the square of the step; float32 resolves the difference to 1e-6.
    np.testing.assert_allclose(
        sides[0] - sides[1], 0.02 * (slope**2).sum(axis=(1, 2, 3)), rtol=1e-2, atol=2e-6
    )


def test_a_model_in_a_model_is_cut_after_it():
    base = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.ReLU()], name="base")
    rows = keras.Input((8, 8, 1))
    model = keras.Model(rows, layers.Dense(3, activation="softmax")(layers.Flatten()(base(rows))))
    assert KerasPredictor.of(model).halves(None)[0](np.zeros((1, 8, 8, 1), np.float32)).shape == (1, 6, 6, 2)


def test_a_model_that_cannot_be_cut_says_why():
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    with pytest.raises(InvalidSpec, match="has no convolution"):
        KerasPredictor.of(flat).halves(None)
    rows = keras.Input((8, 8, 1))
    maps = layers.Conv2D(1, 3, padding="same", name="maps")(rows)
    model = keras.Model(rows, layers.Dense(3)(layers.Flatten()(layers.Add()([maps, rows]))))
    with pytest.raises(InvalidSpec, match="cannot be cut at 'maps'"):
        KerasPredictor.of(model, logits=True).halves("maps")
