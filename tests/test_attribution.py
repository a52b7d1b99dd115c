"""Attributions: they add up to what the model says, and nothing is claimed that chance may have made."""

from __future__ import annotations

import numpy as np
import pytest
from test_shapley import exact
from toys import Linear, convolution, rowwise, weights

from explainer_runtime import Attribution, artifact
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.render.cards import cards
from explainer_runtime.spec import Grid, Inputs, Limits

SHAPE = (6, 6, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
W = weights(seed=3, features=36)
MODEL = CallablePredictor(rowwise(W))
PATIENT = Limits(max_seconds=3600)


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (4, *SHAPE)).astype("f")


def explainer(inputs=INPUTS, model=MODEL, **settings):
    spec = Attribution(**{"segmentation": Grid(rows=3, columns=3), "fill": "constant", **settings})
    fitted = fit(spec, predictor=model, inputs=inputs)
    run = prepare(fitted, model, warm=False)

    def explain(rows, options=None, **limits):
        return run(rows, options, limits=PATIENT.model_copy(update=limits))

    explain.fitted = fitted
    return explain


def said(row, segments, target):
    """The model's probability of a class for masks of what is shown, the rest being zero."""

    def ask(shown):
        rows = np.where(shown[:, segments][..., None], row, np.float32(0))
        return rowwise(W)(rows)[:, target].astype(float)

    return ask


def test_with_all_sets_the_values_are_those_of_the_definition(x):
    answer = explainer(n_samples=600)(x)
    assert answer["found"].all()
    assert (answer["attribution_error"] == 0).all()
    for row, told in enumerate(answer.raw):
        truth = exact(said(x[row], answer["segments"][row], answer["target_class"][row]), 9)
        np.testing.assert_allclose(told["values"], truth, atol=1e-6)
        np.testing.assert_allclose(answer["attribution"][row], truth[answer["segments"][row]], atol=1e-6)


@pytest.mark.parametrize("output", ["proba", "log_odds"])
@pytest.mark.parametrize("target", ["predicted", 1])
def test_values_add_up_to_what_the_model_says(x, output, target):
    answer = explainer(output=output, n_samples=60)(x, {"target_class": target})
    own = rowwise(W)(x).argmax(axis=1)
    np.testing.assert_array_equal(answer["original_class"], own)
    np.testing.assert_array_equal(answer["target_class"], own if target == "predicted" else 1)
    before, hidden = (rowwise(W)(rows).astype(float) for rows in (x, np.zeros_like(x)))
    at = np.arange(len(x)), answer["target_class"]
    score = (lambda p: p) if output == "proba" else (lambda p: np.log(p / (1 - p)))
    np.testing.assert_allclose(answer["value"], score(before[at]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer["base_value"], score(hidden[at]), rtol=1e-4, atol=1e-5)
    for row, told in enumerate(answer.raw):
        total = answer["value"][row] - answer["base_value"][row]
        np.testing.assert_allclose(sum(told["values"]), total, rtol=1e-4, atol=1e-5)


def test_what_is_named_surely_matters_and_says_where_it_lies(x):
    answer = explainer(n_samples=60)(x)
    for told in answer.raw:
        sizes = [abs(one["value"]) for one in told["top"]]
        assert sizes == sorted(sizes, reverse=True)
        for one in told["top"]:
            assert abs(one["value"]) > 2 * one["error"]
            assert one["speaks"] == ("for" if one["value"] > 0 else "against")
            down, across = divmod(one["superpixel"], 3)
            words = f"{('upper', 'middle', 'lower')[down]} {('left', 'middle', 'right')[across]}"
            assert one["where"] == ("middle" if words == "middle middle" else words)


def test_a_seed_is_an_answer_and_another_is_another(x):
    explain = explainer(n_samples=40)
    assert explain(x).to_json() == explain(x).to_json()
    assert (explain(x)["attribution"] != explain(x, {"seed": 1})["attribution"]).any()


def test_one_superpixel_has_all_of_it(x):
    answer = explainer(segmentation=Grid(rows=1, columns=1))(x)
    whole = answer["value"] - answer["base_value"]
    everywhere = np.broadcast_to(whole[:, None, None], (4, 6, 6))
    np.testing.assert_allclose(answer["attribution"], everywhere, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 10])
def test_a_spent_budget_tells_nothing_rather_than_something_wrong(x, rows):
    answer = explainer()(x[:1], {"max_rows": rows})
    assert answer.cost.rows <= rows
    assert not answer["found"].any()
    assert answer["status"][0] == "budget_exhausted"
    assert not answer["attribution"].any()
    assert answer["target_class"][0] == -1


def test_an_artifact_gives_the_same_bytes(x, tmp_path):
    explain = explainer(n_samples=40)
    read = artifact.load(artifact.save(explain.fitted, tmp_path / "attribution"))
    assert prepare(read, MODEL, warm=False)(x, limits=PATIENT).to_json() == explain(x).to_json()


def test_classes_and_rows_that_there_are_not_are_refused(x):
    with pytest.raises(InvalidOption, match="target_class: expected 'predicted' or a class from 0 to 2"):
        explainer()(x, {"target_class": 3})
    with pytest.raises(InvalidSpec, match="attribution: expected images"):
        fit(Attribution(), inputs=Inputs(shape=(36,), low=0, high=1, classes=3))


def test_a_card_shows_what_speaks_for_the_class(x):
    inputs = INPUTS.model_copy(update={"class_names": ("boot", "bag", "coat")})
    answer = explainer(inputs)(x)
    for row, card in enumerate(cards(answer, x, inputs)):
        assert card.headline == f"What speaks for {inputs.class_names[answer['target_class'][row]]}"
        assert [panel.title for panel in card.panels] == ["input", "for and against", "speaks for it"]
    spent = cards(explainer(inputs)(x[:1], {"max_rows": 1}), x[:1], inputs)[0]
    assert not spent.found


# --- by gradients ---------------------------------------------------------------------------------------

WHITE = Linear(W)


class Straight(Linear):
    """A model whose scores are linear in the row, and so its gradient the same everywhere."""

    def _logs(self, x):
        scores = 0.5 + (x.reshape(len(x), -1).astype(np.float64) @ self.w.T) / 1000
        return np.log(scores).astype(np.float32)

    def slope(self, x, pull):
        said = self.log_scores(x)
        weight = pull(said).astype(np.float64) / np.exp(said.astype(np.float64))
        return said, (weight @ self.w / 1000).astype(np.float32).reshape(x.shape)


@pytest.mark.parametrize("algorithm", ["integrated_gradients", "smooth_grad", "shap"])
def test_of_a_linear_score_each_pixel_adds_its_weight_times_its_value(x, algorithm):
    model = Straight(W, exclusive=False)
    answer = explainer(model=model, algorithm=algorithm, n_samples=60)(x, {"target_class": 1})
    truth = (x * W[1].reshape(SHAPE) / 1000).sum(axis=-1)
    for row, told in enumerate(answer.raw):
        sums = np.bincount(answer["segments"][row].ravel(), truth[row].ravel())
        np.testing.assert_allclose(told["values"], sums, atol=2e-6)
    if algorithm != "shap":
        np.testing.assert_allclose(answer["attribution"], truth, atol=2e-6)
    np.testing.assert_allclose(answer["attribution_error"], 0, atol=1e-6)


@pytest.mark.parametrize("output", ["proba", "log_odds"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_integrated_gradients_add_up_as_their_steps_grow(x, output, exclusive):
    model = Linear(W / 3, exclusive=exclusive)
    gaps = []
    for steps in (10, 20, 400):
        explain = explainer(model=model, algorithm="integrated_gradients", output=output, n_steps=steps)
        answer = explain(x)
        total = answer["attribution"].sum(axis=(1, 2)) - (answer["value"] - answer["base_value"])
        np.testing.assert_allclose(answer["completeness_gap"], total, atol=2e-5)
        gaps.append(np.abs(answer["completeness_gap"]).max())
    assert gaps[2] < 1e-3
    assert gaps[1] < gaps[0] / 2 + 1e-5 or output == "log_odds"  # log-odds of two classes would be linear


def test_what_does_not_add_up_is_not_named(x):
    answer = explainer(model=Linear(8 * W), algorithm="integrated_gradients", n_steps=1)(x)
    for row, told in enumerate(answer.raw):
        gap = abs(answer["completeness_gap"][row])
        assert all(abs(one["value"]) > gap for one in told["top"])


def test_smooth_gradients_are_the_mean_of_gradients_of_noisy_copies(x):
    answer = explainer(model=WHITE, algorithm="smooth_grad", n_samples=20, stdev=0.2)(x[:1])
    rng = np.random.default_rng(0)
    copies = np.clip(x[:1] + 0.2 * rng.standard_normal((20, *SHAPE)), 0, 1).astype("f")
    scores, target = WHITE(copies).astype(float), int(answer["target_class"][0])
    own = scores[:, target, None] * (W[target] - scores @ W)
    each = own.reshape(20, *SHAPE) * x[0]
    np.testing.assert_allclose(answer["attribution"][0], each.mean(axis=0)[..., 0], atol=1e-5)
    np.testing.assert_allclose(
        answer["attribution_error"][0], each.std(axis=0, ddof=1)[..., 0] / np.sqrt(20), atol=1e-5
    )


def test_grad_cam_weighs_feature_maps_by_their_mean_slope(x):
    answer = explainer(model=convolution(W, SHAPE), algorithm="grad_cam")(x)
    scores = WHITE(x).astype(float)
    for row, target in enumerate(answer["target_class"]):
        slope = scores[row, target] * (W[target] - scores[row] @ W)
        np.testing.assert_allclose(
            answer["attribution"][row], np.maximum(x[row, ..., 0] * slope.mean(), 0), atol=1e-5
        )
    named = explainer(model=convolution(W, SHAPE), algorithm="grad_cam", layer="same")(x)
    np.testing.assert_array_equal(named["attribution"], answer["attribution"])


def test_where_feature_maps_speak_for_nothing_no_part_is_pointed_at():
    black = np.zeros((1, *SHAPE), "f")
    answer = explainer(model=convolution(W, SHAPE), algorithm="grad_cam")(black, {"quality": True})
    assert not answer["attribution"].any()
    assert answer.raw[0]["quality"]["sparsity"] == 1


@pytest.mark.parametrize("algorithm", ["integrated_gradients", "smooth_grad", "grad_cam"])
def test_gradients_of_an_endpoint_are_refused(algorithm):
    with pytest.raises(InvalidSpec, match="need the model in this process"):
        explainer(algorithm=algorithm)


def test_feature_maps_that_there_are_not_are_refused(x):
    with pytest.raises(InvalidSpec, match=r"has no layer 'other'; expected one of .*same"):
        explainer(model=convolution(W, SHAPE), algorithm="grad_cam", layer="other")(x)
    with pytest.raises(InvalidOption, match="grad_cam needs a Keras model"):
        explainer(model=WHITE, algorithm="grad_cam")(x)


@pytest.mark.parametrize("algorithm", ["rise", "hsic"])
def test_random_halves_find_what_a_linear_model_looks_at(x, algorithm):
    strong = np.zeros_like(W)
    strong[0, [0, 1, 6, 7]] = 3  # the first of nine cells
    answer = explainer(model=CallablePredictor(rowwise(strong)), algorithm=algorithm, n_samples=200)(x)
    for row, told in enumerate(answer.raw):
        assert int(np.abs(told["values"]).argmax()) == 0
        assert [one["superpixel"] for one in told["top"]][:1] == [0]
        assert answer["attribution_error"][row].min() > 0 or algorithm == "rise"


@pytest.mark.parametrize("algorithm", ["rise", "hsic", "smooth_grad"])
@pytest.mark.parametrize("few", [2, 4, 9])
def test_so_few_draws_that_they_agree_by_chance_name_nothing(x, algorithm, few):
    answer = explainer(model=WHITE, algorithm=algorithm, n_samples=few)(x)
    assert answer["found"].all()
    assert all(told["top"] == [] for told in answer.raw)
