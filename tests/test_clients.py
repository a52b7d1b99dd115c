"""Clients that others wrote, as they are: each gets the explanation that everyone else gets.

Each runs in a process of its own: several register the protobuf package `inference`, and only one can.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from servers import ask_rest
from staged import IMAGE, Held, anchor, explainer, model, serving

OPTIONS = {"seed": 3, "threshold": 0.8}
TRITON_HTTP = """
import sys, numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_ready() and client.is_model_ready("anchor")
image = triton.InferInput("image", [1, 8, 8, 1], "FP32")
image.set_data_from_numpy(np.load(sys.argv[2]), binary_data=False)
wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in ("explanation", "anchor_mask")]
answer = client.infer("anchor", [image], outputs=wanted, parameters={"seed": 3, "threshold": 0.8})
assert answer.as_numpy("anchor_mask").shape == (1, 8, 8)
print(answer.as_numpy("explanation").item())
"""
TRITON_GRPC = """
import sys, numpy as np, tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_ready() and client.is_model_ready("anchor")
image = triton.InferInput("image", [1, 8, 8, 1], "FP32")
image.set_data_from_numpy(np.load(sys.argv[2]))
wanted = [triton.InferRequestedOutput(name) for name in ("explanation", "anchor_mask")]
answer = client.infer("anchor", [image], outputs=wanted, parameters={"seed": 3, "threshold": 0.8})
assert answer.as_numpy("anchor_mask").dtype == bool
print(answer.as_numpy("explanation").item().decode())
"""
MLSERVER_TYPES = """
import sys, httpx, numpy as np
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput
image = NumpyCodec.encode_input("image", np.load(sys.argv[2]))
wanted = [RequestOutput(name=name) for name in ("explanation", "anchor_mask")]
options = {"explain_parameters": {"seed": 3, "threshold": 0.8}}
body = InferenceRequest(inputs=[image], outputs=wanted, parameters=options)
answer = httpx.post(f"http://{sys.argv[1]}/v2/models/anchor/explain", json=body.model_dump())
response = InferenceResponse.model_validate_json(answer.text)
outputs = {output.name: output for output in response.outputs}
assert NumpyCodec.decode_output(outputs["anchor_mask"]).shape == (1, 8, 8)
print(StringCodec.decode_output(outputs["explanation"])[0])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    with (
        model(Held()) as predictor,
        serving([explainer(anchor(folder), "anchor", predictor)], folder) as served,
    ):
        yield served[0]


def document(server, *outputs):
    wanted = [{"name": name} for name in outputs]
    asked = ask_rest(server, "anchor", IMAGE, parameters=OPTIONS, outputs=wanted)
    return asked.body["outputs"][0]["data"][0]


@pytest.fixture
def image(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    return str(tmp_path / "image.npy")


@pytest.mark.parametrize(
    ("script", "port"),
    [(TRITON_HTTP, "http"), (TRITON_GRPC, "grpc"), (MLSERVER_TYPES, "http")],
    ids=["tritonclient.http", "tritonclient.grpc", "mlserver.types"],
)
def test_clients_in_python_get_the_explanation(server, image, script, port):
    address = f"127.0.0.1:{getattr(server.ports, port)}"
    expected = document(server, "explanation", "anchor_mask")
    assert said(sys.executable, "-c", script, address, image) == expected


@pytest.mark.parametrize("path", ["/v1/models/anchor:explain", "/explain"])
def test_curl_gets_the_explanation(server, path):
    expected = document(server, "explanation")
    body = json.dumps({"instances": IMAGE.tolist(), "parameters": OPTIONS})
    kind = "content-type: application/json"
    assert said("curl", "--silent", "--fail", server.rest(path), "-H", kind, "-d", body) == expected


def said(*command):
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()
