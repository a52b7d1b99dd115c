"""Regions: what is hidden changes the class, and the model says so of just the picture that is answered."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Linear, rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.render.cards import cards
from explainer_runtime.spec import Grid, Inputs, Limits, Region

SHAPE = (6, 6, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3)
W = weights(seed=3, features=36)
MODEL = CallablePredictor(rowwise(W))
CELLS = Grid(rows=3, columns=3)
PATIENT = Limits(max_seconds=3600)


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (6, *SHAPE)).astype("f")


def explainer(inputs=INPUTS, model=MODEL, **settings):
    fitted = fit(Region(**{"segmentation": CELLS, **settings}), predictor=model, inputs=inputs)
    run = prepare(fitted, model, warm=False)

    def explain(rows, options=None, **limits):
        return run(rows, options, limits=PATIENT.model_copy(update=limits))

    explain.fitted = fitted
    return explain


FILLS = ["inpaint", "blur", "mean", "image_mean", "constant"]


@pytest.mark.parametrize("fill", FILLS)
def test_found_holds_when_the_model_is_asked_again(x, fill):
    answer = explainer(fill=fill)(x)
    again = rowwise(W)(answer["hidden"])
    np.testing.assert_allclose(answer["hidden_proba"], again, atol=1e-6)
    np.testing.assert_array_equal(answer["hidden_class"], again.argmax(axis=1))
    np.testing.assert_array_equal(answer["found"], answer["hidden_class"] != answer["original_class"])
    np.testing.assert_array_equal(answer["original_class"], rowwise(W)(x).argmax(axis=1))
    assert answer["found"].any()


def test_the_class_is_the_one_of_the_model_where_scores_are_rounded_to_one(x):
    sure = Linear(W, bias=60.0, exclusive=False)
    answer = explainer(model=sure)(x)
    assert (answer["hidden_proba"] == 1).any()
    assert answer["found"].any()
    np.testing.assert_array_equal(answer["hidden_class"], sure.log_scores(answer["hidden"]).argmax(axis=1))
    np.testing.assert_array_equal(answer["found"], answer["hidden_class"] != answer["original_class"])


def test_no_superpixel_can_be_shown_again(x):
    answer = explainer(fill="constant")(x)
    assert answer["irreducible"][answer["found"]].all()
    for row in np.flatnonzero(answer["found"]):
        segments, mask = answer["segments"][row], answer["region_mask"][row]
        members = np.unique(segments[mask])
        assert len(members) == answer["size"][row]
        for one in members:
            without = np.where((mask & (segments != one))[..., None], np.float32(0), x[row])
            assert rowwise(W)(without[None])[0].argmax() == answer["original_class"][row]


def test_outside_of_the_region_nothing_changes(x):
    answer = explainer()(x)
    shown = ~answer["region_mask"]
    assert answer["hidden"][shown].tobytes() == x[shown].tobytes()
    np.testing.assert_allclose(answer["area"], answer["region_mask"].mean(axis=(1, 2)))
    none = ~answer["found"]
    assert (answer["size"][none] == 0).all()
    assert answer["hidden"][none].tobytes() == x[none].tobytes()


def test_a_class_can_be_asked_for_and_what_has_it_already_hides_nothing(x):
    wanted = int(rowwise(W)(x[:1]).argmax())
    answer = explainer()(x, {"target_class": wanted})
    assert (answer["hidden_class"][answer["found"]] == wanted).all()
    already = answer["original_class"] == wanted
    assert already.any()
    assert answer["found"][already].all()
    assert (answer["size"][already] == 0).all()
    with pytest.raises(InvalidOption, match="target_class: expected 'other' or a class from 0 to 2, got 3"):
        explainer()(x, {"target_class": 3})


def test_channels_first_is_the_same_image(x):
    rows = np.repeat(x, 2, axis=3)
    wide = np.concatenate([W.reshape(3, 6, 6, 1), -0.5 * W.reshape(3, 6, 6, 1)], axis=3)
    last = CallablePredictor(rowwise(wide.reshape(3, -1)))
    first = CallablePredictor(rowwise(np.moveaxis(wide, 3, 1).reshape(3, -1)))
    inputs = {"low": 0, "high": 1, "classes": 3}
    one = explainer(Inputs(shape=(6, 6, 2), layout="channels_last", **inputs), last)(rows)
    two = explainer(Inputs(shape=(2, 6, 6), layout="channels_first", **inputs), first)(
        np.moveaxis(rows, 3, 1)
    )
    np.testing.assert_array_equal(one["region_mask"], two["region_mask"])
    np.testing.assert_allclose(one["hidden"], np.moveaxis(two["hidden"], 1, 3), atol=1e-6)


def test_a_request_may_bring_its_own_superpixels(x):
    labels = np.arange(36).reshape(6, 6) // 12 * 5  # three stripes, called 0, 5 and 10
    answer = explainer()(x, {"segments": labels.tolist()})
    np.testing.assert_array_equal(answer["segments"], np.broadcast_to(labels // 5, (6, 6, 6)))
    for wrong in ([[0, 1]], labels[:, :5].tolist(), [*labels.tolist(), [0] * 6]):
        with pytest.raises(InvalidOption, match=r"segments: expected whole numbers, lists of shape \(6, 6\)"):
            explainer()(x, {"segments": wrong})
    with pytest.raises(InvalidOption, match="segments"):
        explainer()(x, {"segments": [["a"]]})


@pytest.mark.parametrize("rows", [1, 5, 11, 12, 20])
def test_a_spent_budget_tells_the_best_so_far(x, rows):
    answer = explainer()(x[:1], {"max_rows": rows})
    assert answer.cost.rows <= rows
    again = rowwise(W)(answer["hidden"]).argmax(axis=1)
    asked = answer["original_class"] >= 0
    np.testing.assert_array_equal(answer["hidden_class"][asked], again[asked])
    assert answer["found"] == (asked & (again != answer["original_class"]))


def test_an_artifact_gives_the_same_bytes(x, tmp_path):
    explain = explainer()
    read = artifact.load(artifact.save(explain.fitted, tmp_path / "region"))
    again = prepare(read, MODEL, warm=False)(x, limits=PATIENT)
    assert again.to_json() == explain(x).to_json()
    for name, array in explain(x).arrays.items():
        assert array.tobytes() == again[name].tobytes(), name


def test_what_is_no_image_is_refused():
    with pytest.raises(InvalidSpec, match="region: expected images"):
        fit(Region(), inputs=Inputs(shape=(36,), low=0, high=1, classes=3))


def test_a_card_says_first_what_it_is_no_longer(x):
    inputs = INPUTS.model_copy(update={"class_names": ("boot", "bag", "coat")})
    answer = explainer(inputs)(x)
    drawn = cards(answer, x, inputs)
    for row, card in enumerate(drawn):
        was, now = (inputs.class_names[answer[key][row]] for key in ("original_class", "hidden_class"))
        if answer["found"][row]:
            assert card.headline.startswith(f"No longer {was} without {answer['size'][row]} superpixel")
            assert now in card.detail
            assert [panel.title for panel in card.panels] == ["input", "to be hidden", "without it"]
        else:
            assert card.headline == f"{was}: no such superpixels were found"
    sought = explainer(inputs)(x, {"target_class": "coat"})
    for card, found in zip(cards(sought, x, inputs), sought["found"], strict=True):
        assert found or card.note.endswith("No set of superpixels that was tried gives the class coat.")
    spent = explainer(inputs)(x[:1], {"max_rows": 1})
    assert "budget" in cards(spent, x[:1], inputs)[0].note


@pytest.mark.parametrize("value", [2**63, -(2**64), 10**40])
def test_labels_that_no_integer_holds_are_refused(x, value):
    with pytest.raises(InvalidOption, match="segments: expected whole numbers of 64 bits"):
        explainer()(x, {"segments": [[value] * 6] * 6})


def test_more_superpixels_than_can_be_searched_are_refused():
    inputs = Inputs(shape=(30, 30, 1), low=0, high=1, classes=3)
    model = CallablePredictor(rowwise(weights(seed=3, features=900)))
    labels = np.arange(900).reshape(30, 30).tolist()
    with pytest.raises(InvalidOption, match="segments: expected at most 400 superpixels, got 900"):
        explainer(inputs, model)(np.zeros((1, 30, 30, 1), "f"), {"segments": labels})


def test_a_fill_that_is_no_value_of_a_row_is_refused():
    with pytest.raises(InvalidSpec, match=r"fill_value: expected a value in \[0, 1\], got 5"):
        explainer(fill="constant", fill_value=5.0)
