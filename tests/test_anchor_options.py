"""Anchors on models whose answers are known: closed forms, and what each option does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toys import Counting

from explainer_runtime import artifact
from explainer_runtime.artifact import manifest
from explainer_runtime.driver import solve
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods.anchor import method as anchor
from explainer_runtime.methods.ground import Ground
from explainer_runtime.spec import AnchorImage, Grid, Inputs, ModelContract, parse_spec

SHAPE = (6, 6, 1)
CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=2)
GRID = Grid(rows=3, columns=3)
CELLS = [np.s_[2 * r : 2 * r + 2, 2 * c : 2 * c + 2] for r in range(3) for c in range(3)]


def needs(*cells: int):
    """Class 1 while all of these cells are white, else class 0."""

    def predict(x):
        white = [
            x[:, rows, columns].mean(axis=(1, 2, 3)) > 0.9 for rows, columns in (CELLS[c] for c in cells)
        ]
        yes = np.logical_and.reduce([np.ones(len(x), bool), *white])
        return np.stack([~yes, yes], axis=1).astype("f")

    return Counting(predict, 4096, ModelContract(canary=None))  # nothing is asked but what the search asks


def explain(predictor, x=None, options=None, background=None, **settings):
    # Black where masked: with its own mean, a white cell would stay white.
    settings = {"segmentation": GRID, "fill": "constant", **settings}
    fitted = fit(AnchorImage(**settings), inputs=CONTRACT, background=background)
    return prepare(fitted, predictor)(np.ones((1, *SHAPE), "f") if x is None else x, options)


def features(answer):
    return set(answer.raw[0]["feature"])


@pytest.mark.parametrize("cells", [(0,), (4,), (2, 6), (1, 5, 8)])
def test_the_cells_that_decide_are_the_anchor(cells):
    answer = explain(needs(*cells))
    assert features(answer) == set(cells)
    assert answer["found"].all()
    assert answer["precision"] == 1
    assert answer["size"] == len(cells)
    mask = np.zeros((6, 6), bool)
    for cell in cells:
        mask[CELLS[cell]] = True
    np.testing.assert_array_equal(answer["anchor_mask"][0], mask)
    np.testing.assert_array_equal(answer["anchor"][0, ..., 0], mask.astype("f"))


@pytest.mark.parametrize("p_sample", [0.3, 0.5, 0.8])
def test_coverage_is_the_chance_that_a_mask_shows_the_anchor(p_sample):
    answer = explain(needs(2, 6), p_sample=p_sample)
    assert answer["coverage"][0] == np.float32((1 - p_sample) ** 2)
    assert answer.raw[0]["coverage"] == pytest.approx([1 - p_sample, (1 - p_sample) ** 2], rel=1e-12)


def test_a_model_that_always_says_the_same_has_an_empty_anchor():
    answer = explain(needs())
    assert (answer["size"], answer["coverage"], answer["precision"]) == (0, 1, 1)
    assert answer["found"].all()
    assert answer.raw[0]["vacuous"]
    assert not answer["anchor_mask"].any()


def test_the_precision_of_nothing_held_is_the_share_of_masks_that_keep_the_class():
    answer = explain(needs(0), min_samples_start=2000)
    assert abs(answer.raw[0]["all_precision"] - 0.5) < 4 * np.sqrt(0.25 / 500)


def test_the_anchor_is_no_larger_than_allowed():
    answer = explain(needs(1, 5, 8), options={"max_anchor_size": 2})
    assert answer["size"] <= 2
    assert not answer["found"].any()
    assert set(answer["status"]) == {"not_found"}


def test_a_lower_threshold_takes_a_smaller_anchor():
    lenient = explain(needs(0, 4), options={"threshold": 0.3})
    assert lenient["size"] < explain(needs(0, 4))["size"]


def test_rows_asked_are_rows_reported_and_none_is_asked_twice():
    predictor = needs(2, 6)
    seen = []
    inner = predictor.function
    predictor.function = lambda x: (seen.extend(row.tobytes() for row in x), inner(x))[1]
    answer = explain(predictor, min_samples_start=2000)
    assert answer.raw[0]["num_preds"] == answer.cost.rows == predictor.rows
    assert len(seen) == len(set(seen)) <= 2**9  # there are no more patterns than that


def test_images_of_one_request_share_their_calls():
    one, eight = needs(1, 5, 8), needs(1, 5, 8)
    explain(one)
    explain(eight, np.ones((8, *SHAPE), "f"))
    assert eight.calls == one.calls
    assert eight.rows == 8 * one.rows


def test_seeds_change_the_draws_and_nothing_else_does():
    x = np.random.default_rng(0).uniform(0.8, 1, (1, *SHAPE)).astype("f")
    first, again, other = (explain(needs(3), x, {"seed": seed}).to_json() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_constant_image_is_explained():
    answer = explain(needs(0), np.zeros((1, *SHAPE), "f"), segmentation=GRID, fill="mean")
    assert all(np.isfinite(array).all() for array in answer.arrays.values() if array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("fill", "masked"),
    [("mean", None), ("image_mean", 0.5), ("constant", 0.25), ("blur", None), ("background", 0.75)],
)
def test_masked_cells_show_their_fill(fill, masked):
    x = np.random.default_rng(4).uniform(0, 1, (1, *SHAPE)).astype("f")
    x += 0.5 - x.mean()
    x = x.clip(0, 1)
    rows = []

    def watch(images):
        rows.append(images)
        return np.tile(np.array([[0.0, 1.0]], "f"), (len(images), 1))

    background = np.full((3, *SHAPE), 0.75, "f")
    explain(Counting(watch, 4096), x, fill=fill, fill_value=0.25, background=background)
    for image in np.concatenate(rows)[:50]:
        for cell in CELLS:
            shown = np.array_equal(image[cell], x[0][cell])
            if not shown and masked is not None:
                expected = x.mean() if fill == "image_mean" else masked
                np.testing.assert_allclose(image[cell], expected, atol=1e-6)
            elif not shown and fill == "mean":
                np.testing.assert_allclose(image[cell], x[0][cell].mean(), atol=1e-6)
            assert ((image >= 0) & (image <= 1)).all()


def test_a_background_is_needed_where_it_is_asked_for():
    with pytest.raises(InvalidSpec, match="background"):
        fit(AnchorImage(segmentation=GRID, fill="background"), inputs=CONTRACT)


def test_a_function_of_ones_own_cuts_the_image():
    halves = np.repeat([[7], [40]], [3, 3], axis=0) * np.ones((1, 6), int)
    ground = Ground(CONTRACT, {}, {}, segment=lambda image: halves)
    search = anchor.search(np.ones((1, *SHAPE), "f"), AnchorImage(fill="constant"), ground)
    answer, _ = solve(search, needs(0))
    np.testing.assert_array_equal(np.unique(answer["segments"]), [0, 1])
    assert features(answer) == {0}


def test_examples_show_the_anchor_and_are_as_many_as_asked_for():
    answer = explain(needs(2, 6), options={"n_covered_ex": 3})
    for size, example in enumerate(answer.raw[0]["examples"], start=1):
        held = answer.raw[0]["feature"][:size]
        for pictures in example.values():
            assert len(pictures) <= 3
            for picture in pictures:
                assert all((picture[CELLS[cell]] == 1).all() for cell in held)


def test_only_images_have_anchors():
    with pytest.raises(InvalidSpec, match="images"):
        fit(AnchorImage(), inputs=Inputs(shape=(5,), low=0, high=1, classes=2))
    search = anchor.search(np.ones((2, 5), "f"), AnchorImage(), Ground(CONTRACT, {}, {}))
    with pytest.raises(InvalidInput, match="images"):
        next(search)


def test_wider_beams_find_anchors_no_longer():
    narrow, wide = explain(needs(1, 5, 8)), explain(needs(1, 5, 8), options={"beam_size": 3})
    assert wide["size"] <= narrow["size"]
    assert wide["found"].all()


# --- what an empty anchor says ----------------------------------------------------------------------------


def test_an_empty_anchor_tells_whether_it_is_the_fill_that_has_the_class():
    filled, sparse = explain(needs()), explain(some_cell(), p_sample=0.05)
    for answer, holds, advice in ((filled, True, "another fill"), (sparse, False, "larger p_sample")):
        assert answer["vacuous"].tolist() == [True]
        assert answer.raw[0]["holds_masked"] == holds
        assert answer.raw[0]["note"].startswith("the anchor is empty")
        assert advice in answer.raw[0]["note"]


def test_an_anchor_that_holds_something_or_was_not_found_is_not_called_empty():
    for answer in (explain(needs(0)), explain(needs(1, 5, 8), options={"max_anchor_size": 1})):
        assert not answer["vacuous"].any()
        assert "note" not in answer.raw[0]


def some_cell():
    """Class 1 while any cell is white."""
    return Counting(
        lambda x: np.stack([1 - x.max(axis=(1, 2, 3)), x.max(axis=(1, 2, 3))], axis=1).astype("f"), 4096
    )


# --- channels first ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", ["mean", "image_mean", "constant", "blur", "background"])
def test_an_image_with_its_channels_first_is_explained_as_with_them_last(fill, channels):
    rng = np.random.default_rng(7)
    x = rng.uniform(0, 1, (2, 8, 12, channels)).astype("f")
    background = rng.uniform(0, 1, (3, 8, 12, channels)).astype("f")
    weights = rng.normal(size=(8, 12, channels))

    def model(images):
        yes = 1 / (1 + np.exp(-2 * np.stack([(image * weights).sum() for image in images])))
        return np.stack([1 - yes, yes], axis=1).astype("f")

    spec = AnchorImage(segmentation=Grid(rows=2, columns=3), fill=fill)
    answers = []
    for turn in (lambda images: images, lambda images: np.moveaxis(images, -1, 1)):
        inputs = Inputs(shape=turn(x).shape[1:], low=0, high=1, classes=2)
        fitted = fit(spec, inputs=inputs, background=turn(background))

        def turned(images, turn=turn):
            return model(images if turn(x) is x else np.moveaxis(images, 1, -1))

        answers.append(prepare(fitted, Counting(turned, 4096))(turn(x)))
    last, first = answers
    np.testing.assert_array_equal(first["anchor"], np.moveaxis(last["anchor"], -1, 1))
    for name in set(last.arrays) - {"anchor"}:
        np.testing.assert_array_equal(first[name], last[name], err_msg=name)
    assert first["segments"].shape == (2, 8, 12)


def test_a_mask_hides_the_same_place_in_every_channel():
    x = np.ones((1, 3, 6, 6), "f")
    seen = []

    def watch(images):
        seen.append(images)
        return np.tile(np.array([[0.0, 1.0]], "f"), (len(images), 1))

    inputs = Inputs(shape=(3, 6, 6), low=0, high=1, classes=2)
    prepare(fit(AnchorImage(segmentation=GRID, fill="constant"), inputs=inputs), Counting(watch, 4096))(x)
    shown = np.concatenate(seen)
    assert (shown == shown[:, :1]).all()


def test_images_whose_channels_may_be_anywhere_are_refused_until_somebody_says():
    with pytest.raises(InvalidSpec, match="layout"):
        fit(AnchorImage(), inputs=Inputs(shape=(3, 3, 3), low=0, high=1, classes=2))
    said = Inputs(shape=(3, 3, 3), low=0, high=1, classes=2, layout="channels_first")
    fit(AnchorImage(), inputs=said)


# --- settings of 0.1.0 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("coverage_samples", 500), ("tau", 0.3)])
def test_settings_without_an_effect_are_accepted_with_a_warning(name, value):
    with pytest.warns(DeprecationWarning, match=f"{name}: has no effect"):
        spec = parse_spec({"kind": "anchor_image", name: value})
    assert spec == AnchorImage()
    assert name not in spec.model_dump()


def test_an_option_without_an_effect_is_accepted_with_a_warning():
    with pytest.warns(DeprecationWarning, match="tau: has no effect"):
        answer = explain(needs(0), options={"tau": 0.3})
    assert answer.to_json() == explain(needs(0)).to_json()


def test_an_artifact_of_0_1_0_loads_and_keeps_its_fill(tmp_path):
    old = {"coverage_samples": 10_000, "tau": 0.15, "fill": "mean", "batch_size": 100}
    saved = artifact.save(fit(AnchorImage(segmentation=GRID), inputs=CONTRACT), tmp_path / "old")
    written = json.loads((saved / "explainer.json").read_bytes())
    written["spec"] |= old
    (saved / "explainer.json").write_bytes(manifest.dump(written))
    (saved / "provenance.json").unlink()  # it is of the spec as it was, and 0.1.0 wrote none
    with pytest.warns(DeprecationWarning, match="has no effect"):
        loaded = artifact.load(saved)
    assert (loaded.spec.fill, loaded.spec.batch_size) == ("mean", 100)
