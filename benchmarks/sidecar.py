"""What the sidecar adds to a request that is not for it: one image, directly and through it, in turn."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpcore
import numpy as np
import orjson

from benchmarks import reference
from benchmarks.anchors import CONTRACT, SPEC
from benchmarks.table import Row, row
from explainer_runtime import fit, save
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.predictors.remote import oip

_EACH = 400
_WARM = 20


def run() -> Iterator[Row]:
    """Median added latency of one 28x28 image, over REST and over gRPC."""
    image = reference.images("fashion", "unit")[:1]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifact = str(save(fit(SPEC, inputs=CONTRACT), home / "anchor"))
        ports = free_ports(6)
        model = ["--model", str(reference.path("fashion_cnn01")), "--name", "cnn"]
        beside = [artifact, "--sidecar", "--model_name=cnn", f"--predictor_host=127.0.0.1:{ports[0]}"]
        beside += ["--upstream-grpc", f"127.0.0.1:{ports[1]}"]
        commands = [(home / "cnn.log", model), (home / "sidecar.log", beside)]
        with serving(commands, ports) as servers:
            for road, ways in (
                ("REST", [_rest(server.http, image) for server in servers]),
                ("gRPC", [_grpc(server.grpc, image) for server in servers]),
            ):
                before = _seconds_of(servers[1].process.pid)
                direct, through = _in_turn(ways)
                spent = 1000 * (_seconds_of(servers[1].process.pid) - before) / (_EACH + _WARM)
                case = f"one 28x28 image over {road}"
                yield row("sidecar", case, "directly, median", direct, "ms wall")
                yield row("sidecar", case, "added, median", through - direct, "ms wall", 2.0)
                yield row("sidecar", case, "processor time of the sidecar", spent, "ms CPU")


def _in_turn(ways):  # type: ignore[no-untyped-def]
    """Median milliseconds of each way; one call of each after the other, so that noise hits both alike."""
    times = np.empty((_EACH, len(ways)))
    for way in ways:
        for _ in range(_WARM):
            way()
    for turn in times:
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way()
            turn[index] = time.perf_counter() - start
    return np.median(times, axis=0) * 1000


def _seconds_of(process: int) -> float:
    """Processor seconds of a process so far, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rest(port: int, image: np.ndarray):  # type: ignore[no-untyped-def]
    tensor = {"name": "image", "datatype": "FP32", "shape": image.shape, "data": image.ravel()}
    body = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
    pool = httpcore.ConnectionPool()
    headers = [("content-type", "application/json"), ("host", "model")]

    def ask() -> None:
        answer = pool.request(
            "POST", f"http://127.0.0.1:{port}/v2/models/cnn/infer", headers=headers, content=body
        )
        assert answer.status == 200

    return ask


def _grpc(port: int, image: np.ndarray):  # type: ignore[no-untyped-def]
    request = oip.ModelInferRequest(model_name="cnn")
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    request.raw_input_contents.append(image.tobytes())
    infer = oip.method(grpc.insecure_channel(f"127.0.0.1:{port}"), "ModelInfer")
    return lambda: infer(request)
