"""Anchors served: an explainer in one process, the model in another, a client in a third (this one).

Throughput is what this machine had to spare while it ran. Processor seconds of the two servers say what an
idle one would give: a minute has 60 of them for each core, and one client uses one core at a time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import reference
from benchmarks.anchors import CONTRACT, INDICES, SPEC
from benchmarks.table import Row, row
from explainer_runtime import fit, save
from explainer_runtime.demo.asking import ask_rest
from explainer_runtime.demo.servers import Server, free_ports, serving

_EACH = 24


def run() -> Iterator[Row]:
    """Explanations a minute and predictor calls, the model asked over gRPC and over REST."""
    images = reference.images("fashion", "unit")
    known = reference.case("anchor_served_fashion")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifact = str(save(fit(SPEC, inputs=CONTRACT), home / "anchor"))
        ports = free_ports(9)
        network = ["--model", str(reference.path("fashion_cnn01")), "--name", "cnn"]
        roads = {"gRPC": f"grpc://127.0.0.1:{ports[1]}/cnn", "REST": f"http://127.0.0.1:{ports[0]}/cnn"}
        commands = [(home / "cnn.log", network)] + [
            (home / f"{road}.log", [artifact, "--predictor", address, "--name", "anchor"])
            for road, address in roads.items()
        ]
        with serving(commands, ports) as (cnn, *explainers):
            for road, server in zip(roads, explainers, strict=True):

                def ask(i: int, server=server) -> tuple[float, int]:  # type: ignore[no-untyped-def]
                    answer = ask_rest(server, "anchor", images[i : i + 1])
                    return answer.seconds, answer.explanation.cost.calls

                ask(0)
                seconds, calls = zip(*(ask(i) for i in INDICES), strict=True)
                case = f"model over {road}"
                yield row("served", case, "predictor calls, mean", np.mean(calls), "calls", 15.93)
                yield row("served", case, "one explanation, median", np.median(seconds), "s wall")
                for clients in (1, 4, 16):
                    spent = _cpu(server), _cpu(cnn)
                    start = time.perf_counter()
                    with ThreadPoolExecutor(clients) as pool:
                        list(pool.map(ask, (i % 20 for i in range(_EACH))))
                    rate = 60 * _EACH / (time.perf_counter() - start)
                    yield row(
                        "served", case, f"throughput, {clients} clients", rate, "explanations a minute",
                        known[f"concurrent_{clients}"], "more",
                    )  # fmt: skip
                    each = (_cpu(server) - spent[0]) / _EACH, (_cpu(cnn) - spent[1]) / _EACH
                    at = f"an explanation, {clients} clients"
                    yield row("served", case, f"cpu of the explainer for {at}", each[0], "s")
                    yield row("served", case, f"cpu of the model for {at}", each[1], "s")


def _cpu(server: Server) -> float:
    """Seconds of processor time that a server has used, with all its threads (Linux)."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
