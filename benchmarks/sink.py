"""A server that answers at once, to measure roads to it: it reads its rows, and every class is as likely.

Run as `python -m benchmarks.sink HTTP_PORT GRPC_PORT`, in a process of its own. `GET /bytes` says how long
the last request was.
"""

from __future__ import annotations

import http.server
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import orjson

from explainer_runtime.predictors.remote import oip

CLASSES = 10
PLAIN = "/plain"
"""Path of the V2 call that is read and answered by the standard library's `json`."""
_LENGTH = "inference-header-content-length"
_last = [0]


def scores(rows: int) -> np.ndarray:
    """The answer for that many rows."""
    return np.full((rows, CLASSES), 1 / CLASSES, np.float32)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/bytes":
            return self.say(str(_last[0]).encode())
        inputs = [{"name": "image", "datatype": "FP32", "shape": [-1]}]
        return self.say(orjson.dumps({"inputs": inputs, "extensions": []}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        _last[0] = len(body)
        if self.path.startswith("/v1"):
            rows = np.asarray(orjson.loads(body)["instances"], np.float32)
            return self.say(orjson.dumps({"predictions": scores(len(rows)).tolist()}))
        length = int(self.headers.get(_LENGTH, len(body)))
        plain = self.path == PLAIN
        (tensor,) = (json if plain else orjson).loads(body[:length])["inputs"]
        if "data" in tensor:
            np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])
        else:
            np.frombuffer(body, "<f4", offset=length).reshape(tensor["shape"])
        answer = scores(tensor["shape"][0])
        output: dict[str, Any] = {"name": "scores", "datatype": "FP32", "shape": answer.shape}
        if "data" in tensor:
            output["data"] = answer.ravel().tolist()
            return self.say(json.dumps({"outputs": [output]}).encode() if plain else _dumps(output))
        output["parameters"] = {"binary_data_size": answer.nbytes}
        head = _dumps(output)
        return self.say(head + answer.tobytes(), **{_LENGTH: str(len(head))})

    def say(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _dumps(output: dict[str, Any]) -> bytes:
    return orjson.dumps({"outputs": [output]})


def _infer(message: bytes, _: Any) -> bytes:
    _last[0] = len(message)
    request = oip.ModelInferRequest.FromString(message)
    shape = tuple(request.inputs[0].shape)
    np.frombuffer(request.raw_input_contents[0], "<f4").reshape(shape)
    answer = scores(shape[0])
    output = {"name": "scores", "datatype": "FP32", "shape": answer.shape}
    response = oip.ModelInferResponse(outputs=[output], raw_output_contents=[answer.tobytes()])
    return bytes(response.SerializeToString())


def main() -> None:
    """Serve until killed."""
    http_port, grpc_port = (int(word) for word in sys.argv[1:3])
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 2**30)])
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(_infer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(oip.SERVICE, handlers)])
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    http.server.ThreadingHTTPServer(("127.0.0.1", http_port), _Handler).serve_forever()


if __name__ == "__main__":
    main()
