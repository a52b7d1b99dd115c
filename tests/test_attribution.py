"""Attributions: they add up to what the model says, and nothing is claimed that chance may have made."""

from __future__ import annotations

import numpy as np
import pytest
from test_shapley import exact
from toys import rowwise, weights

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
