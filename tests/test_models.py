"""What a model may be: any kind of output, input and road, and the same answers on all of them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from oip_servers import GrpcServer, Model, Output, RestServer
from toys import rowwise, weights

from explainer_runtime import AnchorImage, Counterfactual, Inputs, connect, fit, prepare
from explainer_runtime.errors import InvalidPrediction, InvalidSpec, PredictorError
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.predictors.tally import tally
from explainer_runtime.spec import Endpoint, Grid, KerasModel, ModelContract, parse, parse_predictor

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from keras import layers  # noqa: E402

from explainer_runtime.predictors.keras import KerasPredictor, KerasScores  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

LAYOUTS = {"channels_last": (4, 6, 3), "channels_first": (3, 4, 6)}
FLAT = 72


# --- roads ------------------------------------------------------------------------------------------------


def kernel(units):
    return np.random.default_rng(units).normal(size=(FLAT, units)).astype(np.float32) / 3


def network(shape, units, activation):
    model = keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(units, activation=activation)]
    )
    model.set_weights([kernel(units), np.zeros(units, np.float32)])
    return model


def numbers(x, units, activation):
    """What the network answers, by another road: NumPy, row by row, in float64."""
    z = np.stack([row.reshape(1, FLAT).astype(np.float64) @ kernel(units) for row in x])[:, 0]
    if activation == "softmax":
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)
    return 1 / (1 + np.exp(-z)) if activation == "sigmoid" else z


def meant(raw, output, label):
    """The scores that those numbers mean, by the words of the contract."""
    if label is not None or raw.shape[1] == 1:
        p = raw[:, label or 0]
        p = 1 / (1 + np.exp(-p)) if output == "logits" else p
        return np.stack([1 - p, p], axis=1)
    return np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True) if output == "logits" else raw


@contextlib.contextmanager
def roads(shape, units, activation, **contract):
    """The same model as each predictor there is."""

    def function(x):
        return numbers(x, units, activation)

    def respond(x):
        scores = np.float32(function(x))
        return [Output("p", "FP32", scores.shape, scores)]

    model = Model(respond=respond, describe=lambda: [("image", "FP32", (-1, *shape))])
    endpoints = []
    with RestServer(model) as rest, GrpcServer(model) as grpc:
        for url, kind in ((rest.url, "v2"), (grpc.url, "v2"), (rest.url, "v1")):
            endpoints.append(connect({"kind": kind, "url": url, "model": "m", **contract}))
        yield {
            "keras": connect(network(shape, units, activation), **contract),
            "function": connect(function, **contract),
            **dict(zip(("rest", "grpc", "v1"), endpoints, strict=True)),
        }
        for endpoint in endpoints:
            endpoint.close()


KINDS = [
    *((units, "softmax", {}) for units in range(2, 6)),
    *((units, None, {"output": "logits"}) for units in range(1, 6)),
    *((units, "sigmoid", {"output": "scores"}) for units in range(2, 6)),
    *((units, "sigmoid", {"label": units - 1}) for units in range(1, 6)),
    *((units, None, {"output": "logits", "label": 0}) for units in range(1, 6)),
    (1, "sigmoid", {}),
    (3, "softmax", {"label": 1}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("units", "activation", "contract"), KINDS)
def test_all_roads_lead_to_the_same_scores(layout, units, activation, contract):
    shape = LAYOUTS[layout]
    x = np.random.default_rng(0).uniform(-1, 1, (5, *shape)).astype(np.float32)
    known = meant(numbers(x, units, activation), contract.get("output"), contract.get("label"))
    with roads(shape, units, activation, **contract) as predictors:
        for road, predictor in predictors.items():
            # Sums of 72 terms in float32, in another order.
            np.testing.assert_allclose(predictor(x), known, atol=2e-5, err_msg=road)
            assert predictor.exclusive == (contract.get("output") != "scores")


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_found_the_model_says_itself_on_every_road(layout, units):
    """The model is asked alone, by its own numbers, with nothing of the package between."""
    shape, activation = LAYOUTS[layout], "sigmoid" if units == 1 else "softmax"
    x = np.random.default_rng(1).uniform(-1, 1, (2, *shape)).astype(np.float32)
    inputs = Inputs(shape=shape, low=-1, high=1, classes=max(2, units))
    assert inputs.layout == layout
    fitted = fit(Counterfactual(tol=0.2, target_proba=0.75, seed=1), inputs=inputs)

    def classes(rows):
        return meant(numbers(rows, units, activation), None, None).argmax(axis=1)

    with roads(shape, units, activation) as predictors:
        for road, predictor in predictors.items():
            answer = prepare(fitted, predictor, warm=False)(x)
            found = answer["found"]
            assert found.any(), road
            np.testing.assert_array_equal(answer["original_class"], classes(x), err_msg=road)
            said = classes(answer["counterfactual"])
            np.testing.assert_array_equal(said[found], answer["counterfactual_class"][found], err_msg=road)
            assert (said != classes(x))[found].all(), road


BROKEN = {
    "logits said to be nothing": (3, None, {}, "'logits'"),
    "one logit": (1, None, {}, "'logits'"),
    "sigmoids said to be nothing": (3, "sigmoid", {}, "`label`"),
    "one score": (1, "sigmoid", {"output": "scores"}, "'probabilities' or 'logits'"),
    "a label that is not there": (3, "sigmoid", {"label": 3}, "label 3 .* there are 3"),
    "labels that are fractions": (1, "sigmoid", {"output": "labels", "classes": 2}, "whole ones"),
    "other classes": (3, "softmax", {"classes": 4}, "expected 4 class scores, got 3"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_promise_that_is_not_kept_is_refused_on_every_road(case):
    units, activation, contract, words = BROKEN[case]
    x = np.random.default_rng(0).uniform(-1, 1, (9, *LAYOUTS["channels_last"])).astype(np.float32) * 9
    with roads(LAYOUTS["channels_last"], units, activation, **contract) as predictors:
        for predictor in predictors.values():
            with pytest.raises(InvalidPrediction, match=words):
                predictor(x)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"output": "labels"}, "classes"),
        ({"output": "labels", "classes": 3, "label": 1}, "label"),
        ({"label": 1, "classes": 3}, "2 classes"),
        ({"output": "votes"}, "output"),
        ({"logits": "perhaps"}, "logits"),
        ({"scale": 0}, "scale"),
        ({"hold": {"mask": [[1], [2, 3]]}}, "mask: .*ragged"),
        ({"hold": {"mask": "high"}}, "mask"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused_by_name(said, words):
    for value in ({"kind": "keras", "path": "m.keras"}, {"kind": "v2", "url": "http://h", "model": "m"}):
        if "logits" in said and value["kind"] == "v2":
            continue
        with pytest.raises(InvalidSpec, match=words):
            parse_predictor({**value, **said})


# --- connect ----------------------------------------------------------------------------------------------


def test_whatever_names_a_model_connects(tmp_path):
    model = network((4, 6, 3), 3, "softmax")
    model.save(tmp_path / "m.keras")
    x = np.zeros((2, 4, 6, 3), np.float32)
    path = tmp_path / "m.keras"
    written = '{"kind": "keras", "path": "' + str(path) + '"}'
    for one in (model, model.predict, path, str(path), KerasModel(path=str(path)), written):
        assert isinstance(connect(one), KerasPredictor), one
        np.testing.assert_allclose(connect(one)(x), 1 / 3, atol=1e-6)
    assert isinstance(connect(lambda rows: rows), CallablePredictor)
    assert connect({"kind": "v2", "url": "http://h", "model": "m"}).settings.model == "m"
    assert connect("http://h/m", output="logits").settings.output == "logits"
    predictor = connect(model)
    assert connect(predictor) is predictor


@pytest.mark.parametrize("value", [3, None, object(), [1], int, b"m.keras"])
def test_what_names_no_model_is_refused_by_name(value):
    with pytest.raises(InvalidSpec, match=f"got {type(value).__name__}"):
        connect(value)


def test_a_predictor_has_its_contract_already():
    with pytest.raises(InvalidSpec, match="output"):
        connect(CallablePredictor(len), output="logits")


def test_fit_and_prepare_take_what_connect_takes():
    model = network((4, 6, 3), 3, "softmax")
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4, 6, 3)).astype(np.float32)
    fitted = fit(Counterfactual(tol=0.5), x, predictor=model)
    assert prepare(fitted, model)(x[:1])["found"].shape == (1,)


# --- inputs and outputs by name ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked():
    """Two inputs, two outputs; its scores depend on both inputs."""
    keras.utils.set_random_seed(0)
    image, mask = keras.Input((4, 6, 3), name="image"), keras.Input((2,), name="mask")
    flat = layers.Concatenate()([layers.Flatten()(image), mask])
    outputs = {
        "p": layers.Dense(3, activation="softmax", name="p")(flat),
        "codes": layers.Dense(2, name="codes")(flat),
    }
    return {
        "lists": keras.Model([image, mask], list(outputs.values())),
        "mappings": keras.Model({"image": image, "mask": mask}, outputs),
    }


def expected(model, x):
    mask = np.repeat([[1.0, -2.0]], len(x), axis=0).astype(np.float32)
    given = {"image": x, "mask": mask}
    answer = model(given if isinstance(model.input, dict) else list(given.values()))
    return np.asarray(answer["p"] if isinstance(answer, dict) else answer[0])


@pytest.mark.parametrize("form", ["lists", "mappings"])
@pytest.mark.parametrize("road", ["object", "file", "directory"])
def test_inputs_are_held_and_outputs_chosen_by_name(forked, form, road, tmp_path):
    model = forked[form]
    x = np.random.default_rng(0).uniform(size=(5, 4, 6, 3)).astype(np.float32)
    given, names = model, {"hold": {"mask": [1, -2]}, "output_name": "p"}
    if road == "file":
        model.save(given := tmp_path / "m.keras")
    if road == "directory":
        model.export(given := tmp_path / "m", verbose=False)
        signature = tf.saved_model.load(given).signatures["serving_default"]
        row, held = sorted(
            signature.structured_input_signature[1].items(), key=lambda one: -len(one[1].shape)
        )
        outputs = {name: spec.shape[-1] for name, spec in signature.structured_outputs.items()}
        names = {"hold": {held[0]: [1, -2]}, "output_name": next(n for n, k in outputs.items() if k == 3)}
        assert row[0] not in names["hold"]
    predictor = connect(given, **names)
    np.testing.assert_allclose(predictor(x), expected(model, x), rtol=1e-5)
    _, gradient = predictor.slope(x, np.ones_like)
    assert gradient.shape == x.shape


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, r"2 inputs, .*image \(4, 6, 3\).*mask \(2,\).*`input_name`.*`hold`"),
        ({"input_name": "image"}, r"'mask' \(2,\) in `hold`"),
        ({"hold": {"mask": 0}}, r"2 outputs, p .*codes .*`output_name`"),
        ({"hold": {"mask": 0}, "output_name": "q"}, "2 outputs"),
        ({"hold": {"mask": [1, 2, 3]}, "output_name": "p"}, r"'mask' of shape \(2,\)"),
        ({"hold": {"mask": 0, "other": 1}}, "other"),
        ({"input_name": "other"}, "'other'"),
    ],
)
def test_what_is_left_open_is_refused_with_the_names_there_are(forked, said, words):
    for model in forked.values():
        with pytest.raises(InvalidSpec, match=words):
            connect(model, **said)


@pytest.mark.parametrize("server", [RestServer, GrpcServer])
@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_further_inputs_and_the_wanted_output_go_along_to_an_endpoint(server, kind):
    if kind == "v1" and server is GrpcServer:
        return
    image = np.random.default_rng(0).uniform(size=(3, 4)).astype(np.float32)
    p = np.full((3, 2), 0.5, np.float32)
    outputs = [Output("codes", "FP32", (3, 5), np.zeros((3, 5), np.float32)), Output("p", "FP32", (3, 2), p)]
    model = Model(
        respond=lambda x: outputs,
        describe=lambda: [("mask", "INT32", (-1, 2)), ("image", "FP32", (-1, 4))],
    )
    with server(model) as up:
        settings = {"kind": kind, "url": up.url, "model": "m", "hold": {"mask": [3, 4]}, "output_name": "p"}
        if kind == "v1":
            settings["input_name"] = "image"
        np.testing.assert_array_equal(connect(settings)(image), p)
    (seen,) = model.seen
    assert (seen.name, seen.shape) == ("image", (3, 4))
    np.testing.assert_array_equal(seen.others["mask"], [[3, 4]] * 3)
    assert kind == "v1" or seen.wanted == ("p",)


def test_code_of_ones_own_is_named_and_so_is_the_way_out(tmp_path):
    class Doubling(layers.Layer):
        def call(self, x):
            return 2 * x

    image = keras.Input((4,))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(Doubling()(image)))
    model.save(tmp_path / "m.keras")
    with pytest.raises(
        InvalidSpec, match=r"m\.keras: Doubling is code of your own.*model\.export"
    ) as refusal:
        connect(tmp_path / "m.keras")
    assert len(str(refusal.value).splitlines()) == 1
    model.export(tmp_path / "m", verbose=False)
    x = np.random.default_rng(0).uniform(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(connect(tmp_path / "m")(x), model(x), rtol=1e-5)


def test_a_subclassed_model_needs_a_shape_and_prepare_knows_one():
    inner = network((4, 6, 3), 3, "softmax")

    class Wrapped(keras.Model):
        def call(self, x, training=False):
            return inner(x, training=training)

    x = np.random.default_rng(0).uniform(-1, 1, (5, 4, 6, 3)).astype(np.float32)
    with pytest.raises(InvalidSpec, match="`shape`"):
        connect(Wrapped())
    np.testing.assert_allclose(connect(Wrapped(), shape=(4, 6, 3))(x), connect(inner)(x), rtol=1e-5)
    inputs = Inputs(shape=(4, 6, 3), low=-1, high=1, classes=3)
    assert len(prepare(fit(Counterfactual(tol=0.5), inputs=inputs), Wrapped(), warm=False)(x[:1])) == 1


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    """A SavedModel with a signature of pixels, one of encoded images, and one of two outputs."""
    path = tmp_path_factory.mktemp("models") / "m"
    matrix = tf.constant(kernel(3)[:12])

    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.float32, name="pixels")])
        def pixels(self, pixels):
            return {"p": tf.nn.softmax(tf.reshape(pixels, [-1, 12]) @ matrix)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="encoded")])
        def encoded(self, encoded):
            images = tf.map_fn(lambda one: tf.io.decode_png(one, 3), encoded, fn_output_signature=tf.uint8)
            return self.pixels(tf.ensure_shape(tf.cast(images, tf.float32), (None, 2, 2, 3)))

    served = Served()
    tf.saved_model.save(served, path, signatures={"serving_default": served.encoded, "pixels": served.pixels})
    return path


def test_a_signature_is_chosen_by_name_and_one_of_byte_strings_says_which_there_are(signatures):
    x = np.random.default_rng(0).uniform(size=(3, 2, 2, 3)).astype(np.float32)
    z = np.exp(x.reshape(3, 12) @ kernel(3)[:12])
    found = connect(signatures, signature="pixels")(x)
    np.testing.assert_allclose(found, z / z.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(InvalidSpec, match=r"byte strings.*`signature`.*pixels, serving_default"):
        connect(signatures)
    with pytest.raises(InvalidSpec, match=r"no signature 'train'.*pixels, serving_default"):
        connect(signatures, signature="train")


# --- whole numbers and fixed batches behind an endpoint ---------------------------------------------------


def bytes_model(shape):
    w = weights(features=int(np.prod(shape))) / 255

    def respond(x):
        assert x.dtype == np.uint8
        p = rowwise(w)(x)
        return [Output("p", "FP32", p.shape, p)]

    return Model(respond=respond, describe=lambda: [("i", "UINT8", (-1, *shape))]), rowwise(w)


@pytest.mark.parametrize("server", [RestServer, GrpcServer])
@pytest.mark.parametrize("spec", [AnchorImage(segmentation=Grid(rows=2, columns=2)), Counterfactual(tol=0.4)])
def test_a_model_of_bytes_is_explained_in_bytes_with_no_setting(server, spec):
    shape = (4, 4, 1)
    model, _ = bytes_model(shape)
    x = np.random.default_rng(2).integers(0, 256, (1, *shape)).astype(np.float32)
    with server(model) as up:
        inputs = Inputs(shape=shape, low=0, high=255, classes=3)
        answer = prepare(fit(spec, inputs=inputs), connect(Endpoint(url=up.url, model="m")))(x)
    assert answer["status"][0] in ("ok", "not_found")


@pytest.mark.parametrize("server", [RestServer, GrpcServer])
def test_a_range_that_a_model_of_bytes_would_round_away_is_refused_with_both(server):
    model, _ = bytes_model((4, 4, 1))
    with server(model) as up:
        inputs = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
        fitted = fit(AnchorImage(segmentation=Grid(rows=2, columns=2)), inputs=inputs)
        x = np.full((1, 4, 4, 1), 0.5, np.float32)
        with pytest.raises(InvalidSpec, match=r"0 to 255, .* from 0 to 1, come to 0 to 1; say `scale`"):
            prepare(fitted, connect(Endpoint(url=up.url, model="m")))(x)
        scaled = connect(Endpoint(url=up.url, model="m", scale=255))
        assert prepare(fitted, scaled)(x)["found"][0]


@pytest.mark.parametrize("server", [RestServer, GrpcServer])
def test_rows_of_another_shape_than_an_endpoint_declares_are_refused_with_both(server):
    model = Model(describe=lambda: [("i", "FP32", (-1, 28, 28, 1))])
    with server(model) as up:
        predictor = connect(Endpoint(url=up.url, model="m"))
        with pytest.raises(InvalidSpec, match=r"\(28, 28, 1\), the explainer is for \(14, 14, 1\)"):
            predictor(np.zeros((1, 14, 14, 1), np.float32))
    assert model.seen == []


@pytest.mark.parametrize("server", [RestServer, GrpcServer])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_an_endpoint_declares_is_filled_up_and_counted(server, batch):
    def respond(x):
        assert len(x) == batch
        p = rowwise(weights())(x)
        return [Output("p", "FP32", p.shape, p)]

    model = Model(respond=respond, describe=lambda: [("i", "FP32", (batch, 16))])
    x = np.random.default_rng(0).uniform(size=(6, 16)).astype(np.float32)
    with server(model) as up:
        predictor = connect(Endpoint(url=up.url, model="m"))
        with tally() as more:
            np.testing.assert_array_equal(predictor(x), rowwise(weights())(x))
        assert predictor.rows_per_call((16,)) == batch
    sent = sum(seen.shape[0] for seen in model.seen)
    assert (6 + more.rows, 1 + more.calls) == (sent, len(model.seen))


def test_attempts_are_rows_that_the_model_was_asked_about():
    from oip_servers import Refusal

    refusals = iter([Refusal(503), Refusal(503)])

    def respond(x):
        for refusal in refusals:
            raise refusal
        p = rowwise(weights())(x)
        return [Output("p", "FP32", p.shape, p)]

    model = Model(respond=respond)
    x = np.random.default_rng(0).uniform(size=(1, 4, 4, 1)).astype(np.float32)
    fitted = fit(
        AnchorImage(segmentation=Grid(rows=2, columns=2)),
        inputs=Inputs(shape=(4, 4, 1), low=0, high=1, classes=3),
    )
    with RestServer(model) as up:
        cost = prepare(fitted, connect(Endpoint(url=up.url, model="m", canary=None)))(x).cost
    assert cost.rows == sum(seen.shape[0] for seen in model.seen)
    assert cost.calls == len(model.seen)


def test_a_model_that_fails_while_it_computes_says_so_in_one_sentence():
    image = keras.Input((4,))
    checked = tf.debugging.assert_less

    class Checked(layers.Layer):
        def call(self, x):
            with tf.control_dependencies([checked(x, 1.0, message="too bright")]):
                return tf.identity(x)

    model = connect(keras.Model(image, layers.Dense(3, activation="softmax")(Checked()(image))))
    assert isinstance(model, KerasScores)
    with pytest.raises(PredictorError, match="too bright") as failure:
        model(np.full((1, 4), 2, np.float32))
    assert "\n" not in str(failure.value)


def test_settings_are_said_once_and_mean_the_same_everywhere():
    said = {"output": "logits", "label": 2, "scale": 255, "strict": True, "hold": {"a": [1]}}
    for value in (
        {"kind": "keras", "path": "m"},
        {"kind": "v2", "url": "http://h", "model": "m"},
        {"kind": "v1", "url": "http://h", "model": "m"},
    ):
        settings = parse_predictor({**value, **said})
        assert isinstance(settings, ModelContract)
        assert {name: getattr(settings, name) for name in said} == said


# --- served by our own runtime ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "units", "said"),
    [
        (None, 3, {"output": "logits"}),
        (None, 3, {"logits": "true"}),
        ("sigmoid", 1, {}),
        ("sigmoid", 4, {"label": "3"}),
    ],
)
def test_the_keras_runtime_serves_what_was_said_and_offers_it_to_explainers_beside(
    tmp_path, activation, units, said
):
    pytest.importorskip("mlserver")
    import asyncio

    from mlserver import ModelSettings

    from explainer_runtime import KerasRuntime

    network((4, 6, 3), units, activation).save(tmp_path / "m.keras")
    settings = {"name": "said", "implementation": "explainer_runtime.KerasRuntime"}
    parameters = {"uri": str(tmp_path / "m.keras"), "extra": said}
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 6, 3)).astype(np.float32)

    async def served():
        runtime = KerasRuntime(ModelSettings(**settings, parameters=parameters))
        assert await runtime.load()
        try:
            return connect("colocated:said")(x), runtime.outputs[0].shape
        finally:
            await runtime.unload()

    scores, shape = asyncio.run(served())
    output = "logits" if {"output", "logits"} & {*said} else None
    known = meant(numbers(x, units, activation), output, int(said["label"]) if "label" in said else None)
    np.testing.assert_allclose(scores, known, atol=2e-5)
    assert shape == [-1, scores.shape[1]]


def test_the_keras_runtime_refuses_to_serve_logits_as_probabilities(tmp_path):
    pytest.importorskip("mlserver")
    import asyncio

    from mlserver import ModelSettings
    from mlserver.errors import MLServerError

    from explainer_runtime import KerasRuntime

    network((4, 6, 3), 3, None).save(tmp_path / "m.keras")
    settings = {"name": "m", "implementation": "explainer_runtime.KerasRuntime"}
    runtime = KerasRuntime(ModelSettings(**settings, parameters={"uri": str(tmp_path / "m.keras")}))
    with pytest.raises(MLServerError, match="'logits'"):
        asyncio.run(runtime.load())


# --- a number for each channel ---------------------------------------------------------------------------

STD, AVERAGE = np.array([0.2, 0.4, 0.5], "f"), np.array([0.5, 0.1, -0.3], "f")
NORMALISED = {"scale": (1 / STD).tolist(), "offset": (-AVERAGE / STD).tolist()}


def trained(first: bool):
    """A network of normalised rows, and the same one with the normalising built in."""
    import tensorflow as tf

    w = np.random.default_rng(5).normal(size=(48, 3)).astype("f")
    shape = (1, 3, 1, 1) if first else (1, 1, 1, 3)

    def network(x):
        return tf.nn.softmax(tf.reshape(x, [-1, 48]) @ w)

    def whole(x):
        return network((x - AVERAGE.reshape(shape)) / STD.reshape(shape))

    return network, whole, (3, 4, 4) if first else (4, 4, 3)


@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_scale_and_offset_by_channel_are_those_that_the_network_was_trained_with(first):
    network, whole, shape = trained(first)
    x = np.random.default_rng(6).uniform(0, 1, (5, *shape)).astype("f")
    contract = ModelContract(**NORMALISED)
    given, built_in = (
        KerasPredictor(network, shape, contract=contract),
        KerasPredictor(whole, shape),
    )
    np.testing.assert_allclose(given(x), built_in(x), atol=1e-6)
    pull = lambda y: np.ones_like(y) * [1.0, 0, -1]  # noqa: E731
    np.testing.assert_allclose(given.slope(x, pull)[1], built_in.slope(x, pull)[1], rtol=1e-3, atol=1e-4)
    function = CallablePredictor(lambda rows: network(rows).numpy(), contract)
    np.testing.assert_allclose(function(x), built_in(x), atol=1e-6)


def test_channels_that_there_are_not_are_refused():
    network, _, shape = trained(False)
    with pytest.raises(InvalidSpec, match="scale has 2 numbers, rows of shape"):
        KerasPredictor(network, shape, contract=ModelContract(scale=[1.0, 2.0]))
    with pytest.raises(InvalidSpec, match="scale has 2 numbers"):
        CallablePredictor(lambda x: x, ModelContract(scale=[1.0, 2.0]))(np.zeros((1, *shape), "f"))
    with pytest.raises(InvalidSpec):
        parse(ModelContract, {"scale": [1.0, -2.0, 1.0]}, "model")
