"""Changes that a decoder makes: the answer is something that it makes, and the nearest of that."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidArtifact, InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.keras import KerasNetwork
from explainer_runtime.search.latent import Coder, Latent, inverted
from explainer_runtime.spec import CEM, Counterfactual, CounterfactualProto, Inputs, Limits, parse_spec

CONTRACT = Inputs(shape=SHAPE, low=-1, high=2, classes=CLASSES)  # so wide that no bound is met
W = weights(seed=4)
PATIENT = Limits(max_seconds=3600, max_batch=64, max_rows=10**6, max_calls=10**5)
CODES = 6
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:, :CODES].astype("f")
MEAN = np.float32(0.5)


def made(codes):
    """What the decoder makes of codes, in NumPy."""
    return (codes @ BASIS.T + MEAN).reshape(-1, *SHAPE)


def networks():
    """A linear decoder of six codes, and the encoder that is its inverse."""
    decoder = keras.Sequential([keras.Input((CODES,)), keras.layers.Dense(16), keras.layers.Reshape(SHAPE)])
    decoder.set_weights([BASIS.T, np.full(16, MEAN)])
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CODES)])
    encoder.set_weights([BASIS, -MEAN * BASIS.sum(axis=0)])
    return decoder, encoder


DECODER, ENCODER = networks()
TRAIN = made(np.random.default_rng(1).uniform(-0.8, 0.8, (200, CODES)).astype("f"))
NETWORK = KerasNetwork(DECODER)


@pytest.fixture
def x():
    rng = np.random.default_rng(2)
    return (made(rng.uniform(-0.2, 0.2, (5, CODES))) + rng.uniform(-0.02, 0.02, (5, *SHAPE))).astype("f")


def fitted(spec=None, predictor=None, **more):
    given = {"decoder": DECODER, "encoder": ENCODER, **more}
    spec = spec or Counterfactual(space="latent", target_proba=0.8, tol=0.05)
    return fit(spec, TRAIN, predictor=predictor or Linear(W), inputs=CONTRACT, **given)


def off_the_decoder(rows):
    """How far rows lie from anything that the decoder makes."""
    away = rows.reshape(len(rows), -1) - MEAN
    return np.abs(away - away @ BASIS @ BASIS.T).max(axis=1)


def coder(encoder=True):
    low, high = np.full(CODES, -1, "f"), np.full(CODES, 1.5, "f")
    return Coder(NETWORK, KerasNetwork(ENCODER) if encoder else None, low, high)


def space(x, **bounds):
    return Latent(
        x, coder(), *(np.full(SHAPE, bounds.get(name, at), "f") for name, at in (("low", -9), ("high", 9)))
    )


# --- the space ------------------------------------------------------------------------------------------


def test_nothing_changed_is_the_row_itself_to_the_bit(x):
    assert space(x).rows(np.zeros((5, CODES), "f"), np.arange(5)).tobytes() == x.tobytes()


def test_a_slope_in_codes_is_that_of_finite_differences(x):
    place, lanes = space(x, low=0.35, high=0.65), np.arange(5)
    rng = np.random.default_rng(3)
    d, weight = rng.uniform(-0.1, 0.1, (5, CODES)).astype("f"), rng.normal(size=(5, *SHAPE)).astype("f")
    rows = place.rows(d, lanes)
    assert ((rows == np.float32(0.35)) | (rows == np.float32(0.65))).any()  # the bounds are met somewhere
    back, step = place.back(np.where((rows > 0.35) & (rows < 0.65), weight, 0), d, lanes), 1e-3
    for axis in range(CODES):
        nudge = np.zeros_like(d)
        nudge[:, axis] = step
        change = (place.rows(d + nudge, lanes) - place.rows(d - nudge, lanes)) / (2 * step)
        inside = (np.abs(place.rows(d + nudge, lanes) - rows) > 0) & (
            np.abs(place.rows(d - nudge, lanes) - rows) > 0
        )
        slope = (np.where(inside, change, 0) * weight).reshape(5, -1).sum(axis=1)
        np.testing.assert_allclose(back[:, axis], slope, rtol=0.02, atol=0.02)


def test_a_change_that_leads_out_of_the_range_of_codes_is_none(x):
    place = space(x)
    least, most = place.bounds()
    shares = place.codes + np.stack([least, most])
    np.testing.assert_allclose(shares, np.stack([np.zeros_like(least), np.ones_like(most)]), atol=1e-6)


def test_without_an_encoder_the_code_is_the_one_that_makes_most_of_the_row(x):
    flat = x.reshape(5, -1) - MEAN
    exact = flat @ BASIS  # least squares: the basis is orthogonal
    found = inverted(NETWORK, x, np.zeros((5, CODES), "f"), -np.inf, np.inf)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    np.testing.assert_allclose(coder(encoder=False).codes(x), coder().codes(x), atol=1e-4)


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [ENCODER, None], ids=["encoder", "none"])
@pytest.mark.parametrize(
    "spec",
    [Counterfactual(space="latent", tol=0.2), CounterfactualProto(space="latent")],
    ids=lambda spec: spec.kind,
)
def test_what_is_found_is_what_the_decoder_makes_and_the_model_says_so(x, spec, encoder):
    answer = prepare(fitted(spec, encoder=encoder), Linear(W), warm=False)(x, limits=PATIENT)
    assert answer["found"].all()
    rows = answer["counterfactual"]
    assert off_the_decoder(rows).max() < 1e-5
    assert (off_the_decoder(x) > 1e-3).all()
    again = rowwise(W)(rows).argmax(axis=1)
    np.testing.assert_array_equal(again, answer["counterfactual_class"])
    assert (again != answer["original_class"]).all()


def test_the_answer_is_the_least_that_another_road_finds():
    """Codes, squared codes and squared distance of the row, at a level of log-odds: solved by SLSQP."""
    held = fitted()
    x = made(np.random.default_rng(5).uniform(-0.2, 0.2, (4, CODES))).astype("f")
    spec = {
        "target_class": 2,
        "effort": "thorough",
        "target_proba": 0.8,
        "tol": 0.01,
        "objective": "smallest",
    }
    own = rowwise(W)(x).argmax(axis=1)
    x = x[own != 2]
    assert len(x) >= 2
    answer = prepare(held, Linear(W), warm=False)(x, spec, limits=PATIENT)
    unit = held.arrays["code_high"] - held.arrays["code_low"]
    level = np.log(0.79 / 0.21)

    def cost(d, code):
        row = made((code + d * unit)[None])[0]
        return np.abs(d).sum() + 0.3 * (d**2).sum() + ((row - made(code[None])[0]) ** 2).sum() / 9

    def margin(d, code):
        logits = W @ made((code + d * unit)[None]).reshape(-1).astype(float)
        return logits[2] - np.logaddexp(logits[0], logits[1]) - level

    for row, there in zip(x, answer["counterfactual"], strict=True):
        code = (row.reshape(-1) - MEAN) @ BASIS
        share = (code - held.arrays["code_low"]) / unit
        ours = ((there.reshape(-1) - MEAN) @ BASIS - code) / unit
        halves = minimize(
            lambda pn, code=code: cost(pn[:CODES] - pn[CODES:], code) + 1e-3 * pn.sum(),
            np.concatenate([ours.clip(0), (-ours).clip(0)]) + 0.02,
            constraints={"type": "ineq", "fun": lambda pn, code=code: margin(pn[:CODES] - pn[CODES:], code)},
            bounds=[(0, most) for most in (*(1 - share), *share)],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-6},
        )
        assert halves.success
        assert cost(ours, code) <= 1.03 * halves.fun


def test_rows_are_strangers(x):
    explain = prepare(fitted(), Linear(W), warm=False)
    together = explain(x, limits=PATIENT)["counterfactual"]
    alone = np.concatenate([explain(x[i : i + 1], limits=PATIENT)["counterfactual"] for i in range(len(x))])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_where_a_region_is_not_true_nothing_changes(x):
    region = np.zeros(SHAPE, bool)
    region[:, 1:] = True
    answer = prepare(fitted(), Linear(W), warm=False)(
        x, {"region": region.tolist(), "tol": 0.3}, limits=PATIENT
    )
    assert answer["found"].any()
    assert answer["counterfactual"][:, :, :1].tobytes() == x[:, :, :1].tobytes()


@pytest.mark.parametrize("gradient", ["surrogate", "random"])
def test_a_black_box_is_changed_in_codes_as_well(x, gradient):
    model = Counting(rowwise(W))
    spec = Counterfactual(space="latent", tol=0.4, gradient=gradient)
    answer = prepare(fitted(spec, model), model, warm=False)(x, limits=PATIENT)
    assert answer["found"].all()
    assert off_the_decoder(answer["counterfactual"]).max() < 1e-5


# --- the artifact, options, refusals --------------------------------------------------------------------


def test_an_artifact_keeps_the_decoder_and_gives_the_same_bytes(x, tmp_path):
    held = fitted()
    read = artifact.load(artifact.save(held, tmp_path / "latent"))
    answers = [prepare(one, Linear(W), warm=False)(x, limits=PATIENT) for one in (held, read)]
    assert answers[0]["counterfactual"].tobytes() == answers[1]["counterfactual"].tobytes()
    assert answers[0].to_json() == answers[1].to_json()


def test_a_request_says_where_it_wants_the_change(x):
    explain = prepare(fitted(), Linear(W), warm=False)
    features = explain(x, {"space": "features"}, limits=PATIENT)
    assert (off_the_decoder(features["counterfactual"]) > 1e-3).all()
    assert (features["distance_l1"] < explain(x, limits=PATIENT)["distance_l1"]).all()


def test_without_a_decoder_there_is_no_latent_space(x):
    with pytest.raises(InvalidSpec, match="decoder"):
        fitted(decoder=None)
    plain = prepare(fitted(Counterfactual(), decoder=None), Linear(W), warm=False)
    with pytest.raises(InvalidOption, match="space: this explainer was fitted without a decoder"):
        plain(x, {"space": "latent"})


@pytest.mark.parametrize("kind", [Counterfactual, CounterfactualProto])
def test_schedules_people_know_have_no_latent_space(kind):
    with pytest.raises(InvalidSpec, match="space 'latent' goes with schedule 'fast'"):
        parse_spec({"kind": kind().kind, "space": "latent", "schedule": "reference"})


def test_contrastive_explanations_have_none():
    with pytest.raises(InvalidSpec, match="space"):
        parse_spec({"kind": CEM().kind, "space": "latent"})


def test_a_decoder_has_to_make_rows_of_codes_that_the_encoder_gives():
    other = keras.Sequential([keras.Input((CODES,)), keras.layers.Dense(9), keras.layers.Reshape((3, 3, 1))])
    with pytest.raises(InvalidSpec, match=r"decoder: expected a model that makes rows \(4, 4, 1\)"):
        fitted(decoder=other)
    wide = keras.Sequential([keras.Input((7,)), keras.layers.Dense(16), keras.layers.Reshape(SHAPE)])
    with pytest.raises(InvalidSpec, match=r"encoder: the decoder takes codes of shape \(7,\)"):
        fitted(decoder=wide)
    with pytest.raises(InvalidSpec, match="decoder: needs training rows"):
        fit(Counterfactual(space="latent"), predictor=Linear(W), inputs=CONTRACT, decoder=DECODER)


@pytest.mark.parametrize("name", ["code_low", "code_high", "code_curvature"])
def test_codes_of_another_shape_are_refused_when_loaded(name, tmp_path):
    held = fitted()
    turned = -np.abs(held.arrays[name]) - (99 if name == "code_high" else -99 if name == "code_low" else 1)
    for wrong in (np.zeros(CODES + 1, "f"), np.full(CODES, np.nan, "f"), np.zeros(CODES, np.int64), turned):
        broken = held.__class__(held.spec, held.inputs, {**held.arrays, name: wrong}, held.models, held.model)
        with pytest.raises((InvalidArtifact, InvalidSpec)):
            artifact.save(broken, tmp_path / "broken")


@pytest.mark.parametrize("rows", range(1, 70, 6))
def test_a_spent_budget_gives_the_best_so_far(x, rows):
    answer = prepare(fitted(), Linear(W), warm=False)(x, {"max_rows": rows}, limits=PATIENT)
    assert answer.cost.rows <= rows
    changed = rowwise(W)(answer["counterfactual"]).argmax(axis=1) != rowwise(W)(x).argmax(axis=1)
    assert changed[answer["found"]].all()


def test_what_is_no_decoder_is_refused():
    with pytest.raises(InvalidSpec, match="decoder: expected a Keras model of one input"):
        fitted(decoder=lambda codes: codes)
