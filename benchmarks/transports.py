"""Roads to a model: rows a second and bytes a row, for batches as searches send them.

The server answers at once (`sink.py`, another process), so what is measured is packing, sending, reading and
answering. Each batch is one message; the best of a few calls counts. `json` is what a client does without
thinking: lists of Python floats through the standard library, there and back.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpcore
import numpy as np

from benchmarks.sink import PLAIN
from benchmarks.table import Row, row
from explainer_runtime.demo.servers import free_ports
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.predictors.settings import Endpoint

BATCHES = ((1, 784), (100, 784), (1568, 784), (25, 224, 224, 3))
_ROOM = 2**29
_SECONDS = 1.5
"""How long each road is tried, at least twice."""


def run() -> Iterator[Row]:
    """Every road at every batch, against plain `json`."""
    ports = free_ports(2)
    command = [sys.executable, "-m", "benchmarks.sink", *map(str, ports)]
    process = subprocess.Popen(command)
    try:
        _wait(ports[0])
        roads = _roads(*ports)
        for shape in BATCHES:
            x = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
            plain: tuple[float, float] | None = None
            for name, ask in roads.items():
                ask(x[:1])  # connect, and learn what the server reads
                rate, size = len(x) / _best(lambda ask=ask, x=x: ask(x)), _bytes(ports[0]) / len(x)  # type: ignore[misc]
                plain = plain or (rate, size)
                case = f"{' x '.join(map(str, shape))}, {name}"
                yield row("transports", case, "rows a second", rate, "rows/s", plain[0], "more")
                yield row("transports", case, "request", size, "bytes a row", plain[1])
    finally:
        process.terminate()
        process.wait()


def _roads(http_port: int, grpc_port: int) -> dict[str, Callable[[np.ndarray], object]]:
    def remote(**settings: object) -> RemotePredictor:
        scheme = settings.pop("scheme", "http")
        port = grpc_port if scheme == "grpc" else http_port
        more = {"max_message": _ROOM, "timeout": 120, **settings}
        return RemotePredictor(Endpoint(url=f"{scheme}://127.0.0.1:{port}", model="m", **more))  # type: ignore[arg-type]

    connection = http.client.HTTPConnection("127.0.0.1", http_port)
    return {
        "json": lambda x: _plain(connection, x),
        "V1 REST": remote(kind="v1"),
        "V2 REST, JSON": remote(binary=False),
        "V2 REST, bytes": remote(binary=True),
        "V2 gRPC": remote(scheme="grpc"),
    }


def _plain(connection: http.client.HTTPConnection, x: np.ndarray) -> np.ndarray:
    tensor = {"name": "image", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    connection.request("POST", PLAIN, json.dumps({"inputs": [tensor]}))
    (output,) = json.loads(connection.getresponse().read())["outputs"]
    return np.asarray(output["data"], np.float32).reshape(output["shape"])


def _best(call: Callable[[], object]) -> float:
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(times) < 2 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _bytes(port: int) -> int:
    return int(httpcore.request("GET", f"http://127.0.0.1:{port}/bytes").content)


def _wait(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(httpcore.ConnectError):
            _bytes(port)
            return
        time.sleep(0.1)
    raise RuntimeError("the benchmark's server does not start")
