"""`make soak`: a server asked by sixteen clients for as long as wanted; what it holds must not grow.

Two explainers with the network in process are asked over every route: REST, gRPC, V1, streams, requests that
are refused, clients that hang up. Each answer is compared with what was answered when nobody else asked.
Memory is a line fitted to what is resident after a warm-up of a fifth of the time; files and threads are
counted. In the last fifth another server, with a leak planted in it, is measured likewise and must be caught.

What can be seen depends on how long it runs: the resident set wanders by about a megabyte, so ten minutes
show leaks of some ten megabytes an hour, and 1 MB an hour takes a few hours (`SOAK_SECONDS=14400 make soak`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from explainer_runtime import data, fit, save
from explainer_runtime.demo.servers import Server, free_ports, serving
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs

CLIENTS = 16
MOST = 1.0
"""MB an hour that a server may grow by."""
WANDER = 1.5
"""MB by which the resident set of a server that leaks nothing may differ in the time of one run."""
_CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
_PLANTED = """
import sys, threading, time
kept = []
def leak():
    while True:
        time.sleep(0.25)
        kept.append(bytearray(b"x" * 100_000))
if "serve" in sys.argv:
    threading.Thread(target=leak, daemon=True).start()
"""
"""What makes the control leak 1.4 GB an hour: enough for the shortest run."""


class Job(NamedTuple):
    """One thing to ask: a route, a body, and whether somebody waits for the answer."""

    route: str
    body: bytes


def main() -> int:
    """Run it; the exit status is 1 where something has grown or an answer has changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        words = _fitted(home)
        wrong, good = _soaked(words, home / "server.log", 0.8 * seconds)
        planted = home / "planted"
        planted.mkdir()
        (planted / "sitecustomize.py").write_text(_PLANTED)
        with _variable("PYTHONPATH", f"{planted}:{os.environ.get('PYTHONPATH', '')}"):
            _, caught = _soaked(words, home / "control.log", 0.2 * seconds)
    if caught:
        print("the control, which leaks, was NOT caught: nothing that this run says holds")
    return int(wrong or not good or caught)


def _fitted(home: Path) -> list[str]:
    """A small network and two explainers of it; the arguments of `serve`."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10, "softmax")])
    network.save(home / "cnn.keras")
    save(fit(Counterfactual(), inputs=_CONTRACT), home / "cf")
    spec = AnchorImage(segmentation=Grid(rows=4, columns=4), fill="constant")
    save(fit(spec, inputs=_CONTRACT), home / "anchor")
    limits = json.dumps({"max_seconds": 600})
    return [str(home / "cf"), str(home / "anchor"), "--model", str(home / "cnn.keras"), "--limits", limits]


def _jobs() -> list[Job]:
    images = data.load(sample=True).x_test[:3].reshape(-1, 28, 28, 1).astype(np.float32)
    images -= images.min()
    images /= images.max()
    jobs = []
    for name, calls in (("cf", 6), ("anchor", 20)):
        for seed, image in enumerate(images):
            options = {"seed": seed, "max_calls": calls}
            tensor = {
                "name": "x",
                "shape": [1, 28, 28, 1],
                "datatype": "FP32",
                "data": image.ravel().tolist(),
            }
            v2 = json.dumps({"inputs": [tensor], "parameters": {"explain_parameters": options}}).encode()
            v1 = json.dumps({"instances": [image.tolist()], "parameters": options}).encode()
            raw = oip.ModelInferRequest(model_name=name, raw_input_contents=[image.astype("<f4").tobytes()])
            raw.inputs.add(name="x", datatype="FP32", shape=(1, 28, 28, 1))
            for option, value in options.items():
                raw.parameters[option].int64_param = value
            jobs += [Job(f"/v2/models/{name}/{verb}", v2) for verb in ("infer", "explain", "infer_stream")]
            jobs += [Job(f"/v1/models/{name}:explain", v1), Job("gone", v2)]
            jobs += [Job(method, raw.SerializeToString()) for method in ("ModelInfer", "ModelStreamInfer")]
        jobs.append(Job(f"/v2/models/{name}/infer", b'{"inputs": [1]}'))
    return jobs


def _soaked(words: list[str], log: Path, seconds: float) -> tuple[int, bool]:
    """How many answers were wrong, and whether nothing has grown."""
    jobs, seen, tally = _jobs(), [], Counter[str]()
    with serving([(log, words)], free_ports(3)) as (server,):
        alone = [_ask(server, job) for job in jobs]
        end = time.monotonic() + seconds
        clients = [
            threading.Thread(target=_client, args=(server, jobs, alone, end, n, tally))
            for n in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        while time.monotonic() < end:
            seen.append((time.monotonic(), *_held(server)))
            time.sleep(min(1.0, seconds / 60))
        for client in clients:
            client.join()
    warm = np.array(seen[len(seen) // 5 :])
    hours = (warm[:, 0] - warm[0, 0]) / 3600
    slope, _ = np.polyfit(hours, warm[:, 1], 1)
    allowed = MOST + WANDER / hours[-1]
    files, threads = (np.ptp(_thirds(warm[:, column])) for column in (2, 3))
    good = bool(slope <= allowed and files <= CLIENTS and threads <= CLIENTS)
    print(
        f"{log.stem}: {sum(tally.values())} requests in {seconds:.0f} s, {dict(tally)}; resident "
        f"{warm[0, 1]:.1f} to {warm[-1, 1]:.1f} MB, {slope:+.1f} MB/h ({allowed:.1f} is like none); "
        f"files and threads moved by {files:.0f} and {threads:.0f}: {'flat' if good else 'GROWING'}",
        flush=True,
    )
    return tally["wrong"], good


def _thirds(values: np.ndarray) -> list[float]:
    return [float(np.median(part)) for part in np.array_split(values, 3)]


def _client(
    server: Server, jobs: list[Job], alone: list[Any], end: float, seed: int, tally: Counter[str]
) -> None:
    rng = random.Random(seed)
    while time.monotonic() < end:
        index = rng.randrange(len(jobs))
        answer = _ask(server, jobs[index])
        if answer == "429":
            time.sleep(0.2)
            tally["refused"] += 1
        elif answer == alone[index]:
            tally["same"] += 1
        else:
            tally["wrong"] += 1
            print("not as alone:", jobs[index].route, str(answer)[:200], file=sys.stderr)


def _ask(server: Server, job: Job) -> str:
    """What the server answers, without how long it took and what it called the request."""
    if not job.route.startswith("/"):
        return _hung_up(server, job.body) if job.route == "gone" else _over_grpc(server, job)
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=600)
    connection.request("POST", job.route, job.body, {"content-type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status == 429 or '"error":"too' in text:
        return "429"
    events = [event for event in text.split("\n\n") if event.strip()]
    return f"{response.status} {_bare(events[-1] if events else '')}"


def _over_grpc(server: Server, job: Job) -> str:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    method = f"/{oip.SERVICE}/{job.route}"
    with grpc.insecure_channel(server.target, options) as channel:
        try:
            if job.route == "ModelInfer":
                answer = channel.unary_unary(method)(job.body, timeout=600)
            else:
                answer = list(channel.stream_stream(method)(iter([job.body]), timeout=600))[-1]
        except grpc.RpcError as error:
            return "429" if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else f"{error.code()}"
    said = oip.ModelInferResponse.FromString(answer)
    raw = [repr(bytes(content)) for content in said.raw_output_contents]
    return _bare(repr(raw or [str(one) for one in said.outputs]))


def _hung_up(server: Server, body: bytes) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=600)
    connection.request("POST", "/v2/models/cf/explain", body, {"content-type": "application/json"})
    connection.close()
    return "gone"


def _bare(text: str) -> str:
    text = re.sub(r'seconds\\*":\s*[0-9.e-]+', "seconds", text)
    return re.sub(r'"id":"[^"]*"', "id", text)


def _held(server: Server) -> tuple[float, int, int]:
    """MB resident, open files, threads."""
    process = Path(f"/proc/{server.process.pid}")
    resident = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
    assert resident is not None
    return (
        int(resident[1]) / 1024,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        with suppress(KeyError):
            del os.environ[name]
        if before is not None:
            os.environ[name] = before


if __name__ == "__main__":
    sys.exit(main())
