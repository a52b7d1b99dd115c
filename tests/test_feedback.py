"""The surrogate road: a small network is searched for nothing, the model is asked a handful of times."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.artifact import load, save
from explainer_runtime.driver import Budget, solve
from explainer_runtime.errors import Cancelled, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.search import neighbours, surrogate
from explainer_runtime.search.asks import Aside, Rows
from explainer_runtime.search.criterion import criterion, one_hot
from explainer_runtime.search.least_change import Problem
from explainer_runtime.search.spaces import Pixels
from explainer_runtime.spec import CEM, Counterfactual, CounterfactualProto, Inputs, Limits

W = weights(seed=3)
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
TRAIN = np.random.default_rng(4).uniform(0, 1, (400, *SHAPE)).astype("f")
SPECS = {
    "counterfactual": Counterfactual(gradient="surrogate"),
    "prototype": CounterfactualProto(gradient="surrogate", theta=1.0),
    "negative": CEM(gradient="surrogate", no_info_val=0.0),
    "positive": CEM(gradient="surrogate", no_info_val=0.0, mode="PP"),
}
SPEC = Counterfactual(gradient="surrogate", effort="quick")
PATIENT = Limits(max_seconds=3600)
"""No law here depends on the clock."""


@pytest.fixture(scope="module")
def fitted():
    return fit(SPEC, TRAIN, predictor=Counting(rowwise(W)), inputs=CONTRACT)


@pytest.fixture(scope="module")
def explain(fitted):
    return prepare(fitted, Counting(rowwise(W), 4096))


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype("f")


def reached(answer):
    """The probability, asked again, of the class that each row was to reach."""
    return rowwise(W)(answer["counterfactual"])[np.arange(len(answer)), answer["target_class"]]


# --- what is found --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SPECS)
def test_whatever_the_method_found_the_model_itself_has_said_so_in_few_calls(method, x):
    predictor = Counting(rowwise(W), 4096)
    run = prepare(fit(SPECS[method], TRAIN, predictor=predictor, inputs=CONTRACT), predictor)
    predictor.calls = predictor.rows = 0
    answer = run(x, limits=PATIENT)
    # Some rows have no pertinent negative: what is there may only grow.
    assert answer["found"].all() if method != "negative" else answer["found"].any()
    assert set(answer["gradient_source"]) == {"surrogate"}
    noun = "counterfactual" if "counterfactual" in answer.arrays else "pertinent"
    again = rowwise(W)(answer[noun]).argmax(axis=1)
    stays = again == answer["original_class"]
    np.testing.assert_array_equal(stays[answer["found"]], method == "positive")
    assert predictor.calls == answer.cost.calls <= 8
    assert predictor.rows == answer.cost.rows <= 300 * len(x)


@pytest.mark.parametrize("tol", [0.5, 0.05, 0.01])
def test_a_probability_is_reached_by_the_models_own_word(explain, x, tol):
    answer = explain(x, {"tol": tol}, limits=PATIENT)
    assert answer["found"].all()
    assert (reached(answer) >= 1 - tol).all()
    assert (answer["counterfactual_class"] != answer["original_class"]).all()


@pytest.mark.parametrize("proba", [0.3, 0.6])
def test_a_probability_between_is_met_within_the_tolerance_or_the_row_is_given_back(explain, x, proba):
    answer = explain(x, {"target_class": 1, "target_proba": proba, "tol": 0.05}, limits=PATIENT)
    found = answer["found"]
    assert found.any()
    assert (np.abs(reached(answer) - proba) <= 0.05)[found].all()
    np.testing.assert_array_equal(answer["counterfactual"][~found], x[~found])


def test_its_changes_are_nearly_as_small_as_with_the_models_own_slopes(explain, x):
    exact = prepare(fit(Counterfactual(), inputs=CONTRACT), Linear(W))(x, limits=PATIENT)
    # A surrogate of 400 rows ranks features a little wrong; a line to a neighbour is 4 times as long.
    ours = explain(x, {"effort": "standard"}, limits=PATIENT)["distance_l1"]
    assert np.median(ours) <= 1.8 * np.median(exact["distance_l1"])


def test_units_change_no_answer_beyond_rounding(explain, x):
    inputs = Inputs(shape=SHAPE, low=0, high=255, classes=CLASSES)
    bytes_of, rows = Counting(rowwise(W / 255), 4096), (255 * x).astype("f")
    run = prepare(fit(SPEC, TRAIN * np.float32(255), predictor=bytes_of, inputs=inputs), bytes_of)
    ours, theirs = explain(x, limits=PATIENT), run(rows, limits=PATIENT)
    np.testing.assert_array_equal(ours["found"], theirs["found"])
    np.testing.assert_array_equal(ours["target_class"], theirs["target_class"])
    # Rows are rounded elsewhere by 1e-7 of the range, and so is every lesson: a search may end elsewhere.
    np.testing.assert_allclose(ours["distance_l1"] * 255, theirs["distance_l1"], rtol=0.05)


def test_what_may_not_change_does_not(explain, x):
    free = np.arange(16).reshape(SHAPE) % 2 == 0
    answer = explain(x, {"region": free.tolist(), "tol": 0.4}, limits=PATIENT)
    assert answer["found"].any()
    assert (answer["counterfactual"] == x)[:, ~free].all()


def test_a_surrogate_that_knows_nothing_does_no_harm_but_to_the_distance(fitted, x):
    scores = np.random.default_rng(0).dirichlet(np.ones(CLASSES), len(TRAIN)).astype("f")
    ignorant = fitted.arrays | surrogate.teach(TRAIN, scores, 0, 1).arrays()
    muddled = prepare(fitted.__class__(SPEC, CONTRACT, ignorant), Counting(rowwise(W), 4096))
    answer = muddled(x, limits=PATIENT)
    assert answer["found"].all()  # the lines to the nearest unlike neighbours need no surrogate
    assert (reached(answer) >= 0.95).all()


def test_wrong_reference_answers_are_not_believed_either(fitted, x):
    lies = {**fitted.arrays, "reference_scores": np.roll(fitted.arrays["reference_scores"], 1, axis=1)}
    muddled = prepare(fitted.__class__(SPEC, CONTRACT, lies), Counting(rowwise(W), 4096))
    answer = muddled(x, limits=PATIENT)
    assert (reached(answer)[answer["found"]] >= 0.95).all()
    np.testing.assert_array_equal(answer["counterfactual"][~answer["found"]], x[~answer["found"]])


# --- what it costs --------------------------------------------------------------------------------------


def test_calls_do_not_grow_with_the_rows_explained(explain, x):
    assert explain(x[:1], limits=PATIENT).cost.calls <= 8
    assert explain(x, limits=PATIENT).cost.calls <= 8


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 500), st.integers(1, 12))
def test_any_budget_is_kept_and_what_is_found_is_valid(explain, rows, calls):
    x = np.random.default_rng(1).uniform(0.2, 0.8, (1, *SHAPE)).astype("f")
    predictor = explain.predictor
    before = predictor.rows, predictor.calls
    answer = explain(x, {"max_rows": rows, "max_calls": calls}, limits=PATIENT)
    assert (predictor.rows - before[0], predictor.calls - before[1]) == (answer.cost.rows, answer.cost.calls)
    assert answer.cost.rows <= rows
    assert answer.cost.calls <= calls
    assert (reached(answer)[answer["found"]] >= 0.95).all()


def test_two_calls_are_enough_for_a_valid_answer(explain, x):
    answer = explain(x, {"max_calls": 2}, limits=PATIENT)
    assert answer["found"].all()
    assert set(answer["status"]) == {"budget_exhausted"}
    assert (reached(answer) >= 0.95).all()


def test_progress_tells_the_best_so_far_and_cancelling_stops_within_one_call(explain, x):
    seen = []
    explain(x, progress=seen.append, limits=PATIENT)
    told = [p.best for p in seen if p.best is not None]
    assert told == sorted(told, reverse=True)
    before = explain.predictor.calls
    with pytest.raises(Cancelled):
        explain(x, cancel=lambda: explain.predictor.calls > before, limits=PATIENT)
    assert explain.predictor.calls == before + 1


def test_requests_share_a_surrogate_without_sharing_what_they_learn(explain, x):
    expected = [explain(row[None], limits=PATIENT).to_json() for row in x]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: explain(x[i % 4][None], limits=PATIENT).to_json(), range(8)))
    assert answers == [expected[i % 4] for i in range(8)]


def test_a_saved_surrogate_explains_to_the_byte_as_before(fitted, explain, x, tmp_path):
    saved = prepare(load(save(fitted, tmp_path / "cf")), explain.predictor)
    again, before = saved(x, limits=PATIENT), explain(x, limits=PATIENT)
    for name, field in before.arrays.items():
        assert again[name].tobytes() == field.tobytes(), name


def test_a_search_aside_costs_nothing_and_is_answered_by_its_own_model():
    model = Counting(lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))

    def inner():
        return (yield Rows(np.full((5, 2), 7, "f")))

    def outer():
        return (yield Aside(inner(), model))

    predictor = Counting(rowwise(W))
    log_scores, cost = solve(outer(), predictor, Budget(rows=1, calls=1))
    np.testing.assert_allclose(log_scores, np.log(0.5), rtol=1e-6)
    assert (cost.rows, cost.calls, predictor.calls, model.rows) == (0, 0, 0, 5)


# --- what it needs --------------------------------------------------------------------------------------


def test_a_surrogate_that_cannot_be_taught_or_found_is_refused():
    with pytest.raises(InvalidSpec, match="predictor"):
        fit(SPEC, TRAIN, inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="50 or more rows"):
        fit(SPEC, TRAIN[:20], predictor=Counting(rowwise(W)), inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="needs a surrogate"):
        prepare(fit(Counterfactual(), inputs=CONTRACT).__class__(SPEC, CONTRACT), Counting(rowwise(W)))
    with pytest.raises(ValueError, match="schedule 'fast'"):
        Counterfactual(gradient="surrogate", schedule="reference")


def test_the_first_versions_name_for_it_is_understood():
    assert Counterfactual(gradient="student").gradient == "surrogate"


# --- nearest unlike neighbours --------------------------------------------------------------------------


def near(rows: np.ndarray, classes: list[int], origin: np.ndarray, high: float = 10.0):
    """The lines for each of `origin` `(L, 1)` to known rows of these classes; class 1 is wanted."""
    space = Pixels(origin, 1.0, np.zeros(1, "f"), np.full(1, high, "f"))
    asked = criterion(one_hot(np.ones(len(origin), int), 2))
    ones = np.ones(len(origin), "f")
    sought = Problem(space, *space.bounds(), np.zeros_like(origin), asked, ones, ones)
    said = np.where(one_hot(np.array(classes), 2), np.log(0.9), np.log(0.1)).astype("f")
    return neighbours.lines(sought, np.arange(len(origin)), rows, said)


def test_lines_lead_to_the_nearest_row_of_those_wanted():
    rows = np.array([[0.0], [1.0], [2.0], [5.0]], "f")
    points, whose = near(rows, [0, 0, 1, 1], np.array([[0.1], [4.0]], "f"))
    shares = neighbours.SHARES
    np.testing.assert_array_equal(whose, [0] * len(shares) + [1] * len(shares))
    np.testing.assert_allclose(points[:, 0], np.concatenate([1.9 * shares, 1.0 * shares]), rtol=1e-6)


def test_lines_end_at_the_bounds():
    points, _ = near(np.array([[9.0]], "f"), [1], np.array([[1.0]], "f"), high=3.0)
    np.testing.assert_allclose(points[:, 0], 2.0 * neighbours.SHARES, rtol=1e-6)


def test_where_nothing_would_do_there_is_no_line():
    points, whose = near(np.array([[0.0]], "f"), [0], np.array([[1.0]], "f"))
    assert points.shape == (0, 1)
    assert not len(whose)
