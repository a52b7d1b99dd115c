"""Real MLServer processes for tests, on loopback and free ports, always stopped; and V2 clients for them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np

from explainer_runtime.predictors.remote import oip

DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "UINT8": np.uint8, "BOOL": np.bool_}
SERVE = """
import json, sys
from explainer_runtime.hosts.launcher import serve
sys.exit(serve(**json.loads(sys.argv[1])))
"""


class Ports(NamedTuple):
    """Where one server listens."""

    http: int
    grpc: int
    metrics: int


class Server(NamedTuple):
    """A server that runs, and what it has written so far."""

    ports: Ports
    log: Path

    def rest(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports.http}{path}"


class Answer(NamedTuple):
    """What a V2 call gave: REST status or gRPC code, tensors by name, the whole body or message."""

    status: Any
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]
    body: Any
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return self.body if isinstance(self.body, str) else json.dumps(self.body)

    def array(self, name: str) -> np.ndarray:
        datatype, shape, data = self.tensors[name]
        return np.frombuffer(data, DTYPES[datatype]).reshape(shape)


def free_ports() -> Ports:
    return Ports(*(free_port() for _ in range(3)))


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given before a server does.

    The system would give it to the next who asks for any, as clients do all the time; so it is one that the
    system gives to nobody, and each of the processes that share the tests has its own.
    """
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def _turns() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first, several = 16_000 + int(worker) % 8 * 2_000, 2_000
    start = random.randrange(several)  # others may be testing the same here
    return (first + (start + turn) % several for turn in itertools.count())


_PORTS = _turns()


def launch(
    models: Sequence[Mapping[str, Any]], ports: Ports, log: Path, workers: int = 0
) -> subprocess.Popen[bytes]:
    """Our launcher, in a process of its own."""
    settings = {
        "models": models,
        "http_port": ports.http,
        "grpc_port": ports.grpc,
        "metrics_port": ports.metrics,
        "workers": workers,
    }
    return start([sys.executable, "-c", SERVE, json.dumps(settings)], log)


def start(
    command: Sequence[str], log: Path, *, session: bool = False, **environment: str
) -> subprocess.Popen[bytes]:
    """A process that writes to `log`; in a `session` of its own, what it starts can be stopped with it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=log.parent,
            start_new_session=session,
        )


@contextlib.contextmanager
def running(
    process: subprocess.Popen[bytes],
    ports: Ports,
    log: Path,
    probe: str = "/v2/health/ready",
    trust: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    """Wait until the server is ready, over TLS where it is to be trusted by something; stop it at the end."""
    server = Server(ports, log)
    try:
        wait_until_ready(process, server, probe=probe, trust=trust)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(
    process: subprocess.Popen[bytes],
    server: Server,
    tries: int = 600,
    probe: str = "/v2/health/ready",
    trust: ssl.SSLContext | None = None,
) -> None:
    address = server.rest(probe).replace("http:", "https:" if trust else "http:")
    for _ in range(tries):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address, verify=trust or True).status_code == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            break
    raise AssertionError(f"the server is not ready:\n{server.log.read_text()}")


@contextlib.contextmanager
def serving(
    models: Sequence[Mapping[str, Any]], folder: Path, *, ports: Ports | None = None, workers: int = 0
) -> Iterator[Server]:
    ports = ports or free_ports()
    log = folder / "server.log"
    with running(launch(models, ports, log, workers), ports, log) as server:
        yield server


def v2_input(rows: np.ndarray, **changes: Any) -> dict[str, Any]:
    datatype = next(name for name, dtype in DTYPES.items() if rows.dtype == dtype)
    tensor = {"name": "image", "shape": list(rows.shape), "datatype": datatype, "data": rows.ravel().tolist()}
    return {**tensor, **changes}


def ask_rest(
    server: Server,
    model: str,
    rows: np.ndarray | Mapping[str, Any],
    route: str = "infer",
    headers: Mapping[str, str] | None = None,
    **body: Any,
) -> Answer:
    """POST to `/v2/models/<model>/<route>`; `body` adds to the request or replaces its parts."""
    inputs = [v2_input(rows) if isinstance(rows, np.ndarray) else rows]
    answer = httpx.post(
        server.rest(f"/v2/models/{model}/{route}"),
        content=json.dumps({"inputs": inputs, **body}),
        headers={"content-type": "application/json", **(headers or {})},
        timeout=60,
    )
    if answer.status_code != 200:
        return Answer(answer.status_code, {}, answer.text, answer.headers)
    tensors = {}
    for output in answer.json()["outputs"]:
        tensors[output["name"]] = (
            output["datatype"],
            tuple(output["shape"]),
            _packed(output["datatype"], output["data"]),
        )
    return Answer(200, tensors, answer.json(), answer.headers)


def ask_grpc(
    server: Server,
    model: str,
    rows: np.ndarray | Sequence[np.ndarray],
    *,
    shape: Sequence[int] | None = None,
    outputs: Sequence[str] = (),
    **parameters: Any,
) -> Answer:
    """ModelInfer with raw contents, one input for each array."""
    arrays = [rows] if isinstance(rows, np.ndarray) else list(rows)
    request = oip.ModelInferRequest(model_name=model, id="over-grpc")
    for index, array in enumerate(arrays):
        tensor = v2_input(array)
        request.inputs.add(name=f"input-{index}", datatype=tensor["datatype"], shape=shape or tensor["shape"])
        request.raw_input_contents.append(array.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], kinds[type(value)], value)
    limits = [("grpc.max_receive_message_length", 2**26)]
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}", limits) as channel:
        try:
            response, call = oip.method(channel, "ModelInfer").with_call(request, timeout=60)
        except grpc.RpcError as error:
            return Answer(error.code(), {}, error.details(), {})
    tensors = {
        output.name: (output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return Answer(grpc.StatusCode.OK, tensors, response, dict(call.trailing_metadata()))


def _packed(datatype: str, data: list[Any]) -> bytes:
    """The bytes that gRPC carries raw."""
    if datatype != "BYTES":
        return np.array(data, DTYPES[datatype]).tobytes()
    words = [word.encode() for word in data]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)
