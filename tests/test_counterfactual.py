"""Counterfactuals: closed-form answers, options, budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, graph, rowwise, weights

pytest.importorskip("tensorflow")

from explainer_runtime.artifact import load, save
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import Counterfactual, Inputs, Limits

CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
ROADS = {
    "fast": {},
    "reference": {"schedule": "reference", "max_iter": 200, "learning_rate_init": 0.02},
    "random": {"gradient": "random"},
    "full": {"gradient": "full"},
}


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (6, *SHAPE)).astype("f")


def explainer(road="fast", predictor=None, **settings):
    fitted = fit(Counterfactual(**{**ROADS[road], **settings}), inputs=CONTRACT)
    return prepare(fitted, predictor or graph(weights()), warm=False)


def least_l1(w: np.ndarray, x: np.ndarray, proba: float) -> float:
    """The L1 distance to probability `proba` of class 1 for a linear model of two classes, in [0, 1].

    The logit has to rise by a fixed amount and each unit of feature i is worth |w_i|: the cheapest way
    spends the room of the steepest features first.
    """
    slope = (w[1] - w[0]).astype(np.float64)
    need = np.log(proba / (1 - proba)) - slope @ x.reshape(-1)
    room = np.where(slope > 0, 1 - x.reshape(-1), x.reshape(-1))
    distance = 0.0
    for i in np.argsort(-np.abs(slope)):
        if need <= 0:
            break
        step = min(room[i], need / abs(slope[i]))
        distance, need = distance + step, need - step * abs(slope[i])
    return distance


@pytest.mark.parametrize(("road", "excess"), [("fast", 1.02), ("full", 1.1), ("reference", 1.5)])
def test_distance_is_near_the_least_possible(x, road, excess):
    w = weights(seed=5, classes=2)
    own = rowwise(w)(x).argmax(axis=1)
    rows = x[own == 0]
    assert len(rows) >= 2
    fitted = fit(
        Counterfactual(**ROADS[road], tol=0.05, refine_steps=80),
        inputs=Inputs(shape=SHAPE, low=0, high=1, classes=2),
    )
    answer = prepare(fitted, graph(w), warm=False)(rows)
    assert answer["found"].all()
    for row, distance in zip(rows, answer["distance_l1"], strict=True):
        least = least_l1(w, row, 0.95)
        assert least * 0.999 <= distance <= least * excess


@pytest.mark.parametrize("road", ROADS)
def test_found_holds_when_the_model_is_asked_again(x, road):
    answer = explainer(road)(x)
    assert answer["found"].any()
    again = rowwise(weights())(answer["counterfactual"])
    target = answer["target_class"]
    valid = np.abs(again[np.arange(len(x)), target] - 1.0) <= 0.05
    np.testing.assert_array_equal(valid[answer["found"]], True)
    assert (target != answer["original_class"]).all()
    np.testing.assert_array_equal(answer["counterfactual_class"][answer["found"]], target[answer["found"]])


@pytest.mark.parametrize("road", ROADS)
def test_answers_stay_inside_the_feature_range(x, road):
    low, high = np.full(SHAPE, 0.1), np.linspace(0.75, 0.95, 16).reshape(SHAPE)
    answer = explainer(road, feature_range=(low.tolist(), high.tolist()))(x)
    assert (answer["counterfactual"] >= low.astype("f")).all()
    assert (answer["counterfactual"] <= high.astype("f")).all()


def test_distances_are_those_of_the_answer(x):
    answer = explainer()(x)
    change = np.abs(answer["counterfactual"] - x).reshape(len(x), -1)
    np.testing.assert_allclose(answer["distance_l1"], change.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(answer["distance_l2"], np.sqrt((change**2).sum(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(answer["distance_l0"], (change > 1e-6).sum(axis=1))


def test_sparsity_and_plausibility_are_those_of_the_answer(x, tmp_path):
    keras = pytest.importorskip("keras")
    row = keras.Input(SHAPE)
    shrunk = keras.layers.Rescaling(0.5)(row)  # rebuilds every row at half its size
    fitted = fit(Counterfactual(), inputs=CONTRACT, autoencoder=keras.Model(row, shrunk))
    fitted = load(save(fitted, tmp_path / "cf"))
    answer = prepare(fitted, graph(weights()), warm=False)(x)
    lost = ((0.5 * answer["counterfactual"]) ** 2).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(answer["autoencoder_error"], lost, rtol=1e-5)
    np.testing.assert_allclose(answer["sparsity"], 1 - answer["distance_l0"] / 16)


def test_steps_are_counted_for_every_lane(x):
    graphed = explainer()(x)
    assert graphed.cost.rows > graphed.cost.steps > 0  # each costs a row, and not every row is a step
    assert explainer("random", CallablePredictor(rowwise(weights())))(x[:1]).cost.steps > 0


@pytest.mark.parametrize("wanted", range(CLASSES))
def test_a_numbered_class_is_reached(x, wanted):
    answer = explainer()(x, {"target_class": wanted, "tol": 0.2})
    assert answer["found"].all()
    np.testing.assert_array_equal(answer["target_class"], wanted)
    assert (answer["counterfactual_proba"][:, wanted] >= 0.8).all()


def test_a_row_that_has_the_class_already_is_its_own_counterfactual(x):
    own = rowwise(weights())(x)
    sure = x[own.max(axis=1) > 0.8][:1]
    answer = explainer()(sure, {"target_class": int(rowwise(weights())(sure).argmax()), "tol": 0.2})
    np.testing.assert_array_equal(answer["counterfactual"], sure)
    assert answer["found"].all()
    assert answer["distance_l1"] == 0


@pytest.mark.parametrize("road", ["fast", "full"])
@pytest.mark.parametrize("proba", [0.3, 0.6])
def test_a_probability_between_is_met_within_the_tolerance(x, road, proba):
    answer = explainer(road)(x, {"target_class": 1, "target_proba": proba, "tol": 0.02})
    assert answer["found"].all()
    assert (np.abs(answer["counterfactual_proba"][:, 1] - proba) <= 0.02).all()


def test_same_lowers_the_probability_of_the_class_the_row_has(x):
    answer = explainer()(x, {"target_class": "same", "target_proba": 0.5, "tol": 0.05})
    assert answer["found"].all()
    rows = np.arange(len(x))
    assert (np.abs(answer["counterfactual_proba"][rows, answer["original_class"]] - 0.5) <= 0.05).all()


def test_an_impossible_target_is_an_answer_not_an_error(x):
    answer = explainer(feature_range=(0.2, 0.8))(x * 0.6 + 0.2, {"target_proba": 1.0, "tol": 1e-9})
    assert not answer["found"].any()
    assert set(answer["status"]) == {"not_found"}
    np.testing.assert_array_equal(answer["counterfactual"], x * np.float32(0.6) + np.float32(0.2))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 60), st.sampled_from(list(ROADS)))
def test_any_budget_is_kept_and_what_is_found_is_valid(rows, calls, road):
    x = np.random.default_rng(1).uniform(0.2, 0.8, (2, *SHAPE)).astype("f")
    predictor = graph(weights()) if road in ("fast", "reference") else Counting(rowwise(weights()), 4096)
    run = explainer(road, predictor)
    if rows < len(x):
        return
    answer = run(x, {"max_rows": rows, "max_calls": calls})
    assert answer.cost.rows <= rows
    assert answer.cost.calls <= calls
    if isinstance(predictor, Counting):
        assert (predictor.rows, predictor.calls) == (answer.cost.rows, answer.cost.calls)
    again = rowwise(weights())(answer["counterfactual"])
    valid = np.abs(again[np.arange(2), answer["target_class"]] - 1) <= 0.05
    assert valid[answer["found"]].all()
    assert set(answer["status"]) <= {"ok", "not_found", "budget_exhausted"}


def test_a_request_cannot_raise_the_operators_budget(x):
    predictor = Counting(rowwise(weights()), 4096)
    answer = explainer("random", predictor)(x, {"max_rows": 10**6}, limits=Limits(max_rows=300))
    assert predictor.rows <= 300
    assert "budget_exhausted" in answer["status"]


def test_a_class_beyond_the_models_is_refused_by_name(x):
    with pytest.raises(InvalidOption, match=r"target_class: .* 0 to 2, got 3"):
        explainer()(x, {"target_class": 3})
    with pytest.raises(InvalidSpec, match="target_class"):
        fit(Counterfactual(target_class=7), inputs=CONTRACT)


def test_exact_gradients_are_refused_for_an_endpoint():
    fitted = fit(Counterfactual(gradient="exact"), inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="exact"):
        prepare(fitted, CallablePredictor(rowwise(weights())))


def test_the_reference_schedule_reports_the_lambda_of_its_answer(x):
    answer = explainer("reference")(x)
    assert (answer["lam"][answer["found"]] > 0).all()
