"""`make soak`: a server asked by sixteen clients for as long as wanted; what it holds must not grow.

Two explainers with the network in process are asked over every route: REST, gRPC, V1, streams, requests that
are refused, clients that hang up. Each answer is compared with what was answered when nobody else asked.
Files and threads are counted. In the last third another server, with a leak planted in it, is measured
likewise and must be caught.

Memory is judged in the second half of a run, by `drift`, on what is resident when garbage has just been
looked for: in between there are some 20 MB of it, now more and now less. What is left still wanders by a
megabyte or two whatever the time, so a short run cannot know small leaks. Growing is said only of a server
that surely grows by more than a twentieth of what the control leaks, and with every verdict stands how large
a leak would have shown. The control leaks the same amount in any run: 36 MB an hour are allowed
in ten minutes, 1 MB an hour in six hours (`SOAK_SECONDS=21600 make soak`).
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from explainer_runtime import data, fit, save
from explainer_runtime.demo.servers import Server, free_ports, serving
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs

CLIENTS = 16
CONTROL = 0.3
"""Share of the time that the control has."""
PLANTED = 36.0
"""MB that the control leaks in its time."""
SHARE = 0.05
"""Of the control's leak: what a server may grow by."""
MOST = 1.0
"""MB an hour that a server may grow by, however long the run."""
SAMPLES = 150
"""Looks at what is held, in any run."""
BLOCKS = 24
"""Parts of the second half of a run, of each of which the median counts."""
SURE = 2.8
"""Standard errors that make sure: 99 of 100 (Student's t for a line through as many blocks)."""
_CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
_WITHIN = """
import ctypes, gc, os, sys, threading, time
def watch(log, leak, pause):
    kept, trim = [], ctypes.CDLL(None).malloc_trim
    while True:
        time.sleep(pause)
        kept.append(bytearray(b"x" * leak))
        gc.collect()
        trim(0)
        pages = int(open("/proc/self/statm").read().split()[1])
        print(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6, file=log, flush=True)
if "serve" in sys.argv:
    told = open(os.environ["SOAK_LOG"], "w"), int(os.environ["SOAK_LEAK"]), float(os.environ["SOAK_PAUSE"])
    threading.Thread(target=watch, args=told, daemon=True).start()
"""
"""What a server does for us: leak so many bytes, look for garbage, say what it holds, again and again."""


class Job(NamedTuple):
    """One thing to ask: a route, a body, and whether somebody waits for the answer."""

    route: str
    body: bytes


def main() -> int:
    """Run it; the exit status is 1 where something has grown or an answer changed, or the control passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args().seconds
    leak = PLANTED / (CONTROL * seconds)  # MB a second
    allowed = max(MOST, 3600 * SHARE * leak)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        words = _fitted(home)
        (home / "sitecustomize.py").write_text(_WITHIN)
        wrong, good = _soaked(words, home / "server.log", (1 - CONTROL) * seconds, allowed, 0)
        _, missed = _soaked(words, home / "control.log", CONTROL * seconds, allowed, leak)
    if missed:
        print("the control, which leaks, was NOT caught: nothing that this run says holds")
    return int(wrong or not good or missed)


class Drift(NamedTuple):
    """How fast something grows, the standard error of that, and how fast at least; all an hour."""

    slope: float
    error: float
    least: float


def drift(hours: np.ndarray, held: np.ndarray) -> Drift:
    """How what is held `(M,)` at these times `(M,)` grows in the second half of them.

    A line is fitted to medians of `BLOCKS` blocks. What is off it stays off for a while, so it is less
    certain than as many strangers would make it: its error grows with what two neighbours have in common. A
    heap that takes one arena more is no leak: `least` holds wherever one jump is supposed.
    """
    half = slice(len(hours) // 2, None)
    blocks = zip(np.array_split(hours[half], BLOCKS), np.array_split(held[half], BLOCKS), strict=True)
    at, middle = np.array([(np.mean(time), np.median(values)) for time, values in blocks]).T
    fits = [_line(at, middle, jump) for jump in range(BLOCKS)]
    return Drift(*fits[0], min(slope - SURE * error for slope, error in fits))


def _line(at: np.ndarray, middle: np.ndarray, jump: int) -> tuple[float, float]:
    """The slope of a line, and its error, where a jump at this place, if not at the first, is none of it."""
    terms = np.stack([at - at.mean(), np.ones(BLOCKS), np.arange(BLOCKS) >= jump], axis=1)[
        :, : 2 + (jump > 0)
    ]
    found = np.linalg.lstsq(terms, middle, rcond=None)[0]
    off = middle - terms @ found
    squares = float(off @ off)
    error = np.sqrt(squares / (BLOCKS - terms.shape[1]) * np.linalg.inv(terms.T @ terms)[0, 0])
    common = np.clip(off[1:] @ off[:-1] / max(squares, 1e-12), 0, 0.95)
    return float(found[0]), float(error * np.sqrt((1 + common) / (1 - common)))


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


def _soaked(words: list[str], log: Path, seconds: float, allowed: float, leak: float) -> tuple[int, bool]:
    """How many answers were wrong, and whether nothing has surely grown.

    Args:
        words: Arguments of `serve`.
        log: File for what the server writes.
        seconds: For which it is asked.
        allowed: MB an hour that it may grow by.
        leak: MB a second that are planted.
    """
    jobs, seen, tally = _jobs(), [], Counter[str]()
    pause, told = seconds / SAMPLES, log.with_suffix(".held")
    path = f"{log.parent}:{os.environ.get('PYTHONPATH', '')}"
    within = {"SOAK_LOG": str(told), "SOAK_LEAK": str(int(1e6 * leak * pause)), "SOAK_PAUSE": str(pause)}
    with _variables(PYTHONPATH=path, **within), serving([(log, words)], free_ports(3)) as (server,):
        alone = [_ask(server, job) for job in jobs]
        begin = time.monotonic()
        end = begin + seconds
        clients = [
            threading.Thread(target=_client, args=(server, jobs, alone, end, n, tally))
            for n in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        while time.monotonic() < end:
            seen.append(_open(server))
            time.sleep(min(1.0, seconds / 60))
        for client in clients:
            client.join()
    at, resident = np.loadtxt(told).T
    within_time = (at > begin) & (at < end)
    at, resident = at[within_time], resident[within_time]
    slope, error, least = drift(at / 3600, resident)
    columns = np.array(seen).T
    files, threads = (np.ptp(_thirds(column[len(column) // 5 :])) for column in columns)
    good = bool(least <= allowed and files <= CLIENTS and threads <= CLIENTS)
    print(
        f"{log.stem}: {sum(tally.values())} requests in {seconds:.0f} s, {dict(tally)}; resident "
        f"{resident[len(resident) // 2]:.1f} to {resident[-1]:.1f} MB in the second half, {slope:+.0f} +- "
        f"{SURE * error:.0f} MB/h, surely {max(0, least):.0f}, allowed {allowed:.1f}; "
        f"files and threads moved by {files:.0f} and {threads:.0f}: "
        f"{'no growth' if good else 'GROWING'} "
        f"(a leak of {allowed + 2 * (slope - least):.0f} MB/h would have shown)",
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


def _open(server: Server) -> tuple[int, int]:
    """Files and threads."""
    process = Path(f"/proc/{server.process.pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
