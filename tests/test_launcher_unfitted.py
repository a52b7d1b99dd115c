"""KServe's own example of an image explainer, with only its image changed: no artifact of ours, V1, words.

The line is what KServe's controller makes of `docs/samples/explanation/alibi/cifar10/cifar10.yaml`
(explainer_alibi.go, release 0.10): the platform's flags, the type, and its `config` in the order of names.
The model is a server like TensorFlow Serving: `:predict`, and metadata with the shapes of its signature.
"""

from __future__ import annotations

import http.server
import json
import threading

import httpx
import numpy as np
import pytest
from test_launcher import launched

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidSpec, PredictorUnavailable
from explainer_runtime.hosts.platform import unfitted
from explainer_runtime.spec import Endpoint

KSERVE = (
    "--model_name cifar10 --http_port {port} --predictor_host {host} --storage_uri {mount} AnchorImages "
    "--batch_size 40 --stop_on_first True"
)


def signature(image, scores, datatype="DT_FLOAT"):
    """Metadata as TensorFlow Serving writes it."""
    parts = {}
    for name, sizes, kind in (("inputs", image, datatype), ("outputs", scores, "DT_FLOAT")):
        dim = [{"size": str(size), "name": ""} for size in sizes]
        parts[name] = {
            "x": {"dtype": kind, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": "x:0"}
        }
    served = {"serving_default": {**parts, "method_name": "tensorflow/serving/predict"}}
    return {"metadata": {"signature_def": {"signature_def": served}}}


class Handler(http.server.BaseHTTPRequestHandler):
    """Brightness of two halves of a picture as two classes; `metadata` is what is said at each path."""

    metadata: dict[str, object] = {}  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_GET(self):
        known = self.metadata.get(self.path)
        self.say(200 if known else 404, known or {"error": "no such model"})

    def do_POST(self):
        assert self.path == "/v1/models/cifar10:predict"
        rows = np.array(json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"])
        halves = np.exp(9 * rows.reshape(len(rows), 2, -1).mean(axis=2))
        self.say(200, {"predictions": (halves / halves.sum(axis=1, keepdims=True)).tolist()})

    def say(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture(scope="module")
def model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    Handler.metadata = {
        "/v1/models/cifar10/metadata": signature((-1, 8, 8, 3), (-1, 2)),
        "/v1/models/bytes/metadata": signature((-1, 8, 8, 3), (-1, 2), "DT_UINT8"),
        "/v1/models/free/metadata": signature((-1, -1, -1, 3), (-1, 2)),
        "/prefix/v2/models/other": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4, 4, 1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
        },
    }
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_kserves_example_explains_with_only_its_image_changed(model, tmp_path):
    mount = tmp_path / "models"
    mount.mkdir()
    (mount / "explainer.dill").write_bytes(b"of another maker, and never opened")
    line = KSERVE.format(port="{}", host=model, mount=mount)
    before, _, after = line.partition("--http_port {}")
    words = [*before.split(), *after.split()]
    links = {"MLSERVER_HTTP_PORT": "tcp://10.0.0.7:80", "MLSERVER_MODEL_PORT": "tcp://10.0.0.8:80"}
    with launched(words, tmp_path / "server", port_flag="--http_port {}", **links) as server:
        image = np.zeros((1, 8, 8, 3), np.float32)
        image[:, :4] = 1
        answer = httpx.post(
            server.rest("/v1/models/cifar10:explain"), json={"instances": image.tolist()}, timeout=60
        )
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["meta"]["spec"]["batch_size"] == 40
    assert document["meta"]["spec"]["stop_on_first"] is True
    assert "ignored" not in server.log.read_text()


def told(host, scratch, settings=None, *, model="cifar10", **changes):
    endpoint = {"kind": "v1", "url": f"http://{host}", "model": model, **changes}
    made = unfitted.explainer("anchor_image", settings or {}, Endpoint(**endpoint), scratch, patience=0.0)
    return artifact.load(made)


def test_shape_classes_and_range_are_the_models(model, tmp_path):
    fitted = told(model, tmp_path, {"threshold": "0.9", "binary_cache_size": "10000"})
    assert fitted.inputs.model_dump(include={"shape", "classes", "low", "high"}) == {
        "shape": (8, 8, 3),
        "classes": 2,
        "low": 0,
        "high": 1,
    }
    assert fitted.spec.threshold == 0.9
    assert told(model, tmp_path, model="bytes").inputs.high == 255
    other = told(model, tmp_path, kind="v2", model="other", path="/prefix/v2/models/other/infer")
    assert (other.inputs.shape, other.inputs.classes) == ((4, 4, 1), 3)


def test_who_knows_better_says_so_and_the_model_is_not_asked(tmp_path):
    words = {"shape": "32,32,3", "classes": "10", "low": "-1", "high": "1"}
    fitted = told("127.0.0.1:1", tmp_path, words)
    assert (fitted.inputs.shape, fitted.inputs.classes, fitted.inputs.low) == ((32, 32, 3), 10, -1)


def test_a_model_that_does_not_say_is_refused_with_what_to_say(model, tmp_path):
    with pytest.raises(InvalidSpec, match=r"does not say what an image is; say --shape 32,32,3 --classes 10"):
        told(model, tmp_path, model="free")
    with pytest.raises(PredictorUnavailable, match="no metadata at http"):
        told(model, tmp_path, model="absent")
    with pytest.raises(InvalidSpec, match="threshold"):
        told(model, tmp_path, {"threshold": "7"})
    with pytest.raises(InvalidSpec, match="say --shape and --classes for gRPC"):
        told(model, tmp_path, kind="v2", url="grpc://127.0.0.1:1")
