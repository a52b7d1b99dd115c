"""Smooth counterfactuals: the fewest cells of a grid, each changed so much that it can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Linear

from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.search.spaces import Pixels, Smooth
from explainer_runtime.spec import Counterfactual, Inputs, Limits

SIDE, CELLS, FAR = 12, 4, 0.25
PATIENT = Limits(max_seconds=3600)
NO_MORE = {"tol": 1.0}
"""Another class, however likely."""
GREY = np.full((1, SIDE, SIDE, 1), 0.5, "f")
"""Where no cell meets a bound."""


def grid(cells=CELLS):
    """The space in which a change of the grey image lives."""
    return Smooth(Pixels(GREY, 1.0, np.zeros_like(GREY), np.ones_like(GREY), plane=(0, 1)), cells, 1.0)


def model(seed, channels=1):
    """Two classes whose log-odds are linear in the pixels, smoothly: cells of very different worth."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(CELLS, CELLS, channels)) * rng.exponential(size=(CELLS, CELLS, 1))
    w = np.kron(coarse, np.ones((SIDE // CELLS, SIDE // CELLS, 1)))
    return np.stack([w.ravel(), np.zeros(w.size)])


def explainer(w, inputs=None, bias=0.0, **settings):
    inputs = inputs or Inputs(shape=(SIDE, SIDE, 1), low=0, high=1, classes=2)
    predictor = Linear(w, bias)
    run = prepare(fit(Counterfactual(space="smooth", **settings), inputs=inputs), predictor, warm=False)
    return lambda rows, options=None, **more: run(
        rows, {**NO_MORE, **(options or {})}, limits=PATIENT, **more
    )


def lacking(w, bias):
    """Log-odds by which the first class leads at the grey image."""
    return float(w[0].sum() / 2 + bias[0] - bias[1])


def gains(w, cells=CELLS):
    """What each cell takes off that lead at full amplitude, largest first."""
    slope = grid(cells).back(w[0].reshape(GREY.shape).astype("f"), np.zeros((1, cells, cells, 1), "f"), [0])
    return np.sort(FAR * np.abs(slope.ravel().astype("d")))[::-1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_of_a_linear_model_the_cells_are_the_fewest_there_are(seed, share):
    w = model(seed)
    worth = gains(w)
    # the first class leads by this share of all that cells do
    bias = [share * worth.sum() - w[0].sum() / 2, 0.0]
    answer = explainer(w, bias=np.array(bias), cells=CELLS, amplitude=FAR)(GREY)
    d = grid().toward(answer["counterfactual"], np.zeros(1, int))
    assert answer["found"][0]
    # two counts only where the cells make up the lead to within what float32 can tell
    low, high = (int(np.argmax(np.cumsum(worth) > lacking(w, bias) + by)) + 1 for by in (-1e-3, 1e-3))
    assert low <= (np.abs(d) > 1e-4).sum() <= high
    np.testing.assert_allclose(np.abs(d)[np.abs(d) > 1e-4], FAR, rtol=1e-3)


def test_each_cell_changes_in_its_own_colour_by_the_amplitude_or_not_at_all():
    w = model(3, channels=3)
    inputs = Inputs(shape=(SIDE, SIDE, 3), low=0, high=1, classes=2)
    grey = np.repeat(GREY, 3, axis=3)
    place = Smooth(Pixels(grey, 1.0, grey * 0, grey * 0 + 1, plane=(0, 1)), CELLS, 1.0)
    slope = place.back(w[0].reshape(grey.shape).astype("f"), np.zeros((1, CELLS, CELLS, 3), "f"), [0])
    bias = np.array([0.4 * FAR * np.abs(slope).max(axis=3).sum() - w[0].sum() / 2, 0.0])
    answer = explainer(w, inputs, bias, cells=CELLS, amplitude=FAR)(grey)
    assert answer["found"][0]
    d = place.toward(answer["counterfactual"], np.zeros(1, int))[0]
    most = np.abs(d).max(axis=-1)
    changed = most > 1e-4
    np.testing.assert_allclose(most[changed], FAR, rtol=1e-3)
    assert 0 < changed.sum() < CELLS**2
    for one in np.argwhere(changed):  # without any of them it is as it was
        less = d.copy()
        less[tuple(one)] = 0
        assert Linear(w, bias).log_scores(place.rows(less[None], np.zeros(1, int))).argmax() == 0


def test_channels_first_is_the_same_image():
    w, rng = model(5, channels=2), np.random.default_rng(0)
    rows = rng.uniform(0.3, 0.7, (3, SIDE, SIDE, 2)).astype("f")
    flipped = np.moveaxis(w.reshape(2, SIDE, SIDE, 2), 3, 1).reshape(2, -1)
    inputs = {"low": 0, "high": 1, "classes": 2}
    last = explainer(w, Inputs(shape=(SIDE, SIDE, 2), layout="channels_last", **inputs), cells=3)(rows)
    first = explainer(flipped, Inputs(shape=(2, SIDE, SIDE), layout="channels_first", **inputs), cells=3)(
        np.moveaxis(rows, 3, 1)
    )
    np.testing.assert_array_equal(last["found"], first["found"])
    assert last["found"].any()
    np.testing.assert_allclose(last["counterfactual"], np.moveaxis(first["counterfactual"], 1, 3), atol=1e-5)


def test_where_no_set_of_cells_will_do_the_least_smooth_change_does():
    w, cells = model(7), 8  # of 64 cells sets of 32 are looked at
    worth = gains(w, cells)
    bias = np.array([(worth[:32].sum() + worth.sum()) / 2 - w[0].sum() / 2, 0.0])
    answer = explainer(w, bias=bias, cells=cells, amplitude=FAR)(GREY)
    assert answer["found"][0]
    assert (np.abs(grid(cells).toward(answer["counterfactual"], np.zeros(1, int))) > 1e-4).sum() > 32
    beyond = np.array([1.5 * worth.sum() - w[0].sum() / 2, 0.0])
    answer = explainer(w, bias=beyond, cells=cells, amplitude=FAR)(GREY)
    assert not answer["found"][0]
    assert answer["counterfactual"].tobytes() == GREY.tobytes()


def test_few_slopes_say_where_to_go():
    w = model(3)
    bias = np.array([0.4 * gains(w).sum() - w[0].sum() / 2, 0.0])
    answer = explainer(w, bias=bias, cells=CELLS, amplitude=FAR)(GREY)
    assert answer["found"][0]
    assert answer.cost.steps <= 18


@pytest.mark.parametrize("calls", range(1, 30, 3))
def test_a_spent_budget_tells_the_best_so_far(calls):
    w = model(3)
    bias = np.array([0.4 * gains(w).sum() - w[0].sum() / 2, 0.0])
    answer = explainer(w, bias=bias, cells=CELLS, amplitude=FAR)(GREY, {"max_calls": calls})
    assert answer.cost.calls <= calls
    again = Linear(w, bias).log_scores(answer["counterfactual"]).argmax(axis=1)
    assert answer["found"][0] == (again[0] == 1)
    assert answer["status"][0] in ("ok", "budget_exhausted")


def test_what_is_no_image_has_no_smooth_change():
    flat = Inputs(shape=(9,), low=0, high=1, classes=2)
    with pytest.raises(InvalidSpec, match=r"space: a smooth one is of images, got rows \(9,\)"):
        fit(Counterfactual(space="smooth"), inputs=flat)
    run = prepare(fit(Counterfactual(), inputs=flat), Linear(np.eye(2, 9)), warm=False)
    with pytest.raises(InvalidOption, match="space: a smooth one is of images") as refused:
        run(np.full((1, 9), 0.5), {"space": "smooth"})
    assert refused.value.field == "space"
