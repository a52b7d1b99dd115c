"""Ten times more requests than a server can answer, for a minute: who gets what, and how soon.

One explainer with its network in process computes on every core. What it manages is measured first; then
ten times as much comes, whether or not anything is answered. Health is asked meanwhile by its own process,
so that the load of the clients does not show in it.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from benchmarks import reference
from benchmarks.table import Row, row
from explainer_runtime import fit, save
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.spec import Counterfactual, Inputs

SECONDS = 60
DEADLINE = 10.0
_CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
_CLIENTS = 16
_PROBE = """
import http.client, json, sys, time
times, connection = [], http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
end = time.perf_counter() + float(sys.argv[2])
while (start := time.perf_counter()) < end:
    connection.request("GET", "/v2/health/live")
    connection.getresponse().read()
    times.append(time.perf_counter() - start)
    time.sleep(0.02)
print(json.dumps(times))
"""


def run() -> Iterator[Row]:
    """Outcomes and latencies of accepted and refused requests, and of health checks."""
    images = reference.images("fashion", "unit")
    bodies = [_body(image) for image in images[:20]]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifact = str(save(fit(Counterfactual(), inputs=_CONTRACT), home / "cf"))
        network = ["--model", str(reference.path("fashion_cnn01")), "--name", "cf"]
        limits = [
            "--limits",
            json.dumps({"max_seconds": DEADLINE}),
            "--guard",
            '{"client_header": "x-client"}',
        ]
        ports = free_ports(3)
        with serving([(home / "server.log", [artifact, *network, *limits])], ports) as (server,):
            rate = _capacity(server.http, bodies)
            yield row("overload", "alone", "throughput", rate, "requests a second")
            yield from _health("at rest", server.http, 5)
            probe = _probing(server.http, SECONDS)
            answers = _flood(server.http, bodies, 10 * rate)
            yield from _health("10x overload", server.http, 0, probe)
    statuses = [status for status, _ in answers]
    for status in sorted(set(statuses)):
        yield row("overload", "10x overload", f"answers {status}", statuses.count(status), "requests")
    accepted = [seconds for status, seconds in answers if status == 200]
    refused = [seconds for status, seconds in answers if status == 429]
    late = sum(seconds > DEADLINE for seconds in accepted)
    yield row("overload", "10x overload", "accepted, slowest", max(accepted), "s wall")
    yield row("overload", "10x overload", "accepted, later than the deadline", late, "requests")
    if refused:
        yield row("overload", "10x overload", "refused, median", 1000 * np.median(refused), "ms wall")
        yield row(
            "overload", "10x overload", "refused, p99", 1000 * np.quantile(refused, 0.99), "ms wall", 50.0
        )


def _body(image: np.ndarray) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": image.ravel()}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _ask(connection: http.client.HTTPConnection, body: bytes, client: int) -> int:
    headers = {"content-type": "application/json", "x-client": str(client)}
    connection.request("POST", "/v2/models/cf/infer", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def _capacity(port: int, bodies: list[bytes]) -> float:
    """Requests a second when as many ask as are computed at once."""
    done: list[float] = []

    def work(client: int) -> None:
        connection = _connect(port)
        for body in bodies[client::2]:
            _ask(connection, body, client)
            done.append(time.perf_counter())

    start = time.perf_counter()
    _all(work, 2)
    return len(done) / (max(done) - start)


def _flood(port: int, bodies: list[bytes], rate: float) -> list[tuple[int, float]]:
    """Send at this rate, by many clients, whatever comes back; status and seconds of each."""
    answers: list[tuple[int, float]] = []
    start = time.perf_counter()

    def work(sender: int) -> None:
        connection, number = _connect(port), sender
        while (due := number / rate) < SECONDS:
            time.sleep(max(0.0, start + due - time.perf_counter()))
            sent = time.perf_counter()
            status = _ask(connection, bodies[number % len(bodies)], sender % _CLIENTS)
            answers.append((status, time.perf_counter() - sent))
            number += senders

    # Whoever is accepted waits; enough others must be there to keep up the rate.
    senders = max(64, int(rate))
    _all(work, senders)
    return answers


def _all(work: object, count: int) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _probing(port: int, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE, str(port), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def _health(
    case: str, port: int, seconds: float, probe: subprocess.Popen[str] | None = None
) -> Iterator[Row]:
    times = 1000 * np.array(json.loads((probe or _probing(port, seconds)).communicate()[0]))
    yield row("overload", case, "health, median", np.median(times), "ms wall")
    yield row("overload", case, "health, p99", np.quantile(times, 0.99), "ms wall", 20.0)
