"""Neighbours: the nearest known rows, against brute force."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from toys import Counting, rowwise, weights

from explainer_runtime import Neighbours, artifact
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.render.cards import cards
from explainer_runtime.spec import Attribution, Inputs, Limits

SHAPE = (4, 4, 1)
INPUTS = Inputs(shape=SHAPE, low=0, high=2, classes=3)
W = weights(seed=4)
TRAIN = np.random.default_rng(0).uniform(0, 2, (80, *SHAPE)).astype("f")
KNOWN = rowwise(W)(TRAIN).argmax(axis=1)
PATIENT = Limits(max_seconds=3600)


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0, 2, (6, *SHAPE)).astype("f")


def explainer(train=TRAIN, model=None, **more):
    settings = {name: more.pop(name) for name in [*more] if name != "encoder"}
    model = model or Counting(rowwise(W))
    fitted = fit(Neighbours(**settings), train, predictor=model, inputs=INPUTS, **more)
    run = prepare(fitted, model, warm=False)
    return lambda rows, options=None, **limits: run(rows, options, limits=PATIENT.model_copy(update=limits))


def encoder():
    made = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    made.set_weights([np.random.default_rng(2).normal(size=(16, 3)).astype("f"), np.zeros(3, "f")])
    return made


@pytest.mark.parametrize("coded", [False, True], ids=["rows", "codes"])
def test_neighbours_are_those_of_brute_force(x, coded):
    network = encoder() if coded else None
    answer = explainer(encoder=network)(x)
    codes = (lambda rows: network(rows).numpy()) if coded else (lambda rows: rows.reshape(len(rows), -1) / 2)
    far = np.linalg.norm(codes(x)[:, None].astype(float) - codes(TRAIN)[None], axis=2)
    own = rowwise(W)(x).argmax(axis=1)
    np.testing.assert_array_equal(answer["original_class"], own)
    assert answer["found"].all()
    for row in range(len(x)):
        for name, allowed in (("like", own[row] == KNOWN), ("unlike", own[row] != KNOWN)):
            best = np.where(allowed, far[row], np.inf).argmin()
            np.testing.assert_array_equal(answer[name][row], TRAIN[best])
            assert answer[f"{name}_distance"][row] == pytest.approx(far[row, best], rel=1e-5)
        assert answer["unlike_class"][row] == KNOWN[best]
    np.testing.assert_allclose(
        answer["trust_score"], answer["unlike_distance"] / answer["like_distance"], rtol=1e-5
    )


def test_a_card_says_where_the_other_class_is_nearer(x):
    answer = explainer()(x)
    nearer = answer["unlike_distance"] < answer["like_distance"]
    assert 0 < nearer.sum() < len(x)
    for card, other in zip(cards(answer, x, INPUTS), nearer, strict=True):
        assert [panel.title for panel in card.panels] == ["input", "of its own class", "of another class"]
        assert ("more like the other class" in card.detail) == other


def test_k_of_each_class_are_told_nearest_first(x):
    (told,) = explainer()(x[:1], {"k": 3}).raw
    assert sorted({one["class"] for one in told["neighbours"]}) == sorted(set(KNOWN.tolist()))
    for wanted in set(KNOWN.tolist()):
        some = [one for one in told["neighbours"] if one["class"] == wanted]
        assert len(some) == min(3, (wanted == KNOWN).sum())
        assert [one["distance"] for one in some] == sorted(one["distance"] for one in some)
        for one in some:
            assert one["proba"] == pytest.approx(rowwise(W)(TRAIN[one["row"]][None])[0, wanted], abs=1e-6)


def test_a_known_row_is_its_own_neighbour():
    answer = explainer()(TRAIN[:4])
    np.testing.assert_array_equal(answer["like"], TRAIN[:4])
    np.testing.assert_allclose(answer["like_distance"], 0, atol=1e-6)
    assert np.isfinite(answer["trust_score"]).all()


def test_the_model_is_asked_about_the_row_and_nothing_more(x):
    assert explainer()(x).cost.rows == len(x) + 1  # one goes along to tell that it is still the same model
    spent = explainer()(x, max_rows=1)
    assert spent["status"].tolist() == ["budget_exhausted"] * len(x)
    assert not spent["found"].any()
    assert (spent["original_class"] == -1).all()
    np.testing.assert_array_equal(spent["like"], x)


def test_where_there_is_no_row_of_another_class_nothing_is_found(x):
    alone = TRAIN[KNOWN[0] == KNOWN]
    answer = explainer(alone)(x)
    assert not answer["found"].any()
    assert (answer["trust_score"] == -1).all()
    missing = answer["unlike_class"] == -1
    np.testing.assert_array_equal(answer["unlike"][missing], x[missing])
    drawn = cards(answer, x, INPUTS)
    assert any(missing)
    assert not all(missing)
    for card, alone in zip(drawn, missing, strict=True):
        assert not card.found
        if alone:
            assert "no neighbour" in card.note
            assert len(card.panels) == 1
        else:  # its own class has none, but there is one of another
            assert card.detail == "no known picture is of its own class"
            assert [panel.title for panel in card.panels] == ["input", "of another class"]


def test_some_rows_are_kept_and_an_artifact_gives_the_same_bytes(x, tmp_path):
    model = Counting(rowwise(W))
    fitted = fit(Neighbours(n_reference=10), TRAIN, predictor=model, inputs=INPUTS, encoder=encoder())
    assert len(fitted.arrays["reference_rows"]) == 10
    read = artifact.load(artifact.save(fitted, tmp_path / "neighbours"))
    answers = [prepare(one, model, warm=False)(x, limits=PATIENT) for one in (fitted, read)]
    assert answers[0].to_json() == answers[1].to_json()
    assert [card.found for card in cards(answers[0], x, INPUTS)] == answers[0]["found"].tolist()


def test_what_is_missing_or_of_no_use_is_said():
    with pytest.raises(InvalidSpec, match="neighbours: needs training rows"):
        fit(Neighbours(), predictor=Counting(rowwise(W)), inputs=INPUTS)
    with pytest.raises(InvalidSpec, match="encoder: attribution makes no use of one"):
        fit(Attribution(), predictor=Counting(rowwise(W)), inputs=INPUTS, encoder=encoder())
