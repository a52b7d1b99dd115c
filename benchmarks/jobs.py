"""Ten thousand jobs that wait: how long it takes to submit one more, and to look at one, while others run.

A server as it is served, with a network in its process that explains on every core, and jobs in a directory.
Two clients submit until so many wait; then they ask for one job after another. What the disk takes to sync a
small file is measured beside it: a job is accepted when its request and its row are on the disk, three syncs.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import reference
from benchmarks.overload import _body
from benchmarks.table import Row, row
from explainer_runtime import fit, save
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.spec import Counterfactual, Inputs

QUEUED = int(os.environ.get("EXPLAINER_RUNTIME_QUEUED", "10000"))
POLLS = 2000
_CLIENTS = 2
_CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
_SUBMIT = {"content-type": "application/json", "prefer": "respond-async"}


def run() -> Iterator[Row]:
    """Latencies of submitting and of polling, explanations done meanwhile, and of the disk."""
    bodies = [_body(image) for image in reference.images("fashion", "unit")[:20]]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifact = str(save(fit(Counterfactual(), inputs=_CONTRACT), home / "cf"))
        network = ["--model", str(reference.path("fashion_cnn01")), "--name", "cf"]
        jobs = ["--jobs", str(home / "jobs")]
        yield from _latencies("the disk", "sync a small file", _syncs(home))
        with serving([(home / "server.log", [artifact, *network, *jobs])], free_ports(3)) as (server,):
            begun = time.perf_counter()
            places, submits = _submitted(server.http, bodies)
            submitting = time.perf_counter() - begun
            yield from _latencies(f"{QUEUED} jobs", "submit", submits)
            yield from _latencies(f"{QUEUED} jobs", "the last thousand of them", submits[-1000:])
            yield from _latencies(f"{QUEUED} jobs", "poll", _polled(server.http, places))
            done = _done(server.http)
            seconds = time.perf_counter() - begun
        yield row("jobs", f"{QUEUED} jobs", "submitted", QUEUED / submitting, "a second")
        yield row("jobs", f"{QUEUED} jobs", "done meanwhile", done / seconds, "a second")


def _latencies(case: str, metric: str, seconds: list[float]) -> Iterator[Row]:
    for share in (50, 99):
        value = 1000 * float(np.percentile(seconds, share))
        yield row("jobs", case, f"{metric}, p{share}", value, "ms")


def _submitted(port: int, bodies: list[bytes]) -> tuple[list[str], list[float]]:
    places: list[str] = []
    took: list[tuple[float, float]] = []

    def work(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(QUEUED // _CLIENTS):
            start = time.perf_counter()
            connection.request("POST", "/v2/models/cf/explain", bodies[number % len(bodies)], _SUBMIT)
            response = connection.getresponse()
            response.read()
            took.append((start, time.perf_counter() - start))
            assert response.status == 202, response.status
            places.append(response.headers["location"])

    threads = [threading.Thread(target=work, args=(client,)) for client in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return places, [seconds for _, seconds in sorted(took)]


def _polled(port: int, places: list[str]) -> list[float]:
    connection, took = http.client.HTTPConnection("127.0.0.1", port, timeout=60), []
    for number in np.random.default_rng(0).integers(len(places), size=POLLS):
        start = time.perf_counter()
        connection.request("GET", places[number])
        response = connection.getresponse()
        response.read()
        took.append(time.perf_counter() - start)
        assert response.status == 200, response.status
    return took


def _done(port: int) -> int:
    """How many are done."""
    connection, done = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
    path = "/v2/models/cf/explanations?state=done&limit=500"
    while path:
        connection.request("GET", path)
        page = json.loads(connection.getresponse().read())
        done += len(page["explanations"])
        path = page.get("next", "")
    return done


def _syncs(home: Path) -> list[float]:
    took = []
    with (home / "synced").open("wb") as file:
        for _ in range(300):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return took


if __name__ == "__main__":
    for one in run():
        print(one.case, one.metric, one.value, one.unit)
