"""Laws that every method shares, on every road to the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from toys import Linear, convolution, graph, weights

pytest.importorskip("tensorflow")

from explainer_runtime.errors import Cancelled, InvalidInput, InvalidOption, InvalidPrediction
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods import fields
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import (
    CEM,
    AnchorImage,
    Attribution,
    Counterfactual,
    CounterfactualProto,
    Grid,
    Inputs,
    Limits,
    ModelContract,
    Region,
)

SHAPE = (6, 6, 1)
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=3)
TWO = Inputs(shape=SHAPE, low=0, high=1, classes=2)
W = weights(seed=3, features=36)
WHITE, GRAPH, CONVOLUTION = Linear(W), graph(W, SHAPE), convolution(W, SHAPE)
BLACK = CallablePredictor(WHITE.function)
TRAIN = np.random.default_rng(4).uniform(0, 1, (60, *SHAPE)).astype("f")
FREE = np.arange(36).reshape(SHAPE) % 3 != 0
"""Where a row may change, where a request says so."""
PATIENT = Limits(max_seconds=3600)
"""No law here depends on the clock."""
SURROGATE = {"gradient": "surrogate", "effort": "quick"}
CELLS = AnchorImage(segmentation=Grid(rows=3, columns=3))
NINE = Grid(rows=3, columns=3)
CASES = {
    "counterfactual": (Counterfactual(), WHITE),
    "counterfactual graph": (Counterfactual(), GRAPH),
    "counterfactual smallest": (Counterfactual(objective="smallest", effort="quick"), WHITE),
    "counterfactual thorough": (Counterfactual(effort="thorough"), WHITE),
    "counterfactual region": (Counterfactual(region=FREE.tolist(), tol=0.3), WHITE),
    "counterfactual smooth": (Counterfactual(space="smooth", cells=3, amplitude=0.5, tol=1.0), WHITE),
    "counterfactual smooth surrogate": (Counterfactual(space="smooth", tol=1.0, **SURROGATE), BLACK),
    "counterfactual smooth directions": (Counterfactual(space="smooth", tol=1.0, effort="quick"), BLACK),
    "counterfactual directions": (Counterfactual(effort="quick"), BLACK),
    "counterfactual differences": (Counterfactual(gradient="full", effort="quick"), BLACK),
    "counterfactual surrogate": (Counterfactual(**SURROGATE), BLACK),
    "counterfactual reference": (Counterfactual(schedule="reference", max_iter=40, max_lam_steps=3), GRAPH),
    "prototype": (CounterfactualProto(theta=1.0), WHITE),
    "prototype directions": (CounterfactualProto(theta=1.0, gradient="random", effort="quick"), BLACK),
    "prototype surrogate": (CounterfactualProto(theta=1.0, **SURROGATE), BLACK),
    "prototype reference": (
        CounterfactualProto(theta=1.0, schedule="reference", max_iterations=50, beta=0.01),
        WHITE,
    ),
    "negative": (CEM(no_info_val=0.0), WHITE),
    "negative graph": (CEM(no_info_val=0.0, effort="quick"), GRAPH),
    "negative surrogate": (CEM(no_info_val=0.0, **SURROGATE), BLACK),
    "positive": (CEM(no_info_val=0.0, mode="PP"), WHITE),
    "positive difference": (
        CEM(no_info_val=0.0, mode="PP", pp_space="difference", gradient="random", effort="quick"),
        BLACK,
    ),
    "positive surrogate": (CEM(no_info_val=0.0, mode="PP", **SURROGATE), BLACK),
    "anchor": (CELLS, BLACK),
    "attribution": (Attribution(segmentation=Grid(rows=3, columns=3), n_samples=40), BLACK),
    "attribution rise": (Attribution(segmentation=NINE, algorithm="rise", n_samples=40), BLACK),
    "attribution hsic": (Attribution(segmentation=NINE, algorithm="hsic", n_samples=40), BLACK),
    "attribution integrated": (
        Attribution(segmentation=NINE, algorithm="integrated_gradients", n_steps=5),
        WHITE,
    ),
    "attribution smooth": (Attribution(segmentation=NINE, algorithm="smooth_grad", n_samples=5), GRAPH),
    "attribution maps": (Attribution(segmentation=NINE, algorithm="grad_cam"), CONVOLUTION),
    "region": (Region(segmentation=Grid(rows=3, columns=3)), BLACK),
    "region measured": (Region(segmentation=NINE, quality=True), BLACK),
    "region and others": (Region(segmentation=NINE, also=("anchor_image", "attribution")), BLACK),
    "gradients and others": (
        Attribution(segmentation=NINE, algorithm="integrated_gradients", also=("region",)),
        WHITE,
    ),
    "region in process": (Region(segmentation=Grid(rows=3, columns=3), fill="blur"), GRAPH),
    "region pasted": (Region(segmentation=Grid(rows=3, columns=3), change="paste"), BLACK),
    "anchor in process": (CELLS, GRAPH),
}


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (4, *SHAPE)).astype("f")


@pytest.fixture(params=CASES)
def explain(request):
    return explainer(request.param)


@cache
def explainer(case):
    spec, predictor = CASES[case]
    needs = (getattr(spec, "gradient", None) == "surrogate", getattr(spec, "change", None) == "paste")
    rows = TRAIN if isinstance(spec, CounterfactualProto) or any(needs) else None
    run = prepare(fit(spec, rows, predictor=predictor, inputs=CONTRACT), predictor)

    def explain(rows, options=None, **more):
        return run(rows, options, **{"limits": PATIENT, **more})

    explain.spec, explain.fitted = spec, run.fitted
    explain.exact = predictor in (
        WHITE,
        BLACK,
    )  # NumPy is made to compute each row by itself; TensorFlow does not
    return explain


def exactly(name, ours, theirs):
    assert ours.dtype == theirs.dtype, name
    assert ours.tobytes() == theirs.tobytes(), name


def test_explaining_a_batch_equals_explaining_each_row(explain, x):
    together = explain(x)
    alone = [explain(row[None]) for row in x]
    for name, rows in together.arrays.items():
        joined = np.concatenate([one[name] for one in alone])
        if explain.exact:  # row-wise to the last bit, so the answers are too
            exactly(name, rows, joined.astype(rows.dtype))
        elif rows.dtype.kind == "f":
            # Sums over a row may differ in the last bits with the batch, 1e-7 of values near one; taking
            # back compares them with a threshold once, which moves a change by one rung at most.
            np.testing.assert_allclose(rows, joined, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(rows, joined, err_msg=name)


def test_the_same_request_gives_the_same_bytes(explain, x):
    assert explain(x[:2]).to_json() == explain(x[:2]).to_json()


def test_eight_threads_get_what_one_gets(explain, x):
    expected = [explain(row[None]).to_json() for row in x[:2]]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: explain(x[i % 2][None]).to_json(), range(8)))
    assert answers == [expected[i % 2] for i in range(8)]


def test_the_input_is_left_as_it_was(explain, x):
    before = x.copy()
    x.flags.writeable = False
    explain(x[:1])
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


DTYPES = {"FP32": "f", "INT64": "i", "BOOL": "b", "BYTES": "U"}


def test_an_answer_has_the_fields_that_its_method_states(explain, x):
    stated = fields(explain.fitted)
    assert {name: (array.dtype.kind, array.shape[1:]) for name, array in explain(x).arrays.items()} == {
        name: (DTYPES[datatype], shape) for name, (datatype, shape) in stated.items()
    }


def test_what_is_found_the_model_says_when_it_is_asked_anew(explain, x):
    answer = explain(x)
    if answer.kind in ("anchor_image", "attribution"):
        given = answer["prediction" if answer.kind == "anchor_image" else "original_class"]
        np.testing.assert_array_equal(given, WHITE(x).argmax(axis=1))
        return
    noun = {"cem": "pertinent", "region": "hidden"}.get(answer.kind, "counterfactual")
    np.testing.assert_allclose(answer[f"{noun}_proba"], WHITE(answer[noun]), atol=1e-5)
    stays = WHITE(answer[noun]).argmax(axis=1) == WHITE(x).argmax(axis=1)
    assert answer["found"].any()
    positive = getattr(explain.spec, "mode", "PN") == "PP"
    np.testing.assert_array_equal(stays[answer["found"]], positive)
    np.testing.assert_array_equal(answer[noun][~answer["found"]], x[~answer["found"]])


@pytest.mark.parametrize(
    "spec",
    [Counterfactual(tol=0.7, effort="quick"), CounterfactualProto(effort="quick"), CEM(no_info_val=0.0)],
    ids=lambda spec: spec.kind,
)
def test_a_model_that_prefers_no_class_has_no_other_one(spec, x):
    undecided = CallablePredictor(lambda x: np.full((len(x), 3), 1 / 3, np.float32))
    answer = prepare(fit(spec, inputs=CONTRACT), undecided)(x, {"max_rows": 500})
    assert not answer["found"].any()


def test_what_may_not_change_does_not(explain, x):
    if (
        explain.spec.kind in ("anchor_image", "attribution", "region")
        or getattr(explain.spec, "pp_space", "") == "difference"
    ):
        pytest.skip("nothing of the row is changed")
    answer = explain(x[:2], {"region": FREE.tolist()})
    noun = "pertinent" if answer.kind == "cem" else "counterfactual"
    np.testing.assert_array_equal(answer[noun][:, ~FREE], x[:2, ~FREE])


class Noisy(Linear):
    """Its logits differ a little from call to call, by nothing but how many there were; or with the batch."""

    def __init__(self, size: float, batch: bool) -> None:
        super().__init__(W)
        self.size, self.batch, self.asked = size, batch, 0
        self.function = lambda x: np.exp(self.log_scores(x))

    def log_scores(self, x):
        self.asked += 1
        if self.batch:  # kernels are chosen by the size of a batch
            said = self._logs(x) * np.float32(1 + self.size * (len(x) % 7 - 3) / 3)
        else:
            said = self._logs(x) + self.size * np.random.default_rng(self.asked).normal(size=(len(x), 3))
        return (said - np.logaddexp.reduce(said, axis=1, keepdims=True)).astype("f")


@pytest.mark.parametrize(("size", "batch"), [(0.05, False), (1e-5, True), (1e-3, True)])
@pytest.mark.parametrize(
    "spec",
    [
        Counterfactual(effort="quick"),
        CounterfactualProto(effort="quick"),
        CEM(no_info_val=0.0, effort="quick"),
        CEM(no_info_val=0.0, effort="quick", mode="PP"),
    ],
    ids=lambda spec: spec.kind + getattr(spec, "mode", ""),
)
@pytest.mark.parametrize("road", ["exact", "random"])
def test_what_a_model_takes_back_is_given_back(spec, road, size, batch):
    x = np.random.default_rng(5).uniform(0, 1, (8, *SHAPE)).astype("f")
    model = Noisy(size, batch)
    predictor = model if road == "exact" else CallablePredictor(model.function)
    answer = prepare(fit(spec, inputs=CONTRACT), predictor, warm=False)(x, limits=PATIENT)
    noun, found = "pertinent" if answer.kind == "cem" else "counterfactual", answer["found"]
    np.testing.assert_array_equal(answer[noun][~found], x[~found])
    stays = answer[f"{noun}_class"] == answer["original_class"]  # by the word that was given last
    np.testing.assert_array_equal(stays[found], getattr(spec, "mode", "PN") == "PP")
    np.testing.assert_array_equal(answer[f"{noun}_proba"].argmax(axis=1), answer[f"{noun}_class"])
    assert found.any()


def test_a_budget_of_nothing_is_answered_not_raised(explain, x):
    answer = explain(x, {"max_rows": 1})
    assert not answer["found"].any()
    assert set(answer["status"]) == {"budget_exhausted"}
    assert answer.cost.rows <= 1


def test_progress_rises_to_the_end(explain, x):
    seen = []
    explain(x[:1], progress=seen.append)
    assert seen
    fractions, rows = [p.fraction for p in seen], [p.rows for p in seen]
    assert all(0 <= f <= 1 for f in fractions)
    assert fractions == sorted(fractions)
    assert rows == sorted(rows)


def test_cancelling_ends_it(explain, x):
    with pytest.raises(Cancelled):
        explain(x, cancel=lambda: True)


@pytest.mark.parametrize(("steep", "said"), [(1, 0), (1000, 1)])
def test_it_is_said_where_probabilities_end_before_a_search_can_follow(steep, said):
    w = steep * np.repeat([[30.0], [0.0]], 36, axis=1)  # no row in the range is of the other class
    spec = Counterfactual(gradient="full", effort="quick")
    run = prepare(fit(spec, inputs=TWO), CallablePredictor(Linear(w).function))
    answer = run(np.full((1, *SHAPE), 0.01 if steep == 1 else 0.9, "f"), {"target_proba": 1.0, "tol": 1e-4})
    assert not answer["found"].any()
    assert len(answer.meta.get("warnings", [])) == said
    assert "warnings" not in run(np.full((1, *SHAPE), 0.9, "f"), {"max_rows": 1}).meta


@pytest.mark.parametrize("spec", [CELLS, Counterfactual(), CEM(no_info_val=0.0)], ids=lambda spec: spec.kind)
def test_scores_that_have_no_logarithm_are_refused(spec, x):
    margins = CallablePredictor(lambda x: -1 - WHITE(x), ModelContract(output="scores"))
    with pytest.raises(InvalidPrediction, match=r"<lambda>: expected scores of 0 or more.*'logits'"):
        prepare(fit(spec, inputs=CONTRACT), margins)(x)


def test_a_counterfactual_has_no_probability_to_reach_among_votes(x):
    votes = CallablePredictor(lambda x: 60 * WHITE(x), ModelContract(output="scores"))
    with pytest.raises(InvalidPrediction, match="asks for a probability"):
        prepare(fit(Counterfactual(), inputs=CONTRACT), votes)(x)
    assert prepare(fit(CELLS, inputs=CONTRACT), votes)(x)["found"].any()


BAD_ROWS = {
    "wrong shape": (np.zeros((2, 5, 5, 1)), "shape"),
    "no batch axis": (np.zeros(SHAPE), "shape"),
    "empty": (np.zeros((0, *SHAPE)), "1 to 16 rows"),
    "too many": (np.zeros((17, *SHAPE)), "1 to 16 rows"),
    "NaN": (np.full((1, *SHAPE), np.nan), "finite"),
    "infinite": (np.full((1, *SHAPE), np.inf), "finite"),
    "beyond float32": (np.full((1, *SHAPE), 1e300), "finite"),
    "too large": (np.full((1, *SHAPE), 1.1), r"\[0, 1\]"),
    "too small": (np.full((1, *SHAPE), -0.1), r"\[0, 1\]"),
    "bytes": (np.full((1, *SHAPE), 200, np.uint8), "if they are bytes, let 0 be 0 and 255 be 1"),
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
    ("counterfactual", {"effort": "most"}),
    ("counterfactual", {"objective": "largest"}),
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


@pytest.mark.parametrize("options", ["seed", 5, [("seed", 1)]], ids=repr)
def test_options_that_are_no_mapping_are_refused(options, x):
    run = prepare(fit(CELLS, inputs=CONTRACT), BLACK)
    with pytest.raises(InvalidOption, match="expected a mapping"):
        run(x, options)
