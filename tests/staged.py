"""A stage for tests of a served explainer: a model that tests can hold, fail and count, servers around it.

The model is a small V2 server in this process, the explainer a real server process; what it explains needs
no deep-learning framework, so it starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from oip_servers import GrpcServer, Model, Output, Refusal
from servers import Server, free_ports, running, start

from explainer_runtime import artifact
from explainer_runtime.explainers import fit
from explainer_runtime.spec import AnchorImage, Grid, Inputs

CONTRACT = Inputs(shape=(8, 8, 1), low=0, high=1, classes=2)
IMAGE = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
SMALL_CALLS = 8192
"""Bytes of one message to the model: an explanation of `IMAGE` then takes dozens of calls."""
SERVE = """
import json, sys
from explainer_runtime.hosts.launcher import serve
from explainer_runtime.hosts.door.desk import opening
from explainer_runtime.hosts.door.limits import Guard
settings = json.loads(sys.argv[1])
settings["jobs"] = opening(**settings["jobs"]) if settings["jobs"] else None
sys.exit(serve(guard=Guard(**settings.pop("guard")), **settings))
"""


class Held:
    """What the model does: it counts its calls, and waits in them while `hold` is on.

    With `failing` set it refuses, from the call after the first `good_calls` on.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.failing: Refusal | None = None
        self.good_calls = 0
        self.seen: list[Any] = []
        self.entered = threading.Semaphore(0)
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()

    def __call__(self, x: np.ndarray) -> list[Output]:
        with self._lock:
            self.calls += 1
        self.entered.release()
        self._free.wait(timeout=60)
        if self.failing is not None and self.calls > self.good_calls:
            raise self.failing
        # A parity that no few superpixels decide, so that searches are long.
        odd = np.floor(1000 * x.reshape(len(x), -1).astype(np.float64).sum(axis=1)) % 2
        scores = np.stack([0.1 + 0.8 * odd, 0.9 - 0.8 * odd], axis=1).astype(np.float32)
        return [Output("scores", "FP32", scores.shape, scores)]

    @contextlib.contextmanager
    def hold(self):
        """Within, calls wait; `entered` has been released once for each."""
        while self.entered.acquire(blocking=False):
            pass
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def release(self) -> None:
        self._free.set()


@contextlib.contextmanager
def model(held: Held):
    """The model on a port of its own; yields the settings of a predictor that asks it in small calls."""
    with GrpcServer(Model(respond=held, seen=held.seen)) as server:
        yield {"kind": "v2", "url": server.url, "model": "cnn", "max_message": SMALL_CALLS, "timeout": 60}


def anchor(folder: Path) -> str:
    spec = AnchorImage(segmentation=Grid(rows=4, columns=4), fill="constant", delta=0.01)
    return str(artifact.save(fit(spec, inputs=CONTRACT), folder / "anchor"))


def explainer(
    path: str, name: str, predictor: Any, version: str | None = None, **extra: Any
) -> dict[str, Any]:
    parameters = {"uri": path, "version": version, "extra": {"predictor": predictor, **extra}}
    return {"name": name, "implementation": "explainer_runtime.ExplainerRuntime", "parameters": parameters}


@contextlib.contextmanager
def serving(
    models: list[dict[str, Any]],
    folder: Path,
    workers: int = 0,
    jobs: dict[str, Any] | None = None,
    **guard: Any,
):
    """A server process with these limits, and a desk for jobs, if one is described; yields the server and
    its process."""
    folder.mkdir(exist_ok=True)
    ports, log = free_ports(), folder / "server.log"
    settings = {
        "models": models,
        "http_port": ports.http,
        "grpc_port": ports.grpc,
        "metrics_port": ports.metrics,
        "workers": workers,
        "guard": guard,
        "jobs": jobs,
    }
    process = start([sys.executable, "-c", SERVE, json.dumps(settings)], log)
    with running(process, ports, log) as server:
        yield server, process


def bomb(size: int) -> bytes:
    """So many zeros as gzip, about a thousandth of that."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join([*packed, packer.flush()])


def resident(process: Any) -> int:
    """Bytes of memory that a process holds now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def metrics(server: Server) -> dict[str, float]:
    """Our metrics by name with labels, as they are exposed."""
    text = httpx.get(f"http://127.0.0.1:{server.ports.metrics}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("explainer_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def channel(server: Server) -> grpc.Channel:
    return grpc.insecure_channel(
        f"127.0.0.1:{server.ports.grpc}", [("grpc.max_receive_message_length", 2**26)]
    )
