"""Explainers on KServe's own server, asked by KServe's own client.

KServe and MLServer want different releases of the same packages, so server, model and client are processes in
KServe's environment, which `make test` builds.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode
from servers import ask_grpc, ask_rest, free_ports, running, start, v2_input
from staged import IMAGE, Held, model
from staged import anchor as anchor_of
from toys import rowwise, weights

from explainer_runtime import artifact, render
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.hosts.door.connections import METRICS_CONNECTIONS
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import AnchorImage, Grid, Inputs

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-kserve" / "bin" / "python"
CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
SEED = {"explain_parameters": json.dumps({"seed": 3})}
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-kserve; `make test` builds it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kserve")


@pytest.fixture(scope="module")
def linear_process(folder):
    ports, log = free_ports(), folder / "linear.log"
    command = [PYTHON, HERE / "kserve_model.py", ports.http, ports.grpc]
    process = start([str(word) for word in command], log)
    with running(process, ports, log) as server:
        yield server, process


@pytest.fixture(scope="module")
def linear(linear_process):
    return linear_process[0]


@pytest.fixture(scope="module")
def anchor(folder):
    spec = AnchorImage(segmentation=Grid(rows=4, columns=2), fill="constant", threshold=0.9)
    return artifact.save(fit(spec, inputs=CONTRACT), folder / "boots")


@pytest.fixture(scope="module")
def served(folder, linear, anchor):
    """Two explainers: one asks the model over V2 REST, as KServe's line says, the other over V1."""
    ports, log = free_ports(), folder / "explainer.log"
    (anchor.parent / "shoes").mkdir()
    for file in anchor.iterdir():
        (anchor.parent / "shoes" / file.name).write_bytes(file.read_bytes())
    words = ["-m", "explainer_runtime.cli", "serve", anchor, anchor.parent / "shoes", "--server", "kserve"]
    flags = ["--model_name", "linear", "--predictor_host", f"127.0.0.1:{linear.ports.http}"]
    flags += ["--http_port", ports.http, "--grpc_port", ports.grpc, "--workers", 1]
    flags += ["--metrics-port", ports.metrics, "--jobs", folder / "jobs"]
    command = [str(word) for word in [PYTHON, *words, *flags]]
    with running(start(command, log, EXPLAINER_RUNTIME_HOST="127.0.0.1"), ports, log) as server:
        yield server


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).uniform(size=(2, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(anchor, images):
    return prepare(artifact.load(anchor), CallablePredictor(rowwise(weights())))(images, {"seed": 3})


def test_kserves_client_gets_the_explanation_by_every_road(served, images, expected):
    command = [
        PYTHON,
        HERE / "kserve_client.py",
        served.rest(""),
        "linear",
        json.dumps(images.tolist()),
        "binary",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr + served.log.read_text()
    told = json.loads(done.stdout)
    assert told["binary"] == told["json"]
    assert told["json"]["id"] == "42"
    for name, array in expected.arrays.items():
        if array.dtype.kind != "U":
            assert told["binary"][name][1] == array.ravel().tolist(), name
    assert told["explain"]["data"] == json.loads(expected.to_json())["data"]


def test_every_road_gives_the_bytes_of_the_other_host(served, images, expected):
    by_rest = ask_rest(served, "linear", images, parameters=SEED)
    by_grpc = ask_grpc(served, "linear", images, **SEED)
    assert by_rest.tensors == by_grpc.tensors
    assert_explained(by_rest, expected)
    digits = max(
        len(str(one)) for output in by_rest.body["outputs"] for one in output["data"] if type(one) is float
    )
    assert digits <= 16  # what float32 takes
    assert by_rest.headers["x-seldon-alibi-type"] == "explanation"
    assert by_rest.headers["x-seldon-alibi-method"] == "anchor_image"


def test_two_explainers_are_served_by_name(served, images, expected):
    for name in ("linear", "shoes"):
        answer = ask_rest(served, name, images, parameters=SEED)
        assert answer.body["model_name"] == name
        assert_explained(answer, expected)


def test_only_the_outputs_asked_for_are_answered(served, images):
    answer = ask_rest(served, "linear", images, outputs=[{"name": "found"}, {"name": "anchor_mask"}])
    assert list(answer.tensors) == ["found", "anchor_mask"]


def test_a_picture_is_made_for_who_names_it(served, images, expected):
    wanted = render.png(expected, images, CONTRACT)
    by_rest = ask_rest(served, "linear", images, parameters=SEED, outputs=[{"name": "picture"}])
    assert base64.b64decode(by_rest.body["outputs"][0]["data"][0]) == wanted
    by_grpc = ask_grpc(served, "linear", images, outputs=["picture"], **SEED)
    assert by_grpc.tensors == by_rest.tensors


def test_metadata_says_what_is_taken_and_answered(served):
    metadata = httpx.get(served.rest("/v2/models/linear")).json()
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4, 4, 1]}]
    assert metadata["outputs"][0] == {"name": "explanation", "datatype": "BYTES", "shape": [1, 1]}


def test_explain_gives_nothing_of_the_request_back(served, images):
    headers = {"authorization": "Bearer sesame", "x-secret": "sesame"}
    answer = explain(served, {"instances": images.tolist()}, headers=headers)
    assert answer.status_code == 200
    assert set(answer.json()) == {"meta", "data"}
    assert "sesame" not in str(answer.headers) + answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"instances": []}, "instances.shape"),
        ({"instances": [[1, 2], [3]]}, "instances"),
        ({"instances": [["a"]]}, "instances"),
        ({"instances": [[0.5]]}, "inputs"),
        ({"instances": np.zeros((1, 4, 4, 1)).tolist(), "parameters": {"threshold": 7}}, "threshold"),
        ({"instances": np.zeros((1, 4, 4, 1)).tolist(), "explain_parameters": {"a": 7}}, "a"),
    ],
)
def test_bad_v1_requests_are_422_and_name_the_field(served, body, field):
    answer = explain(served, body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shape": [1, 2, 8, 1]}, "inputs"),
        ({"shape": [-1, 4, 4, 1]}, "inputs[0].shape"),
        ({"datatype": "BOOL"}, "inputs[0].datatype"),
        ({"data": ["0.5"] * 16}, "inputs[0].data"),
    ],
)
def test_bad_v2_requests_are_422_and_name_the_field(served, changes, field):
    tensor = v2_input(np.zeros((1, 4, 4, 1), np.float32), **changes)
    answer = ask_rest(served, "linear", tensor)
    assert answer.status == 422
    assert json.loads(answer.text)["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": "sesame"}, "inputs"),
        ({"inputs": [{"name": "sesame", "shape": [1], "datatype": "FP32"}]}, "inputs[0].data"),
        ({"inputs": [], "parameters": {"explain_parameters": {"seed": 3}}}, "inputs"),
        ({"inputs": [], "parameters": {"other": {"seed": 3}}}, "parameters.other"),
        ([], "body"),
    ],
)
def test_bodies_that_are_no_v2_request_are_422_and_not_repeated(served, body, field):
    answer = httpx.post(served.rest("/v2/models/linear/infer"), json=body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(field)
    assert "sesame" not in answer.text


def test_binary_tensors_that_do_not_fit_their_shape_are_422(served):
    head = {"inputs": [{"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32"}]}
    head["inputs"][0]["parameters"] = {"binary_data_size": 8}
    text = json.dumps(head).encode()
    headers = {"inference-header-content-length": str(len(text)), "content-type": "application/octet-stream"}
    answer = httpx.post(served.rest("/v2/models/linear/infer"), content=text + bytes(8), headers=headers)
    assert answer.status_code == 422
    assert "shapes" in answer.json()["error"]


def test_bad_requests_over_grpc_are_refused_and_name_the_field(served):
    answer = ask_grpc(served, "linear", np.zeros((1, 2, 2, 1), np.float32))
    assert answer.status == StatusCode.FAILED_PRECONDITION
    assert answer.text.startswith("inputs: expected rows of shape (N, 4, 4, 1)")


def test_options_may_be_an_object_as_on_the_other_host(served, images):
    as_object = ask_rest(served, "linear", images, parameters={"explain_parameters": {"seed": 3}})
    assert as_object.tensors == ask_rest(served, "linear", images, parameters=SEED).tensors
    wrong = ask_rest(served, "linear", images, parameters={"explain_parameters": {"sed": 3}})
    assert wrong.status == 422
    assert "sed" in wrong.text


def test_metrics_have_a_port_of_their_own_as_on_the_other_host(served, images):
    ask_rest(served, "linear", images)
    said = httpx.get(f"http://127.0.0.1:{served.ports.metrics}/metrics").text
    for name in ("explainer_demand", "explainer_requests_total", "explainer_running"):
        assert f"{name}{{" in said
    assert 'explainer_demand{model="linear"} 0.0' in said


def sent(images, kind):
    """Path, body and headers of one request in V1's words, in V2's, or as binary tensors."""
    if kind == "V1":
        body = json.dumps({"instances": images.tolist()}).encode()
        return "/v1/models/linear:explain", body, {"content-type": "application/json"}
    body = {"inputs": [v2_input(images)], "id": "1", "parameters": SEED}
    if kind == "V2":
        return "/v2/models/linear/infer", json.dumps(body).encode(), {"content-type": "application/json"}
    tensor = v2_input(images, parameters={"binary_data_size": images.nbytes})
    del tensor["data"]
    parameters = {**SEED, "binary_data_output": True}
    head = json.dumps({**body, "inputs": [tensor], "parameters": parameters}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return "/v2/models/linear/infer", head + images.tobytes(), headers


def told(answer):
    """What was answered, but for the seconds that it took: the head, and the tensors behind it, if any."""
    size = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    head = json.loads(answer.content[:size])
    head.get("parameters", {}).pop("predictor_seconds", None)
    return answer.status_code, head, answer.content[size:]


@pytest.mark.parametrize("kind", ["V1", "V2", "binary"])
def test_a_job_gives_what_waiting_gives_as_on_the_other_host(served, images, kind):
    path, content, headers = sent(images, kind)
    with httpx.Client(base_url=served.rest(""), headers=headers, timeout=60) as client:
        client.post(path, content=content)  # the model is met, which costs rows once
        waited = client.post(path, content=content)
        accepted = client.post(path, content=content, headers={"prefer": "respond-async"})
        assert (waited.status_code, accepted.status_code) == (200, 202), accepted.text
        place = accepted.headers["location"]
        while (job := client.get(place).json())["state"] in ("queued", "running"):
            pass
        assert job["state"] == "done"
        assert told(client.get(f"{place}/result")) == told(waited)
    assert bool(told(waited)[2]) == (kind == "binary")


def test_a_job_is_refused_at_once_and_found_over_grpc_as_on_the_other_host(served, images):
    bad = {"instances": np.zeros((1, 4, 4, 1)).tolist(), "parameters": {"threshold": 7}}
    url, prefer = served.rest("/v1/models/linear:explain"), {"prefer": "respond-async"}
    waited, refused = (httpx.post(url, json=bad, headers=one, timeout=60) for one in ({}, prefer))
    assert (refused.status_code, refused.content) == (waited.status_code, waited.content)
    message = oip.ModelInferRequest(model_name="linear", id="1")
    message.inputs.add(name="image", datatype="FP32", shape=images.shape)
    message.raw_input_contents.append(images.tobytes())
    message.parameters["explain_parameters"].string_param = SEED["explain_parameters"]
    with grpc.insecure_channel(f"127.0.0.1:{served.ports.grpc}") as channel:
        call = oip.method(channel, "ModelInfer")
        job = call(message, timeout=60, metadata=(("prefer", "respond-async, wait=60"),))
        assert job.parameters["state"].string_param == "done"
        assert [*job.raw_output_contents] == [*call(message, timeout=60).raw_output_contents]
        with pytest.raises(grpc.RpcError) as refusal:
            call(
                oip.ModelInferRequest(model_name="linear"),
                timeout=60,
                metadata=(("prefer", "respond-async"),),
            )
        assert refusal.value.code() is StatusCode.FAILED_PRECONDITION


# --- the door, and the way out ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(folder):
    """A server of its own, with limits, and a model that can be held."""
    (folder / "tokens").write_text("sesame\n")
    guard = {
        "token_file": str(folder / "tokens"),
        "max_body": 2000,
        "max_names": 200,
        "linger": 3,
        "grace": 0.1,
    }
    ports, log, held = free_ports(), folder / "guarded.log", Held()
    with model(held) as predictor:
        words = ["-m", "explainer_runtime.cli", "serve", anchor_of(folder / "held"), "--server", "kserve"]
        flags = ["--name", "linear", "--predictor", json.dumps(predictor), "--guard", json.dumps(guard)]
        flags += ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        command = [str(word) for word in [PYTHON, *words, *flags]]
        process = start(command, log, EXPLAINER_RUNTIME_HOST="127.0.0.1")
        with running(process, ports, log) as server:
            yield server, process, held


TOKEN = {"authorization": "Bearer sesame"}
BODY = {"instances": IMAGE.tolist(), "parameters": {"max_calls": 12}}


def test_what_an_operator_allows_is_allowed_on_this_host_too(guarded):
    server, _, _ = guarded
    url = server.rest("/v1/models/linear:explain")
    refused = httpx.post(url, json=BODY)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert httpx.post(url, json=BODY, headers=TOKEN, timeout=60).status_code == 200
    large = httpx.post(url, json={**BODY, "id": "a" * 2000}, headers=TOKEN)
    assert large.status_code == 413
    assert "2000 bytes" in large.json()["error"]
    load = httpx.post(server.rest("/v2/repository/models/linear/unload"), headers=TOKEN)
    assert load.status_code == 403
    assert httpx.get(server.rest("/v2/health/live")).status_code == 200
    message = oip.ModelInferRequest(model_name="absent")
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
        for metadata, code in ((), "UNAUTHENTICATED"), (tuple(TOKEN.items()), "NOT_FOUND"):
            with pytest.raises(grpc.RpcError) as refusal:
                oip.method(channel, "ModelInfer")(message, timeout=20, metadata=metadata)
            assert refusal.value.code().name == code


EMPTY = b'{"inputs":[' + b"{}," * 500 + b"{}]}"
HOSTILE = {
    "five hundred empty inputs": (EMPTY, {}, 422, "names, texts and objects"),
    "a million as gzip": (gzip.compress(2000 * EMPTY), {"content-encoding": "gzip"}, 413, "2000 bytes"),
    "a long id": (b'{"inputs":[],"id":"%b"}' % (b"a" * 300), {}, 422, "at most 256 characters"),
    "forty levels": (b"[" * 40 + b"]" * 40, {}, 422, "levels of nesting"),
    "a head longer than its body": (b"{}", {"inference-header-content-length": "3"}, 422, "tensors as bytes"),
    "a head of many levels": (
        b"[" * 40 + b"]" * 40,
        {"inference-header-content-length": "80"},
        422,
        "levels of nesting",
    ),
    "two ends": (None, {"transfer-encoding": "chunked", "content-length": "2"}, 400, "got both"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_door_is_that_of_the_other_host(guarded, kind):
    server, _, _ = guarded
    content, headers, status, said = HOSTILE[kind]
    content = iter([b"{}"]) if content is None else content
    headers = {**TOKEN, "content-type": "application/json", **headers}
    answer = httpx.post(server.rest("/v2/models/linear/infer"), content=content, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_connection_that_says_nothing_is_closed_at_each_port(guarded):
    server, _, _ = guarded
    with contextlib.ExitStack() as stack:
        ports = server.ports.http, server.ports.metrics
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for port in ports]
        assert [one.recv(1) for one in silent] == [b"", b""]


def test_silent_connections_at_the_metrics_port_make_place_for_scrapers(guarded):
    server, process, _ = guarded
    files = Path(f"/proc/{process.pid}/fd")
    before = len(list(files.iterdir()))
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.ports.metrics), 30))
        assert httpx.get(f"http://127.0.0.1:{server.ports.metrics}/metrics").status_code == 200
        assert len(list(files.iterdir())) - before < METRICS_CONNECTIONS + 32


def test_a_signal_loses_nothing_and_what_is_cut_is_told_to_come_back(guarded):
    server, process, held = guarded
    url = server.rest("/v1/models/linear:explain")
    with ThreadPoolExecutor(1) as clients, held.hold():
        late = clients.submit(httpx.post, url, json=BODY, headers=TOKEN, timeout=60)
        assert held.entered.acquire(timeout=60)
        process.send_signal(signal.SIGTERM)
        while httpx.get(server.rest("/v2/health/ready")).status_code == 200:
            pass
        # Routes have not heard of it yet: who still comes is answered.
        wrong = httpx.post(url, json={"instances": []}, headers=TOKEN)
        assert (wrong.status_code, list(wrong.json())) == (422, ["error"])
        answer = late.result(timeout=60)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "the server stops" in answer.json()["error"]
        held.release()
        assert process.wait(timeout=60) == 0


def test_a_model_that_is_gone_is_503_and_says_when_to_ask_again(served, linear_process, images):
    _, process = linear_process
    process.kill()
    process.wait()
    answer = explain(served, {"instances": images.tolist()})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert ask_grpc(served, "linear", images).status == StatusCode.UNAVAILABLE


def assert_explained(answer, expected):
    document, wanted = (
        json.loads(text) for text in (answer.body["outputs"][0]["data"][0], expected.to_json(short=True))
    )
    assert document["data"] == wanted["data"]
    assert document["meta"]["spec"] == wanted["meta"]["spec"]


def explain(server, body, model="linear", headers=None):
    return httpx.post(server.rest(f"/v1/models/{model}:explain"), json=body, headers=headers, timeout=60)
