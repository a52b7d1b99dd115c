"""Counterfactuals: closed-form answers, what `found` means, options, budgets, units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.artifact import load, save
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import Counterfactual, Inputs, Limits

W = weights()
GENTLE = (weights(seed=7) - weights(seed=7).mean(axis=1, keepdims=True)) / 2
"""Of a model that is of two minds: a grey image has all classes alike."""
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
PATIENT = Limits(max_seconds=3600, max_batch=64)
"""No law here depends on the clock."""
ROADS = {
    "fast": {},
    "smallest": {"objective": "smallest"},
    "reference": {"schedule": "reference", "max_iter": 200, "learning_rate_init": 0.02},
    "random": {"gradient": "random"},
    "full": {"gradient": "full"},
}


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (6, *SHAPE)).astype("f")


def explainer(road="fast", predictor=None, contract=CONTRACT, **settings):
    fitted = fit(Counterfactual(**{**ROADS[road], **settings}), inputs=contract)
    run = prepare(fitted, predictor or Linear(W), warm=False)
    return lambda rows, options=None: run(rows, options, limits=PATIENT)


def alone(run, rows, options=None):
    """The fields of answers to each row by itself, put together."""
    answers = [run(row[None], options) for row in rows]
    return {name: np.concatenate([one[name] for one in answers]) for name in answers[0].arrays}


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


# `balanced` gives up some of the distance for changes that neighbours share.
@pytest.mark.parametrize(
    ("road", "excess"), [("smallest", 1.05), ("fast", 1.25), ("full", 1.25), ("reference", 1.5)]
)
def test_distance_is_near_the_least_possible(x, road, excess):
    w = weights(seed=5, classes=2)
    rows = x[rowwise(w)(x).argmax(axis=1) == 0]
    assert len(rows) >= 2
    answer = explainer(road, Linear(w), Inputs(shape=SHAPE, low=0, high=1, classes=2), tol=0.05)(rows)
    assert answer["found"].all()
    for row, distance in zip(rows, answer["distance_l1"], strict=True):
        least = least_l1(w, row, 0.95)
        assert least * 0.999 <= distance <= least * excess


# --- what `found` means ---------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_found_holds_when_the_model_is_asked_again(x, road):
    answer = explainer(road)(x)
    assert answer["found"].any()
    again = rowwise(W)(answer["counterfactual"])
    target = answer["target_class"]
    valid = np.abs(again[np.arange(len(x)), target] - 1.0) <= 0.05
    np.testing.assert_array_equal(valid[answer["found"]], True)
    assert (target != answer["original_class"]).all()
    np.testing.assert_array_equal(answer["counterfactual_class"][answer["found"]], target[answer["found"]])


@pytest.mark.parametrize("road", ROADS)
def test_every_score_is_of_the_row_beside_it(x, road):
    answer = explainer(road)(x, {"max_rows": 40})  # some are stopped, some given back
    np.testing.assert_allclose(
        answer["counterfactual_proba"], rowwise(W)(answer["counterfactual"]), atol=1e-6
    )
    np.testing.assert_allclose(answer["original_proba"], rowwise(W)(x), atol=1e-6)
    given_back = (answer["counterfactual"] == x).reshape(len(x), -1).all(axis=1)
    np.testing.assert_array_equal(given_back, ~answer["found"])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["fast", "reference"]), st.integers(0, 10**6), st.floats(0.05, 1.0), st.floats(0.01, 0.9)
)
def test_other_means_that_the_class_changes_whatever_is_asked_for(road, seed, proba, tol):
    # Soft scores: with a wide band a point may be valid by its probability and have the class of its row.
    gentle = weights(seed=seed) / 4
    rows = np.random.default_rng(seed).uniform(0, 1, (4, *SHAPE)).astype("f")
    short = {"max_iter": 30, "max_lam_steps": 2} if road == "reference" else {"effort": "quick"}
    answer = explainer(road, Linear(gentle), **short)(rows, {"target_proba": proba, "tol": tol})
    found = answer["found"]
    again = rowwise(gentle)(answer["counterfactual"])
    assert (again.argmax(axis=1) != answer["original_class"])[found].all()
    reached = again[np.arange(4), answer["target_class"]]
    assert (np.abs(reached - proba) <= tol + 1e-6)[found].all()
    np.testing.assert_array_equal(answer["counterfactual"][~found], rows[~found])


def test_a_target_below_the_runner_up_is_found_as_well_as_by_the_reference_schedule():
    gentle = Linear(weights(seed=2) * 0.27)
    rows = np.random.default_rng(0).uniform(0, 1, (4, *SHAPE)).astype("f")
    # At .2 + .05 of three classes one is the likeliest only if another has more than that: none can be found.
    assert not explainer(predictor=gentle)(rows, {"target_proba": 0.2})["found"].any()
    for proba in (0.4, 0.6):
        ours, theirs = (
            explainer(road, gentle)(rows, {"target_proba": proba})["found"] for road in ("fast", "reference")
        )
        assert ours.sum() >= theirs.sum()


ALREADY = {
    "a number": (1, 0.9, 0.3),
    "the same": ("same", 0.9, 0.3),
    "a low target": (2, 0.0, 0.3),
}
"""Class, probability and tolerance: some rows of a gentle model meet each of them."""


@pytest.mark.parametrize("asked", ALREADY)
@pytest.mark.parametrize("road", ROADS)
def test_a_row_that_meets_the_request_is_its_own_counterfactual(road, asked):
    wanted, proba, tol = ALREADY[asked]
    model = Linear(GENTLE)
    rows = np.random.default_rng(3).uniform(0, 1, (12, *SHAPE)).astype("f")
    scores = model(rows)
    column = scores.argmax(axis=1) if wanted == "same" else np.full(12, wanted)
    met = np.abs(scores[np.arange(12), column] - proba) < tol - 1e-3
    assert 0 < met.sum() < 12
    options = {"target_class": wanted, "target_proba": proba, "tol": tol}
    short = {"max_iter": 20, "max_lam_steps": 2} if road == "reference" else {"effort": "quick"}
    run = explainer(road, model, **short)
    answer = run(rows, options)
    assert answer["found"][met].all()
    assert set(answer["status"][met]) == {"ok"}
    assert answer["counterfactual"][met].tobytes() == rows[met].tobytes()
    np.testing.assert_array_equal(answer["distance_l1"][met], 0)
    np.testing.assert_array_equal(answer["lam"][met], -1)  # nothing had to be paid
    for name, fields in alone(run, rows, options).items():  # and the others are not disturbed by those done
        np.testing.assert_array_equal(fields, answer[name], err_msg=name)


def test_one_row_that_meets_the_request_costs_one_row(x):
    own = int(rowwise(W)(x[:1]).argmax())
    answer = explainer()(x[:1], {"target_class": own, "tol": 0.9})
    assert answer["found"].all()
    assert answer.cost.rows <= 2  # itself, and once more to confirm


def test_an_impossible_target_is_an_answer_not_an_error(x):
    narrow = x * np.float32(0.6) + np.float32(0.2)
    answer = explainer(feature_range=(0.2, 0.8))(narrow, {"target_proba": 1.0, "tol": 1e-9})
    assert not answer["found"].any()
    assert set(answer["status"]) == {"not_found"}
    np.testing.assert_array_equal(answer["counterfactual"], narrow)


def test_a_search_without_a_single_row_says_so_and_claims_nothing(x):
    answer = explainer()(x[:2], {"max_rows": 1})
    assert set(answer["status"]) == {"budget_exhausted"}
    np.testing.assert_array_equal(answer["counterfactual_class"], -1)
    np.testing.assert_array_equal(answer["original_class"], -1)
    np.testing.assert_array_equal(answer["counterfactual"], x[:2])


# --- models that do not say the same twice --------------------------------------------------------------


class Noisy(Linear):
    """Adds noise to its logits that depends on the call, but not on chance."""

    def __init__(self, w, size: float) -> None:
        super().__init__(w)
        self.size, self.asked = size, 0

    def log_scores(self, x):
        self.asked += 1
        rng = np.random.default_rng([self.asked, len(x)])
        said = super().log_scores(x) + self.size * rng.normal(size=(len(x), len(self.w)))
        return (said - np.logaddexp.reduce(said, axis=1, keepdims=True)).astype("f")


@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.05])
def test_what_a_noisy_model_takes_back_is_given_back(size):
    rows = np.random.default_rng(1).uniform(0, 1, (32, *SHAPE)).astype("f")
    run = explainer(predictor=Noisy(W, size), tol=0.05)
    answer = run(rows)
    found = answer["found"]
    moved = (answer["counterfactual"] != rows).reshape(32, -1).any(axis=1)
    np.testing.assert_array_equal(moved, found)  # never a changed row that is not one
    reached = answer["counterfactual_proba"][np.arange(32), answer["target_class"]]
    assert (reached >= 0.95)[found].all()
    assert (answer["counterfactual_class"] != answer["original_class"])[found].all()
    assert found.mean() >= 0.9  # the runner-up has a quarter of a log-odds to spare, five times the noise


def test_where_the_model_takes_its_word_back_the_runner_up_is_put_to_it(x):
    class Fickle(Linear):
        """Its last bits change once, just before the end: a fifth of a log-odds."""

        def __init__(self) -> None:
            super().__init__(W)
            self.last = 10**9

        def log_scores(self, x):
            said = super().log_scores(x)
            if self.calls < self.last:
                return said
            doubt = (said.argmax(axis=1)[:, None] == np.arange(CLASSES)) * np.float32(-0.2)
            return (said + doubt - np.logaddexp.reduce(said + doubt, axis=1, keepdims=True)).astype("f")

    fickle = Fickle()
    run = explainer(predictor=fickle, tol=0.05)
    fickle.calls = 0
    before = run(x)
    calls, fickle.calls = fickle.calls, 0
    fickle.last = calls  # the last check is the first to be told so
    after = run(x)
    assert after["found"].all()
    assert fickle.calls == calls + 1
    again = fickle(after["counterfactual"])[np.arange(len(x)), after["target_class"]]
    assert (again >= 0.95).all()
    assert (after["distance_l1"] >= before["distance_l1"]).all()


def test_what_the_model_has_taken_back_is_not_given_for_want_of_a_budget(x):
    class Fickle(Linear):
        """From its `last` call on it is sure of class 0, whatever it is shown."""

        last = 10**9

        def log_scores(self, x):
            said = super().log_scores(x)
            sure = np.log(np.float32([0.98, *[0.02 / (CLASSES - 1)] * (CLASSES - 1)]))
            return said if self.calls < self.last else np.tile(sure, (len(x), 1))

    model = Fickle(W)
    row = next(row[None] for row in x if model(row[None]).argmax() != 0)
    run = explainer(predictor=model, target_class=3 - int(model(row).argmax()))
    model.calls = model.rows = 0
    assert run(row)["found"].all()
    model.last, rows = model.calls, model.rows  # the last check is the first to be told so
    for allowed in (rows, 10**6):  # with and without a row left for the runner-up
        model.calls = 0
        assert not run(row, {"max_rows": allowed})["found"].any()


# --- probabilities that vanish --------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["balanced", "smallest"])
def test_the_scale_of_the_logits_changes_nothing_that_is_found(objective):
    w = np.random.default_rng(0).normal(size=(5, 36)).astype("f") * 10
    rows = np.random.default_rng(1).uniform(0, 1, (12, 6, 6, 1)).astype("f")
    contract = Inputs(shape=(6, 6, 1), low=0, high=1, classes=5)
    lengths = []
    for scale in (1, 3, 6, 12):  # gaps of logits beyond 200
        answer = explainer(predictor=Linear(w * scale), contract=contract, objective=objective)(rows)
        assert answer["found"].all()
        lengths.append(answer["distance_l1"])
    # The steeper, the nearer a border that is always the same: .95 lies log(19) / scale beyond it.
    assert (np.array(lengths[1:]) <= 1.05 * np.array(lengths[:-1])).all()


# --- what is asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_answers_stay_inside_the_feature_range(x, road):
    low, high = np.full(SHAPE, 0.1), np.linspace(0.75, 0.95, 16).reshape(SHAPE)
    answer = explainer(road, feature_range=(low.tolist(), high.tolist()))(x)
    found = answer["found"]
    assert found.any()
    assert (answer["counterfactual"] >= low.astype("f"))[found].all()
    assert (answer["counterfactual"] <= high.astype("f"))[found].all()


FREEZING = {
    "a mask": lambda free, x: ({"region": free.tolist()}, {}),
    "a mask that broadcasts": lambda free, x: ({"region": free[:, :1].tolist()}, {}),
    "equal bounds": lambda free, x: (
        {},
        {"feature_range": (np.where(free, 0, x[0]).tolist(), np.where(free, 1, x[0]).tolist())},
    ),
}


@pytest.mark.parametrize("how", FREEZING)
@pytest.mark.parametrize("road", ROADS)
def test_what_may_not_change_does_not(x, road, how):
    free = np.broadcast_to(np.array([True, False, True, True])[:, None, None], SHAPE)
    options, fixed = FREEZING[how](free, x)
    answer = explainer(road, tol=0.4, **fixed)(x[:1], options)
    assert answer["found"].all()
    np.testing.assert_array_equal(answer["counterfactual"][:, ~free], x[:1, ~free])
    assert answer["distance_l1"] > 0


def test_where_nothing_may_change_nothing_is_found(x):
    answer = explainer()(x, {"region": False})
    assert not answer["found"].any()
    np.testing.assert_array_equal(answer["counterfactual"], x)


@pytest.mark.parametrize("wanted", range(CLASSES))
def test_a_numbered_class_is_reached(x, wanted):
    answer = explainer()(x, {"target_class": wanted, "tol": 0.2})
    assert answer["found"].all()
    np.testing.assert_array_equal(answer["target_class"], wanted)
    assert (answer["counterfactual_proba"][:, wanted] >= 0.8).all()


@pytest.mark.parametrize("road", ["fast", "full"])
@pytest.mark.parametrize("proba", [0.05, 0.3, 0.6])
def test_a_probability_between_is_met_within_the_tolerance_from_either_side(x, road, proba):
    answer = explainer(road, Linear(GENTLE))(x, {"target_class": 1, "target_proba": proba, "tol": 0.02})
    own = answer["original_proba"][:, 1]
    assert own.min() < proba < own.max()  # some fall to it, some rise
    assert answer["found"].all()
    assert (np.abs(answer["counterfactual_proba"][:, 1] - proba) <= 0.02).all()


def test_same_lowers_the_probability_of_the_class_the_row_has(x):
    answer = explainer()(x, {"target_class": "same", "target_proba": 0.5, "tol": 0.05})
    assert answer["found"].all()
    rows = np.arange(len(x))
    assert (np.abs(answer["counterfactual_proba"][rows, answer["original_class"]] - 0.5) <= 0.05).all()


def test_more_effort_takes_more_rows_and_finds_no_longer_changes(x):
    answers = [explainer(effort=effort)(x) for effort in ("quick", "standard", "thorough")]
    assert all(answer["found"].all() for answer in answers)
    rows = [answer.cost.rows for answer in answers]
    assert rows == sorted(rows)
    quick, standard, thorough = (np.median(answer["distance_l1"]) for answer in answers)
    assert thorough <= standard * 1.01 <= quick * 1.02


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.0, 255.0), (-1.0, 1.0)])
@pytest.mark.parametrize("road", ["fast", "smallest", "random", "full"])
def test_units_change_no_answer_beyond_rounding(x, road, low, high):
    unit = high - low
    model = Linear(W / unit, bias=-(W * low / unit).sum(axis=1))
    there = (x * np.float32(unit) + np.float32(low)).astype("f")
    contract = Inputs(shape=SHAPE, low=low, high=high, classes=CLASSES)
    ours = explainer(road)(x)
    theirs = explainer(road, model, contract)(there)
    np.testing.assert_array_equal(ours["found"], theirs["found"])
    np.testing.assert_array_equal(ours["target_class"], theirs["target_class"])
    # Float32 rows in other units are rounded elsewhere, 1e-7 of the range; slopes by differences of a
    # hundredth of it carry that a hundredfold, and which of two equal changes goes is then a matter of luck.
    tolerance = 1e-3 if road in ("fast", "smallest") else 0.05
    np.testing.assert_allclose(ours["distance_l1"] * unit, theirs["distance_l1"], rtol=tolerance)
    np.testing.assert_allclose(ours["counterfactual_proba"], theirs["counterfactual_proba"], atol=tolerance)


def test_a_model_of_whole_numbers_is_answered_with_whole_numbers():
    class Bytes(Linear):
        integers = True

        def snap(self, x):
            return np.rint(x).clip(0, 255)

        def _logs(self, x):
            return super()._logs(self.snap(x))

    rows = np.random.default_rng(5).integers(0, 256, (6, *SHAPE)).astype("f")
    contract = Inputs(shape=SHAPE, low=0, high=255, classes=CLASSES)
    model = Bytes(W / 255)
    for road in ("fast", "random"):
        answer = explainer(road, model, contract)(rows)
        assert answer["found"].all()
        np.testing.assert_array_equal(answer["counterfactual"], np.rint(answer["counterfactual"]))
        np.testing.assert_allclose(answer["counterfactual_proba"], model(answer["counterfactual"]), atol=1e-6)
        change = np.abs(answer["counterfactual"] - rows).reshape(6, -1)
        np.testing.assert_allclose(answer["distance_l1"], change.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.1, 0.9), (0.2, 0.6), (-3.0, 0.3)])
def test_whole_numbers_stay_inside_bounds_that_lie_between_them(low, high):
    class Bytes(Linear):
        integers = True

        def snap(self, x):
            return np.rint(x * 255.0).clip(0, 255).astype("f") / np.float32(255)

    rows = np.random.default_rng(5).uniform(0, 1, (6, *SHAPE)).astype("f")
    answer = explainer(predictor=Bytes(10 * W), feature_range=(low, high), tol=0.45)(rows)
    found = answer["counterfactual"][answer["found"]]
    assert len(found)
    assert low - 1e-6 <= found.min() <= found.max() <= high + 1e-6
    np.testing.assert_allclose(found * 255, np.rint(found * 255), atol=1e-4)
    # 0.2 and 0.6 are 51 and 153 parts of 255: bounds that can be taken are.
    assert found.max() > high - 1 / 255 or found.min() < low + 1 / 255


def test_independent_scores_are_explained_as_they_are():
    model = Linear(W / 3, exclusive=False)
    rows = np.random.default_rng(6).uniform(0, 1, (6, *SHAPE)).astype("f")
    answer = explainer(predictor=model)(rows, {"tol": 0.4})
    assert answer["found"].any()
    again = model(answer["counterfactual"])
    found = answer["found"]
    assert (again.argmax(axis=1) != model(rows).argmax(axis=1))[found].all()
    assert (again[np.arange(6), answer["target_class"]] >= 0.6)[found].all()


# --- what is answered -----------------------------------------------------------------------------------


def test_distances_are_those_of_the_answer(x):
    answer = explainer()(x)
    change = np.abs(answer["counterfactual"] - x).reshape(len(x), -1)
    np.testing.assert_allclose(answer["distance_l1"], change.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(answer["distance_l2"], np.sqrt((change**2).sum(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(answer["distance_l0"], (change > 1e-6).sum(axis=1))
    np.testing.assert_allclose(answer["sparsity"], 1 - answer["distance_l0"] / 16)


def test_lambda_is_the_price_of_a_log_odds_in_distance(x):
    w = weights(seed=5, classes=2)
    rows = x[rowwise(w)(x).argmax(axis=1) == 0]
    contract = Inputs(shape=SHAPE, low=0, high=1, classes=2)
    near, far = (
        explainer("smallest", Linear(w), contract)(rows, {"target_proba": p, "tol": 0.01})
        for p in (0.9, 0.95)
    )
    slope = np.abs(w[1] - w[0])
    assert near["found"].all()
    # The last feature to be moved is worth |w| log-odds a unit: lambda lies among the slopes there are, but
    # for the squares that count a little beside; and each next log-odds is dearer.
    assert (near["lam"] > 0.5 * slope.min()).all()
    assert (near["lam"] < 1.05 * slope.max()).all()
    assert (far["lam"] <= near["lam"] * 1.05).all()


def test_the_reference_schedule_reports_the_lambda_of_its_answer(x):
    answer = explainer("reference")(x)
    assert (answer["lam"][answer["found"]] > 0).all()


@pytest.mark.parametrize("road", ["fast", "reference"])
def test_the_way_is_shown_where_it_is_asked_for(x, road):
    answer = explainer(road)(x, {"keep_path": True})
    assert not explainer(road)(x).raw
    for row, told in enumerate(answer.raw):
        np.testing.assert_array_equal(told["row"], x[row])
        assert told["path"]
        for point in told["path"]:
            assert point["weight"] > 0
            np.testing.assert_allclose(point["proba"], rowwise(W)(point["x"][None])[0], atol=1e-6)
            assert point["proba"].argmax() != answer["original_class"][row]


def test_plausibility_is_that_of_the_answer(x, tmp_path):
    keras = pytest.importorskip("keras")
    row = keras.Input(SHAPE)
    shrunk = keras.layers.Rescaling(0.5)(row)  # rebuilds every row at half its size
    fitted = fit(Counterfactual(), inputs=CONTRACT, autoencoder=keras.Model(row, shrunk))
    fitted = load(save(fitted, tmp_path / "cf"))
    answer = prepare(fitted, Linear(W), warm=False)(x, limits=PATIENT)
    lost = ((0.5 * answer["counterfactual"]) ** 2).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(answer["autoencoder_error"], lost, rtol=1e-5)


def test_meta_is_what_ran(x):
    spec = explainer()(x, {"tol": 0.3, "effort": "quick", "objective": "smallest"}).meta["spec"]
    assert (spec["tol"], spec["effort"], spec["objective"]) == (0.3, "quick", "smallest")


# --- budgets --------------------------------------------------------------------------------------------


def test_steps_are_counted_for_every_lane(x):
    answer = explainer()(x)
    assert answer.cost.rows > answer.cost.steps > 0  # each costs a row, and not every row is a step
    assert explainer("random", CallablePredictor(rowwise(W)))(x[:1]).cost.steps > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 60), st.sampled_from(list(ROADS)))
def test_any_budget_is_kept_and_what_is_found_is_valid(rows, calls, road):
    x = np.random.default_rng(1).uniform(0.2, 0.8, (2, *SHAPE)).astype("f")
    predictor = Counting(rowwise(W), 4096) if "gradient" in ROADS[road] else Linear(W)
    short = {"effort": "quick"} if road != "reference" else {"max_iter": 50, "max_lam_steps": 3}
    run = explainer(road, predictor, **short)
    already = predictor.rows, predictor.calls  # to be met, and timed
    answer = run(x, {"max_rows": rows, "max_calls": calls})
    assert predictor.rows - already[0] == answer.cost.rows <= rows
    assert answer.cost.calls <= calls
    if not isinstance(predictor, Linear):  # calls to one in this process may be cut by the clock
        assert predictor.calls - already[1] == answer.cost.calls
    again = rowwise(W)(answer["counterfactual"])
    if answer["original_class"][0] >= 0:
        valid = np.abs(again[np.arange(2), answer["target_class"]] - 1) <= 0.05
        assert valid[answer["found"]].all()
    assert set(answer["status"]) <= {"ok", "not_found", "budget_exhausted"}


def test_a_request_cannot_raise_the_operators_budget(x):
    predictor = Counting(rowwise(W), 4096)
    run = prepare(fit(Counterfactual(gradient="random"), inputs=CONTRACT), predictor)
    answer = run(x, {"max_rows": 10**6}, limits=Limits(max_rows=300, max_seconds=3600))
    assert predictor.rows <= 300
    assert "budget_exhausted" in answer["status"]


# --- refused by name ------------------------------------------------------------------------------------


def test_a_class_beyond_the_models_is_refused_by_name(x):
    with pytest.raises(InvalidOption, match=r"target_class: .* 0 to 2, got 3"):
        explainer()(x, {"target_class": 3})
    with pytest.raises(InvalidSpec, match="target_class"):
        fit(Counterfactual(target_class=7), inputs=CONTRACT)


def test_exact_gradients_are_refused_for_an_endpoint():
    fitted = fit(Counterfactual(gradient="exact"), inputs=CONTRACT)
    with pytest.raises(InvalidSpec, match="exact"):
        prepare(fitted, CallablePredictor(rowwise(W)))


REGIONS = [[[True, False]] * 7, [[1], [1, 0]], [[{}]], [["1"]], [[None]], [[np.nan]], [[10**400]], []]


@pytest.mark.parametrize("region", REGIONS, ids=repr)
def test_a_region_that_is_none_is_refused_by_name(x, region):
    with pytest.raises(InvalidOption, match="region") as refused:
        explainer()(x, {"region": region})
    assert refused.value.field == "region"


@pytest.mark.parametrize("high", [((1e300,),), (({},),), ((None,),), ((0.5, "1"),)], ids=repr)
def test_bounds_that_are_no_numbers_are_refused_by_name(high):
    with pytest.raises(InvalidSpec, match="feature_range"):
        fit(Counterfactual(feature_range=(0.0, high)), inputs=CONTRACT)


def test_settings_of_the_first_version_are_understood():
    with pytest.warns(DeprecationWarning, match="refine_steps: has no effect"):
        Counterfactual(refine_steps=7)
    assert Counterfactual(refine_steps=50, grow_steps=30, grow_features=4) == Counterfactual()


def test_several_answers_are_the_nearest_of_as_many_classes_each_confirmed():
    w = weights(seed=7, classes=5)
    x = np.random.default_rng(8).uniform(0, 1, (4, *SHAPE)).astype("f")
    inputs = Inputs(shape=SHAPE, low=0, high=1, classes=5)
    explain = prepare(fit(Counterfactual(tol=0.4), inputs=inputs), Linear(w))
    one, three = explain(x), explain(x, {"answers": 3})
    assert three["found"].all()
    for row, held in enumerate(raw["answers"] for raw in three.raw):
        classes = [answer["class"] for answer in held]
        assert len(set(classes)) == len(classes) == 3
        distances = [answer["distance_l1"] for answer in held]
        np.testing.assert_array_equal(held[0]["x"], three["counterfactual"][row])
        # They are ranked by the objective, of which a squared distance is a part.
        assert distances[0] <= 1.1 * min(distances)
        for answer in held:
            said = rowwise(w)(answer["x"][None])[0]
            assert said.argmax() == answer["class"] != three["original_class"][row]
            assert said.max() >= 0.6
    # More lanes are carried to the end, so the nearest is no farther than it is alone.
    assert (three["distance_l1"] <= one["distance_l1"] * 1.02).all()


def test_a_region_may_be_an_array():
    x = np.random.default_rng(8).uniform(0, 1, (1, *SHAPE)).astype("f")
    free = np.ones(SHAPE, bool)
    free[:, :2] = False
    run = explainer()
    answer = run(x, {"region": free})
    np.testing.assert_array_equal(answer["counterfactual"][:, :, :2], x[:, :, :2])
    assert answer.to_json() == run(x, {"region": free.tolist()}).to_json()
