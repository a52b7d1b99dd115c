"""Counterfactuals with prototypes: options, prototypes, both schedules, what is fitted stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
from toys import CLASSES, SHAPE, Counting, graph, rowwise, weights

pytest.importorskip("tensorflow")
import keras

from explainer_runtime.artifact import load, save
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.spec import CounterfactualProto, Inputs

CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
RNG = np.random.default_rng(11)
TRAIN = RNG.uniform(0, 1, (150, *SHAPE)).astype("f")
W = weights(seed=4)
WHITE = graph(W)


def networks():
    """An autoencoder that keeps 10 of 16 directions, and its encoder: orthogonal, so they are exact."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:, :10].astype("f")
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    decoder = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16), keras.layers.Reshape(SHAPE)])
    encoder.set_weights([basis, np.zeros(10, "f")])
    decoder.set_weights([basis.T, np.zeros(16, "f")])
    rows = keras.Input(SHAPE)
    return {"autoencoder": keras.Model(rows, decoder(encoder(rows))), "encoder": encoder}


NETWORKS = networks()
ROADS = {
    "fast": {},
    "reference": {"schedule": "reference", "max_iterations": 200, "beta": 0.01, "c_steps": 5},
    "random": {"gradient": "random"},
}


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype("f")


def explainer(predictor=None, models=NETWORKS, **settings):
    spec = CounterfactualProto(**{"gamma": 1.0 if models else 0.0, "theta": 1.0, **settings})
    predictor = predictor or WHITE
    return prepare(fit(spec, TRAIN, predictor=predictor, inputs=CONTRACT, **models), predictor, warm=False)


def test_without_gamma_and_theta_it_is_an_elastic_net_alone(x):
    answer = explainer(models={}, theta=0.0)(x)
    assert answer["found"].all()
    assert (answer["id_proto"] == -1).all()
    assert (answer["prototype_distance"] == 0).all()


@pytest.mark.parametrize("models", [NETWORKS, {}], ids=["networks", "inputs"])
@pytest.mark.parametrize("road", ROADS)
def test_found_holds_when_the_model_is_asked_again(x, road, models):
    answer = explainer(models=models, **ROADS[road])(x)
    assert answer["found"].all()
    again = rowwise(W)(answer["counterfactual"]).argmax(axis=1)
    np.testing.assert_array_equal(again, answer["counterfactual_class"])
    assert (again != answer["original_class"]).all()
    assert (answer["counterfactual"] >= 0).all()
    assert (answer["counterfactual"] <= 1).all()


def test_fields_are_those_of_the_answer(x):
    answer = explainer(beta=0.2, k=3)(x)
    change = (answer["counterfactual"] - x).reshape(len(x), -1).astype("d")
    net = 0.2 * np.abs(change).sum(axis=1) + (change**2).sum(axis=1)
    np.testing.assert_allclose(answer["elastic_net"], net, rtol=1e-5)
    rebuilt = NETWORKS["autoencoder"](answer["counterfactual"]).numpy()
    error = ((rebuilt - answer["counterfactual"]) ** 2).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(answer["autoencoder_error"], error, rtol=1e-4, atol=1e-6)
    codes = NETWORKS["encoder"](TRAIN).numpy()
    classes = rowwise(W)(TRAIN).argmax(axis=1)
    for row in range(len(x)):
        own = codes[classes == answer["id_proto"][row]]
        far = np.linalg.norm(own - NETWORKS["encoder"](x[row : row + 1]).numpy(), axis=1)
        prototype = own[np.argsort(far)[:3]].mean(axis=0)
        there = NETWORKS["encoder"](answer["counterfactual"][row : row + 1]).numpy()[0]
        expected = ((there - prototype) ** 2).sum()
        assert answer["prototype_distance"][row] == pytest.approx(expected, rel=1e-3)


def test_the_prototype_is_of_the_nearest_class_but_the_own(x):
    answer = explainer()(x)
    codes, classes = NETWORKS["encoder"](TRAIN).numpy(), rowwise(W)(TRAIN).argmax(axis=1)
    means = np.stack([codes[classes == wanted].mean(axis=0) for wanted in range(CLASSES)])
    far = np.linalg.norm(NETWORKS["encoder"](x).numpy()[:, None] - means, axis=2)
    far[np.arange(len(x)), answer["original_class"]] = np.inf
    np.testing.assert_array_equal(answer["id_proto"], far.argmin(axis=1))


@pytest.mark.parametrize("wanted", range(CLASSES))
def test_only_classes_that_are_allowed_are_reached(x, wanted):
    answer = explainer()(x, {"target_class": [wanted]})
    own = answer["original_class"] == wanted
    np.testing.assert_array_equal(answer["found"], ~own)
    np.testing.assert_array_equal(answer["counterfactual_class"][~own], wanted)
    np.testing.assert_array_equal(answer["id_proto"], np.where(own, -1, wanted))


def test_explaining_with_k_changes_nothing_that_was_fitted(x):
    run = explainer()
    before = {name: array.tobytes() for name, array in run.fitted.arrays.items()}
    first = run(x).to_json()
    run(x, {"k": 5, "k_type": "point"})
    assert run(x).to_json() == first
    assert {name: array.tobytes() for name, array in run.fitted.arrays.items()} == before


def test_the_lead_is_reached_where_it_can_be(x):
    answer = explainer(lead=4.0)(x)
    second, first = np.sort(answer["counterfactual_proba"], axis=1)[:, -2:].T
    assert (first >= 3.99 * second).all()


def test_trust_is_at_least_the_threshold(x):
    run = explainer(threshold=1.2, theta=3.0)
    answer = run(x)
    assert answer["found"].any()
    codes, means = NETWORKS["encoder"](answer["counterfactual"]).numpy(), run.fitted.arrays["means"]
    own = np.linalg.norm(codes - means[answer["original_class"]], axis=1)
    new = np.linalg.norm(codes - means[answer["counterfactual_class"]], axis=1)
    assert (own / new)[answer["found"]].min() > 1.2 * (1 - 1e-4)


def test_without_a_prediction_loss_a_function_is_called_a_few_times(x):
    predictor = Counting(rowwise(W), 4096)
    # The nearest training row of a class has that class, so the prototype is valid and can be reached.
    run = explainer(predictor, models={}, c_init=0, c_steps=1, k=1)
    predictor.calls = predictor.rows = 0
    answer = run(x)
    assert answer["found"].all()
    assert predictor.calls == answer.cost.calls <= 20
    again = rowwise(W)(answer["counterfactual"]).argmax(axis=1)
    assert (again != answer["original_class"]).all()


def test_a_saved_explainer_gives_the_same_bytes(x, tmp_path):
    run = explainer()
    loaded = load(save(run.fitted, tmp_path / "proto"))
    assert prepare(loaded, WHITE, warm=False)(x).to_json() == run(x).to_json()


def test_fitting_tells_its_progress():
    seen = []
    spec = CounterfactualProto(theta=1.0)
    fit(spec, TRAIN, predictor=WHITE, inputs=CONTRACT, progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (CounterfactualProto(gamma=1.0), "autoencoder"),
        (CounterfactualProto(theta=1.0), "predictor"),
        (CounterfactualProto(target_class=(1, 3)), "target_class"),
    ],
)
def test_what_a_spec_needs_is_asked_for_by_name(spec, message):
    with pytest.raises(InvalidSpec, match=message):
        fit(spec, inputs=CONTRACT)


@pytest.mark.parametrize(
    "options", [{"target_class": []}, {"target_class": [3]}, {"k": 0}, {"threshold": -1}]
)
def test_options_out_of_range_are_refused_by_name(x, options):
    with pytest.raises(InvalidOption) as refused:
        explainer(models={})(x, options)
    assert refused.value.field == next(iter(options))


@pytest.mark.parametrize("options", [{"threshold": 1.2}, {"k": 3}, {"k_type": "point"}])
def test_options_about_prototypes_are_refused_where_there_are_none(x, options):
    with pytest.raises(InvalidOption, match="without prototypes") as refused:
        explainer(models={}, theta=0.0)(x, options)
    assert refused.value.field == next(iter(options))
