"""Several answers at once, and how good they are: each says what it would say alone, from rows asked once."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Counting, Linear, drive, rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods import fields, named_beside
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.render.cards import cards
from explainer_runtime.render.page import html
from explainer_runtime.search.quality import cout, curves
from explainer_runtime.spec import AnchorImage, Attribution, Grid, Inputs, Limits, Neighbours, Region

SHAPE = (6, 6, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
W = weights(seed=3, features=36)
PATIENT = Limits(max_seconds=3600)
SHARED = {"segmentation": Grid(rows=3, columns=3), "fill": "blur"}
SPECS = {spec.kind: spec for spec in (AnchorImage(**SHARED), Region(**SHARED), Attribution(**SHARED))}


def sums():
    keras = pytest.importorskip("keras")
    made = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    made.set_weights([np.random.default_rng(2).normal(size=(36, 2)).astype("f"), np.zeros(2, "f")])
    return made


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (4, *SHAPE)).astype("f")


def explained(spec, x, options=None, model=None):
    model = model or Counting(rowwise(W), 10**6)
    return prepare(fit(spec, inputs=INPUTS), model, warm=False)(x, options, limits=PATIENT), model


@pytest.mark.parametrize("kind", SPECS)
def test_each_says_what_it_says_alone_and_together_they_ask_less(kind, x):
    others = [other for other in SPECS if other != kind]
    together, model = explained(SPECS[kind], x, {"also": others})
    assert together.kind == kind
    alone = {other: explained(spec, x) for other, spec in SPECS.items()}
    own = dict(alone[kind][0].arrays)
    for other in others:
        named = named_beside(other, alone[other][0].arrays, own)
        own |= {new: alone[other][0].arrays[old] for old, new in named.items()}
    assert together.arrays.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(together[name], array, err_msg=name)
    for row in range(len(x)):
        for other in others:
            assert repr(together.raw[row][other]) == repr(alone[other][0].raw[row])
        assert repr({**together.raw[row]}).startswith(repr(alone[kind][0].raw[row])[:-1])
    assert model.rows < sum(each.rows for _, each in alone.values())
    assert model.calls <= max(each.calls for _, each in alone.values())


def test_fields_that_are_taken_have_the_method_before_them():
    spec = Region(**SHARED, also=("attribution", "anchor_image"))
    named = fields(fit(spec, inputs=INPUTS))
    assert {"found", "attribution_found", "anchor_image_found", "size", "anchor_image_size"} <= named.keys()
    assert {"segments", "original_proba", "prediction", "anchor", "attribution"} <= named.keys()
    assert not [name for name in named if name.endswith(("_segments", "_original_proba", "_original_class"))]


@pytest.mark.parametrize("also", ["region", ["region"], ["attribution", "region"]])
def test_an_artifact_may_say_so_as_well(also, x, tmp_path):
    fitted = fit(AnchorImage(**SHARED, also=also), inputs=INPUTS)
    read = artifact.load(artifact.save(fitted, tmp_path / "anchor"))
    model = CallablePredictor(rowwise(W))
    asked = explained(AnchorImage(**SHARED), x, {"also": also})[0]
    answer = prepare(read, model, warm=False)(x, limits=PATIENT)
    assert answer.to_json() == asked.to_json()


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("encoder", [None, "sums"])
def test_neighbours_go_beside_where_rows_were_kept_and_ask_for_nothing(kind, encoder, x):
    known = np.random.default_rng(5).uniform(0, 1, (30, *SHAPE)).astype("f")
    model = Counting(rowwise(W), 10**6)
    near = {"encoder": sums()} if encoder else {}

    def told(spec, **networks):
        fitted = fit(spec, known, inputs=INPUTS, predictor=model, **networks)
        explain, before = prepare(fitted, model, warm=False), model.rows
        return explain(x, limits=PATIENT), model.rows - before

    together, rows = told(SPECS[kind].model_copy(update={"also": ("neighbours",)}), **near)
    own, alone = told(SPECS[kind])
    near, _ = told(Neighbours(), **near)
    assert rows == alone
    for name, array in own.arrays.items():
        np.testing.assert_array_equal(together[name], array, err_msg=name)
    named = named_beside("neighbours", near.arrays, own.arrays)
    for old, new in named.items():
        np.testing.assert_array_equal(together[new], near[old], err_msg=old)
    for row, each in enumerate(together.raw):
        assert repr(each["neighbours"]) == repr(near.raw[row])
    for card in cards(together, x, INPUTS):
        assert "nearest of another class" in card.beside[0].headline


def test_neighbours_beside_need_rows_that_were_kept(x):
    with pytest.raises(InvalidOption, match="also: this explainer was fitted without reference rows"):
        explained(Attribution(**SHARED), x, {"also": ["neighbours"]})
    with pytest.raises(InvalidSpec, match="needs training rows `x`"):
        fit(Attribution(**SHARED, also=("neighbours",)), inputs=INPUTS)


def test_gradients_go_beside_rows(x):
    spec = Attribution(**SHARED, algorithm="integrated_gradients")
    together, _ = explained(spec, x, {"also": ["region"]}, Linear(W))
    for name, array in explained(spec, x, model=Linear(W))[0].arrays.items():
        np.testing.assert_array_equal(together[name], array, err_msg=name)
    assert together["region_found"].any()


@pytest.mark.parametrize("rows", [1, 15, 60])
def test_a_spent_budget_ends_all_of_them(x, rows):
    answer, model = explained(
        Region(**SHARED), x[:1], {"also": ["anchor_image", "attribution"], "max_rows": rows}
    )
    assert model.rows <= rows
    assert not answer["attribution_found"].any()


def test_what_cannot_go_together_is_refused(x):
    with pytest.raises(InvalidOption, match="also: expected other methods than region"):
        explained(Region(**SHARED), x, {"also": ["region"]})
    with pytest.raises(InvalidOption, match="also"):
        explained(Region(**SHARED), x, {"also": ["neighbours"]})
    with pytest.raises(InvalidSpec, match=r"also: region.fill"):
        fit(AnchorImage(fill="background", also="region"), x, inputs=INPUTS)


def test_cards_of_each_stand_beside_each_other(x):
    spec = Region(**SHARED, also=("anchor_image", "attribution"), quality=True)
    answer, _ = explained(spec, x)
    for card in cards(answer, x, INPUTS):
        assert len(card.beside) == 2
        assert card.beside[1].headline.startswith("What speaks for class")
        assert "in random orders" in card.beside[1].note


def test_maps_that_stand_beside_have_one_scale_and_are_explained(x):
    answer, _ = explained(Region(**SHARED, also=("attribution",)), x)
    limits = {
        panel.limit for card in cards(answer, x, INPUTS) for panel in card.beside[0].panels if panel.limit
    }
    assert len(limits) == 1
    page = html(answer, x, INPUTS)
    assert "<h1>Regions, attributions</h1>" in page
    assert "In maps red is more" in page
    assert "Attributions: The parts add up" in page


# --- quality --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_an_order_is_better_than_random_ones_and_costs_what_it_may(kind, x):
    plain, quiet = explained(SPECS[kind], x)
    answer, model = explained(SPECS[kind], x, {"quality": True})
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(answer[name], array, err_msg=name)
    assert model.rows - quiet.rows <= 200 * len(x)
    for told in answer.raw:
        quality = told["quality"]
        assert [curve["fill"] for curve in quality["curves"]] == ["blur", "image_mean"]
        assert 0 <= quality["sparsity"] <= 1
        assert all(
            0 <= value <= 1 for curve in quality["curves"] for name, value in curve.items() if name != "fill"
        )
    if kind != "anchor_image":  # an anchor says nothing of the order of the others
        better = [told["quality"]["curves"][0] for told in answer.raw]
        assert sum(one["deletion"] < one["random"] < one["insertion"] for one in better) >= 3


def test_a_counterfactual_region_has_a_transition_score(x):
    answer, _ = explained(Region(**SHARED), x, {"quality": True})
    for found, told in zip(answer["found"], answer.raw, strict=True):
        assert ("cout" in told["quality"]) == bool(found)


def test_the_budget_comes_before_the_quality(x):
    plain, _ = explained(Region(**SHARED), x[:1])
    answer, _ = explained(Region(**SHARED), x[:1], {"quality": True, "max_rows": plain.cost.rows + 1})
    assert answer["status"] == plain["status"]
    np.testing.assert_array_equal(answer["hidden"], plain["hidden"])
    assert "quality" not in answer.raw[0]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("rows", [1, 60, 250])
def test_the_quality_of_one_takes_no_budget_from_the_answer_of_another(kind, rows, x):
    others = [other for other in SPECS if other != kind]
    plain, _ = explained(SPECS[kind], x, {"also": others})
    spent = {"also": others, "max_rows": plain.cost.rows + rows}
    answer, model = explained(SPECS[kind], x, {**spent, "quality": True})
    assert model.rows <= spent["max_rows"]
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(answer[name], array, err_msg=name)


def said(scores):
    """What a model of two classes says, given how likely the first is with so many regions shown."""

    def ask(shown):
        if False:
            yield
        own = np.asarray(scores)[shown.sum(axis=1)]
        return np.log(np.stack([own, 1 - own], axis=1))

    return ask


def test_areas_are_those_of_straight_lines():
    told = drive(curves(np.array([1, 0]), 0, said([0.25, 0.5, 0.75]), np.random.default_rng(0)), None)
    assert told.deletion == pytest.approx(0.5)
    assert told.insertion == pytest.approx(0.5)
    assert told.random == pytest.approx(0.5)
    assert told.random_error == pytest.approx(0, abs=1e-12)
    # The first class falls .75, .5, .25 and the other rises as much.
    assert drive(cout([0, 1], 1, 0, 2, said([0.25, 0.5, 0.75])), None) == pytest.approx(0, abs=1e-12)
    assert drive(cout([1], 1, 0, 2, said([0.5, 0.1, 0.9])), None) == pytest.approx(0.0, abs=1e-12)
