"""An explainer and a model that do not go together are told apart before anything is explained."""

from __future__ import annotations

import dataclasses
import logging
import threading

import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime import AnchorImage, Counterfactual, Inputs, alibi, artifact, connect, fit, prepare
from explainer_runtime.errors import InvalidInput, InvalidPrediction, InvalidSpec
from explainer_runtime.predictors import CallablePredictor, fingerprint
from explainer_runtime.predictors.tally import add, tally
from explainer_runtime.spec import Endpoint, Grid

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from keras import layers  # noqa: E402

from explainer_runtime.predictors.keras import KerasPredictor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

INPUTS = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
ANCHOR = AnchorImage(segmentation=Grid(rows=2, columns=2))
X = np.random.default_rng(0).uniform(size=(40, *SHAPE)).astype(np.float32)


def network(seed=0, units=CLASSES, shape=SHAPE, activation="softmax", dtype="float32"):
    keras.utils.set_random_seed(seed)
    image = keras.Input(shape, dtype=dtype)
    cast = layers.Rescaling(1 / 255)(image) if dtype == "uint8" else image
    return keras.Model(image, layers.Dense(units, activation=activation)(layers.Flatten()(cast)))


# --- what can be seen -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (network(units=4), r"scores 4 classes, the explainer is for 3"),
        (network(units=1, activation="sigmoid"), r"scores 2 classes, the explainer is for 3"),
        (network(shape=(1, 4, 4)), r"rows of shape \(1, 4, 4\), the explainer is for \(4, 4, 1\)"),
        (network(dtype="uint8"), r"from 0 to 255, .* from 0 to 1, come to 0 to 1; say `scale`"),
    ],
)
@pytest.mark.parametrize("spec", [ANCHOR, Counterfactual()])
def test_prepare_names_both_sides_of_what_does_not_go_together(model, words, spec):
    fitted = fit(spec, inputs=INPUTS)
    with pytest.raises(InvalidSpec, match=words):
        prepare(fitted, model)
    with pytest.raises(InvalidSpec, match=words):
        fit(spec, inputs=INPUTS, predictor=model)


@pytest.mark.parametrize("spec", [ANCHOR, Counterfactual()])
def test_a_model_in_process_is_asked_what_its_numbers_are_before_it_is_explained(spec):
    fitted = fit(spec, inputs=INPUTS)
    logits = network(activation=None)
    with pytest.raises(InvalidPrediction, match="say output 'logits'"):
        prepare(fitted, logits)
    with pytest.raises(InvalidPrediction, match="say output 'logits'"):
        fit(spec, X, predictor=logits)
    assert prepare(fitted, connect(network(activation=None), output="logits"))


@pytest.mark.parametrize("answer", [lambda x: rowwise(weights(classes=4))(x), lambda x: np.full(len(x), 0.5)])
def test_a_function_of_other_classes_is_refused_at_its_first_answer(answer):
    with pytest.raises(InvalidPrediction, match="the explainer is for 3 classes"):
        prepare(fit(ANCHOR, inputs=INPUTS), answer)(X[:1])


# --- chance -----------------------------------------------------------------------------------------------


class ByChance(layers.Layer):
    """Noise that is left on, as augmentation is in some exports."""

    def __init__(self, size):
        super().__init__()
        self.size, self.generator = size, keras.random.SeedGenerator(0)

    def call(self, x):
        return x + self.size * keras.random.normal(keras.ops.shape(x), seed=self.generator)


def noisy(size):
    image = keras.Input(SHAPE)
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(ByChance(size)(image))))


@pytest.mark.parametrize("form", ["object", "directory"])
def test_a_model_in_process_that_answers_by_chance_is_refused_when_it_is_prepared(form, tmp_path):
    model = noisy(0.3)
    if form == "directory":
        model.export(tmp_path / "m", verbose=False)
        model = tmp_path / "m"
    for spec in (ANCHOR, Counterfactual()):
        with pytest.raises(InvalidPrediction, match=r"by chance.*inference mode.*`canary`"):
            prepare(fit(spec, inputs=INPUTS), model)
    fitted = fit(ANCHOR, inputs=INPUTS)
    assert prepare(fitted, connect(model, canary=0.9), warm=False)
    assert prepare(fitted, connect(model, canary=None), warm=False)


def test_noise_below_what_was_allowed_passes():
    assert prepare(fit(ANCHOR, inputs=INPUTS), noisy(1e-5), warm=False)


def by_chance(exact, size):
    rng, lock = np.random.default_rng(0), threading.Lock()

    def answer(x):
        with lock:
            noise = rng.uniform(1 - size, 1 + size, (len(x), CLASSES))
        p = exact(x) * noise
        return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)

    return answer


@pytest.mark.parametrize("spec", [ANCHOR, Counterfactual(gradient="random"), Counterfactual(gradient="full")])
def test_a_function_and_an_endpoint_of_chance_are_called_that(spec):
    answer = by_chance(rowwise(weights() / 6), 0.3)
    fitted = fit(spec, inputs=INPUTS)

    def respond(x):
        p = answer(x)
        return [Output("p", "FP32", p.shape, p)]

    with RestServer(Model(respond=respond)) as up:
        for model in (answer, connect(Endpoint(url=up.url, model="m"))):
            with pytest.raises(InvalidPrediction, match="by chance"):
                prepare(fitted, model, warm=False)(X[:1])


# --- is it the same model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A network with its file and its export, and one that was made alike from another seed."""
    folder = tmp_path_factory.mktemp("models")
    own, other = network(0), network(1)
    own.save(folder / "own.keras")
    own.export(folder / "own", verbose=False)
    return {"own": own, "other": other, "file": folder / "own.keras", "directory": folder / "own"}


def serve(predictor, version="1"):
    def respond(x):
        p = predictor(x)
        return [Output("p", "FP32", p.shape, p)]

    return Model(respond=respond, version=version)


@pytest.fixture(scope="module")
def fitted(models, tmp_path_factory):
    return artifact.load(
        artifact.save(
            fit(ANCHOR, X, inputs=INPUTS, predictor=models["own"]), tmp_path_factory.mktemp("a") / "b"
        )
    )


def test_an_artifact_remembers_the_weights_and_rows_of_doubt(fitted, models):
    assert fitted.model["digest"] == connect(models["own"]).identity()["digest"]
    rows, scores = fitted.arrays[fingerprint.ROWS], fitted.arrays[fingerprint.SCORES]
    np.testing.assert_allclose(scores, models["own"](rows), rtol=1e-5)
    assert scores.max(axis=1).mean() < connect(models["own"])(X).max(axis=1).mean()


@pytest.mark.parametrize("name", ["own", "file", "directory"])
def test_the_same_model_in_any_form_is_no_stranger(fitted, models, name):
    answer = prepare(fitted, models[name])(X[:1])
    assert "warnings" not in answer.meta


def test_another_model_in_process_is_said_in_log_and_answer(fitted, models, caplog):
    with caplog.at_level(logging.WARNING, logger="explainer_runtime.model"):
        prepared = prepare(fitted, models["other"])
    assert "not the one that the explainer was fitted to" in caplog.text
    answer = prepared(X[:1])
    (warning,) = answer.meta["warnings"]
    assert "not the one that the explainer was fitted to" in warning
    with pytest.raises(InvalidPrediction, match=r"not the one .*`strict`"):
        prepare(fitted, connect(models["other"], strict=True))


def test_another_model_behind_an_endpoint_is_said_at_first_contact_and_when_it_comes(fitted, models):
    own, other = connect(models["own"]), connect(models["other"])
    model = serve(own)
    with RestServer(model) as up:
        prepared = prepare(fitted, connect(Endpoint(url=up.url, model="m")))
        assert model.seen == []
        assert "warnings" not in prepared(X[:1]).meta
        asked = len(model.seen)
        prepared(X[1:2])
        rows = [seen.shape[0] for seen in model.seen]
        assert rows[0] == len(fitted.arrays[fingerprint.ROWS])  # looked at once
        assert len(fitted.arrays[fingerprint.ROWS]) not in rows[asked:]
        model.respond, model.version = serve(other).respond, "2"
        prepared(X[2:3])  # its version is known with its answer, and before the next explanation
        (warning,) = prepared(X[3:4]).meta["warnings"]
        assert "fitted to" in warning
        model.respond, model.version = serve(own).respond, "3"
        prepared(X[4:5])
        assert "warnings" not in prepared(X[5:6]).meta


def test_strict_refuses_another_model_behind_an_endpoint(fitted, models):
    with RestServer(serve(connect(models["other"]))) as up:
        prepared = prepare(fitted, connect(Endpoint(url=up.url, model="m", strict=True)))
        for _ in range(2):
            with pytest.raises(InvalidPrediction, match="`strict`"):
                prepared(X[:1])


def test_a_served_model_is_known_by_name_and_version():
    with RestServer(serve(CallablePredictor(rowwise(weights())), version="7")) as up:
        known = fit(ANCHOR, X, inputs=INPUTS, predictor=Endpoint(url=up.url, model="m")).model
    assert known == {"name": "m", "version": "7"}


def test_an_artifact_that_remembers_nothing_has_nothing_against_a_model():
    assert fit(ANCHOR, inputs=INPUTS).model == {}
    assert "warnings" not in prepare(fit(ANCHOR, inputs=INPUTS), rowwise(weights()))(X[:1]).meta


# --- does it know the rows --------------------------------------------------------------------------------


def bright(low, high):
    """A model that is right about halves of images in [low, high], and guesses elsewhere."""
    middle = (low + high) / 2

    def predict(x):
        shade = ((x.mean(axis=(1, 2, 3)) - middle) / (high - low) * 40).clip(-50, 50)
        return np.stack([1 / (1 + np.exp(shade)), 1 / (1 + np.exp(-shade))], axis=1).astype(np.float32)

    return predict


HALVES = np.concatenate([X[:20] / 2, 0.5 + X[20:] / 2])
TRUTH = np.repeat([0, 1], 20)
TWO = Inputs(shape=SHAPE, low=0, high=1, classes=2)


def test_fit_keeps_how_often_the_model_is_right():
    fitted = fit(ANCHOR, HALVES, y=TRUTH, inputs=TWO, predictor=bright(0, 1))
    assert fitted.model["accuracy"] == "1.000 of 40 rows"


@pytest.mark.parametrize("scale", [(-0.5, 0.5), (0, 255)])
def test_a_model_that_knows_the_rows_in_another_range_is_refused_with_it(scale):
    low, high = scale
    with pytest.raises(InvalidSpec, match=rf"\[{low:g}, {high:g}\].*`--range {low:g} {high:g}`.*--force"):
        fit(ANCHOR, HALVES, y=TRUTH, inputs=TWO, predictor=bright(*scale))
    assert "accuracy" in fit(ANCHOR, HALVES, y=TRUTH, inputs=TWO, predictor=bright(*scale), force=True).model


def test_a_model_that_knows_nothing_of_the_rows_is_refused():
    with pytest.raises(InvalidSpec, match=r"y: .*no more than chance.*order of the classes"):
        fit(ANCHOR, HALVES, y=1 - TRUTH, inputs=TWO, predictor=bright(0, 1))


@pytest.mark.parametrize(
    ("y", "words"), [(TRUTH[:9], "for each of 40"), (TRUTH + 5, "5 to 6"), (TRUTH / 3, "float")]
)
def test_classes_that_are_none_are_refused(y, words):
    with pytest.raises(InvalidInput, match=words):
        fit(ANCHOR, HALVES, y=y, inputs=TWO, predictor=bright(0, 1))


# --- counting ---------------------------------------------------------------------------------------------


def test_a_tally_counts_what_was_added_within_and_nothing_of_other_threads():
    add(rows=5)  # nobody counts
    with tally() as own:
        add(rows=2, calls=1)
        thread = threading.Thread(target=add, args=(7, 7))
        thread.start()
        thread.join()
        with tally() as inner:
            add(rows=3)
    assert (own.rows, own.calls, inner.rows, inner.calls) == (2, 1, 3, 0)


def test_rows_that_fill_a_batch_in_process_are_counted():
    image = keras.Input(batch_shape=(4, *SHAPE))
    fixed = keras.Model(image, layers.Dense(3, activation="softmax")(keras.ops.reshape(image, (4, 16))))
    predictor = KerasPredictor.of(fixed)
    with tally() as more:
        predictor(X[:6])
    assert more.rows == 2


def test_what_a_function_was_asked_is_what_is_counted():
    model = Counting(rowwise(weights()), 4096)
    cost = prepare(fit(ANCHOR, inputs=INPUTS), model)(X[:2]).cost
    assert (cost.rows, cost.calls) == (model.rows, model.calls)


# --- the notebook face ------------------------------------------------------------------------------------


def test_notebooks_say_what_numbers_mean_beside_the_settings():
    logits, shape = network(activation=None), (1, *SHAPE)
    with pytest.raises(InvalidPrediction, match="logits"):
        alibi.Counterfactual(logits, shape, feature_range=(0, 1))
    for explainer in (
        alibi.Counterfactual(logits, shape, feature_range=(0, 1), tol=0.4, output="logits"),
        alibi.CEM(logits, "PN", shape, feature_range=(0, 1), no_info_val=0.0, output="logits"),
        alibi.CounterfactualProto(logits, shape, feature_range=(0, 1), output="logits"),
    ):
        assert explainer._fitted.inputs.classes == 3
    anchor = alibi.AnchorImage(logits, SHAPE, segmentation_fn="grid", output="logits", label=2)
    assert anchor._fitted.inputs.classes == 2


@pytest.mark.parametrize(
    "name",
    [lambda c: c, lambda c: c[:, None], lambda c: np.array(["cat", "dog"])[c], lambda c: c.astype(bool)],
)
def test_labels_of_any_kind_hold_the_same_anchor_as_probabilities(name):
    def probability(x):
        return 1 / (1 + np.exp(-20 * (x.mean(axis=(1, 2, 3)) - 0.4)))

    image = np.zeros(SHAPE, np.float32)
    image[:2] = 1
    settings = {
        "segmentation_fn": "grid",
        "segmentation_kwargs": {"rows": 2, "columns": 2},
        "fill": "constant",
    }
    by_label = alibi.AnchorImage(lambda x: name((probability(x) > 0.5).astype(int)), SHAPE, **settings)
    by_score = alibi.AnchorImage(probability, SHAPE, **settings)
    named, scored = by_label.explain(image), by_score.explain(image)
    assert named.raw["feature"] == scored.raw["feature"] != []
    assert named.precision == scored.precision


def test_a_fitted_explainer_keeps_what_it_knows_of_its_model_when_it_is_saved(fitted, tmp_path):
    again = artifact.load(artifact.save(dataclasses.replace(fitted), tmp_path / "again"))
    assert again.model == fitted.model


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 40])
def test_meeting_the_model_is_part_of_the_budget(rows):
    w = np.random.default_rng(3).normal(size=(3, 16)).astype("f")
    counting = Counting(Linear(w).function)
    contract = Inputs(shape=(16,), low=0, high=1, classes=3)
    run = prepare(fit(Counterfactual(gradient="random"), inputs=contract, predictor=counting), counting)
    counting.rows = 0
    answer = run(np.full((1, 16), 0.5, "f"), {"max_rows": rows})
    assert counting.rows == answer.cost.rows <= rows


def test_the_same_weights_read_another_way_are_another_model(tmp_path):
    import keras

    keras.utils.set_random_seed(3)
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    rows = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 4, 4, 1)).astype("f")
    fitted = fit(Counterfactual(), rows, predictor=network)
    shifted = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Rescaling(3.0, 0.5), *network.layers])
    twice = connect(network, output="logits")  # a softmax of a softmax
    for other in (twice, connect(shifted)):
        answer = prepare(fitted, other)(rows[:1])
        assert "weights are the same" in answer.meta["warnings"][0]
    with pytest.raises(InvalidPrediction, match="strict"):
        prepare(fitted, connect(network, output="logits", strict=True))
    assert "warnings" not in prepare(fitted, network)(rows[:1]).meta
