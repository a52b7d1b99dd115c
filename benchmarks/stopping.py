"""Twenty servers told to stop while many clients ask: what becomes of the requests that were accepted.

A request counts as accepted when it was sent whole, on a connection that the server had taken, before the
signal. Afterwards a client may be refused, or find the port closed; that is no loss.
"""

from __future__ import annotations

import http.client
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import reference
from benchmarks.overload import _body, _connect
from benchmarks.table import Row, row
from explainer_runtime import fit, save
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.spec import Counterfactual, Inputs

ROUNDS = int(os.environ.get("EXPLAINER_RUNTIME_STOPS", "20"))
_CLIENTS = 8
_CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)


def run() -> Iterator[Row]:
    """Requests accepted, answered and lost over all rounds, and exit statuses."""
    bodies = [_body(image) for image in reference.images("fashion", "unit")[:_CLIENTS]]
    accepted = lost = answered = 0
    statuses = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifact = str(save(fit(Counterfactual(), inputs=_CONTRACT), home / "cf"))
        network = ["--model", str(reference.path("fashion_cnn01")), "--name", "cf"]
        for _ in range(ROUNDS):
            ports = free_ports(3)
            with serving([(home / "server.log", [artifact, *network])], ports) as (server,):
                told = _round(server.http, server.process.pid, bodies)
                statuses.append(server.process.wait(timeout=60))
            accepted += len(told)
            answered += sum(status == 200 for status in told)
            lost += sum(status == 0 or status >= 500 for status in told)
    yield row("stopping", f"{ROUNDS} signals", "requests in flight", accepted, "requests")
    yield row("stopping", f"{ROUNDS} signals", "answered", answered, "requests")
    yield row("stopping", f"{ROUNDS} signals", "lost", lost, "requests")
    yield row(
        "stopping", f"{ROUNDS} signals", "exit statuses other than 0", sum(map(bool, statuses)), "servers"
    )


def _round(port: int, pid: int, bodies: list[bytes]) -> list[int]:
    """Status of each request that was under way at the signal; 0 for one whose connection broke."""
    sent_at: list[tuple[float, int]] = []
    stopping = threading.Event()
    busy = threading.Barrier(_CLIENTS + 1)

    def work(client: int) -> None:
        connection, first = _connect(port), True
        while not stopping.is_set():
            try:
                connection.request(
                    "POST", "/v2/models/cf/infer", bodies[client], {"content-type": "application/json"}
                )
            except OSError:
                return
            sent = time.monotonic()
            if first:
                busy.wait()
                first = False
            try:
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException):
                status = 0
            sent_at.append((sent, status))
            if status == 0:
                return

    threads = [threading.Thread(target=work, args=(client,)) for client in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    busy.wait()
    time.sleep(0.3)
    signalled = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    stopping.set()
    for thread in threads:
        thread.join()
    return [status for sent, status in sent_at if sent < signalled - 0.01]
