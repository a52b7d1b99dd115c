"""Counterfactuals with prototypes: whose class is sought, what is trusted, what is fitted stays as it was."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.artifact import load, save
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.spec import CounterfactualProto, Inputs, Limits

CONTRACT = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
TRAIN = np.random.default_rng(11).uniform(0, 1, (150, *SHAPE)).astype("f")
W = weights(seed=4)
WHITE = Linear(W)
PATIENT = Limits(max_seconds=3600, max_batch=64)


def networks(unit: float = 1.0):
    """An autoencoder that keeps 10 of 16 directions, and its encoder: orthogonal, so they are exact."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:, :10].astype("f")
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    decoder = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16), keras.layers.Reshape(SHAPE)])
    encoder.set_weights([basis / unit, np.zeros(10, "f")])
    decoder.set_weights([basis.T * unit, np.zeros(16, "f")])
    rows = keras.Input(SHAPE)
    return {"autoencoder": keras.Model(rows, decoder(encoder(rows))), "encoder": encoder}


NETWORKS = networks()
ROADS = {
    "fast": {},
    "reference": {"schedule": "reference", "max_iterations": 50, "beta": 0.01, "c_steps": 3},
    "random": {"gradient": "random"},
}


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype("f")


def explainer(predictor=WHITE, models=NETWORKS, train=TRAIN, contract=CONTRACT, **settings):
    spec = CounterfactualProto(**{"gamma": 1.0 if models else 0.0, "theta": 1.0, **settings})
    fitted = fit(spec, train, predictor=predictor, inputs=contract, **models)
    run = prepare(fitted, predictor, warm=False)

    def explain(rows, options=None):
        return run(rows, options, limits=PATIENT)

    explain.fitted = fitted
    return explain


def codes_of(rows):
    return NETWORKS["encoder"](rows).numpy()


# --- what `found` means ---------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [NETWORKS, {}], ids=["networks", "inputs"])
@pytest.mark.parametrize("road", ROADS)
def test_found_holds_when_the_model_is_asked_again(x, road, models):
    answer = explainer(models=models, **ROADS[road])(x)
    assert answer["found"].all()
    again = rowwise(W)(answer["counterfactual"]).argmax(axis=1)
    np.testing.assert_array_equal(again, answer["counterfactual_class"])
    assert (again != answer["original_class"]).all()
    assert (answer["counterfactual"] >= 0).all()
    assert (answer["counterfactual"] <= 1).all()


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("road", ROADS)
def test_a_stopped_search_reports_the_scores_of_what_it_gives(x, road, rows):
    answer = explainer(feature_range=(0.3, 0.7), **ROADS[road])(x, {"max_rows": rows})
    found = answer["found"]
    np.testing.assert_array_equal(answer["counterfactual"][~found], x[~found])
    if rows == 1:
        assert not found.any()
        assert (answer["counterfactual_class"] == -1).all()
    else:
        np.testing.assert_allclose(
            answer["counterfactual_proba"], rowwise(W)(answer["counterfactual"]), atol=1e-6
        )


def test_kappa_and_the_lead_are_reached_where_they_can_be(x):
    answer = explainer(lead=4.0)(x)
    second, first = np.sort(answer["counterfactual_proba"], axis=1)[:, -2:].T
    assert (first >= 3.99 * second).all()
    answer = explainer(lead=1.0, kappa=0.5)(x)
    second, first = np.sort(answer["counterfactual_proba"], axis=1)[:, -2:].T
    assert (first - second >= 0.5 - 1e-6)[answer["found"]].all()
    assert answer["found"].all()


# --- whose class is sought ------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [NETWORKS, {}], ids=["networks", "inputs"])
@pytest.mark.parametrize("road", ["fast", "random", "surrogate"])
def test_the_class_that_is_answered_is_that_of_the_prototype(models, road):
    rows = np.random.default_rng(9).uniform(0, 1, (8, *SHAPE)).astype("f")
    predictor = WHITE if road == "fast" else Counting(Linear(W).function, 4096)
    answer = explainer(predictor, models, gradient="auto" if road == "fast" else road)(rows)
    found = answer["found"]
    assert found.mean() >= 0.9
    np.testing.assert_array_equal(answer["counterfactual_class"][found], answer["id_proto"][found])


def test_without_gamma_and_theta_it_is_an_elastic_net_alone(x):
    answer = explainer(models={}, theta=0.0)(x)
    assert answer["found"].all()
    assert not {"id_proto", "prototype_distance"} & set(answer.arrays)  # there is none to speak of


def test_the_prototype_is_of_the_nearest_class_but_the_own(x):
    answer = explainer()(x)
    codes, classes = codes_of(TRAIN), rowwise(W)(TRAIN).argmax(axis=1)
    means = np.stack([codes[classes == wanted].mean(axis=0) for wanted in range(CLASSES)])
    far = np.linalg.norm(codes_of(x)[:, None] - means, axis=2)
    far[np.arange(len(x)), answer["original_class"]] = np.inf
    np.testing.assert_array_equal(answer["id_proto"], far.argmin(axis=1))


@pytest.mark.parametrize("road", ["fast", "reference"])
def test_a_row_of_the_only_class_allowed_has_no_counterfactual(x, road):
    own = int(rowwise(W)(x[:1]).argmax())
    answer = explainer(**ROADS[road])(x[:1], {"target_class": [own]})
    assert answer["status"].tolist() == ["not_found"]
    np.testing.assert_array_equal(answer["counterfactual"], x[:1])
    assert answer["original_class"] == answer["counterfactual_class"] == own


@pytest.mark.parametrize("wanted", range(CLASSES))
def test_only_classes_that_are_allowed_are_reached(x, wanted):
    answer = explainer()(x, {"target_class": [wanted]})
    own = answer["original_class"] == wanted
    np.testing.assert_array_equal(answer["found"], ~own)
    np.testing.assert_array_equal(answer["counterfactual_class"][~own], wanted)
    np.testing.assert_array_equal(answer["id_proto"], np.where(own, -1, wanted))
    np.testing.assert_array_equal(answer["prototype_distance"][own], -1)
    np.testing.assert_array_equal(answer["counterfactual"][own], x[own])


@pytest.mark.parametrize("theta", [1.0, 10.0])
def test_a_prototype_that_is_a_counterfactual_is_found_whatever_the_scores_look_like(theta):
    def rule(rows):  # 0 or 1, and no slope anywhere
        return np.eye(2, dtype="f")[(rows.reshape(len(rows), -1).mean(axis=1) > 0.5).astype(int)]

    bright = np.linspace(0.4, 1.6, 200, dtype="f").reshape(-1, 1, 1, 1)
    train = (np.random.default_rng(0).random((200, 6, 6, 1), "f") * bright).clip(0, 1)
    contract = Inputs(shape=(6, 6, 1), low=0, high=1, classes=2)
    rows = train[rule(train)[:, 0] == 1][:3]
    for gradient in ("random", "surrogate"):
        answer = explainer(Counting(rule, 4096), {}, train, contract, theta=theta, gradient=gradient)(rows)
        assert answer["found"].all()
        np.testing.assert_array_equal(answer["counterfactual_class"], 1)
        np.testing.assert_array_equal(answer["id_proto"], 1)
        assert (rule(answer["counterfactual"])[:, 1] == 1).all()
        # The nearest row of the class is the prototype: no farther than that.
        others = train[rule(train)[:, 1] == 1].reshape(-1, 36)
        nearest = [np.linalg.norm(others - row.reshape(-1), axis=1).argmin() for row in rows]
        far = np.abs(others[nearest] - rows.reshape(3, -1)).sum(axis=1)
        assert (answer["distance_l1"] <= far * (1 + 1e-5)).all()


# --- trust ----------------------------------------------------------------------------------------------


def test_trust_is_at_least_the_threshold(x):
    run = explainer(threshold=1.2, theta=3.0)
    answer = run(x)
    assert answer["found"].any()
    codes, means = codes_of(answer["counterfactual"]), run.fitted.arrays["means"]
    own = np.linalg.norm(codes - means[answer["original_class"]], axis=1)
    new = np.linalg.norm(codes - means[answer["counterfactual_class"]], axis=1)
    assert (own / new)[answer["found"]].min() > 1.2 * (1 - 1e-4)


@pytest.mark.parametrize("absent", range(CLASSES))
def test_a_class_without_training_rows_has_no_prototype_and_is_not_trusted(absent):
    rows = np.random.default_rng(9).uniform(0, 1, (6, *SHAPE)).astype("f")
    known = TRAIN[rowwise(W)(TRAIN).argmax(axis=1) != absent]
    own = rowwise(W)(rows).argmax(axis=1)
    answer = explainer(train=known, threshold=0.01)(rows)
    assert not answer["found"][own == absent].any()  # nothing says how far it is from its own class
    assert (answer["counterfactual_class"][answer["found"]] != absent).all()
    assert (answer["id_proto"] != absent).all()
    alone = explainer(train=known, threshold=0.01)(rows, {"target_class": [absent]})
    assert not alone["found"].any()
    np.testing.assert_array_equal(alone["id_proto"], -1)
    np.testing.assert_array_equal(alone["prototype_distance"], -1)
    # Where no trust is asked for, the class can be had without one.
    free = explainer(train=known)(rows, {"target_class": [absent]})
    np.testing.assert_array_equal(free["found"], own != absent)
    np.testing.assert_array_equal(free["prototype_distance"], -1)


# --- what is answered -----------------------------------------------------------------------------------


def test_fields_are_those_of_the_answer(x):
    answer = explainer(beta=0.2, k=3)(x)
    change = (answer["counterfactual"] - x).reshape(len(x), -1).astype("d")
    net = 0.2 * np.abs(change).sum(axis=1) + (change**2).sum(axis=1)
    np.testing.assert_allclose(answer["elastic_net"], net, rtol=1e-5)
    rebuilt = NETWORKS["autoencoder"](answer["counterfactual"]).numpy()
    error = ((rebuilt - answer["counterfactual"]) ** 2).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(answer["autoencoder_error"], error, rtol=1e-4, atol=1e-6)
    codes, classes = codes_of(TRAIN), rowwise(W)(TRAIN).argmax(axis=1)
    for row in range(len(x)):
        own = codes[classes == answer["id_proto"][row]]
        far = np.linalg.norm(own - codes_of(x[row : row + 1]), axis=1)
        prototype = own[np.argsort(far)[:3]].mean(axis=0)
        expected = ((codes_of(answer["counterfactual"][row : row + 1])[0] - prototype) ** 2).sum()
        assert answer["prototype_distance"][row] == pytest.approx(expected, rel=1e-3)
    assert (answer["c"] > 0).all()


def test_more_weight_on_the_penalties_makes_answers_more_plausible(x):
    error, away = [], []
    for rho in (0.0, 0.1, 1.0):
        answer = explainer(rho=rho, gamma=10.0, theta=10.0)(x)
        assert answer["found"].all()
        error.append(float(np.mean(answer["autoencoder_error"] + answer["prototype_distance"])))
        away.append(float(np.mean(answer["elastic_net"])))
    assert error[0] > error[1] > error[2]
    assert away[0] < away[2]


def test_the_loss_as_it_is_written_is_no_larger_than_at_less_weight(x):
    def loss(answer):
        return answer["elastic_net"] + 5 * answer["autoencoder_error"] + 2 * answer["prototype_distance"]

    settings = {"gamma": 5.0, "theta": 2.0, "lead": 1.0}
    whole, less = (loss(explainer(rho=rho, **settings)(x)) for rho in (1.0, 0.06))
    assert np.median(whole) <= np.median(less)


@pytest.mark.parametrize("unit", [255.0])
@pytest.mark.parametrize("models", [True, False], ids=["networks", "inputs"])
@pytest.mark.parametrize("road", ["fast", "random"])
def test_units_change_no_answer_beyond_rounding(x, road, models, unit):
    ours = explainer(WHITE, NETWORKS if models else {}, **ROADS[road])(x)
    contract = Inputs(shape=SHAPE, low=0, high=unit, classes=CLASSES)
    scale = np.float32(unit)
    there = networks(unit) if models else {}
    theirs = explainer(Linear(W / unit), there, TRAIN * scale, contract, **ROADS[road])(x * scale)
    for name in ("found", "id_proto", "counterfactual_class"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    for name in ("elastic_net", "counterfactual_proba", "prototype_distance"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0.02, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(ours["distance_l1"] * unit, theirs["distance_l1"], rtol=0.02)


@pytest.mark.parametrize("road", ROADS)
def test_what_may_not_change_does_not(x, road):
    free = np.broadcast_to(np.array([True, False, True, True])[:, None, None], SHAPE)
    answer = explainer(**ROADS[road])(x, {"region": free.tolist()})
    assert answer["found"].any()
    np.testing.assert_array_equal(answer["counterfactual"][:, ~free], x[:, ~free])


def test_the_scale_of_the_logits_changes_nothing_that_is_found():
    w = np.random.default_rng(0).normal(size=(5, 36)).astype("f") * 10
    rows = np.random.default_rng(1).uniform(0, 1, (8, 6, 6, 1)).astype("f")
    contract = Inputs(shape=(6, 6, 1), low=0, high=1, classes=5)
    train = np.random.default_rng(2).uniform(0, 1, (100, 6, 6, 1)).astype("f")
    for scale in (1, 3, 6, 12):
        assert explainer(Linear(w * scale), {}, train, contract)(rows)["found"].all()


# --- options, artifacts ---------------------------------------------------------------------------------


def test_explaining_with_k_changes_nothing_that_was_fitted(x):
    run = explainer()
    before = {name: array.tobytes() for name, array in run.fitted.arrays.items()}
    first = run(x)
    run(x, {"k": 5, "k_type": "point"})
    again = run(x)
    for name, field in first.arrays.items():
        assert again[name].tobytes() == field.tobytes(), name
    assert {name: array.tobytes() for name, array in run.fitted.arrays.items()} == before


def test_a_saved_explainer_gives_the_same_bytes(x, tmp_path):
    run = explainer()
    loaded = load(save(run.fitted, tmp_path / "proto"))
    again, before = prepare(loaded, WHITE, warm=False)(x, limits=PATIENT), run(x)
    for name, field in before.arrays.items():
        assert again[name].tobytes() == field.tobytes(), name


def test_fitting_tells_its_progress():
    seen = []
    spec = CounterfactualProto(theta=1.0)
    fit(spec, TRAIN, predictor=WHITE, inputs=CONTRACT, progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (CounterfactualProto(gamma=1.0), "autoencoder"),
        (CounterfactualProto(theta=1.0), "predictor"),
        (CounterfactualProto(target_class=(1, 3)), "target_class"),
    ],
)
def test_what_a_spec_needs_is_asked_for_by_name(spec, message):
    with pytest.raises(InvalidSpec, match=message):
        fit(spec, inputs=CONTRACT)


@pytest.mark.parametrize(
    "options", [{"target_class": []}, {"target_class": [3]}, {"k": 0}, {"threshold": -1}]
)
def test_options_out_of_range_are_refused_by_name(x, options):
    with pytest.raises(InvalidOption) as refused:
        explainer(models={})(x, options)
    assert refused.value.field == next(iter(options))


@pytest.mark.parametrize("options", [{"threshold": 1.2}, {"k": 3}, {"k_type": "point"}])
def test_options_about_prototypes_are_refused_where_there_are_none(x, options):
    with pytest.raises(InvalidOption, match="without prototypes") as refused:
        explainer(models={}, theta=0.0)(x, options)
    assert refused.value.field == next(iter(options))


def test_an_artifact_that_kept_means_of_all_classes_gives_the_same_answers(x):
    wide = CONTRACT.model_copy(update={"classes": CLASSES + 4})
    model = Counting(lambda rows: np.pad(rowwise(W)(rows), ((0, 0), (0, 4))))
    spec = CounterfactualProto(theta=1.0, gradient="random", effort="quick")
    fitted = fit(spec, TRAIN, predictor=model, inputs=wide, encoder=NETWORKS["encoder"])
    present = np.unique(fitted.arrays["classes"])
    assert len(fitted.arrays["means"]) == len(present) < wide.classes
    means = np.zeros((wide.classes, fitted.arrays["means"].shape[1]), "f")
    means[present] = fitted.arrays["means"]
    norms = (fitted.arrays["codes"].astype("f") ** 2).sum(axis=1)  # were kept, too, and never read
    older = dataclasses.replace(fitted, arrays={**fitted.arrays, "means": means, "norms": norms})
    new, old = (
        prepare(one, model, warm=False)(x, {"max_rows": 2000}, limits=PATIENT) for one in (fitted, older)
    )
    assert new.to_json() == old.to_json()
    broken = dataclasses.replace(fitted, arrays={**fitted.arrays, "means": means[:-1]})
    with pytest.raises(InvalidSpec, match="array 'means': expected one row a class that has codes"):
        prepare(broken, model, warm=False)


@pytest.mark.parametrize("models", [NETWORKS, {}], ids=["networks", "inputs"])
def test_of_each_class_a_coreset_is_kept_and_the_mean_of_all(x, models):
    few, all_ = (explainer(models=models, coreset=most) for most in (5, None))
    held, whole = few.fitted.arrays, all_.fitted.arrays
    assert np.bincount(held["classes"]).max() == 5 < np.bincount(whole["classes"]).max()
    assert {row.tobytes() for row in held["codes"]} <= {row.tobytes() for row in whole["codes"]}
    if models:
        np.testing.assert_array_equal(held["means"], whole["means"])
        assert few(x).to_json().partition(b'"data"')[2] == all_(x).to_json().partition(b'"data"')[2]
    assert few(x, {"k": 3})["found"].any()


def test_fitting_asks_in_calls_that_the_model_takes(x):
    sizes = []

    class Small(Counting):
        def __call__(self, rows, *, timeout=None):
            sizes.append(len(rows))
            return super().__call__(rows)

    fit(CounterfactualProto(theta=1.0), TRAIN, predictor=Small(rowwise(W), most=7), inputs=CONTRACT)
    assert max(sizes) == 7
