"""Laws that every method shares, on every road to the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from toys import graph, rowwise, weights

pytest.importorskip("tensorflow")

from explainer_runtime.errors import Cancelled, InvalidInput, InvalidOption
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import CEM, AnchorImage, Counterfactual, CounterfactualProto, Grid, Inputs, Limits

SHAPE = (6, 6, 1)
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=3)
W = weights(seed=3, features=36)
BLACK, WHITE = CallablePredictor(rowwise(W)), graph(W, SHAPE)
OTHER = CallablePredictor(rowwise(W))  # for methods with networks in TensorFlow, whose last bits are not ours
TRAIN = np.random.default_rng(4).uniform(0, 1, (60, *SHAPE)).astype("f")
CASES = {
    "counterfactual black box": (Counterfactual(), BLACK),
    "counterfactual differences": (Counterfactual(gradient="full"), BLACK),
    "counterfactual surrogate": (Counterfactual(gradient="surrogate", effort="quick"), OTHER),
    "counterfactual white box": (Counterfactual(), WHITE),
    "counterfactual reference": (Counterfactual(schedule="reference", max_iter=40, max_lam_steps=3), WHITE),
    "prototype white box": (CounterfactualProto(theta=1.0), WHITE),
    "prototype black box": (CounterfactualProto(theta=1.0), OTHER),
    "prototype without a gradient": (CounterfactualProto(theta=1.0, c_init=0, c_steps=1), OTHER),
    "prototype reference": (
        CounterfactualProto(theta=1.0, schedule="reference", max_iterations=50, beta=0.01),
        WHITE,
    ),
    "negative": (CEM(no_info_val=0.0), WHITE),
    "positive": (CEM(no_info_val=0.0, mode="PP"), WHITE),
    "positive black box": (CEM(no_info_val=0.0, mode="PP", pp_space="difference"), OTHER),
    "anchor": (AnchorImage(segmentation=Grid(rows=3, columns=3)), BLACK),
    "anchor in process": (AnchorImage(segmentation=Grid(rows=3, columns=3)), WHITE),
}


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (5, *SHAPE)).astype("f")


@pytest.fixture(params=CASES)
def explain(request):
    return explainer(request.param)


@cache
def explainer(case):
    spec, predictor = CASES[case]
    needs_rows = isinstance(spec, CounterfactualProto) or getattr(spec, "gradient", None) == "surrogate"
    rows = TRAIN if needs_rows else None
    return prepare(fit(spec, rows, predictor=predictor, inputs=CONTRACT), predictor)


def exactly(name, ours, theirs):
    assert ours.dtype == theirs.dtype, name
    assert ours.tobytes() == theirs.tobytes(), name


def test_explaining_a_batch_equals_explaining_each_row(explain, x):
    together = explain(x)
    alone = [explain(row[None]) for row in x]
    for name, rows in together.arrays.items():
        joined = np.concatenate([one[name] for one in alone])
        if explain.predictor is BLACK:  # row-wise to the last bit, so the answers are too
            exactly(name, rows, joined.astype(rows.dtype))
        elif rows.dtype.kind == "f":
            # TensorFlow's sums over a row may differ in the last bits with the batch, 1e-7 of values near
            # one; pruning compares them with a threshold once, which moves a change by one rung at most.
            np.testing.assert_allclose(rows, joined, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(rows, joined, err_msg=name)


def test_the_same_request_gives_the_same_bytes(explain, x):
    assert explain(x).to_json() == explain(x).to_json()


def test_sixteen_threads_get_what_one_gets(explain, x):
    expected = [explain(row[None]).to_json() for row in x[:3]]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: explain(x[i % 3][None]).to_json(), range(16)))
    assert answers == [expected[i % 3] for i in range(16)]


def test_the_input_is_left_as_it_was(explain, x):
    before = x.copy()
    x.flags.writeable = False
    explain(x)
    exactly("input", x, before)


def test_every_field_is_finite_and_has_a_row_for_each_row(explain, x):
    answer = explain(x)
    assert {"found", "status", "original_proba"} <= set(answer.arrays)
    for name, array in answer.arrays.items():
        assert len(array) == len(x), name
        assert array.dtype.kind in "biUf", name
        assert array.dtype != np.float64, name
        if array.dtype.kind == "f":
            assert np.isfinite(array).all(), name


def test_a_budget_of_nothing_is_answered_not_raised(explain, x):
    answer = explain(x, {"max_rows": 1})
    assert not answer["found"].any()
    assert set(answer["status"]) == {"budget_exhausted"}
    assert answer.cost.rows <= 1


def test_progress_rises_to_the_end(explain, x):
    seen = []
    explain(x, progress=lambda p: seen.append(p))
    assert seen
    fractions, rows = [p.fraction for p in seen], [p.rows for p in seen]
    assert all(0 <= f <= 1 for f in fractions)
    assert rows == sorted(rows)


def test_cancelling_ends_it(explain, x):
    with pytest.raises(Cancelled):
        explain(x, cancel=lambda: True)


BAD_ROWS = {
    "wrong shape": (np.zeros((2, 5, 5, 1)), "shape"),
    "no batch axis": (np.zeros(SHAPE), "shape"),
    "empty": (np.zeros((0, *SHAPE)), "1 to 16 rows"),
    "too many": (np.zeros((17, *SHAPE)), "1 to 16 rows"),
    "NaN": (np.full((1, *SHAPE), np.nan), "finite"),
    "infinite": (np.full((1, *SHAPE), np.inf), "finite"),
    "too large": (np.full((1, *SHAPE), 1.1), r"\[0, 1\]"),
    "too small": (np.full((1, *SHAPE), -0.1), r"\[0, 1\]"),
    "words": (np.full((1, *SHAPE), "a"), "numbers"),
    "truths": (np.zeros((1, *SHAPE), bool), "numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "ragged"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_break_the_contract_are_refused(case):
    rows, message = BAD_ROWS[case]
    run = prepare(fit(Counterfactual(), inputs=CONTRACT), BLACK)
    with pytest.raises(InvalidInput, match=message):
        run(rows, limits=Limits())


BAD_OPTIONS = [
    ("counterfactual", {"target_class": -1}),
    ("counterfactual", {"target_class": "any"}),
    ("counterfactual", {"target_class": 3}),
    ("counterfactual", {"target_class": True}),
    ("counterfactual", {"target_proba": 1.5}),
    ("counterfactual", {"tol": 0}),
    ("counterfactual", {"seed": -1}),
    ("counterfactual", {"max_rows": 0}),
    ("counterfactual", {"threshold": 0.9}),
    ("anchor", {"threshold": 1}),
    ("anchor", {"p_sample": 0}),
    ("anchor", {"p_sample": float("nan")}),
    ("anchor", {"beam_size": 0}),
    ("anchor", {"seed": 1.5}),
    ("anchor", {"max_seconds": 0}),
]


@pytest.mark.parametrize(("kind", "options"), BAD_OPTIONS)
def test_options_out_of_range_are_refused_by_name(kind, options, x):
    spec = CASES["anchor"][0] if kind == "anchor" else Counterfactual()
    run = prepare(fit(spec, inputs=CONTRACT), BLACK)
    (name,) = options
    with pytest.raises(InvalidOption, match=name) as refused:
        run(x, options)
    assert refused.value.field == name
