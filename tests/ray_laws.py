"""A batch on Ray, on this machine: `make test-ray`, in an environment of its own.

The suite does not run it: Ray starts a dozen processes, and what these take is for a busy machine to say.
What is asserted does not depend on it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oip_servers import Model, Output, RestServer
from toys import SHAPE, rowwise, weights

from explainer_runtime import artifact
from explainer_runtime.batch.run import COSTS, Explains
from explainer_runtime.explainers import fit
from explainer_runtime.spec import Counterfactual, Inputs

MODEL = rowwise(weights())
RECORDS, FILES = 240, 8
X = np.random.default_rng(0).uniform(-1, 1, (RECORDS, *SHAPE)).astype(np.float32)
IDS = [f"row {number}" for number in range(RECORDS)]
PATIENCE = 600
"""Seconds after which a test is given up."""


class Gated:
    """The model, which answers so many calls and then none until more are allowed."""

    def __init__(self) -> None:
        self.left, self.turn, self.rows = 10**9, threading.Condition(), 0

    def __call__(self, x):
        with self.turn:
            self.turn.wait_for(lambda: self.left > 0)
            self.left -= 1
            self.rows += len(x)
        return [Output("scores", "FP32", (len(x), 3), MODEL(x))]

    def allow(self, calls: int) -> None:
        with self.turn:
            self.left = calls
            self.turn.notify_all()


@pytest.fixture
def gate():
    return Gated()


@pytest.fixture
def url(gate):
    with RestServer(Model(respond=gate)) as served:
        yield {"kind": "v2", "url": f"http://127.0.0.1:{served.port}", "model": "cnn", "timeout": PATIENCE}
        gate.allow(10**9)


@pytest.fixture
def place(tmp_path):
    inputs = Inputs(shape=SHAPE, low=-1, high=1, classes=3)
    fitted = fit(Counterfactual(tol=0.1, max_iter=10), X[:60], predictor=MODEL, inputs=inputs)
    artifact.save(fitted, tmp_path / "one")
    (tmp_path / "in").mkdir()
    rows = [x.ravel() for x in X]
    rows[17] = rows[17][:5]
    each = RECORDS // FILES
    for number in range(FILES):
        part = slice(number * each, number * each + each)
        table = pa.table({"id": IDS[part], "x": pa.array(rows[part], pa.list_(pa.float32()))})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
    return tmp_path


class Run:
    """One `batch --ray local`, in a session of processes of its own."""

    def __init__(self, place: Path, url: dict, *more: object) -> None:
        words = [
            place / "one",
            "--data",
            place / "in",
            "--out",
            place / "out",
            "--predictor",
            json.dumps(url),
        ]
        command = [sys.executable, "-m", "explainer_runtime.cli", "batch", *words, "--ray", "local", *more]
        self.mark = f"RAY_LAWS={time.time_ns()}"
        # Paths of Ray's sockets may have a hundred letters.
        env = {
            **os.environ,
            **dict([self.mark.split("=")]),
            "RAY_TMPDIR": os.environ["TMPDIR"],
            "HOME": str(place),
        }
        self.log = place / f"{time.time_ns()}.log"
        with self.log.open("wb") as log:
            self.driver = subprocess.Popen(
                [*map(str, command), "--workers", "2"],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self, word: str = "") -> list[int]:
        """What is running of it."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0") and word in (
                    folder / "cmdline"
                ).read_bytes().decode(errors="replace"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def until(self, holds) -> None:
        """Wait for something, while it runs."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self.driver.poll() is None, self.log.read_text()[-5000:]
            assert time.monotonic() < end, self.log.read_text()[-5000:]
            time.sleep(0.1)

    def over(self) -> int:
        """Its exit status; nothing of it is left."""
        status = self.driver.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while self.processes():
            assert time.monotonic() < end, "processes of Ray's are left"
            time.sleep(0.1)
        return status


@pytest.fixture
def run(place, url):
    made = []

    def begin(*more: object) -> Run:
        made.append(Run(place, url, *more))
        return made[-1]

    yield begin
    for one in made:
        for pid in one.processes():
            os.kill(pid, signal.SIGKILL)
        one.driver.wait()


def answered(place) -> list[dict]:
    """The answers, in the order of their ids, without what they cost."""
    parts = [pq.read_table(path) for path in sorted((place / "out" / "answers").glob("*.parquet"))]
    rows = pa.concat_tables(parts).drop_columns([*COSTS]).to_pylist() if parts else []
    return sorted(rows, key=lambda row: IDS.index(row["id"]))


def alone(place, url) -> list[dict]:
    tables = [pq.read_table(place / "in" / f"{number}.parquet") for number in range(FILES)]
    table = Explains(place / "one", url)(pa.concat_tables(tables))
    return table.drop_columns([*COSTS]).to_pylist()


def test_an_actor_and_a_driver_that_are_killed_leave_the_same_rows_and_none_twice(place, url, gate, run):
    expected = alone(place, url)
    gate.allow(600)  # of some 8 for each record
    first = run()
    first.until(lambda: gate.left == 0 and first.processes("MapWorker"))
    os.kill(first.processes("MapWorker")[0], signal.SIGKILL)
    gate.allow(800)
    first.until(lambda: gate.left == 0 and answered(place))
    first.driver.kill()
    first.over()
    kept = {row["id"] for row in answered(place)}
    assert 0 < len(kept) < RECORDS
    gate.allow(10**9)
    before = gate.rows
    second = run("--json")
    assert second.over() == 0, second.log.read_text()
    assert answered(place) == expected
    spent = gate.rows - before
    third = run()
    assert third.over() == 0, third.log.read_text()
    assert answered(place) == expected
    assert gate.rows - before - spent < 100  # who the model is, and nothing of a record
    assert "expected a row of shape (4, 4, 1)" in answered(place)[17]["reason"]
    assert (place / "out" / "batch-report.html").exists()


def test_all_actors_together_ask_for_the_rows_a_second_that_were_said(place, url, gate, run):
    begun = time.monotonic()
    limited = run("--rows-per-second", "500")
    assert limited.over() == 0, limited.log.read_text()
    took = time.monotonic() - begun
    assert gate.rows > 10_000
    # Never sooner: a call waits until those before it are paid for. The last is not, nor who meets the model.
    assert (gate.rows - 500) / took < 500


def test_a_model_that_fails_is_said_as_without_ray(place, url, run):
    url["url"] = "http://127.0.0.1:1"
    refused = run()
    assert refused.over() == 1
    assert "127.0.0.1:1" in refused.log.read_text()
