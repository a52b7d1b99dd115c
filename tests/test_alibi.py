"""The notebook face: names people know, answers of the functional core."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from toys import CLASSES, SHAPE, rowwise, weights

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from explainer_runtime import alibi, artifact, explainers, spec
from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.predictors.keras import KerasPredictor

ONE = (1, *SHAPE)
W = weights() - weights().mean(axis=1, keepdims=True)  # an even image has an even answer
LEAN = ((W - W.mean(axis=0)) / np.abs(W).max()).reshape(CLASSES, *SHAPE)
NOISE = np.random.default_rng(5).uniform(-0.15, 0.15, (40, *SHAPE))
ROWS = np.clip(0.5 + 0.3 * LEAN[np.arange(40) % CLASSES] + NOISE, 0, 1).astype("f")
"""Some of each class."""
X = ROWS[:1]
CONTRACT = spec.Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
QUICK = {"schedule": "reference", "max_iter": 100, "max_lam_steps": 4, "tol": 0.3}
GRID = {"segmentation_fn": "grid", "segmentation_kwargs": {"rows": 2, "columns": 2}}


class Classifier(keras.Model):
    """The linear softmax of `toys`, which notices when Keras' own `predict` is used."""

    def __init__(self, w=W):
        super().__init__()
        self.flatten, self.scores = keras.layers.Flatten(), keras.layers.Dense(len(w), "softmax")
        self.scores.build((None, w.shape[1]))
        self.scores.set_weights([w.T, np.zeros(len(w), "f")])
        self.predicted = 0

    def call(self, x):
        return self.scores(self.flatten(x))

    def predict_step(self, data):
        self.predicted += 1
        return super().predict_step(data)


def network(units, *more):
    keras.utils.set_random_seed(7)
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(units), *more]
    return keras.Sequential(layers)


MODEL = Classifier()
WHITE = KerasPredictor(lambda x: MODEL(x, training=False), SHAPE)
"""The same, compiled once for all tests."""
AUTOENCODER = network(16, keras.layers.Reshape(SHAPE))
ENCODER = network(3)


def counterfactual(model=WHITE, **settings):
    return alibi.Counterfactual(model, ONE, **{"feature_range": (0.0, 1.0), **settings})


def proto(model=WHITE, **settings):
    known = {"gamma": 0.1, "theta": 1.0, "c_init": 1.0, "c_steps": 3, "max_iterations": 60}
    networks = {"ae_model": AUTOENCODER, "enc_model": ENCODER, "feature_range": (0.0, 1.0)}
    return alibi.CounterfactualProto(model, ONE, **{**known, **networks, **settings})


def cem(mode, model=WHITE, **settings):
    known = {"c_init": 1.0, "c_steps": 3, "max_iterations": 60, "feature_range": (0.0, 1.0)}
    return alibi.CEM(model, mode, ONE, **{**known, "no_info_val": 0.0, **settings})


def anchor(model=WHITE, **settings):
    return alibi.AnchorImage(model, SHAPE, **{**GRID, "feature_range": (0.0, 1.0), **settings})


def core(settings, options=None, **fitting):
    fitted = explainers.fit(settings, inputs=CONTRACT, predictor=WHITE, **fitting)
    return explainers.prepare(fitted, WHITE, warm=False)(X, options)


EXPLAINERS = {
    "counterfactual": lambda: counterfactual(),
    "prototype": lambda: proto().fit(ROWS),
    "negative": lambda: cem("PN"),
    "positive": lambda: cem("PP"),
    "anchor": lambda: anchor(),
}


def explained(explainer, **options):
    return explainer.explain(X[0] if isinstance(explainer, alibi.AnchorImage) else X, **options)


# --- the answers are the core's -------------------------------------------------------------------------


def test_a_counterfactual_is_what_the_core_answers():
    explanation, answer = counterfactual().explain(X), core(spec.Counterfactual())
    cf = explanation.cf
    assert explanation.success
    np.testing.assert_array_equal(cf["X"], answer["counterfactual"])
    np.testing.assert_array_equal(cf["proba"], answer["counterfactual_proba"])
    assert (
        cf["class"] == answer["counterfactual_class"][0] == cf["proba"][0].argmax() != explanation.orig_class
    )
    assert cf["distance"] == answer["distance_l1"][0]
    assert cf["loss"] == pytest.approx((cf["proba"].max() - 1) ** 2 + cf["lambda"] * cf["distance"])
    assert explanation.orig_proba == answer["original_proba"].max()
    assert list(explanation.all) == list(range(10))


def test_the_reference_schedule_keeps_the_best_point_of_each_lambda():
    explanation = counterfactual(**QUICK).explain(X)
    assert list(explanation.all) == [0, 1, 2, 3]
    points = [point for points in explanation.all.values() for point in points]
    assert any(np.array_equal(point["X"], explanation.cf["X"]) for point in points)
    for point in points:
        np.testing.assert_allclose(point["proba"], rowwise(W)(point["X"]), atol=1e-6)
        assert point["proba"][0, np.arange(CLASSES) != explanation.orig_class].max() >= 1 - 0.3
        assert point["distance"] == pytest.approx(np.abs(point["X"] - X).sum(), rel=1e-6)
        assert point["distance"] >= explanation.cf["distance"]
        assert point["lambda"] > 0


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_the_way_to_a_counterfactual_is_spread_over_the_steps(effort):
    explanation = counterfactual(effort=effort).explain(X)
    told = [points for points in explanation.all.values() if points]
    assert len(told) >= 3
    assert len({round(points[-1]["lambda"], 4) for points in told}) >= 2
    points = [point for some in told for point in some]
    np.testing.assert_array_equal(points[-1]["X"], explanation.cf["X"])
    for point in points:
        np.testing.assert_allclose(point["proba"], rowwise(W)(point["X"]), atol=1e-6)
        assert point["class"] == explanation.cf["class"]
        assert point["distance"] == pytest.approx(np.abs(point["X"] - X).sum(), rel=1e-6)
    # Ever nearer, but that fewer changed features are worth two in a hundred, and squares count a little.
    distances = [point["distance"] for point in points]
    assert all(after <= before * 1.03 for before, after in pairwise(distances))
    assert distances[-1] < distances[0]


@pytest.mark.parametrize("schedule", ["fast", "reference"])
def test_the_way_to_a_prototype_ends_at_the_answer(schedule):
    explanation = proto(schedule=schedule, beta=0.01).fit(ROWS).explain(X)
    told = [rows for rows in explanation.all.values() if rows]
    rows = [row for some in told for row in some]
    assert len(rows) >= 3
    np.testing.assert_array_equal(rows[-1], explanation.cf["X"])
    for row in rows:
        assert rowwise(W)(row).argmax() != explanation.orig_class


def test_a_prototype_counterfactual_is_what_the_core_answers():
    settings = spec.CounterfactualProto(gamma=0.1, theta=1.0, c_init=1.0, c_steps=3)
    answer = core(settings, {"k": 2}, x=ROWS, autoencoder=AUTOENCODER, encoder=ENCODER)
    explanation = proto().fit(ROWS).explain(X, k=2)
    np.testing.assert_array_equal(explanation.cf["X"], answer["counterfactual"])
    assert explanation.cf["class"] == explanation.cf["proba"][0].argmax() != explanation.orig_class
    assert explanation.id_proto == answer["id_proto"][0]
    assert explanation.orig_proba.shape == (1, CLASSES)
    assert any(np.array_equal(x, explanation.cf["X"]) for found in explanation.all.values() for x in found)


@pytest.mark.parametrize("mode", ["PN", "PP"])
def test_a_contrastive_explanation_is_what_the_core_answers(mode):
    explanation = cem(mode).explain(X)
    answer = core(spec.CEM(mode=mode, c_init=1.0, c_steps=3, clip=(-100, 100), no_info_val=0.0))
    other = {"PN": "PP", "PP": "PN"}[mode]
    np.testing.assert_array_equal(explanation.data[mode], answer["pertinent"])
    assert (explanation.data[f"{mode}_pred"] == explanation.X_pred) is (mode == "PP")
    assert explanation.data[other] is explanation.data[f"{other}_pred"] is None
    np.testing.assert_array_equal(explanation.X, X)


def test_an_anchor_is_what_the_core_answers():
    explanation = anchor().explain(X[0], threshold=0.8, seed=4)
    settings = spec.AnchorImage(segmentation=spec.Grid(rows=2, columns=2))
    answer = core(settings, options={"threshold": 0.8, "seed": 4})
    mask = answer["anchor_mask"][0]
    np.testing.assert_array_equal(explanation.segments, answer["segments"][0])
    assert (explanation.precision, explanation.coverage) == (answer["precision"][0], answer["coverage"][0])
    assert (explanation.anchor[~mask] == 0).all()
    stretched = (X[0] - X.min()) / (X.max() - X.min()) * 255
    np.testing.assert_allclose(explanation.anchor[mask], stretched[mask], atol=1)
    raw = explanation.raw
    assert len(raw["feature"]) == len(raw["mean"]) == len(raw["precision"]) == len(raw["coverage"])
    assert sorted(raw["feature"]) == sorted(set(explanation.segments[mask]))
    assert raw["precision"][-1:] == [pytest.approx(explanation.precision)][: len(raw["precision"])]
    assert raw["success"] is True
    assert raw["num_preds"] == explanation.meta["cost"]["rows"]
    assert raw["instance"].shape == SHAPE
    assert raw["instances"].shape == ONE
    assert raw["prediction"].shape == (1,)
    assert {"all_precision", "examples"} <= set(raw)
    for example in raw["examples"]:
        assert set(example) == {"covered_true", "covered_false", "uncovered_true", "uncovered_false"}
        assert all(picture.shape == SHAPE for picture in example["covered_true"])


def test_what_is_not_found_is_none():
    explanation = counterfactual(feature_range=(0.45, 0.55), tol=1e-6).explain(X)
    assert explanation.cf is None
    assert not explanation.success
    assert not any(explanation.all.values())


# --- an explanation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
def test_an_explanation_says_what_it_is_and_survives_json(name):
    explainer = EXPLAINERS[name]()
    explanation = explained(explainer)
    assert explanation.meta["name"] == explanation.name == type(explainer).__name__
    assert explanation.meta["explanations"] == ["local"]
    assert "blackbox" in explanation.meta["type"]
    for key, value in explanation.data.items():
        assert getattr(explanation, key) is value
    read = alibi.Explanation.from_json(explanation.to_json())
    assert read.to_json() == explanation.to_json()
    assert set(read.data) == set(explanation.data)
    assert json.loads(explanation.to_json())["meta"]["version"] == explanation.version


def test_an_item_is_an_attribute_and_a_warning():
    explanation = alibi.Explanation({"name": "X"}, {"cf": {"class": 1}})
    with pytest.warns(DeprecationWarning, match=r"explanation\.cf"):
        assert explanation["cf"] is explanation.cf
    with pytest.raises(AttributeError, match=r"by X has no 'pn'.*cf"):
        _ = explanation.pn
    with pytest.warns(DeprecationWarning, match="pn"), pytest.raises(KeyError):
        _ = explanation["pn"]


def test_json_takes_whatever_numpy_has():
    data = {"all": {0: [np.float32(0.1), np.int64(2), np.bool_(True)]}, "x": np.eye(2)[:, ::-1], "y": None}
    text = alibi.Explanation({}, data).to_json()
    assert json.loads(text)["data"] == {"all": {"0": [0.1, 2, True]}, "x": [[0, 1], [1, 0]], "y": None}
    with pytest.raises(ValueError, match="meta"):
        alibi.Explanation.from_json("[]")


# --- models ---------------------------------------------------------------------------------------------


def test_predict_of_a_keras_model_is_the_model_itself():
    model = Classifier()
    explanation = counterfactual(model.predict).explain(X)
    assert model.predicted == 0
    np.testing.assert_array_equal(explanation.cf["X"], counterfactual(model).explain(X).cf["X"])


def test_predict_of_ones_own_is_called():
    class Own(Classifier):
        def predict(self, x):
            self.predicted += 1
            return rowwise(W)(x)

    model = Own()
    assert counterfactual(model.predict).explain(X).success
    assert model.predicted > 1


def test_a_sequential_model_is_a_white_box():
    model = network(CLASSES, keras.layers.Softmax())
    explanation = counterfactual(model, target_proba=0.6, tol=0.1).explain(X)
    np.testing.assert_allclose(explanation.cf["proba"], model(explanation.cf["X"]), atol=1e-6)
    with pytest.raises(InvalidInput, match="expected rows of shape"):
        alibi.Counterfactual(model, (1, 3, 3, 1))


FUNCTIONS = {
    "numpy": rowwise(W),
    "float64": lambda x: rowwise(W)(x).astype(float),
    "eager tensors": lambda x: MODEL(tf.convert_to_tensor(x)),
    "tf.function": tf.function(lambda x: MODEL(x)),
    "tf.function with a signature": tf.function(
        lambda x: MODEL(x), input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)]
    ),
    "predictor": CallablePredictor(rowwise(W)),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_any_function_of_rows_is_a_black_box(kind):
    explanation = counterfactual(FUNCTIONS[kind]).explain(X)
    after = rowwise(W)(explanation.cf["X"])
    assert after[0].argmax() == explanation.cf["class"] != explanation.orig_class
    np.testing.assert_allclose(after, explanation.cf["proba"], atol=1e-6)


def test_a_tf_function_is_traced_once_whatever_the_number_of_rows():
    traces = []

    @tf.function
    def predict(x):
        traces.append(x.shape)
        return MODEL(x)

    assert counterfactual(predict).explain(X).success
    assert len(traces) == 1


def test_prototypes_need_no_gradient_of_a_function():
    near = {"enc_model": None, "use_kdtree": True, "gamma": 0.0, "theta": 10.0, "beta": 0.01}
    explanation = proto(rowwise(W), **near, c_init=0.0, c_steps=1).fit(ROWS).explain(X)
    assert explanation.cf["class"] == explanation.id_proto != explanation.orig_class
    assert list(explanation.all) == [0]


@pytest.mark.parametrize("seen", [np.float32, np.uint8])
def test_labels_hold_the_same_anchor_as_scores(seen):
    def labels(x):
        return rowwise(W)(x).argmax(axis=1)

    scores, named = (anchor(model, dtype=seen).explain(X[0]) for model in (rowwise(W), labels))
    np.testing.assert_array_equal(scores.anchor, named.anchor)
    np.testing.assert_array_equal(scores.raw["prediction"], named.raw["prediction"])
    assert scores.precision == named.precision


def test_what_is_no_model_is_refused():
    with pytest.raises(InvalidSpec, match=r"predict: .* got object"):
        alibi.CEM(object(), "PN", ONE)
    with pytest.raises(InvalidSpec, match=r"shape: .* got 'PN'"):
        alibi.CEM(object(), MODEL, "PN", ONE)


# --- settings -------------------------------------------------------------------------------------------


def test_an_artifact_of_a_method_without_a_class_is_refused(tmp_path):
    inputs = spec.Inputs(shape=(4, 4, 1), low=0, high=1, classes=2)
    path = artifact.save(explainers.fit(spec.Region(segmentation="grid"), inputs=inputs), tmp_path / "region")
    with pytest.raises(InvalidSpec, match="no class here explains by region; use explainer_runtime"):
        alibi.load_explainer(path, MODEL)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_settings_can_be_read_and_do_not_change(name):
    explainer = EXPLAINERS[name]()
    for key, value in explainer.meta["params"].items():
        assert getattr(explainer, key) == value
    with pytest.raises(AttributeError, match="make another"):
        explainer.seed = 3
    with pytest.raises(AttributeError, match="has no 'sedd'"):
        _ = explainer.sedd


def test_any_field_of_the_spec_that_was_given_can_be_read():
    explainer = counterfactual(effort="quick", lanes=2)
    assert (explainer.effort, explainer.params["lanes"], explainer.distance_fn) == ("quick", 2, "l1")


def test_numpy_numbers_are_numbers():
    explainer = counterfactual(
        target_class=np.int64(2),
        tol=np.float32(0.25),
        feature_range=(X.min(), X.max()),
        eps=np.full(16, 0.02),
    )
    assert (explainer.target_class, explainer.tol, explainer.eps) == (2, 0.25, 0.02)
    assert explainer.feature_range == (float(X.min()), float(X.max()))


@pytest.mark.parametrize("axis", [0, 1], ids=["with the batch axis", "without"])
def test_a_range_may_differ_from_feature_to_feature(axis):
    low, high = np.zeros(ONE), np.ones(ONE)
    high[0, :2] = 0.8
    shapes = ((low, high), (low[0], high[0]))[axis]
    cf = counterfactual(feature_range=shapes).explain(X).cf
    assert (cf["X"] <= high + 1e-6).all()


def test_an_open_range_is_closed_to_what_has_been_seen():
    unfitted, fitted = alibi.Counterfactual(WHITE, ONE, tol=0.4), alibi.Counterfactual(WHITE, ONE, tol=0.4)
    fitted.fit(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]))
    narrow, wide = unfitted.explain(X).cf, fitted.explain(X).cf
    assert fitted.feature_range == (0, 1)
    assert wide["X"].min() >= 0
    assert wide["X"].max() <= 1
    if narrow is not None:
        assert narrow["X"].min() >= X.min()
        assert narrow["X"].max() <= X.max()
    with pytest.raises(InvalidSpec, match="feature_range: cannot be taken"):
        unfitted.explain(np.zeros(ONE))


def test_an_instance_outside_the_range_is_explained_from_inside():
    cf = counterfactual(feature_range=(0.25, 1.0)).explain(X - 0.1).cf
    assert cf["X"].min() >= 0.25


def test_what_has_no_effect_is_said():
    with pytest.warns(UserWarning, match="sess has no effect"):
        counterfactual(sess=object())
    with pytest.warns(UserWarning, match="write_dir has no effect"):
        cem("PN", write_dir="logs")
    with pytest.warns(UserWarning, match="Y has no effect"):
        cem("PN").explain(X, Y=np.eye(CLASSES)[:1])
    explained(anchor(), binary_cache_size=10, cache_margin=1, verbose=True)


@pytest.mark.parametrize("name", ["Counterfactual", "CounterfactualProto"])
def test_old_names_work_and_warn(name):
    old = name.replace("factual", "Factual")
    with pytest.warns(FutureWarning, match=f"{old} is now called {name}"):
        explainer = getattr(alibi, old)(WHITE, shape=ONE)
    assert type(explainer).__name__ == name


WRONG = {
    "a misspelled setting": (lambda: counterfactual(max_iters=3), "max_iters"),
    "an unknown distance": (lambda: counterfactual(distance_fn="l2"), "distance"),
    "a shape without the batch": (lambda: alibi.Counterfactual(MODEL, SHAPE), "shape: .*batch axis"),
    "a range upside down": (lambda: counterfactual(feature_range=(1, 0)), "feature_range"),
    "half a range": (lambda: counterfactual(feature_range=1.0), "feature_range"),
    "categories": (lambda: proto(cat_vars={0: 3}), "cat_vars"),
    "a segmentation's setting": (lambda: anchor(segmentation_kwargs={"cells": 3}), "cells"),
    "prototypes before fit": (lambda: proto().explain(X), "fit"),
    "trust before fit": (lambda: proto(theta=0.0).explain(X, threshold=1.0), "fit"),
    "no_info_val before fit": (lambda: cem("PN", no_info_val=None).explain(X), "fit"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_by_name(case):
    make, message = WRONG[case]
    with pytest.raises(InvalidSpec, match=message):
        make()


def test_options_out_of_range_are_refused_by_name():
    with pytest.raises(InvalidOption, match="threshold"):
        anchor().explain(X[0], threshold=2.0)
    with pytest.raises(InvalidSpec, match="batch_size"):
        anchor().explain(X[0], batch_size=0)
    with pytest.raises(InvalidOption, match="target_class"):
        proto().fit(ROWS).explain(X, target_class=[CLASSES])


@pytest.mark.parametrize("name", EXPLAINERS)
def test_more_than_one_instance_is_refused_with_what_to_do(name):
    explainer = EXPLAINERS[name]()
    if name == "anchor":
        with pytest.raises(InvalidInput, match=r"pass image\[0\]"):
            explainer.explain(X)
        return
    with pytest.raises(InvalidInput, match=r"one instance.*one by one.*prepare"):
        explainer.explain(ROWS[:3])
    with pytest.raises(InvalidInput, match=r"pass X\[None\]"):
        explainer.explain(X[0])
    with pytest.raises(InvalidInput, match="finite"):
        explainer.explain(np.full(ONE, np.nan))


# --- fitting --------------------------------------------------------------------------------------------


def test_target_classes_restrict_where_it_may_go():
    explainer = proto().fit(ROWS)
    free = explainer.explain(X)
    (other,) = {0, 1, 2} - {free.orig_class, free.cf["class"]}
    aimed = explainer.explain(X, target_class=[other])
    assert aimed.cf["class"] == aimed.id_proto == other
    assert explainer.explain(X).to_json() == free.to_json()


def test_theta_means_nothing_without_prototypes():
    explanation = proto(enc_model=None).explain(X)
    assert explanation.id_proto is None
    assert explanation.cf is not None
    assert proto(enc_model=None, use_kdtree=True).fit(ROWS).explain(X).id_proto is not None


def test_a_trust_score_can_be_asked_for_whatever_theta_is():
    explanation = proto(theta=0.0).fit(ROWS).explain(X, threshold=0.5)
    assert explanation.meta["params"]["threshold"] == 0.5
    assert explanation.cf is not None


@pytest.mark.parametrize(("how", "middle"), [("median", np.median), ("mean", np.mean)])
def test_no_info_is_taken_from_the_training_rows(how, middle):
    fitted = cem("PN", no_info_val=None).fit(ROWS, no_info_type=how).explain(X)
    given = cem("PN", no_info_val=middle(ROWS, axis=0, keepdims=True)).explain(X)
    np.testing.assert_array_equal(fitted.PN, given.PN)


# --- anchors --------------------------------------------------------------------------------------------


def test_a_function_may_cut_the_image():
    def halves(image, left=2):
        return np.repeat([[7] * left + [9] * (SHAPE[1] - left)], SHAPE[0], axis=0)

    explainer = anchor(segmentation_fn=halves, segmentation_kwargs={"left": 1})
    segments = explainer.explain(X[0]).segments
    np.testing.assert_array_equal(segments, np.repeat([[0, 1, 1, 1]], SHAPE[0], axis=0))
    assert explainer.segmentation_fn == "halves"


def test_backgrounds_are_what_masked_parts_show():
    explainer = anchor(images_background=np.zeros((3, *SHAPE)), n_covered_ex=50)
    assert explainer.fill == "background"
    explanation = explainer.explain(X[0], threshold=0.9)
    pictures = [p for example in explanation.raw["examples"] for p in example["covered_true"]]
    anchored = np.isin(explanation.segments, explanation.raw["feature"][:1])
    whole = anchor().explain(X[0], max_anchor_size=4).raw["instance"]
    stretched = ((whole - whole.min()) / (whole.max() - whole.min()) * 255).astype(int)
    for picture in pictures:
        np.testing.assert_array_equal(picture[anchored], stretched[anchored])
        assert set(np.unique(picture[~anchored])) <= {0, *np.unique(stretched)}


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, (0, 1)), (-0.4, 0.4, (-0.5, 0.5)), (3, 200, (0, 255))]
)
def test_the_range_of_pixels_is_guessed_from_the_images(low, high, expected):
    images = np.linspace(low, high, 32).reshape(2, *SHAPE)
    explainer = anchor(feature_range=None, images_background=images)
    inputs = explainer._fitted.inputs
    assert (inputs.low, inputs.high) == expected


def test_an_image_of_one_value_is_explained():
    explanation = anchor(feature_range=None).explain(np.full(SHAPE, 300.0))
    assert explanation.raw["feature"] == []
    assert (explanation.anchor == 0).all()


# --- saving, sharing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
def test_what_was_saved_explains_the_same(name, tmp_path):
    explainer = EXPLAINERS[name]()
    explainer.save(tmp_path / "explainer")
    loaded = alibi.load_explainer(tmp_path / "explainer", WHITE)
    assert type(loaded) is type(explainer)
    assert loaded.meta == explainer.meta
    assert explained(loaded).to_json() == explained(explainer).to_json()


def test_what_an_artifact_cannot_hold_is_refused(tmp_path):
    cases = {
        "no code": anchor(segmentation_fn=lambda image: np.zeros(SHAPE[:2], int), segmentation_kwargs=None),
        "labels": anchor(lambda x: rowwise(W)(x).argmax(axis=1)),
        "feature_range: is not known; give the lowest": anchor(feature_range=None),
        "feature_range: is not known; give it": alibi.Counterfactual(WHITE, ONE),
        "fit": proto(),
        "call fit": cem("PN", no_info_val=None),
    }
    for message, explainer in cases.items():
        with pytest.raises(InvalidSpec, match=message):
            explainer.save(tmp_path / "explainer")
    with pytest.raises(InvalidSpec, match="autoencoder"):
        cem("PN", gamma=0.1, ae_model=Classifier())
    assert not (tmp_path / "explainer").exists()


def test_another_model_must_have_as_many_classes(tmp_path):
    explainer = counterfactual()
    explainer.reset_predictor(rowwise(weights(seed=1)))
    assert explainer.explain(X).orig_class == rowwise(weights(seed=1))(X).argmax()
    with pytest.raises(InvalidSpec, match="3 classes, got one of 4"):
        explainer.reset_predictor(rowwise(weights(classes=4)))
    with pytest.raises(InvalidSpec, match="3 classes, got one of 4"):
        alibi.load_explainer(explainer.save(tmp_path / "explainer"), rowwise(weights(classes=4)))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_threads_may_share_an_explainer(name):
    explainer = EXPLAINERS[name]()
    before = dict(vars(explainer))
    one = explained(explainer).to_json()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: explained(explainer).to_json(), range(8))) == {one}
    assert vars(explainer) == before


def test_importing_it_brings_no_framework():
    code = "import sys, explainer_runtime.alibi; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
