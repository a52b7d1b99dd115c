"""The black-box ladder: a student that is fitted once, searched for nothing, and never believed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, graph, rowwise, weights

pytest.importorskip("tensorflow")

from explainer_runtime.artifact import load, save
from explainer_runtime.errors import Cancelled, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods import tutoring
from explainer_runtime.search import student, unlike
from explainer_runtime.search.asks import Aside, Rows
from explainer_runtime.search.ladder import _cheapest
from explainer_runtime.solve import Budget, solve
from explainer_runtime.spec import CEM, Counterfactual, Inputs, ModelContract

W = weights(seed=3)
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
TRAIN = np.random.default_rng(4).uniform(0, 1, (400, *SHAPE)).astype("f")
SPEC = Counterfactual(gradient="student", refine_steps=20)


@pytest.fixture(scope="module")
def teacher():
    return Counting(rowwise(W))


@pytest.fixture(scope="module")
def fitted(teacher):
    return fit(SPEC, TRAIN, predictor=teacher, inputs=CONTRACT)


@pytest.fixture(scope="module")
def explain(fitted):
    return prepare(fitted, Counting(rowwise(W), 4096))


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype("f")


def reached(answer):
    """The probability, asked again, of the class that each row was to reach."""
    return rowwise(W)(answer["counterfactual"])[np.arange(len(answer)), answer["target_class"]]


# --- the student ----------------------------------------------------------------------------------------


def test_softened_probabilities_keep_their_order_and_sum_to_one():
    scores = np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.1), 50).astype("f")
    soft = student.soften(scores)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(soft.argmax(axis=1), scores.argmax(axis=1))
    assert soft.min() > 0


def test_softening_divides_the_log_odds_of_two_classes_by_the_temperature():
    p = np.linspace(0.01, 0.99, 20)
    soft = student.soften(np.stack([p, 1 - p], axis=1).astype("f")).astype(float)
    odds = np.log(soft[:, 0] / soft[:, 1])
    np.testing.assert_allclose(odds, np.log(p / (1 - p)) / student.TEMPERATURE, atol=1e-5)


def test_mixtures_lie_between_the_rows_they_are_made_of():
    x = np.random.default_rng(0).choice([0.0, 1.0], (10, *SHAPE)).astype("f")
    mixed = student.mixtures(x, 30, np.random.default_rng(1))
    assert mixed.shape == (30, *SHAPE)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    whole = np.isin(mixed, [0, 1]).reshape(30, -1).all(axis=1)
    assert whole[1::2].all()  # every second one takes whole features


def test_a_student_comes_to_agree_with_its_model(fitted):
    assert fitted.arrays["student_agreement"][0] > 0.8


def test_teaching_twice_gives_the_same_student():
    scores = rowwise(W)(TRAIN[:100])
    one, other = (student.teach(TRAIN[:100], scores, seed=5).get_weights() for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_are_halved_by_convolutions_until_they_are_small():
    for side, halvings in ((8, 2), (28, 2), (60, 3), (224, 5)):
        layers = [type(layer).__name__ for layer in student.network((side, side, 3), 2, seed=0).layers]
        assert layers == ["Conv2D"] * halvings + ["Flatten", "Dense", "Dense"]


# --- fitting --------------------------------------------------------------------------------------------


def test_fitting_asks_for_no_more_rows_than_it_says(teacher, fitted):
    known_by = 64  # rows that the model is known by again; see predictors/fingerprint.py
    assert teacher.rows - known_by == fitted.arrays["student_rows"][0] <= tutoring.MOST < 10_000


def test_a_saved_student_answers_as_before(fitted, explain, x, tmp_path):
    again = prepare(load(save(fitted, tmp_path / "cf")), explain.predictor)
    assert again(x).to_json() == explain(x).to_json()


def test_auto_teaches_a_student_where_the_model_is_elsewhere_and_only_there():
    spec = Counterfactual(refine_steps=20)
    there = fit(spec, TRAIN[:60], predictor=Counting(rowwise(W)), inputs=CONTRACT)
    here = fit(spec, TRAIN[:60], predictor=graph(W), inputs=CONTRACT)
    assert "student" in there.models
    assert not here.models
    row = TRAIN[:1]
    assert prepare(there, Counting(rowwise(W), 4096), warm=False)(row)["gradient"] == "student"
    assert prepare(there, graph(W), warm=False)(row)["gradient"] == "exact"
    assert prepare(here, Counting(rowwise(W), 4096), warm=False)(row)["gradient"] == "random"


def test_a_student_that_cannot_be_taught_or_found_is_refused():
    with pytest.raises(InvalidSpec, match="predictor"):
        fit(SPEC, TRAIN, inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="50 or more rows"):
        fit(SPEC, TRAIN[:20], predictor=Counting(rowwise(W)), inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="needs a student"):
        prepare(fit(Counterfactual(), inputs=CONTRACT).__class__(SPEC, CONTRACT), Counting(rowwise(W)))
    with pytest.raises(ValueError, match="schedule 'fast'"):
        Counterfactual(gradient="student", schedule="reference")
    with pytest.raises(ValueError, match="gradient"):
        CEM(gradient="student")


# --- searching ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [0.5, 0.05, 0.01])
def test_what_is_found_the_model_itself_has_said(explain, x, tol):
    answer = explain(x, {"tol": tol})
    assert answer["found"].all()
    assert (reached(answer) >= 1 - tol).all()
    assert (answer["counterfactual_class"] != answer["original_class"]).all()
    assert set(answer["gradient"]) == {"student"}


def test_it_takes_a_handful_of_calls_however_many_rows_are_explained(explain, x):
    assert explain(x[:1]).cost.calls <= 10
    assert explain(x).cost.calls <= 10
    assert explain(x).cost.rows <= 300 * len(x)


def test_its_changes_are_nearly_as_small_as_with_the_models_own_gradient(explain, x):
    exact = prepare(fit(Counterfactual(), inputs=CONTRACT), graph(W))(x)
    # A student of 400 rows ranks features a little wrong; a line to a neighbour is 4 times as long.
    assert np.median(explain(x)["distance_l1"]) <= 1.5 * np.median(exact["distance_l1"])


@pytest.mark.parametrize("proba", [0.3, 0.6])
def test_a_probability_between_is_met_within_the_tolerance(explain, x, proba):
    answer = explain(x, {"target_class": 1, "target_proba": proba, "tol": 0.02})
    assert answer["found"].all()
    assert (np.abs(reached(answer) - proba) <= 0.02).all()


def test_a_student_that_knows_nothing_does_no_harm_but_to_the_distance(fitted, x):
    scores = np.random.default_rng(0).dirichlet(np.ones(CLASSES), len(TRAIN)).astype("f")
    ignorant = {"student": student.teach(TRAIN, scores)}
    muddled = fitted.__class__(SPEC, CONTRACT, fitted.arrays, ignorant)
    answer = prepare(muddled, Counting(rowwise(W), 4096))(x)
    assert answer["found"].all()  # the lines to the nearest unlike neighbours need no student
    assert (reached(answer) >= 0.95).all()


def test_wrong_reference_answers_are_not_believed_either(fitted, x):
    lies = {**fitted.arrays, "reference_scores": np.roll(fitted.arrays["reference_scores"], 1, axis=1)}
    answer = prepare(fitted.__class__(SPEC, CONTRACT, lies, fitted.models), Counting(rowwise(W), 4096))(x)
    assert (reached(answer)[answer["found"]] >= 0.95).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 500), st.integers(1, 12))
def test_any_budget_is_kept_and_what_is_found_is_valid(explain, rows, calls):
    x = np.random.default_rng(1).uniform(0.2, 0.8, (2, *SHAPE)).astype("f")
    predictor = explain.predictor
    before = predictor.rows, predictor.calls
    answer = explain(x, {"max_rows": rows, "max_calls": calls})
    assert (predictor.rows - before[0], predictor.calls - before[1]) == (answer.cost.rows, answer.cost.calls)
    assert answer.cost.rows <= rows
    assert answer.cost.calls <= calls
    assert (reached(answer)[answer["found"]] >= 0.95).all()


def test_two_calls_are_enough_for_a_valid_answer(explain, x):
    answer = explain(x, {"max_calls": 2})
    assert answer["found"].all()
    assert set(answer["status"]) == {"budget_exhausted"}


def test_progress_tells_the_best_so_far_and_cancelling_stops_within_one_call(explain, x):
    seen = []
    explain(x, progress=seen.append)
    told = [p.best for p in seen if p.best is not None]
    assert told == sorted(told, reverse=True)
    before = explain.predictor.calls
    with pytest.raises(Cancelled):
        explain(x, cancel=lambda: explain.predictor.calls > before)
    assert explain.predictor.calls == before + 1


def test_requests_share_a_student_without_sharing_what_they_learn(explain, x):
    expected = [explain(row[None], {"tol": 0.05}).to_json() for row in x]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: explain(x[i % 4][None], {"tol": 0.05}).to_json(), range(16)))
    assert answers == [expected[i % 4] for i in range(16)]


# --- its parts ------------------------------------------------------------------------------------------


def test_the_nearest_unlike_neighbour_is_the_nearest_of_those_wanted():
    rows = np.array([[0.0], [1.0], [2.0], [5.0]], "f")
    wanted = np.array([[False, False, True, True], [False] * 4, [True] * 4])
    chosen = unlike.nearest(np.array([[0.1], [0.1], [4.0]], "f"), rows, wanted)
    np.testing.assert_array_equal(chosen, [2, -1, 3])


def test_lines_end_at_the_neighbour():
    points = unlike.lines(np.zeros((1, 2), "f"), np.ones((1, 2), "f"))
    np.testing.assert_allclose(points[:, 0], unlike.SHARES)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12), st.integers(1, 3))
def test_the_cheapest_lanes_of_each_row_stay_in_order(pairs, most):
    owner, cost = np.array(pairs).T
    kept = _cheapest(owner, cost.astype(float), most)
    expected = sorted(
        lane
        for row in set(owner)
        for lane in sorted(np.flatnonzero(owner == row), key=lambda lane: (cost[lane], lane))[:most]
    )
    assert kept.tolist() == expected


def test_a_search_aside_costs_nothing_and_is_answered_by_its_own_model():
    model = Counting(lambda x: np.concatenate([x, x], axis=1), contract=ModelContract(output="scores"))

    def inner():
        return (yield Rows(np.full((5, 1), 7, "f")))

    def outer():
        return (yield Aside(inner(), model))

    predictor = Counting(rowwise(W))
    scores, cost = solve(outer(), predictor, Budget(rows=1, calls=1))
    np.testing.assert_array_equal(scores, 7)
    assert (cost.rows, cost.calls, predictor.calls, model.rows) == (0, 0, 0, 5)
