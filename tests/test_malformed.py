"""Requests broken at random: each is answered, none by a 5xx, and the next goes over the same connection.

`make test` sends 1,000 of them, half of them gRPC, `make fuzz` as many as EXPLAINER_RUNTIME_FUZZ says. Beside
ours, Schemathesis makes up requests from the OpenAPI document of the server.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys

import grpc
import pytest
from malformed import messages, requests
from staged import Held, anchor, explainer, model, resident, serving

from explainer_runtime.predictors.remote import oip

COUNT = int(os.environ.get("EXPLAINER_RUNTIME_FUZZ", "1000"))
SEED = int(os.environ.get("EXPLAINER_RUNTIME_SEED", "0"))
HANG = float(os.environ.get("EXPLAINER_RUNTIME_FUZZ_SECONDS", "10"))
"""Seconds without an answer that are a hang: 10 on a slow machine, 1 where `make fuzz` is alone on it."""
CODES = {"OK", "FAILED_PRECONDITION", "NOT_FOUND", "PERMISSION_DENIED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    with model(Held()) as predictor, serving([explainer(anchor(folder), "m", predictor)], folder) as served:
        yield served


def test_malformed_requests_get_an_answer_and_cost_nothing(served):
    server, process = served
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=HANG)
    memory = None
    statuses: dict[int, int] = {}
    for index, (path, headers, body) in enumerate(requests("m", SEED, COUNT - COUNT // 2)):
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
        asked = f"request {index} of seed {SEED}: {path} {headers} {body[:500]!r}"
        told = f"{asked} -> {response.status} {text[:500]!r}"
        assert response.status in {200, 404, 406, 413, 415, 422}, told
        if response.status != 200:
            assert list(json.loads(text)) == ["error"], told
            assert len(text) < 2000, told
        assert response.getheader("connection") != "close" or response.status == 413, told
        assert b"Traceback" not in text, told
        statuses[response.status] = statuses.get(response.status, 0) + 1
        if index == COUNT // 10:  # what is made on first use has been made
            memory = resident(process)
    connection.close()
    assert min(statuses[200], statuses[422]) > COUNT / 100
    assert resident(process) - memory < 50 * 2**20
    assert "Traceback" not in server.log.read_text()


def test_malformed_messages_get_an_answer_and_cost_nothing(served):
    server, process = served
    codes: dict[str, int] = {}
    memory = None
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}", options) as channel:
        for index, (method, content, packed) in enumerate(messages("m", SEED, COUNT // 2)):
            asked = f"message {index} of seed {SEED}: {method} {packed} {content[:300]!r}"
            compression = grpc.Compression.Gzip if packed else None
            try:
                call = channel.unary_unary(f"/{oip.SERVICE}/{method}")
                call(content, timeout=HANG, compression=compression)
                code, details = "OK", ""
            except grpc.RpcError as error:
                code, details = error.code().name, error.details()
            assert code in CODES, f"{asked} -> {code} {details}"
            assert len(details) < 2000, asked
            codes[code] = codes.get(code, 0) + 1
            if index == COUNT // 10:
                memory = resident(process)
    assert min(codes["OK"], codes["FAILED_PRECONDITION"]) > COUNT / 100
    assert resident(process) - memory < 50 * 2**20
    assert "Traceback" not in server.log.read_text()


def test_requests_made_up_from_the_openapi_document_are_no_server_errors(served, tmp_path):
    server, _ = served
    options = {
        "--include-path-regex": "explain|infer$",
        "--checks": "not_a_server_error",
        "--phases": "coverage,fuzzing",
        "--max-examples": str(max(5, COUNT // 200)),
        "--seed": str(SEED),
        "--request-timeout": str(max(HANG, 10)),
    }
    words = [word for pair in options.items() for word in pair]
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        server.rest("/v2/docs/dataplane.json"),
        *words,
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert "7 passed" in run.stdout


@pytest.mark.parametrize("name", ["\u2603", "a\nb"])
def test_an_id_that_no_header_can_hold_is_refused(name):
    from mlserver.types import InferenceRequest

    from explainer_runtime.errors import InvalidInput
    from explainer_runtime.hosts.mlserver.v2types import tensors

    with pytest.raises(InvalidInput, match="id: expected printable ASCII"):
        tensors(InferenceRequest(id=name, inputs=[]))
