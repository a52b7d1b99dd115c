"""A million explanations: what they take, by constants that are measured and a simulation of many workers.

    python -m benchmarks.million                  # measures, some minutes, and prints what docs/batch.md has
    python -m benchmarks.million --measured FILE  # simulates with what an earlier run has written there

A worker explains one image after another. Each takes it some processor seconds of its own and some calls of
the model, of so many rows; those of an image are drawn from what was measured. A model in the worker's
process takes its seconds there. A model behind an endpoint is a queue: cores, each of which answers so many
rows a second, first come, first served; a limit (`--rows-per-second`) is the same as fewer of them. Rows
cross a link that all share. What the simulation adds to arithmetic is waiting: workers before one model.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

IMAGES = 10**6
WORKERS = (1, 10, 100, 1000)
CORES = 32
"""Of the model behind an endpoint."""
LINK = 10 / 8 * 1e9
"""Bytes a second of the link before the model, in each direction: 10 Gbit/s."""
START = 20.0
"""Seconds until a worker has imported, loaded and prepared, once."""
PRICE = 0.04
"""Dollars for a core and an hour: what clouds ask for one of no special kind, to the nearest cent or so."""


class Case(NamedTuple):
    """What was measured of one method.

    Attributes:
        name: What was asked, of what.
        remote: Whether the model is behind an endpoint.
        images: For each image the worker's own processor seconds, calls, and rows.
        model: Processor seconds of the model for a row; 0 of one in the worker's process: they are its own.
        row: Bytes of a row, as it is sent.
    """

    name: str
    remote: bool
    images: list[tuple[float, int, int]]
    model: float
    row: int


class Run(NamedTuple):
    """What a million images would take: hours, how busy workers and model are, bytes a second on the link,
    and dollars."""

    hours: float
    workers: float
    model: float
    link: float
    dollars: float


def simulate(case: Case, workers: int, cores: int = CORES, seed: int = 0) -> Run:
    """A million images, by the rate of the first forty of each worker, two thousand at least.

    What is under way when none is left to begin is not counted.
    """
    rng, count = np.random.default_rng(seed), max(2000, 40 * workers)
    drawn = [case.images[one] for one in rng.integers(0, len(case.images), count)]
    free, link = [0.0] * cores, 0.0
    # Each event is a worker that has done its own part: when, who, and the calls that its image has left.
    events = [(rng.random() * 1e-3, worker, 0) for worker in range(workers)]
    heapq.heapify(events)
    own, rows = [0.0] * workers, [0.0] * workers
    busy = asked = 0.0
    while True:
        now, worker, left = heapq.heappop(events)
        if left:
            link = max(link, now) + rows[worker] * case.row / LINK
            done = max(link, heapq.heappop(free)) + rows[worker] * case.model
            heapq.heappush(free, done)
            asked += rows[worker]
            heapq.heappush(events, (done + own[worker], worker, left - 1))
            continue
        if not drawn:
            break
        seconds, calls, sent = drawn.pop()
        left = calls if case.remote else 0
        own[worker], rows[worker] = seconds / (left + 1), sent / calls
        busy += seconds
        heapq.heappush(events, (now + own[worker], worker, left))
    hours = (START + IMAGES / ((count - workers + 1) / now)) / 3600
    paid = workers + (cores if case.remote else 0)
    used = asked * case.model / (cores * now)
    return Run(
        hours, min(1.0, busy / (workers * now)), min(1.0, used), asked / now * case.row, hours * paid * PRICE
    )


class Timed:
    """A model behind an endpoint, as far as a worker can tell, whose own seconds are told apart."""

    def __init__(self, model: Any) -> None:
        self._model, self.calls, self.rows, self.seconds = model, 0, 0, 0.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The model's answer."""
        begun = time.process_time()
        try:
            return self._model(x)
        finally:
            self.seconds += time.process_time() - begun
            self.calls, self.rows = self.calls + 1, self.rows + len(x)


def measured() -> Iterator[Case]:
    """What this machine measures: thirty small images, and eight of 224x224x3 with squares of any colour."""
    from explainer_runtime import AnchorImage, Counterfactual, Inputs, connect, data, fit
    from explainer_runtime.demo import network
    from explainer_runtime.spec import Region

    images = data.load("fashion_mnist", sample=True)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"million-{os.getpid()}.keras"
    network.train(network.build, images, path)
    model = connect(str(path))
    path.unlink()
    for name, spec, served in (
        ("28x28, counterfactual, model in the worker", Counterfactual(), False),
        ("28x28, counterfactual, endpoint and surrogate", Counterfactual(), True),
        ("28x28, anchor, endpoint", AnchorImage(), True),
    ):
        fitted = fit(spec, images.x_train, y=images.y_train, predictor=model)
        yield _case(name, fitted, model, served, images.x_test[:30])
    import keras

    large = connect(keras.applications.MobileNetV2(weights=None, classes=1000))
    rng = np.random.default_rng(0)
    pieces = rng.uniform(-1, 1, (8, 7, 7, 3)).repeat(32, axis=1).repeat(32, axis=2).astype(np.float32)
    inputs = Inputs(shape=(224, 224, 3), low=-1, high=1, classes=1000)
    yield _case(
        "224x224x3, region, endpoint", fit(Region(), inputs=inputs, predictor=large), large, True, pieces
    )


def _case(name: str, fitted: Any, model: Any, remote: bool, x: np.ndarray) -> Case:
    from explainer_runtime import Limits, prepare
    from explainer_runtime.predictors import CallablePredictor

    limits = Limits(max_rows=10**6, max_calls=10**6, max_seconds=3600)
    asked = Timed(model)
    explain = prepare(fitted, CallablePredictor(asked) if remote else model)
    explain(x[:1], limits=limits)
    told, model_seconds, model_rows = [], 0.0, 0
    for row in x:
        asked.seconds, begun = 0.0, time.process_time()
        cost = explain(row[None], limits=limits).cost
        seconds = time.process_time() - begun
        model_seconds, model_rows = model_seconds + asked.seconds, model_rows + cost.rows
        told.append((seconds - asked.seconds, cost.calls, cost.rows))
    return Case(name, remote, told, model_seconds / model_rows if remote else 0.0, 4 * x[0].size)


def told(cases: list[Case]) -> Iterator[str]:
    """The tables, as docs/batch.md has them."""
    yield "| method | worker, s | calls | rows | model, ms a row | kB a row | a million: rows | on the wire |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for case in cases:
        seconds, calls, rows = np.mean(case.images, axis=0)
        sent = f"{rows * IMAGES * case.row / 1e12:.2g} TB" if case.remote else "none"
        model = f"{case.model * 1e3:.2g}" if case.remote else "in the worker's"
        yield (
            f"| {case.name} | {seconds:.2g} | {calls:.1f} | {rows:.0f} | {model} | {case.row / 1e3:.0f} "
            f"| {rows * IMAGES / 1e6:,.0f} million | {sent} |"
        )
    yield ""
    yield "| method | workers | hours | workers busy | model busy | link, MB/s | dollars |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for case in cases:
        for workers in WORKERS:
            run = simulate(case, workers)
            model, link = (f"{run.model:.0%}", f"{run.link / 1e6:,.0f}") if case.remote else ("", "")
            yield (
                f"| {case.name} | {workers:,} | {run.hours:.2f} | {run.workers:.0%} | {model} | {link} "
                f"| {run.dollars:,.2f} |"
            )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, help="read constants there, or write them")
    said = parser.parse_args().measured
    if said is not None and said.exists():
        cases = [Case(*one) for one in json.loads(said.read_text())]
    else:
        cases = list(measured())
        if said is not None:
            said.write_text(json.dumps(cases))
    print("\n".join(told(cases)))


if __name__ == "__main__":
    main()
