"""The launcher as platforms start it: a real process with their words and variables, a real answer.

The model is a linear one, served by this process. Where a platform's line names a host or a port, the ones of
this machine stand in; every other word is as the platform's controller writes it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from servers import ask_grpc, ask_rest, free_ports, running, start
from test_launcher_storage import as_config_map
from toys import rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import AnchorImage, Grid, Inputs

CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
CLASSIFY = rowwise(weights())
HERE = Path(__file__).parent
KSERVE = HERE.parent / ".venv-kserve" / "bin" / "python"
SERVE = [sys.executable, "-m", "explainer_runtime.cli", "serve"]


@pytest.fixture(scope="module")
def anchor(tmp_path_factory):
    spec = AnchorImage(segmentation=Grid(rows=4, columns=2), fill="constant", threshold=0.9)
    return artifact.save(fit(spec, inputs=CONTRACT), tmp_path_factory.mktemp("anchor") / "boots")


@pytest.fixture(scope="module")
def model():
    def respond(x):
        scores = CLASSIFY(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    with RestServer(Model(respond=respond)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).uniform(size=(2, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(anchor, images):
    return prepare(artifact.load(anchor), CallablePredictor(CLASSIFY))(images, {"seed": 3})


@contextlib.contextmanager
def launched(words, folder, port_flag=None, **environment):
    """`explainer-runtime serve` in a process; the port of REST as a platform's flag, or as a variable."""
    ports = free_ports()
    folder.mkdir(exist_ok=True)
    variables = {
        "EXPLAINER_RUNTIME_HOST": "127.0.0.1",
        "MLSERVER_GRPC_PORT": str(ports.grpc),
        "MLSERVER_METRICS_PORT": str(ports.metrics),
        "MLSERVER_HTTP_PORT": "1" if port_flag else str(ports.http),
        **environment,
    }
    flag = [port_flag.format(ports.http)] if port_flag else []
    command = [*SERVE, *(str(word) for word in words), *(part for one in flag for part in one.split())]
    log = folder / "server.log"
    with running(start(command, log, **variables), ports, log) as server:
        yield server


def assert_explains(server, name, images, expected):
    for route in ("infer", "explain"):
        answer = ask_rest(server, name, images, route, parameters={"explain_parameters": {"seed": 3}})
        np.testing.assert_array_equal(answer.array("anchor_mask"), expected["anchor_mask"])
    answer = ask_grpc(server, name, images, seed=3)
    np.testing.assert_array_equal(answer.array("anchor_mask"), expected["anchor_mask"])


# --- KServe: two explainers in one server, mounted as a ConfigMap, with flags that nobody knows -------------


@pytest.fixture(scope="module")
def kserve(tmp_path_factory, anchor, model):
    """`spec.explainer.containers[0]` with args of its own and what the controller appends to them."""
    folder = tmp_path_factory.mktemp("kserve")
    mounted = as_config_map(anchor, folder / "second")
    own = [anchor, mounted, "--http_port", "1", "--enable_docs_url", "true"]
    injected = ["--model_name", "fashion", "--predictor_host", model]
    with launched([*own, *injected], folder / "log", port_flag="--http_port {} --workers 1") as server:
        yield server


def test_kserves_line_starts_a_server_that_explains(kserve, images, expected):
    assert_explains(kserve, "fashion", images, expected)


@pytest.mark.skipif(not KSERVE.exists(), reason="no .venv-kserve; `make test` builds it")
def test_kserves_own_client_is_answered_by_this_host_too(kserve, images, expected):
    command = [KSERVE, HERE / "kserve_client.py", kserve.rest(""), "fashion", json.dumps(images.tolist())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["json"]["anchor_mask"][1] == expected["anchor_mask"].ravel().tolist()
    assert told["explain"]["data"] == json.loads(expected.to_json())["data"]


def test_two_explainers_in_one_server_have_an_explain_of_their_own(kserve, images, expected):
    assert_explains(kserve, "second", images, expected)
    for name in ("fashion", "second"):
        assert ask_rest(kserve, name, images, "explain").body["model_name"] == name


def test_flags_that_nobody_knows_are_logged(kserve):
    lines = [json.loads(line) for line in kserve.log.read_text().splitlines() if line.startswith("{")]
    ignored = [line["message"] for line in lines if "ignored" in line["message"]]
    assert ignored == ["ignored, not known here: --enable_docs_url", "ignored, not known here: true"]


def test_each_request_is_one_json_line_with_its_id_and_without_its_payload(kserve, images):
    body = {"inputs": [{"name": "sesame", "shape": [1], "datatype": "FP32", "data": [0.123456789]}]}
    headers = {"x-request-id": "req-17", "authorization": "Bearer sesame"}
    answer = httpx.post(kserve.rest("/v2/models/fashion/infer"), json=body, headers=headers)
    assert answer.headers["x-request-id"] == "req-17"
    ask_grpc(kserve, "fashion", images)
    log = kserve.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "req-17" and "status" in line]
    assert (line["method"], line["path"]) == ("POST", "/v2/models/fashion/infer")
    assert line["status"] == answer.status_code == 422
    assert any(line.get("path") == "ModelInfer" and line["status"] == "OK" for line in lines)
    probes = [line for line in lines if line.get("path", "").startswith("/v2/health")]
    assert not any(line["status"] == 200 for line in probes)  # others, while the server was starting
    assert "sesame" not in log
    assert "0.1234" not in log


def test_requests_without_an_id_or_with_a_strange_one_get_one(kserve):
    plain = httpx.get(kserve.rest("/v2/models/fashion"))
    strange = httpx.get(kserve.rest("/v2/models/fashion"), headers={"x-request-id": "a b"})
    assert len(plain.headers["x-request-id"]) == 32
    assert len(strange.headers["x-request-id"]) == 32


# --- starting that fails ------------------------------------------------------------------------------------


def finished(words, folder, **environment):
    ports = free_ports()
    variables = {
        "EXPLAINER_RUNTIME_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(ports.http),
        "MLSERVER_GRPC_PORT": str(ports.grpc),
        "MLSERVER_METRICS_PORT": str(ports.metrics),
        **environment,
    }
    process = start([*SERVE, *(str(word) for word in words)], folder / "log", **variables)
    try:
        return process.wait(timeout=60), (folder / "log").read_text()
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_an_artifact_that_was_tampered_with_is_refused_before_anything_starts(anchor, tmp_path):
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "explainer.json").write_bytes((anchor / "explainer.json").read_bytes()[:-10])
    status, log = finished(["--model_name=m", "--predictor_host=a"], tmp_path, STORAGE_URI=str(torn))
    assert status == 2
    assert log.startswith("error: ")
    assert log.count("\n") == 1


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_status(anchor, tmp_path):
    variables = {
        "MLSERVER_MODEL_NAME": "m",
        "MLSERVER_MODEL_URI": str(anchor),
        "MLSERVER_MODEL_EXTRA": '{"infer_uri": "ftp://nowhere"}',
    }
    status, log = finished([], tmp_path, **variables)
    assert status == 2  # as `fit` says of what has to be changed
    assert "expected grpc://host:port/model" in log
    assert "Traceback" not in log


def test_storage_that_was_not_downloaded_is_refused(tmp_path):
    words = ["--model_name=m", "--predictor_host=a"]
    status, log = finished(words, tmp_path, STORAGE_URI="s3://bucket/boots")
    assert status == 2
    assert "STORAGE_URI: s3://bucket/boots" in log
