"""Contrastive explanations: boxes element by element, both modes, both spaces, what each may claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods.cem.method import _place
from explainer_runtime.spec import CEM, Inputs, Limits

CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
W = weights(seed=4)
PATIENT = Limits(max_seconds=3600, max_batch=64)
SCHEDULES = {
    "fast": {},
    "reference": {"schedule": "reference", "max_iterations": 200, "beta": 0.01, "c_steps": 4},
}
ROADS = SCHEDULES | {"random": {"gradient": "random"}, "full": {"gradient": "full"}}
NO_INFO = {"low": 0.0, "middle": 0.5, "outside": -1.0, "each": np.linspace(0, 1, 16).reshape(SHAPE).tolist()}
PARTS = [("PN", "absolute"), ("PP", "absolute"), ("PP", "difference")]


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.1, 0.9, (4, *SHAPE)).astype("f")


def explainer(model=None, contract=CONTRACT, **given_settings):
    spec = CEM(**{"no_info_val": 0.0, **given_settings})
    run = prepare(fit(spec, inputs=contract), model or Linear(W), warm=False)
    return lambda rows, options=None: run(rows, options, limits=PATIENT)


def size(change: np.ndarray) -> np.ndarray:
    return np.abs(change).reshape(len(change), -1).sum(axis=1)


# --- where it may search --------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(0, 1, width=32)] * 2, st.floats(-1, 2, width=32)),
    st.floats(0, 1, width=32),
)
def test_the_boxes_hold_what_the_projections_of_each_mode_keep(values, share):
    # PN keeps v where |v - no_info| >= |x - no_info|, PP where it is <=; element by element, so one will do.
    x, other, no_info = (np.full((1, 1), value, "f") for value in values)
    low, high = np.minimum(x, other), np.maximum(x, other)
    for mode, farther in (("PN", True), ("PP", False)):
        place = _place(x, CEM(mode=mode, no_info_val=0.0), no_info, low, high)
        v = np.clip(place.low + np.float32(share) * (place.high - place.low), place.low, place.high)
        assert (low <= v).all()
        assert (v <= high).all()
        change = np.abs(v.astype("d") - no_info) - np.abs(x.astype("d") - no_info)
        assert (change >= 0).all() if farther else (change <= 0).all()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(PARTS))
def test_a_search_starts_inside_its_box(seed, part):
    rng = np.random.default_rng(seed)
    x, low = rng.uniform(0, 1, (2, 3, 5)).astype("f")
    no_info, high = (
        rng.uniform(-1, 2, (3, 5)).astype("f"),
        np.maximum(low, rng.uniform(0, 1, (3, 5))).astype("f"),
    )
    place = _place(x, CEM(mode=part[0], pp_space=part[1], no_info_val=0.0), no_info, low, high)
    assert (place.low <= place.high).all()
    assert ((place.start >= place.low) & (place.start <= place.high)).all()


# --- what each mode promises ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("no_info", NO_INFO)
def test_a_negative_only_adds(x, schedule, no_info):
    value = np.asarray(NO_INFO[no_info], "f")
    answer = explainer(mode="PN", no_info_val=NO_INFO[no_info], **SCHEDULES[schedule])(x)
    assert answer["found"].any()
    pn = answer["pertinent"]
    assert ((np.abs(pn - value) > np.abs(x - value)) | (pn == x)).all()
    found = answer["found"]
    again = rowwise(W)(pn).argmax(axis=1)
    assert (again != answer["original_class"])[found].all()
    np.testing.assert_array_equal(again, answer["pertinent_class"])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("no_info", NO_INFO)
def test_a_positive_only_takes_away_and_keeps_its_class(x, schedule, no_info):
    value = np.asarray(NO_INFO[no_info], "f")
    sure = x[rowwise(W)(x).max(axis=1) > 0.55]
    answer = explainer(mode="PP", no_info_val=NO_INFO[no_info], **SCHEDULES[schedule])(sure)
    pp = answer["pertinent"]
    assert (np.abs(pp - value) <= np.abs(sure - value)).all()
    assert answer["found"].all()  # the whole row always does
    proba = rowwise(W)(pp)[np.arange(len(sure)), answer["original_class"]]
    assert (proba >= 0.5).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_difference_is_what_was_taken_away(x, schedule):
    answer = explainer(mode="PP", pp_space="difference", **SCHEDULES[schedule])(x)
    left = x - answer["pertinent"]
    assert (np.abs(left) <= np.abs(x) + 1e-7).all()  # no_info is 0; one rounding of the subtraction
    kept = rowwise(W)(answer["pertinent"]).argmax(axis=1) == answer["original_class"]
    np.testing.assert_array_equal(kept[answer["found"]], True)


def test_a_positive_is_smaller_than_the_row(x):
    sure = x[rowwise(W)(x).max(axis=1) > 0.55]
    answer = explainer(mode="PP")(sure)
    assert (answer["distance_l1"] < size(sure)).all()


@pytest.mark.parametrize("pp_space", ["absolute", "difference"])
def test_a_positive_of_a_row_whose_class_is_unsure_asks_for_what_the_row_has(pp_space):
    w = weights(seed=4, classes=10) / 30
    model = Linear(w)
    rows = np.random.default_rng(2).uniform(0.1, 0.9, (8, *SHAPE)).astype("f")
    own = model(rows)
    assert own.max() < 0.45
    contract = Inputs(shape=SHAPE, low=0, high=1, classes=10)
    answer = explainer(model, contract, mode="PP", pp_space=pp_space)(rows)
    assert answer["found"].all()
    again = model(answer["pertinent"])
    np.testing.assert_array_equal(again.argmax(axis=1), own.argmax(axis=1))
    if pp_space == "absolute":  # no less than the row, but for a thousandth of it
        assert (again.max(axis=1) >= own.max(axis=1) * 0.998).all()


@pytest.mark.parametrize("mode", ["PN", "PP"])
def test_kappa_is_the_lead_that_is_asked_for(x, mode):
    answer = explainer(mode=mode, kappa=0.6)(x)
    found = answer["found"]
    assert found.any()
    second, first = np.sort(rowwise(W)(answer["pertinent"]), axis=1)[:, -2:].T
    assert (first - second >= 0.6 - 1e-6)[found].all()


def test_the_lead_is_reached_where_it_can_be(x):
    answer = explainer(mode="PN", lead=4.0)(x)
    assert answer["found"].any()
    second, first = np.sort(answer["pertinent_proba"], axis=1)[:, -2:].T
    assert (first >= 3.99 * second)[answer["found"]].all()


# --- what is answered is what the model says of it ------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("road", ROADS)
def test_what_is_found_holds_and_what_is_not_is_the_row_itself(x, road, part):
    mode, space = part
    predictor = Linear(W) if road in SCHEDULES else Counting(Linear(W).function, 4096)
    for rows in (10**6, 50, 1):
        answer = explainer(predictor, mode=mode, pp_space=space, **ROADS[road])(x, {"max_rows": rows})
        found = answer["found"]
        again = rowwise(W)(answer["pertinent"])
        stays = again.argmax(axis=1) == rowwise(W)(x).argmax(axis=1)
        np.testing.assert_array_equal(stays[found], mode == "PP")
        np.testing.assert_array_equal(answer["pertinent"][~found], x[~found])
        np.testing.assert_array_equal(answer["distance_l1"][~found], 0)
        if rows == 1:
            assert not found.any()
            assert (answer["pertinent_class"] == -1).all()
            assert (answer["pertinent_proba"] == 0).all()
        else:
            np.testing.assert_allclose(answer["pertinent_proba"], again, atol=1e-6)
            np.testing.assert_array_equal(answer["pertinent_class"], again.argmax(axis=1))


@pytest.mark.parametrize("part", PARTS)
def test_distances_measure_what_was_added_or_kept(x, part):
    mode, space = part
    answer = explainer(mode=mode, pp_space=space, beta=0.2)(x)
    change = answer["pertinent"] - (x if mode == "PN" else 0)  # no_info is 0: what differs from it was kept
    change = np.where(answer["found"].reshape(-1, 1, 1, 1), change, 0)
    np.testing.assert_allclose(answer["distance_l1"], size(change), rtol=1e-5)
    net = 0.2 * size(change) + (change**2).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(answer["elastic_net"], net, rtol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.0, 255.0)])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("road", ["fast", "random", "full"])
def test_units_change_no_answer_beyond_rounding(x, road, part, low, high):
    mode, space = part
    if space == "difference" and low != 0:
        pytest.skip("a difference of rows is another row where zero is another value")
    unit = high - low
    settings = {"mode": mode, "pp_space": space, **ROADS[road]}
    ours = explainer(**settings)(x)
    model = Linear(W / unit, bias=-(W * low / unit).sum(axis=1))
    there = (x * np.float32(unit) + np.float32(low)).astype("f")
    contract = Inputs(shape=SHAPE, low=low, high=high, classes=CLASSES)
    theirs = explainer(model, contract, no_info_val=low, **settings)(there)
    np.testing.assert_array_equal(ours["found"], theirs["found"])
    # Rows in other units are rounded elsewhere, by 1e-7 of the range; see the same law of counterfactuals.
    tolerance = 1e-3 if road == "fast" else 0.05
    np.testing.assert_allclose(ours["elastic_net"], theirs["elastic_net"], rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(ours["distance_l1"] * unit, theirs["distance_l1"], rtol=tolerance)
    np.testing.assert_allclose(ours["pertinent_proba"], theirs["pertinent_proba"], atol=tolerance)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("mode", ["PN", "PP"])
def test_what_may_not_change_does_not(x, road, mode):
    free = np.broadcast_to(np.array([True, False, True, True])[:, None, None], SHAPE)
    answer = explainer(mode=mode, **ROADS[road])(x, {"region": free.tolist()})
    assert answer["found"].any()
    np.testing.assert_array_equal(answer["pertinent"][:, ~free], x[:, ~free])


def has_a_negative(w: np.ndarray, row: np.ndarray, no_info: float) -> bool:
    """Whether any addition changes the class of a linear model: a linear programme for each other class."""
    low, high = np.where(row > no_info, row, 0), np.where(row < no_info, row, 1)
    leads = []
    for wanted in set(range(len(w))) - {int((w @ row).argmax())}:
        behind = np.delete(w, wanted, axis=0) - w[wanted]  # + the lead, at most 0 for each
        best = linprog(
            np.append(np.zeros(row.size), -1),
            A_ub=np.column_stack([behind, np.ones(len(behind))]),
            b_ub=np.zeros(len(behind)),
            bounds=[*zip(low, high, strict=True), (None, None)],
        )
        leads.append(-best.fun)
    return max(leads) > 0


@pytest.mark.parametrize("mode", ["PN", "PP"])
def test_what_exists_is_found_whatever_the_scale_of_the_logits(mode):
    w = np.random.default_rng(0).normal(size=(5, 36)).astype("f") * 10
    rows = np.random.default_rng(1).uniform(0, 1, (8, 6, 6, 1)).astype("f")
    contract = Inputs(shape=(6, 6, 1), low=0, high=1, classes=5)
    exists = [mode == "PP" or has_a_negative(w, row.reshape(-1), 0.5) for row in rows]
    assert (False in exists) is (mode == "PN")
    for scale in (1, 3, 6, 12):
        answer = explainer(Linear(w * scale), contract, mode=mode, no_info_val=0.5)(rows)
        assert answer["found"].tolist() == exists


def test_two_classes_have_their_least_addition_in_closed_form():
    w = weights(seed=5, classes=2)
    rows = np.random.default_rng(1).uniform(0.2, 0.6, (12, *SHAPE)).astype("f")
    rows = rows[rowwise(w)(rows).argmax(axis=1) == 0][:4]
    contract = Inputs(shape=SHAPE, low=0, high=1, classes=2)
    answer = explainer(Linear(w), contract, mode="PN", beta=0.5, lead=1.0)(rows)
    slope = (w[1] - w[0]).astype("d")
    for row, net, found in zip(rows, answer["elastic_net"], answer["found"], strict=True):
        room = 1 - row.reshape(-1)  # away from no_info = 0 is up
        need = -slope @ row.reshape(-1)
        assert found == (slope.clip(0) @ room > need)
        low, high = 0.0, 1e6  # bisection on the multiplier of |d|_1 / 2 + |d|^2
        for _ in range(100):
            mu = (low + high) / 2
            d = np.clip((mu * slope - 0.5) / 2, 0, room)
            low, high = (low, mu) if slope @ d >= need else (mu, high)
        if found:
            least = 0.5 * d.sum() + (d**2).sum()
            assert least * (1 - 1e-4) <= net <= least * 1.05


# --- fitting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["median", "mean"])
def test_what_says_nothing_is_taken_from_the_training_rows(kind):
    train = np.random.default_rng(3).uniform(0, 1, (31, *SHAPE)).astype("f")
    fitted = fit(CEM(no_info_type=kind), train, inputs=CONTRACT)
    expected = getattr(np, kind)(train, axis=0)
    np.testing.assert_allclose(fitted.arrays["no_info"], expected, rtol=1e-6)


def test_a_request_may_ask_for_the_other_mode(x):
    run = explainer(mode="PN")
    assert run(x, {"mode": "PP"}).to_json() != run(x).to_json()
    assert run(x, {"mode": "PP"}).meta["spec"]["mode"] == "PP"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no_info_val"),
        ({"no_info_val": (1.0, 2.0)}, "broadcast"),
        ({"no_info_val": 0.0, "gamma": 1.0}, "gamma"),
    ],
)
def test_what_a_spec_needs_is_asked_for_by_name(settings, message):
    with pytest.raises(InvalidSpec, match=message):
        fit(CEM(**settings), inputs=CONTRACT)
