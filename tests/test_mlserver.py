"""The runtimes on real servers: one process serves a CNN and explainers beside it, others ask it.

The road between them is the network.

The explainers start first, while the CNN is down; what they answer then is kept for the tests.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
from grpc import StatusCode
from servers import (
    ask_grpc,
    ask_rest,
    free_ports,
    launch,
    running,
    serving,
    start,
    v2_input,
)

from explainer_runtime import artifact
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import connect
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs, parse_predictor

# Keras 3.15 copies its variables in a way that NumPy 2.4 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

CONTRACT = Inputs(shape=(8, 8, 1), low=0, high=1, classes=3, class_names=("top", "middle", "bottom"))
SEED = {"seed": 7, "threshold": 0.9}


# --- the stage ----------------------------------------------------------------------------------------


def bands(count, seed):
    """Noisy images with one bright band each, and which band that is."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.4, (count, 8, 8, 1)).astype(np.float32)
    classes = rng.integers(0, 3, count)
    for image, band in zip(images, classes, strict=True):
        image[3 * band : 3 * band + 2] += 0.6
    return images, classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def images():
    return bands(3, seed=1)[0]


@pytest.fixture(scope="module")
def model():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*bands(300, seed=0), epochs=5, verbose=0)
    return model


@pytest.fixture(scope="module")
def cnn_path(folder, model):
    model.save(folder / "cnn.keras")
    return str(folder / "cnn.keras")


@pytest.fixture(scope="module")
def saved_model_path(folder, model):
    model.export(folder / "saved", verbose=False)
    return str(folder / "saved")


@pytest.fixture(scope="module")
def anchor_path(folder):
    spec = AnchorImage(segmentation=Grid(rows=4, columns=2), fill="constant", fill_value=0.2, threshold=0.9)
    return str(artifact.save(fit(spec, inputs=CONTRACT), folder / "anchor"))


@pytest.fixture(scope="module")
def counterfactual_path(folder):
    return str(artifact.save(fit(Counterfactual(), inputs=CONTRACT), folder / "counterfactual"))


@pytest.fixture(scope="module")
def cnn_ports():
    return free_ports()


@pytest.fixture(scope="module")
def silence():
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def explainer(path, name, predictor, version=None, **extra):
    parameters = {"uri": path, "version": version, "extra": {"predictor": predictor, **extra}}
    return {"name": name, "implementation": "explainer_runtime.ExplainerRuntime", "parameters": parameters}


def keras_model(path, name):
    return {"name": name, "implementation": "explainer_runtime.KerasRuntime", "parameters": {"uri": path}}


@pytest.fixture(scope="module")
def explainers(folder, anchor_path, cnn_ports, silence):
    hung = {"kind": "v2", "url": f"http://127.0.0.1:{silence}", "model": "cnn", "timeout": 0.5}
    models = [
        explainer(anchor_path, "over-grpc", f"grpc://127.0.0.1:{cnn_ports.grpc}/cnn"),
        explainer(anchor_path, "over-rest", f"http://127.0.0.1:{cnn_ports.http}/v2/models/cnn/infer"),
        explainer(anchor_path, "hung", hung),
        explainer(
            anchor_path,
            "small (2)",
            f"grpc://127.0.0.1:{cnn_ports.grpc}/cnn",
            "v1.0",
            limits='{"max_batch": 2}',
        ),
    ]
    (folder / "explainers").mkdir()
    with serving(models, folder / "explainers") as server:
        yield server


@pytest.fixture(scope="module")
def while_down(explainers, images):
    """What the explainers answer before the CNN is there."""
    return {
        "ready": httpx.get(explainers.rest("/v2/models/over-grpc/ready")).status_code,
        "grpc to grpc": ask_grpc(explainers, "over-grpc", images).status,
        "rest to grpc": ask_rest(explainers, "over-grpc", images).status,
        "rest to rest": ask_rest(explainers, "over-rest", images).status,
        "explain": ask_rest(explainers, "over-rest", images, "explain").status,
    }


@pytest.fixture(scope="module")
def cnn(folder, cnn_ports, cnn_path, saved_model_path, anchor_path, counterfactual_path, while_down):
    models = [
        keras_model(cnn_path, "cnn"),
        keras_model(saved_model_path, "saved"),
        explainer(anchor_path, "anchor", "colocated:cnn"),
        explainer(counterfactual_path, "counterfactual", "colocated:cnn"),
        explainer(counterfactual_path, "own-graph", {"kind": "keras", "path": cnn_path}),
    ]
    (folder / "cnn").mkdir()
    with serving(models, folder / "cnn", ports=cnn_ports) as server:
        yield server


@pytest.fixture(scope="module")
def workers(folder, anchor_path, cnn):
    (folder / "workers").mkdir()
    models = [explainer(anchor_path, "over-grpc", f"grpc://127.0.0.1:{cnn.ports.grpc}/cnn")]
    with serving(models, folder / "workers", workers=1) as server:
        yield server


# --- one answer, whichever way ------------------------------------------------------------------------


def tensors_in_process(path, predictor, images, options):
    explanation = prepare(artifact.load(path), connect(parse_predictor(predictor)))(images, options)
    arrays = {name: array for name, array in explanation.arrays.items() if array.dtype.kind != "U"}
    return explanation.to_json(short=True), arrays


def test_infer_explain_and_grpc_answer_the_same_bytes(cnn, explainers, images):
    parameters = {"explain_parameters": SEED}
    by_infer = ask_rest(explainers, "over-grpc", images, parameters=parameters)
    by_explain = ask_rest(explainers, "over-grpc", images, "explain", parameters=parameters)
    by_grpc = ask_grpc(explainers, "over-grpc", images, explain_parameters=json.dumps(SEED))
    assert list(by_infer.tensors)[:3] == ["explanation", "found", "status"]
    assert by_infer.tensors == by_explain.tensors == by_grpc.tensors
    assert by_infer.array("found").any()


def test_both_roads_to_the_model_give_the_same_bytes(cnn, explainers, images):
    over_grpc = ask_rest(explainers, "over-grpc", images)
    over_rest = ask_rest(explainers, "over-rest", images)
    assert over_grpc.tensors == over_rest.tensors


@pytest.mark.parametrize("name", ["anchor", "counterfactual"])
def test_served_answers_equal_those_in_process(cnn, cnn_path, anchor_path, counterfactual_path, images, name):
    path = {"anchor": anchor_path, "counterfactual": counterfactual_path}[name]
    document, arrays = tensors_in_process(path, cnn_path, images, {"seed": 3})
    served = ask_grpc(cnn, name, images, seed=3)
    for field, array in arrays.items():
        np.testing.assert_array_equal(served.array(field), array, err_msg=field)
    assert served.tensors["explanation"][2][4:] == document


def test_a_class_is_asked_for_by_name_over_every_transport(cnn, images):
    by_number = ask_rest(cnn, "counterfactual", images, parameters={"target_class": 1})
    assert (
        ask_rest(cnn, "counterfactual", images, parameters={"target_class": "middle"}).tensors
        == by_number.tensors
    )
    assert ask_grpc(cnn, "counterfactual", images, target_class="middle").tensors == by_number.tensors
    refused = ask_rest(cnn, "counterfactual", images, parameters={"target_class": "midle"})
    assert refused.status == 422
    assert "target_class: expected 'other', 'same' or a class from 0 to 2, got 'midle'" in str(refused.body)
    assert "near to it are 'middle'" in str(refused.body)


def test_an_explainer_in_another_process_equals_one_in_this(cnn, explainers, anchor_path, images):
    document, arrays = tensors_in_process(anchor_path, f"grpc://127.0.0.1:{cnn.ports.grpc}/cnn", images, SEED)
    served = ask_rest(explainers, "over-rest", images, parameters={"explain_parameters": json.dumps(SEED)})
    for field, array in arrays.items():
        np.testing.assert_array_equal(served.array(field), array, err_msg=field)
    assert served.body["outputs"][0]["data"] == [document.decode()]


def test_a_colocated_graph_and_an_own_one_give_the_same_bytes(cnn, images):
    assert ask_grpc(cnn, "counterfactual", images).tensors == ask_grpc(cnn, "own-graph", images).tensors


def test_every_row_of_a_batch_is_explained(cnn, images):
    answer = ask_rest(cnn, "counterfactual", images)
    assert answer.array("found").shape == (3,)
    for row, image in enumerate(images):
        alone = ask_rest(cnn, "counterfactual", image[None])
        assert alone.array("counterfactual_class")[0] == answer.array("counterfactual_class")[row]
    assert answer.array("found").all()


def test_workers_answer_as_one_process_does(cnn, explainers, workers, images):
    alone = ask_rest(explainers, "over-grpc", images)
    for route in ("infer", "explain"):
        assert ask_rest(workers, "over-grpc", images, route).tensors == alone.tensors
    assert ask_grpc(workers, "over-grpc", images).tensors == alone.tensors
    for route in ("infer", "explain"):
        assert ask_rest(workers, "over-grpc", images + 2, route).status == 422


# --- the shape of an answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anchor", "counterfactual"])
def test_metadata_says_what_is_answered(cnn, images, name):
    metadata = httpx.get(cnn.rest(f"/v2/models/{name}")).json()
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    answered = [
        (output, datatype, list(shape))
        for output, (datatype, shape, _) in ask_rest(cnn, name, images).tensors.items()
    ]
    always, drawn = metadata["outputs"][:-3], metadata["outputs"][-3:]
    assert answered == [
        (one["name"], one["datatype"], [len(images) if size == -1 else size for size in one["shape"]])
        for one in always
    ]
    assert drawn == [
        {"name": name, "datatype": "BYTES", "shape": [1, 1]} for name in ("picture", "card", "page")
    ]


def test_answers_name_their_method_and_what_they_cost(cnn, explainers, images):
    answer = ask_rest(explainers, "over-grpc", images)
    assert answer.headers["x-seldon-alibi-type"] == "explanation"
    assert answer.headers["x-seldon-alibi-method"] == "anchor_image"
    cost = json.loads(answer.body["outputs"][0]["data"][0])["meta"]["cost"]
    parameters = answer.body["parameters"]
    said = {"calls": "predictor_calls", "rows": "predictor_rows", "steps": "search_steps"}
    assert cost == {name: parameters[parameter] for name, parameter in said.items()}
    assert 0 < parameters["predictor_seconds"] < 60
    by_grpc = ask_grpc(explainers, "over-grpc", images)
    assert by_grpc.headers["x-seldon-alibi-method"] == "anchor_image"
    assert by_grpc.body.parameters["predictor_rows"].int64_param == cost["rows"]


@pytest.mark.parametrize("route", ["infer", "explain"])
def test_answers_hold_no_nulls_and_nothing_of_the_request_but_its_id(cnn, explainers, images, route):
    secret = {"x-secret": "sesame", "authorization": "Bearer sesame"}
    parameters = {"content_type": "np", "note": "sesame"}
    answer = ask_rest(
        explainers, "over-grpc", images, route, headers=secret, id="the-id", parameters=parameters
    )
    assert answer.body["id"] == "the-id"
    assert "sesame" not in answer.text + str(answer.headers)
    assert not list(nulls(answer.body))
    assert set(answer.body["parameters"]) == {
        "predictor_calls",
        "predictor_rows",
        "predictor_seconds",
        "search_steps",
    }


def nulls(value):
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if part is None:
            yield value
        yield from nulls(part)


@pytest.mark.parametrize("route", ["infer", "explain"])
def test_answers_have_an_id_where_the_request_has_none(cnn, explainers, images, route):
    assert len(ask_rest(explainers, "over-grpc", images[:1], route).body["id"]) == 36


def test_only_the_outputs_asked_for_are_answered(cnn, explainers, images):
    wanted = ["anchor_mask", "found"]
    by_rest = ask_rest(explainers, "over-grpc", images, outputs=[{"name": name} for name in wanted])
    by_grpc = ask_grpc(explainers, "over-grpc", images, outputs=wanted)
    assert list(by_rest.tensors) == ["found", "anchor_mask"]
    assert by_rest.tensors == by_grpc.tensors


def test_each_model_answers_on_its_own_explain_route(cnn, explainers, images):
    for name, escaped in (
        ("over-grpc", "over-grpc"),
        ("over-rest", "over-rest"),
        ("small (2)", "small%20(2)"),
    ):
        assert ask_rest(explainers, escaped, images[:1], "explain").body["model_name"] == name
    assert ask_rest(explainers, "absent", images, "explain").status == 404


def test_versions_have_routes_of_their_own(cnn, explainers, images):
    answer = ask_rest(explainers, "small%20(2)/versions/v1.0", images[:1], "explain")
    assert answer.body["model_version"] == "v1.0"
    assert answer.tensors == ask_rest(explainers, "small%20(2)", images[:1]).tensors


# --- bad requests ---------------------------------------------------------------------------------------


def bad_requests():
    rows = np.full((1, 8, 8, 1), 0.5, np.float32)
    tensor = v2_input(rows)
    null = [None, *tensor["data"][1:]]
    deep = json.loads("[" * 900 + "]" * 900)

    def options(**chosen):
        return {"inputs": [tensor], "parameters": {"explain_parameters": chosen}}

    return {
        "wrong row shape": ({"inputs": [{**tensor, "shape": [1, 4, 16, 1]}]}, "inputs", "(N, 8, 8, 1)"),
        "shape and data differ": ({"inputs": [{**tensor, "shape": [2, 8, 8, 1]}]}, "inputs[0].data", "128"),
        "negative shape": ({"inputs": [{**tensor, "shape": [-1, 8, 8, 1]}]}, "inputs[0].shape", "-1"),
        "ragged": ({"inputs": [{**tensor, "data": [[1.0], [1.0, 2.0]]}]}, "inputs[0].data", "shape"),
        "deep nesting": ({"inputs": [{**tensor, "data": deep}]}, "body", "32 levels"),
        "wrong dtype": ({"inputs": [{**tensor, "datatype": "BYTES"}]}, "inputs[0].datatype", "FP32"),
        "unknown dtype": ({"inputs": [{**tensor, "datatype": "FP8"}]}, "inputs[0].datatype", "FP32"),
        "strings": ({"inputs": [{**tensor, "data": ["0.5"] * 64}]}, "inputs[0].data", "a string"),
        "NaN, which is null": ({"inputs": [{**tensor, "data": null}]}, "inputs[0].data", "null at 0"),
        "out of range": ({"inputs": [v2_input(rows + 1)]}, "inputs", "[0, 1]"),
        "empty batch": (
            {"inputs": [{**tensor, "shape": [0, 8, 8, 1], "data": []}]},
            "inputs[0].shape",
            "one row",
        ),
        "too many rows": ({"inputs": [v2_input(rows.repeat(17, axis=0))]}, "inputs", "1 to 16 rows, got 17"),
        "two inputs": ({"inputs": [tensor, tensor]}, "inputs", "exactly one"),
        "no inputs": ({"inputs": []}, "inputs", "exactly one"),
        "inputs left out": ({"id": "1"}, "inputs", "missing"),
        "unknown option": (options(treshold=0.9), "treshold", "did you mean threshold?"),
        "option out of range": (options(threshold=1.5), "threshold", "less than"),
        "option of another type": (options(seed="x"), "seed", "expected a whole number"),
        "options that are no object": (
            {"inputs": [tensor], "parameters": {"explain_parameters": "[]"}},
            "explain_parameters",
            "object",
        ),
        "unknown output": (
            {"inputs": [tensor], "outputs": [{"name": "x"}]},
            "outputs[0].name",
            "explanation",
        ),
    }


@pytest.mark.parametrize("route", ["infer", "explain"])
@pytest.mark.parametrize("mistake", bad_requests())
def test_bad_requests_are_422_and_name_the_field(explainers, route, mistake):
    body, field, said = bad_requests()[mistake]
    answer = post(explainers, f"/v2/models/over-grpc/{route}", json.dumps(body))
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert error.startswith(f"{field}: ")
    assert said in error
    assert "Traceback" not in error
    assert len(error) < 500


@pytest.mark.parametrize("target", [3, -1, "any", True])
def test_target_classes_that_do_not_exist_are_refused(cnn, images, target):
    parameters = {"explain_parameters": {"target_class": target}}
    answer = ask_rest(cnn, "counterfactual", images, parameters=parameters)
    assert answer.status == 422
    assert "target_class" in answer.text


@pytest.mark.parametrize(
    ("rows", "shape", "said"),
    [
        (np.full((1, 8, 8, 1), np.nan, np.float32), None, "inputs[0].data: expected finite numbers, got nan"),
        (np.zeros((1, 4, 4, 1), np.float32), None, "inputs: expected rows of shape (N, 8, 8, 1)"),
        (np.zeros((0, 8, 8, 1), np.float32), None, "inputs[0].shape: expected at least one row"),
        (np.ones((1, 8, 8, 1), bool), None, "inputs[0].datatype: expected one of FP16"),
        (np.full((1, 8, 8, 1), 9, np.uint8), None, "inputs: expected values in [0, 1]"),
        (np.zeros((1, 8, 8, 1), np.float32), (2, 8, 8, 1), "inputs[0].data: expected 128 numbers"),
        (np.zeros((1, 8, 8, 1), np.float32), (-1, 8, 8, 1), "inputs[0].shape: expected sizes"),
        ([np.zeros((1, 8, 8, 1), np.float32)] * 2, None, "inputs: expected exactly one tensor"),
    ],
)
def test_bad_requests_over_grpc_are_refused_and_name_the_field(explainers, rows, shape, said):
    answer = ask_grpc(explainers, "over-grpc", rows, shape=shape)
    assert answer.status == StatusCode.FAILED_PRECONDITION
    assert answer.text.startswith(said)
    assert "Traceback" not in explainers.log.read_text()


@pytest.mark.parametrize("body", ["", "[]", "{", "null", "[" * 5000])
@pytest.mark.parametrize("route", ["infer", "explain"])
def test_bodies_that_are_no_v2_request_are_refused(explainers, route, body):
    answer = post(explainers, f"/v2/models/over-grpc/{route}", body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("body: expected ")


@pytest.mark.parametrize("route", ["infer", "explain"])
def test_bodies_that_cannot_be_unpacked_are_refused(explainers, route):
    answer = post(explainers, f"/v2/models/over-grpc/{route}", "not gzip", **{"content-encoding": "gzip"})
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]


def post(server, path, body, **headers):
    headers = {"content-type": "application/json", **headers}
    return httpx.post(server.rest(path), content=body, headers=headers, timeout=60)


# --- faults of the model behind ---------------------------------------------------------------------------


def test_explainers_are_ready_while_their_model_is_down(while_down):
    assert while_down["ready"] == 200


def test_a_model_that_is_down_is_503_and_works_once_it_is_up(while_down, cnn, explainers, images):
    assert while_down["grpc to grpc"] == StatusCode.UNAVAILABLE
    assert {while_down[road] for road in ("rest to grpc", "rest to rest", "explain")} == {503}
    assert ask_rest(explainers, "over-grpc", images).status == 200
    assert ask_rest(explainers, "over-rest", images).status == 200


@pytest.mark.parametrize("route", ["infer", "explain"])
def test_a_model_that_hangs_is_504(explainers, images, route):
    answer = ask_rest(explainers, "hung", images, route)
    assert answer.status == 504
    assert "did not answer in time" in answer.text


def test_a_model_that_hangs_is_deadline_exceeded_over_grpc(explainers, images):
    assert ask_grpc(explainers, "hung", images).status == StatusCode.DEADLINE_EXCEEDED


def test_operators_limits_bound_a_request(cnn, explainers, images):
    answer = ask_rest(explainers, "small%20(2)", images)
    assert answer.status == 422
    assert "1 to 2 rows, got 3" in answer.text


# --- the Keras runtime ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "saved"])
def test_keras_models_answer_with_their_scores(cnn, model, images, name):
    expected = model(images).numpy()
    for answer in (ask_rest(cnn, name, images), ask_grpc(cnn, name, images)):
        # The same graph on batches of another size: float32 rounds sums of 144 terms below one otherwise.
        np.testing.assert_allclose(answer.array("scores"), expected, atol=1e-5)


def test_keras_metadata_says_what_is_taken_and_answered(cnn):
    metadata = httpx.get(cnn.rest("/v2/models/cnn")).json()
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]


def test_keras_models_take_nested_lists_and_bytes(cnn, images):
    nested = ask_rest(cnn, "cnn", v2_input(images, data=images.tolist()))
    assert nested.tensors == ask_rest(cnn, "cnn", images).tensors
    black = ask_rest(cnn, "cnn", np.zeros((1, 8, 8, 1), np.uint8))
    assert black.tensors == ask_rest(cnn, "cnn", np.zeros((1, 8, 8, 1), np.float32)).tensors


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (v2_input(np.zeros((1, 28, 28, 1), np.float32)), "(8, 8, 1)"),
        (v2_input(np.zeros((1, 8, 8, 1), bool)), "inputs[0].datatype"),
        (v2_input(np.zeros((1, 8, 8, 1), np.float32), data=[None] * 64), "inputs[0].data"),
    ],
)
def test_keras_models_refuse_what_they_cannot_take(cnn, tensor, said):
    answer = ask_rest(cnn, "cnn", tensor)
    assert answer.status == 422
    assert said in answer.text


# --- starting and stopping ----------------------------------------------------------------------------------


def failing(tmp_path, model, **ports):
    process = launch([model], free_ports()._replace(**ports), tmp_path / "server.log")
    try:
        return process.wait(timeout=60), (tmp_path / "server.log").read_text()
    finally:
        process.kill()


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_status(tmp_path, anchor_path):
    status, log = failing(tmp_path, explainer(anchor_path, "anchor", "ftp://nowhere"))
    assert status == 2
    assert "predictor: expected grpc://host:port/model" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_a_port_that_is_taken_ends_the_server_with_a_status(tmp_path, anchor_path, silence, port):
    status, log = failing(tmp_path, explainer(anchor_path, "anchor", "colocated:cnn"), **{port: silence})
    assert status == 1
    assert "cannot serve" in log


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"max_batch_size": 8}, "max_batch_size"), ({"cache_enabled": True}, "cache_enabled")],
)
def test_settings_that_mix_callers_are_refused_at_load(anchor_path, setting, said):
    from mlserver import ModelSettings
    from mlserver.errors import MLServerError

    from explainer_runtime import ExplainerRuntime

    settings = ModelSettings(**explainer(anchor_path, "anchor", "colocated:cnn"), **setting)
    with pytest.raises(MLServerError, match=said) as refusal:
        asyncio.run(ExplainerRuntime(settings).load())
    assert refusal.value.status_code == 500


def test_a_signal_ends_the_server_with_status_0(folder, anchor_path, tmp_path):
    ports, log = free_ports(), tmp_path / "server.log"
    process = launch([explainer(anchor_path, "anchor", "colocated:cnn")], ports, log)
    with running(process, ports, log):
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_an_explainer_listed_after_its_model_is_compiled_when_ready(cnn_path, counterfactual_path):
    from mlserver import ModelSettings

    from explainer_runtime import ExplainerRuntime, KerasRuntime

    keras_runtime = KerasRuntime(ModelSettings(**keras_model(cnn_path, "in-this-process")))
    runtime = ExplainerRuntime(
        ModelSettings(**explainer(counterfactual_path, "cf", "colocated:in-this-process"))
    )

    async def load():
        await asyncio.gather(keras_runtime.load(), runtime.load())
        # Prepared for the model that was still loading when it looked.
        assert runtime._service._prepared.predictor is keras_runtime._predictor
        await asyncio.gather(keras_runtime.unload(), runtime.unload())

    asyncio.run(load())


def test_making_a_runtime_imports_no_tensorflow():
    program = """
import sys
from mlserver import ModelSettings
import explainer_runtime
for name in ("ExplainerRuntime", "KerasRuntime"):
    runtime = getattr(explainer_runtime, name)
    runtime(ModelSettings(name="m", implementation=runtime))
assert not {"tensorflow", "keras"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_plain_mlserver_serves_and_reloads_a_folder(cnn, anchor_path, images, tmp_path):
    ports, log = free_ports(), tmp_path / "server.log"
    settings = explainer(anchor_path, "plain", f"grpc://127.0.0.1:{cnn.ports.grpc}/cnn")
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "mlserver.cli.main", "start", str(tmp_path)]
    environment = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(ports.http),
        "MLSERVER_GRPC_PORT": str(ports.grpc),
        "MLSERVER_METRICS_PORT": str(ports.metrics),
        "MLSERVER_PARALLEL_WORKERS": "0",
    }
    with running(start(command, log, **environment), ports, log) as server:
        before = ask_rest(server, "plain", images, "explain")
        assert post(server, "/v2/repository/models/plain/load", "").status_code == 200
        after = ask_rest(server, "plain", images, "explain")
        bad = ask_rest(server, "plain", images + 2)
    assert before.tensors == after.tensors
    assert bad.status == 422
    assert "Traceback" not in bad.text
