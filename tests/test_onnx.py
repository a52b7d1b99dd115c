"""Models for ONNX Runtime: files as black boxes, and rows of a graph that it computes as the graph does."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from explainer_runtime import AnchorImage, Counterfactual, Inputs, connect, fit, prepare
from explainer_runtime.errors import InvalidPrediction, InvalidSpec
from explainer_runtime.predictors import WhiteBox
from explainer_runtime.predictors.onnx import converted
from explainer_runtime.spec import Grid

pytest.importorskip("onnxruntime")
tf2onnx = pytest.importorskip("tf2onnx")
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from keras import layers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the converter's own

SHAPE = (4, 4, 1)
X = np.random.default_rng(0).uniform(size=(7, *SHAPE)).astype(np.float32)


def network(activation="softmax", dtype="float32", batch=None):
    keras.utils.set_random_seed(0)
    image = keras.Input(batch_shape=(batch, *SHAPE), dtype=dtype, name="image")
    rows = layers.Rescaling(1 / 255)(image) if dtype == "uint8" else image
    return keras.Model(image, layers.Dense(3, activation=activation)(keras.ops.reshape(rows, (-1, 16))))


def written(path, model, dtype=tf.float32, batch=None):
    signature = [tf.TensorSpec((batch, *SHAPE), dtype, name="image")]
    function = tf.function(lambda image: {"p": model(image, training=False)}, autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("contract", [{}, {"output_name": "p"}, {"label": 1}, {"scale": 0.5, "offset": 0.1}])
def test_a_file_answers_as_the_model_it_was_made_of(tmp_path, contract):
    model = network()
    predictor = connect(written(tmp_path / "m.onnx", model), **contract)
    own = connect(model, **{name: value for name, value in contract.items() if name != "output_name"})
    assert not isinstance(predictor, WhiteBox)
    assert (predictor.shape, predictor.classes) == (own.shape, own.classes)
    np.testing.assert_allclose(predictor(X), own(X), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_with_a_batch_of_its_own_is_filled_up(tmp_path, batch):
    model = network()
    predictor = connect(written(tmp_path / "m.onnx", model, batch=batch))
    np.testing.assert_allclose(predictor(X), connect(model)(X), rtol=1e-5)


def test_a_file_of_bytes_is_given_the_nearest_ones(tmp_path):
    model = network(dtype="uint8")
    predictor = connect(written(tmp_path / "m.onnx", model, tf.uint8))
    x = X * 300 - 20
    assert predictor.integers
    np.testing.assert_array_equal(predictor.snap(x), np.rint(x).clip(0, 255))
    np.testing.assert_allclose(predictor(x), connect(model)(x), rtol=1e-5)


@pytest.mark.parametrize("spec", [AnchorImage(segmentation=Grid(rows=2, columns=2)), Counterfactual(tol=0.5)])
def test_a_file_is_explained_as_a_black_box(tmp_path, spec):
    path = written(tmp_path / "m.onnx", network())
    inputs = Inputs(shape=SHAPE, low=0, high=1, classes=3)
    answer = prepare(fit(spec, inputs=inputs, predictor=network()), path)(X[:2])
    assert "warnings" not in answer.meta  # the same network, known by its answers
    assert len(answer) == 2


def test_files_are_refused_for_what_they_are(tmp_path):
    (tmp_path / "text.onnx").write_text("weights")
    with pytest.raises(InvalidSpec, match=r"text\.onnx: cannot be loaded"):
        connect(tmp_path / "text.onnx")
    with pytest.raises(InvalidSpec, match=r"none\.onnx: cannot be read"):
        connect(tmp_path / "none.onnx")
    path = written(tmp_path / "m.onnx", network(None))
    with pytest.raises(InvalidPrediction, match="'logits'"):
        connect(path)(X)
    with pytest.raises(InvalidSpec, match=r"p \(0, 3\); say `output_name`|no input"):
        connect(path, input_name="pixels")


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_rows_of_a_graph_are_those_of_the_graph(tmp_path, dtype):
    model = network(dtype=dtype)
    model.save(tmp_path / "m.keras")
    x = np.rint(X * 255) if dtype == "uint8" else X
    slow, fast = (connect(tmp_path / "m.keras", runtime=one) for one in ("tensorflow", "onnx"))
    assert isinstance(fast, WhiteBox)
    assert fast._faster is not None
    np.testing.assert_allclose(fast(x), slow(x), rtol=1e-5)
    np.testing.assert_array_equal(fast.log_scores(x), slow.log_scores(x))


def test_a_conversion_that_says_something_else_is_not_used(caplog):
    calls = iter(range(2))  # traced as one function, and another when it is asked

    def changing(x):
        return x * float(next(calls, 1))

    with caplog.at_level(logging.WARNING, logger="explainer_runtime.model"):
        assert converted(tf, changing, (3,), "m", np.ones((2, 3), np.float32)) is None
    assert "TensorFlow computes its rows" in caplog.text
