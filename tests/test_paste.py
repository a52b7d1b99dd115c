"""Regions that are pasted: the fewest of a known image, and nothing outside of them changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from toys import rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.render.cards import cards
from explainer_runtime.search.masking import Canvas, feathered
from explainer_runtime.spec import Grid, Inputs, Limits, Region

SHAPE = (6, 6, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=3, class_names=("boot", "bag", "coat"))
W = weights(seed=3, features=36)
CELLS = Grid(rows=3, columns=3)
PATIENT = Limits(max_seconds=3600)
TRAIN = np.random.default_rng(4).uniform(0, 1, (40, *SHAPE)).astype("f")
KNOWN = rowwise(W)(TRAIN).argmax(axis=1)


@pytest.fixture
def x():
    return np.random.default_rng(2).uniform(0, 1, (6, *SHAPE)).astype("f")


def explainer(rows=TRAIN, model=None, **settings):
    model = CallablePredictor(model or rowwise(W))
    spec = Region(**{"segmentation": CELLS, "change": "paste", **settings})
    run = prepare(fit(spec, rows, predictor=model, inputs=INPUTS), model, warm=False)

    def explain(rows, options=None, **limits):
        return run(rows, options, limits=PATIENT.model_copy(update=limits))

    explain.fitted = run.fitted
    return explain


def test_what_is_pasted_is_that_of_a_known_row_of_the_class_and_the_model_says_so_again(x):
    answer = explainer()(x)
    assert answer["found"].all()
    own = rowwise(W)(x).argmax(axis=1)
    for row, mask in enumerate(answer["region_mask"]):
        donor = TRAIN[answer["neighbour_row"][row]]
        assert answer["neighbour"][row].tobytes() == donor.tobytes()
        assert answer["neighbour_class"][row] == KNOWN[answer["neighbour_row"][row]] != own[row]
        assert answer["hidden"][row][mask].tobytes() == donor[mask].tobytes()
        assert answer["hidden"][row][~mask].tobytes() == x[row][~mask].tobytes()
    again = rowwise(W)(answer["hidden"])
    np.testing.assert_allclose(answer["hidden_proba"], again, atol=1e-6)
    np.testing.assert_array_equal(again.argmax(axis=1), answer["neighbour_class"])


def test_no_superpixel_can_be_given_back(x):
    answer = explainer()(x)
    assert answer["irreducible"].all()
    for row, mask in enumerate(answer["region_mask"]):
        segments = answer["segments"][row]
        for one in np.unique(segments[mask]):
            without = np.where((mask & (segments != one))[..., None], answer["neighbour"][row], x[row])
            assert rowwise(W)(without[None])[0].argmax() != answer["neighbour_class"][row]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_where_cells_add_up_the_set_is_the_smallest_there_is(seed):
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=9)
    spread = np.kron(np.eye(9).reshape(9, 3, 3), np.ones((2, 2))) / 4  # each cell's mean
    w = np.stack([(worth[:, None, None] * spread).sum(axis=0).ravel(), np.zeros(36)]) * 10
    image, donor = rng.uniform(0, 1, (2, *SHAPE)).astype("f")
    means = lambda one: (spread * one[..., 0]).sum(axis=(1, 2))  # noqa: E731
    gains = worth * (means(donor) - means(image))  # of the first class's logit, were that cell pasted
    lacking = worth @ means(image)
    if not lacking > 0.01 > -0.01 > worth @ means(donor):  # the first class, and certainly not
        return
    smallest = int(np.argmax(np.cumsum(np.sort(gains)) < -lacking)) + 1
    two = Inputs(shape=SHAPE, low=0, high=1, classes=2)
    model = CallablePredictor(rowwise(w))
    spec = Region(segmentation=CELLS, change="paste")
    run = prepare(fit(spec, donor[None], predictor=model, inputs=two), model, warm=False)
    answer = run(image[None], limits=PATIENT)
    assert answer["found"][0]
    assert answer["size"][0] == smallest


def test_of_several_neighbours_the_smallest_set_wins_and_calls_stay_few(x):
    calls = []
    together = prepare(explainer(k=2).fitted, CallablePredictor(rowwise(W)), warm=False)(
        x[:3], limits=PATIENT, watch=lambda ask, told: calls.append(len(ask.x))
    )
    assert len(calls) <= 8
    scores = rowwise(W)(x[:3])
    for row, image in enumerate(x[:3]):
        alone = []
        for other in np.argsort(-scores[row])[1:3]:
            own = TRAIN[other == KNOWN]
            nearest = own[((own - image) ** 2).sum(axis=(1, 2, 3)).argmin()][None]
            alone.append(int(explainer(nearest)(image[None])["size"][0]))
        assert together["size"][row] == min(alone)


def test_a_class_that_is_sought_is_that_of_the_neighbour(x):
    for wanted in range(3):
        answer = explainer()(x, {"target_class": wanted})
        assert answer["found"].all()
        assert (answer["hidden_class"] == wanted).all()
        already = answer["original_class"] == wanted
        np.testing.assert_array_equal(answer["neighbour_class"], np.where(already, -1, wanted))
        np.testing.assert_array_equal(answer["size"] == 0, already)


def test_where_no_known_row_has_the_class_nothing_is_found(x):
    missing = 0
    answer = explainer(TRAIN[missing != KNOWN])(x, {"target_class": missing})
    already = answer["original_class"] == missing
    np.testing.assert_array_equal(answer["found"], already)
    assert answer["hidden"].tobytes() == x.tobytes() == answer["neighbour"].tobytes()
    assert set(answer["status"][~already]) == {"not_found"}


def test_an_explainer_that_pastes_can_hide_and_one_without_rows_cannot_paste(x):
    hides = fit(Region(segmentation=CELLS), inputs=INPUTS)
    assert not hides.arrays
    plain = prepare(hides, CallablePredictor(rowwise(W)), warm=False)
    there, here = explainer()(x, {"change": "hide"}), plain(x, limits=PATIENT)
    for name, array in here.arrays.items():
        assert there[name].tobytes() == array.tobytes(), name
    assert (there["neighbour_row"] == -1).all()
    with pytest.raises(InvalidOption, match="change: this explainer was fitted without reference rows"):
        plain(x, {"change": "paste"})
    with pytest.raises(InvalidSpec, match="region: needs training rows"):
        fit(Region(change="paste"), inputs=INPUTS)


@pytest.mark.parametrize("rows", [1, 2, 12, 20, 40, 60])
def test_a_spent_budget_tells_the_best_so_far(x, rows):
    answer = explainer()(x[:1], max_rows=rows)
    assert answer.cost.rows <= rows
    again = rowwise(W)(answer["hidden"]).argmax(axis=1)
    asked = answer["original_class"] >= 0
    assert answer["found"] == (asked & (again != answer["original_class"]))
    assert answer["status"][0] in ("ok", "budget_exhausted")


def test_a_class_that_the_model_has_told_is_known_where_the_budget_ends(x):
    answer = explainer()(x, max_rows=len(x) + 1)  # the images themselves, and a canary
    assert answer.cost.rows == len(x) + 1
    np.testing.assert_array_equal(answer["original_class"], rowwise(W)(x).argmax(axis=1))
    np.testing.assert_allclose(answer["original_proba"], rowwise(W)(x), atol=1e-6)
    assert (answer["status"] == "budget_exhausted").all()


def test_an_artifact_holds_the_rows_and_gives_the_same_bytes(x, tmp_path):
    explain = explainer(n_reference=10)
    assert len(explain.fitted.arrays["reference_rows"]) == 10
    read = artifact.load(artifact.save(explain.fitted, tmp_path / "paste"))
    again = prepare(read, CallablePredictor(rowwise(W)), warm=False)(x, limits=PATIENT)
    assert again.to_json() == explain(x).to_json()


def test_a_card_says_what_would_have_to_be_there(x):
    answer = explainer()(x)
    for row, card in enumerate(cards(answer, x, INPUTS)):
        now, donor = (INPUTS.class_names[answer[key][row]] for key in ("hidden_class", "neighbour_class"))
        assert card.headline.startswith(f"{now} with {answer['size'][row]} superpixel")
        assert card.headline.endswith(f"of a known {donor}")
        assert [panel.title for panel in card.panels] == ["input", "to be pasted", "with it"]


# --- soft edges -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_a_pixel_shows_more_of_the_fill_the_further_it_lies_inside(seed, soft):
    rng = np.random.default_rng(seed)
    masked = ndimage.gaussian_filter(rng.normal(size=(3, 12, 15)), (0, 2, 2)) > 0
    steps = [
        ndimage.distance_transform_cdt(np.pad(one, 20, mode="edge"), "taxicab")[20:-20, 20:-20]
        for one in masked
    ]
    expected = np.where(
        masked.all(axis=(1, 2), keepdims=True), 99, steps
    )  # without an edge there is no way to it
    np.testing.assert_allclose(feathered(masked, soft), np.clip(expected / (soft + 1), 0, 1), rtol=1e-6)


@pytest.mark.parametrize("channels", [-1, 0])
def test_soft_edges_lie_between_image_and_fill_and_the_rest_is_one_of_them(channels):
    rng = np.random.default_rng(0)
    image, fill = rng.uniform(-1, 1, (2, 12, 12, 3)).astype("f")
    segments = np.arange(12)[:, None] // 6 * 2 + np.arange(12) // 6
    masks = np.array([[True, True, True, True], [False, False, False, False], [False, True, False, True]])
    first = [np.moveaxis(one, -1, channels) for one in (image, fill)]
    drawn = np.moveaxis(
        Canvas(first[0], segments, first[1][None], channels, soft=2).draw(masks), channels or 1, -1
    )
    assert drawn[0].tobytes() == image.tobytes()
    assert drawn[1].tobytes() == fill.tobytes()
    assert drawn[2][:, 6:].tobytes() == image[:, 6:].tobytes()
    assert drawn[2][:, :4].tobytes() == fill[:, :4].tobytes()
    for column, share in ((4, 2 / 3), (5, 1 / 3)):
        between = image[:, column] + share * (fill[:, column] - image[:, column])
        np.testing.assert_allclose(drawn[2][:, column], between, atol=1e-6)
