"""Two small real servers for tests, on loopback: what a model does is a value that tests may change.

`Model` says how rows are answered, in terms that both servers spell out on their own wire; `Refusal` is an
error status. Only what exists on one wire alone (a redirect, half a body) is a `fault` of that server.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from explainer_runtime.predictors.remote import oip

LENGTH = "inference-header-content-length"
CONTENTS = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
}
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8}
HELD = {**DTYPES, "BOOL": np.bool_, "INT64": np.int64, "INT32": np.int32}


class Output(NamedTuple):
    """One output tensor; the shape it claims need not be that of its numbers."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: np.ndarray


class Seen(NamedTuple):
    """One infer request as it arrived."""

    path: str
    headers: dict[str, str]
    name: str
    datatype: str
    shape: tuple[int, ...]
    peer: str
    others: dict[str, Any] = {}  # noqa: RUF012  # what the further inputs held
    wanted: tuple[str, ...] = ()  # names of outputs that were asked for


class Refusal(Exception):
    """The server answers with an error: `status` is the REST one, and picks the gRPC one."""

    GRPC = {  # noqa: RUF012
        400: grpc.StatusCode.INVALID_ARGUMENT,
        404: grpc.StatusCode.NOT_FOUND,
        429: grpc.StatusCode.RESOURCE_EXHAUSTED,
        500: grpc.StatusCode.INTERNAL,
        503: grpc.StatusCode.UNAVAILABLE,
        504: grpc.StatusCode.DEADLINE_EXCEEDED,
    }

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def echo(x: np.ndarray) -> list[Output]:
    """Scores that are the first ten features themselves: whatever the wire does to them shows."""
    scores = np.ascontiguousarray(x.reshape(len(x), -1)[:, :10], dtype=np.float32)
    return [Output("scores", "FP32", scores.shape, scores)]


@dataclass
class Model:
    """The served model."""

    respond: Callable[[np.ndarray], list[Output]] = echo
    describe: Callable[[], list[tuple[Any, ...]]] = lambda: [("image", "FP32")]  # and a shape, if any
    fault: Callable[[Any], Any] | None = None
    most: int | None = None  # REST: bytes of a body; more is 413
    typed: bool = False  # gRPC: typed contents instead of raw ones
    version: str = ""
    extensions: tuple[str, ...] = ()  # what the server announces
    trailing: tuple[tuple[str, str], ...] = ()  # headers (REST) or trailing metadata (gRPC) of a refusal
    seen: list[Seen] = field(default_factory=list)
    described: int = 0
    refused: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def hang(self, *_: Any) -> Any:
        """Do not answer until the server stops."""
        self.over.wait()
        raise Refusal(500, "the server stops")


class Server:
    """A server that can be stopped, and started again on the port it had."""

    def __init__(self, model: Model | None = None) -> None:
        self.model = model or Model()
        self.port = 0

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RestServer(Server):
    """V2 over HTTP/1.1, with tensors as JSON or bytes, and V1. A fault is called with the request handler
    and writes what it likes."""

    scheme = "http"

    def __init__(self, model: Model | None = None, tls: tuple[str, str] | None = None) -> None:
        super().__init__(model)
        self.tls = tls

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.model.over.clear()
        self.server = _HttpServer(("127.0.0.1", self.port), _Handler)
        self.server.model = self.model
        self.port = self.server.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self.server.tls = context
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.model.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.hang_up()
        self.server.server_close()


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close joins the handlers
    request_queue_size = 64
    model: Model
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()

    def hang_up(self) -> None:
        """End kept-alive connections, which would go on answering after the listener is gone."""
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        with self.lock:
            self.open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self.lock:
                self.open.discard(request)
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        model = self.server.model
        if self.path == "/v2":
            return self.say(200, json.dumps({"name": "s", "extensions": model.extensions}).encode())
        model.described += 1
        try:
            inputs = _declared(model)
        except Refusal as refusal:
            return self.say(refusal.status, json.dumps({"error": refusal.text}).encode())
        return self.say(200, json.dumps({"name": "m", "inputs": inputs}).encode())

    def do_POST(self) -> None:
        model = self.server.model
        if model.fault is not None:
            return model.fault(self)
        if model.most is not None and int(self.headers["content-length"]) > model.most:
            model.refused += 1
            self.body()
            return self.say(413, b"<html>Request Entity Too Large</html>", "text/html")
        peer = str(self.client_address)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.body()
        length = int(headers.get(LENGTH, len(body)))
        document, tail = json.loads(body[:length]), body[length:]
        tensor, *more = document["inputs"] if "inputs" in document else _of_v1(document["instances"])
        name, datatype, shape = tensor["name"], tensor["datatype"], tuple(tensor["shape"])
        others = {one["name"]: np.reshape(one["data"], one["shape"]) for one in more if "data" in one}
        wanted = tuple(one["name"] for one in document.get("outputs", ()))
        model.seen.append(Seen(self.path, headers, name, datatype, shape, peer, others, wanted))
        numbers = tensor["data"] if "data" in tensor else np.frombuffer(tail, DTYPES[datatype])
        x = np.array(numbers, dtype=DTYPES[datatype]).reshape(shape)
        try:
            outputs = model.respond(x)
        except Refusal as refusal:
            error = json.dumps({"error": refusal.text}).encode()
            return self.say(refusal.status, error, **dict(model.trailing))
        if "instances" in document:
            return self.say(200, json.dumps({"predictions": _to_v1(outputs)}).encode())
        binary = "data" not in tensor
        answer: dict[str, Any] = {"model_name": "m", "outputs": [_output(one, binary) for one in outputs]}
        if model.version:
            answer["model_version"] = model.version
        text = json.dumps(answer).replace("NaN", "null").encode()
        if not binary:
            return self.say(200, text)
        tail = b"".join(one.data.tobytes() for one in outputs)
        return self.say(200, text + tail, "application/octet-stream", **{LENGTH: str(len(text))})

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers["content-length"]))
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def say(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _output(one: Output, binary: bool) -> dict[str, Any]:
    tensor = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
    if binary:
        return {**tensor, "parameters": {"binary_data_size": one.data.nbytes}}
    return {**tensor, "data": one.data.ravel().tolist()}


def _declared(model: Model) -> list[dict[str, Any]]:
    said = [(*one, [-1]) for one in model.describe()]
    return [{"name": one[0], "datatype": one[1], "shape": list(one[2])} for one in said]


def _of_v1(instances: list[Any]) -> list[dict[str, Any]]:
    """The tensors that a list of instances holds, by the names of the inputs where they name them."""
    names = list(instances[0]) if isinstance(instances[0], dict) else [""]
    columns = [np.array([one[name] if name else one for one in instances], np.float32) for name in names]
    return [
        {"name": name, "datatype": "FP32", "shape": data.shape, "data": data}
        for name, data in zip(names, columns, strict=True)
    ]


def _to_v1(outputs: list[Output]) -> list[Any]:
    rows = {one.name: one.data.tolist() for one in outputs}
    if len(rows) == 1:
        return next(iter(rows.values()))
    return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]


class GrpcServer(Server):
    """V2 over gRPC. A fault is called with the servicer context and returns the answer's bytes."""

    scheme = "grpc"

    def __init__(
        self, model: Model | None = None, tls: tuple[str, str] | None = None, max_message: int = 4 * 2**20
    ) -> None:
        super().__init__(model)
        self.tls = tls
        self.max_message = max_message

    @property
    def url(self) -> str:
        return f"grpc{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.model.over.clear()
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", self.max_message)]
        self.pool = ThreadPoolExecutor(16)
        self.server = grpc.server(self.pool, options=options)
        methods = {"ModelInfer": self._infer, "ModelMetadata": self._describe}
        handlers = {name: grpc.unary_unary_rpc_method_handler(act) for name, act in methods.items()}
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(oip.SERVICE, handlers)])
        address = f"127.0.0.1:{self.port}"
        if self.tls:
            chain, key = (Path(path).read_bytes() for path in self.tls)
            self.port = self.server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
        else:
            self.port = self.server.add_insecure_port(address)
        self.server.start()

    def stop(self) -> None:
        self.model.over.set()
        self.server.stop(0).wait()
        self.pool.shutdown()

    def _describe(self, _: bytes, context: Any) -> bytes:
        self.model.described += 1
        try:
            inputs = _declared(self.model)
        except Refusal as refusal:
            context.abort(Refusal.GRPC[refusal.status], refusal.text)
        return oip.ModelMetadataResponse(name="m", inputs=inputs).SerializeToString()

    def _infer(self, message: bytes, context: Any) -> bytes:
        if self.model.fault is not None:
            return self.model.fault(context)
        request = oip.ModelInferRequest.FromString(message)
        tensor, *more = request.inputs
        others = {
            one.name: np.frombuffer(raw, HELD[one.datatype]).reshape(tuple(one.shape))
            for one, raw in zip(more, request.raw_input_contents[1:], strict=True)
        }
        wanted = tuple(one.name for one in request.outputs)
        headers = dict(context.invocation_metadata())
        path = f"{request.model_name}/{request.model_version}"
        shape = tuple(tensor.shape)
        self.model.seen.append(
            Seen(path, headers, tensor.name, tensor.datatype, shape, context.peer(), others, wanted)
        )
        x = np.frombuffer(request.raw_input_contents[0], DTYPES[tensor.datatype]).reshape(shape)
        try:
            outputs = self.model.respond(x)
        except Refusal as refusal:
            context.set_trailing_metadata(self.model.trailing)
            context.abort(Refusal.GRPC[refusal.status], refusal.text)
        answer = oip.ModelInferResponse(model_name="m", model_version=self.model.version)
        for one in outputs:
            output = answer.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            if self.model.typed:
                getattr(output.contents, CONTENTS[one.datatype]).extend(one.data.ravel().tolist())
            else:
                answer.raw_output_contents.append(one.data.tobytes())
        return answer.SerializeToString()
