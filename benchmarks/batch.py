"""2,000 images of Fashion-MNIST as a batch: against a plain loop, on one core and on two, and killed.

Seconds are wall seconds of explaining, without the start of processes, and only mean something on a machine
that does nothing else; the shares beside them are of processor seconds, which others disturb less.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, row, timed
from explainer_runtime import artifact, connect, data, fit
from explainer_runtime.batch import source, store, workers
from explainer_runtime.batch.run import Explains
from explainer_runtime.spec import parse_spec

RECORDS = 2000
_CASES: tuple[tuple[dict[str, Any], int], ...] = (
    ({"kind": "region"}, 1),
    ({"kind": "counterfactual", "target_class": "other", "tol": 0.05}, 32),
)


def run() -> Iterator[Row]:
    """Rows for regions one by one, and counterfactuals 32 at a time."""
    with tempfile.TemporaryDirectory() as place:
        folder, images = Path(place), data.load("fashion_mnist", scale=None, sample=True)
        x = np.concatenate([images.x_test, images.x_train])[:RECORDS]
        np.savez_compressed(folder / "x.npz", x=x)
        model = _network(folder)
        for spec, together in _CASES:
            yield from _measured(folder, model, spec, together)


def _measured(folder: Path, model: Path, spec: dict[str, Any], together: int) -> Iterator[Row]:
    images, case = data.load("fashion_mnist", sample=True), f"{spec['kind']}, {together} at a time"
    path = folder / spec["kind"]
    artifact.save(fit(parse_spec(spec), images.x_train, predictor=connect(str(model)), surrogate=False), path)
    opened = source.opened(folder / "x.npz")
    explains = {"artifact": str(path), "model": str(model), "id": "id", "column": "x", "together": together}

    loop = Explains(path, str(model), together=together)
    blocks = [block for _, block in opened.blocks(max(workers.BLOCK, together), lambda _: False)]
    loop(blocks[0])
    with timed() as clock:
        for block in blocks:
            loop(block)
    yield row("batch", case, "a plain loop", clock.wall, "s")
    yield row("batch", case, "a plain loop, processor", clock.cpu, "s")

    walls = {}
    for count in (1, 2):
        walls[count], cpu = _run(folder / f"{spec['kind']}-{count}", explains, opened, count)
        yield row("batch", case, f"{count} processes", walls[count], "s", clock.wall)
        yield row("batch", case, f"{count} processes, processor", cpu, "s", clock.cpu)
    yield row("batch", case, "of linear from 1 to 2", walls[1] / walls[2] / 2, "share")
    yield from _killed(folder, explains, opened, case, folder / f"{spec['kind']}-1")


def _run(out: Path, explains: dict[str, Any], opened: source.Source, count: int) -> tuple[float, float]:
    """Wall seconds of explaining, from the first block that is done to the last, and of all processes."""
    begun: list[tuple[float, int]] = []
    block = max(workers.BLOCK, explains["together"])

    def told(at: workers.Progress) -> None:
        begun.append((time.perf_counter(), at.here))

    plan = workers.Plan(explains, {}, block, count)
    spent = os.times()
    with store.opened(out, workers.PART // block) as kept:
        workers.run(plan, opened, kept, told)
        kept.finish(-(-opened.total // block), {})
    now = os.times()
    cpu = sum(now[:4]) - sum(spent[:4])
    (first, done), (last, every) = begun[0], begun[-1]
    return (last - first) * every / (every - done), cpu


def _killed(
    folder: Path, explains: dict[str, Any], opened: source.Source, case: str, whole: Path
) -> Iterator[Row]:
    """A worker is killed when a quarter is done, the driver at a half; then the run goes on."""
    out = folder / "killed"
    shutil.rmtree(out, ignore_errors=True)
    code = "import json, sys; from benchmarks.batch import driven; driven(*json.loads(sys.argv[1]))"
    said = json.dumps([str(out), explains, str(opened.path)])
    with subprocess.Popen([sys.executable, "-c", code, said], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            done = int(line)
            if done >= RECORDS // 2:
                driver.kill()
                break
            if done >= RECORDS // 4:
                children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
                driver.stdout.readline()
    with store.opened(out, workers.PART // max(workers.BLOCK, explains["together"])) as kept:
        block = max(workers.BLOCK, explains["together"])
        left = sum(not kept.done(number) for number in range(-(-RECORDS // block)))
    _run(out, explains, opened, 2)
    same = [path.read_bytes() for path in sorted((out / "answers").iterdir())]
    wanted = [path.read_bytes() for path in sorted((whole / "answers").iterdir())]
    yield row("batch", case, "blocks that were left as the driver was killed", left, "")
    yield row("batch", case, "the same bytes as without kills", same == wanted, "")


def driven(out: str, explains: dict[str, Any], path: str) -> None:
    """A run that prints how many records are done: what is killed."""
    block = max(workers.BLOCK, explains["together"])
    with store.opened(Path(out), workers.PART // block) as kept:
        plan = workers.Plan(explains, {}, block, 2)
        workers.run(plan, source.opened(Path(path)), kept, lambda at: print(at.done, flush=True))


def _network(folder: Path) -> Path:
    from explainer_runtime.demo import network

    path = folder / "cnn.keras"
    network.train(network.build, data.load("fashion_mnist", sample=True), path)
    return path
