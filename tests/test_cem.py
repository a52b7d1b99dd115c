"""Contrastive explanations: projections element by element, both modes, both spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, graph, rowwise, weights

pytest.importorskip("tensorflow")

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods.cem import _space
from explainer_runtime.spec import CEM, Inputs

CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
W = weights(seed=4)
WHITE = graph(W)
SCHEDULES = {
    "fast": {},
    "reference": {"schedule": "reference", "max_iterations": 200, "beta": 0.01, "c_steps": 4},
}
NO_INFO = {"low": 0.0, "middle": 0.5, "outside": -1.0, "each": np.linspace(0, 1, 16).reshape(SHAPE).tolist()}


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.1, 0.9, (4, *SHAPE)).astype("f")


def explainer(**given_settings):
    spec = CEM(**{"no_info_val": 0.0, **given_settings})
    return prepare(fit(spec, inputs=CONTRACT), WHITE, warm=False)


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
        spec = CEM(mode=mode, no_info_val=0.0, pp_space="absolute")
        space = _space(x, spec, no_info, low, high)
        v = np.clip(space.low + np.float32(share) * (space.high - space.low), space.low, space.high)
        assert (low <= v).all()
        assert (v <= high).all()
        change = np.abs(v.astype("d") - no_info) - np.abs(x.astype("d") - no_info)
        assert (change >= 0).all() if farther else (change <= 0).all()


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
    assert (answer["distance_l1"] < np.abs(sure).reshape(len(sure), -1).sum(axis=1)).all()


@pytest.mark.parametrize("kind", ["median", "mean"])
def test_what_says_nothing_is_taken_from_the_training_rows(kind):
    train = np.random.default_rng(3).uniform(0, 1, (31, *SHAPE)).astype("f")
    fitted = fit(CEM(no_info_type=kind), train, inputs=CONTRACT)
    expected = getattr(np, kind)(train, axis=0)
    np.testing.assert_allclose(fitted.arrays["no_info"], expected, rtol=1e-6)


def test_a_request_may_ask_for_the_other_mode(x):
    run = explainer(mode="PN")
    assert run(x, {"mode": "PP"}).to_json() != run(x).to_json()


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
