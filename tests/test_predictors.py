"""What every predictor promises, and what the in-process ones add: the same rows, and true gradients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from explainer_runtime.errors import InvalidInput, InvalidPrediction, InvalidSpec, PredictorUnavailable
from explainer_runtime.predictors import CallablePredictor, Predictor, WhiteBox, connect, meaning
from explainer_runtime.predictors.colocated import announce, colocated, withdraw
from explainer_runtime.predictors.meaning import softmax
from explainer_runtime.spec import ModelContract, parse_predictor

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from explainer_runtime.predictors.keras import KerasPredictor  # noqa: E402

# Keras 3.15 copies its variables in a way that NumPy 2.4 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def model():
    """A small network with every kind of layer that an image classifier has, its weights fixed."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input(SHAPE),
            keras.layers.Conv2D(3, 2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (9, *SHAPE)).astype(np.float32)


# --- scores -----------------------------------------------------------------------------------------------

logits = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(logits)
def test_softmax_rows_are_probabilities_however_large_the_logits(z):
    p = softmax(z)
    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()
    # A sum of at most 6 terms in float32 is off by at most as many roundings.
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=6 * np.finfo(np.float32).eps)


def test_softmax_of_logarithms_gives_the_proportions():
    np.testing.assert_allclose(softmax(np.log(np.float32([[1, 2, 5]]))), [[0.125, 0.25, 0.625]], rtol=1e-6)


@given(logits)
def test_softmax_treats_rows_as_strangers(z):
    for together, alone in zip(softmax(z), z, strict=True):
        np.testing.assert_array_equal(together, softmax(alone[None])[0])


def test_scores_are_made_float32():
    scores = meaning.scores([[0.25, 0.75]], 1, ModelContract(), "it")
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, [[0.25, 0.75]])


@pytest.mark.parametrize(
    "scores",
    [
        [[0.1, 0.9]],
        [[0.1, 0.9]] * 3,
        [1, 0],
        [[1], [0]],
        [1.5, 0.9],
        [[0.1], [-0.9]],
        [[1.5, -0.5], [0.1, 0.9]],
        [[0.6, 0.6], [0.1, 0.9]],
        [[[0.1, 0.9]]] * 2,
        [[0.1, np.nan], [0.1, 0.9]],
        [[0.1, np.inf], [0.1, 0.9]],
        [["cat", "dog"], ["cat", "dog"]],
        [[0.1, 0.9], [0.1]],
        [[0.1, {}], [0.1, 0.9]],
        None,
    ],
    ids=repr,
)
def test_what_cannot_be_scores_of_two_rows_is_refused_in_the_name_of_its_source(scores):
    with pytest.raises(InvalidPrediction, match="the oracle"):
        meaning.scores(scores, 2, ModelContract(), "the oracle")


def test_a_function_is_a_predictor_whose_answers_are_checked(x):
    predictor = CallablePredictor(lambda rows: softmax(rows.reshape(len(rows), -1)))
    assert isinstance(predictor, Predictor)
    assert not isinstance(predictor, WhiteBox)
    assert predictor(x, timeout=1).shape == (9, 16)
    with pytest.raises(InvalidPrediction):
        CallablePredictor(lambda rows: rows)(x)


@pytest.mark.parametrize("shape", [(1,), SHAPE, (28, 28, 1), (224, 224, 3), (10**8,)])
def test_at_least_one_row_goes_into_a_call(model, shape):
    for predictor in (CallablePredictor(len), KerasPredictor.of(model)):
        assert predictor.rows_per_call(shape) >= 1


# --- Keras ------------------------------------------------------------------------------------------------


def test_a_model_in_process_answers_what_the_model_itself_answers_without_dropout(model, x):
    predictor = KerasPredictor.of(model)
    assert isinstance(predictor, WhiteBox)
    assert predictor.shape == SHAPE
    # The same graph in another batch: sums of a dozen float32 terms in another order.
    np.testing.assert_allclose(predictor(x), model(x, training=False), rtol=1e-5)


def test_a_large_batch_is_answered_row_by_row_like_small_ones():
    # Exact row by row: what is left to differ is how the batch is cut.
    predictor = KerasPredictor(lambda rows: tf.stack([rows[:, 0], 1 - rows[:, 0]], axis=1), (2,))
    x = np.random.default_rng(1).uniform(size=(300, 2)).astype(np.float32)
    for rows in (1, 2, 3, 31, 63, 64, 65, 127, 128, 129, 300):
        known = np.stack([x[:rows, 0], np.float32(1) - x[:rows, 0]], axis=1)
        np.testing.assert_array_equal(predictor(x[:rows]), known)


def test_batches_of_any_size_share_one_trace():
    traced = []

    def graph(rows):
        traced.append(rows.shape)  # runs while tracing only
        return tf.nn.softmax(rows)

    predictor = KerasPredictor(graph, (2,))
    for rows in range(1, 200, 3):
        predictor(np.zeros((rows, 2), np.float32))
    assert len(traced) == 1


def test_no_rows_are_answered_with_no_rows(model):
    assert len(KerasPredictor.of(model)(np.empty((0, *SHAPE), np.float32))) == 0


def test_threads_share_a_model(model, x):
    predictor = KerasPredictor.of(model)
    alone = [predictor(row[None]) for row in x]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(predictor, [row[None] for row in x]))
    np.testing.assert_array_equal(together, alone)


def test_rows_of_another_shape_are_refused_with_both_shapes(model):
    with pytest.raises(InvalidInput, match=r"\(4, 4, 1\), got \(4, 5, 1\)"):
        KerasPredictor.of(model)(np.zeros((1, 4, 5, 1), np.float32))


def test_logits_are_put_through_a_softmax(x):
    linear = keras.Sequential([keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    raw = np.asarray(linear(x))
    np.testing.assert_allclose(KerasPredictor.of(linear, logits=True)(x), softmax(raw), rtol=1e-5)


# --- gradients --------------------------------------------------------------------------------------------


def gradient(predictor, x, label):
    """Of the probability of a class: its slope is that of its logarithm, times itself."""

    def pull(log_scores):
        return np.where(np.arange(log_scores.shape[1]) == label, np.exp(log_scores), 0).astype("f")

    return predictor.slope(x, pull)[1]


def test_the_gradient_of_a_softmax_of_a_linear_map_is_the_known_one():
    # d p_t / d x = p_t (w_t - sum_j p_j w_j)
    weights = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    predictor = KerasPredictor(lambda rows: tf.nn.softmax(rows @ weights), (6,))
    x = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)
    p = predictor(x)
    known = p[:, 1:2] * (weights[:, 1] - p @ weights.T)
    np.testing.assert_allclose(gradient(predictor, x, 1), known, rtol=1e-4, atol=1e-6)


def test_the_gradient_equals_differences_of_what_the_predictor_answers(model, x):
    predictor = KerasPredictor.of(model)
    step = np.float32(0.01)
    nudges = step * np.eye(16, dtype=np.float32).reshape(16, *SHAPE)
    for row, exact in zip(x, gradient(predictor, x, 2), strict=True):
        ahead, behind = predictor(row + nudges)[:, 2], predictor(row - nudges)[:, 2]
        # Scores are good to about 1e-7, so differences to 1e-7 / step = 1e-5; the cubic term adds step^2 / 6
        # times a third derivative below 3.
        np.testing.assert_allclose((ahead - behind) / (2 * step), exact.ravel(), atol=1e-4)


# --- files ------------------------------------------------------------------------------------------------


def test_a_keras_file_and_a_saved_model_answer_like_the_model(model, x, tmp_path):
    model.save(tmp_path / "m.keras")
    model.export(tmp_path / "saved", verbose=False)
    expected = KerasPredictor.of(model)
    for path in (tmp_path / "m.keras", tmp_path / "saved"):
        loaded = connect(parse_predictor(str(path)))
        assert loaded.shape == SHAPE
        np.testing.assert_allclose(loaded(x), expected(x), rtol=1e-5)
        np.testing.assert_allclose(gradient(loaded, x, 3), gradient(expected, x, 3), rtol=1e-4, atol=1e-7)


def test_a_lambda_layer_is_refused(tmp_path):
    layers = [keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Lambda(lambda rows: rows * 2)]
    keras.Sequential(layers).save(tmp_path / "code.keras")
    with pytest.raises(InvalidSpec, match=r"code\.keras"):
        KerasPredictor.load(tmp_path / "code.keras")


def test_an_h5_file_is_refused_under_either_name(model, tmp_path):
    pytest.importorskip("h5py")
    model.save(tmp_path / "m.h5")
    (tmp_path / "dressed.keras").write_bytes((tmp_path / "m.h5").read_bytes())
    for name in ("m.h5", "dressed.keras"):
        with pytest.raises(InvalidSpec, match=name):
            KerasPredictor.load(tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere.keras", "text.keras", "model.pkl", "folder"])
def test_a_path_without_a_model_is_refused_by_name(tmp_path, name):
    (tmp_path / "text.keras").write_text("weights")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidSpec, match=name):
        connect(parse_predictor(str(tmp_path / name)))


# --- colocated --------------------------------------------------------------------------------------------


@pytest.fixture
def first():
    predictor = CallablePredictor(softmax)
    announce("m", predictor)
    yield predictor
    withdraw("m", predictor)


def test_an_announced_model_is_found_by_name(first):
    assert connect(parse_predictor("colocated:m")) is first


def test_a_model_that_nobody_announced_is_unavailable(first):
    with pytest.raises(PredictorUnavailable, match="'other'"):
        colocated("other")


def test_withdrawing_an_old_model_leaves_its_successor(first):
    second = CallablePredictor(softmax)
    announce("m", second)
    withdraw("m", first)
    assert colocated("m") is second
    withdraw("m", second)
    with pytest.raises(PredictorUnavailable):
        colocated("m")


def test_a_function_that_changes_its_rows_changes_only_its_own():
    def halved(x):
        x /= 2
        return np.concatenate([x, 1 - x], axis=1)

    rows = np.float32([[0.5], [1.0]])
    np.testing.assert_array_equal(CallablePredictor(halved)(rows)[:, 0], [0.25, 0.5])
    np.testing.assert_array_equal(rows, [[0.5], [1.0]])
