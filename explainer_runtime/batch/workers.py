"""A run on one machine: blocks go to processes, answers to the store.

Each process computes with one thread, so as many as there are cores keep all of them busy. One that ends is
replaced, and what it had is done by another: a block has the same answers whoever makes them. What all of
them ask of a served model in a second has one limit, and one clock, which is here.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from explainer_runtime import errors
from explainer_runtime.batch.run import FAILED, INVALID
from explainer_runtime.batch.source import Source
from explainer_runtime.batch.store import Store
from explainer_runtime.batch.worker import receive, send
from explainer_runtime.errors import ExplainerError, InvalidInput, PredictorChanged
from explainer_runtime.predictors.remote.pace import Pace

BLOCK, PART = 16, 1024
"""Records of a block, which is what a process that is killed loses, and of a part."""
_ONE = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
        ),
        "1",
    ),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Variables of a process that computes with one thread; how many there are shows in the last bits."""
_HAD = 2
"""Blocks that a process has at a time: one that it works on, and one that it need not wait for."""
_DRAWN = 10
"""Records of which a picture is drawn, for the page at the end."""
_TRIES = 3
"""Processes that one block may end."""


@dataclass(frozen=True)
class Plan:
    """How a run is done.

    Attributes:
        explains: Arguments of `run.Explains`, as words.
        asked: What the store is to hold a later run to, but for the model, which says who it is.
        block: Records of a block.
        workers: Processes.
        rows_per_second: Of a served model, by all of them together; None is no limit.
        strict: Whether a record that cannot be explained ends the run.
        patience: Seconds for which a model that cannot be reached is asked again.
    """

    explains: Mapping[str, Any]
    asked: Mapping[str, Any]
    block: int
    workers: int
    rows_per_second: float | None = None
    strict: bool = False
    patience: float = 300.0


class Progress(NamedTuple):
    """How far a run is: records done, of all, and of those that this run has done how many there are, in how
    many seconds, how many were explained and found, and the calls and rows of the model that they took."""

    done: int
    total: int
    here: int
    seconds: float
    explained: int
    found: int
    calls: int
    rows: int


@dataclass(eq=False)
class _Worker:
    """A process, and the blocks that it has, each as the bytes of its table."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    ready: bool = False
    has: dict[int, bytes] = field(default_factory=dict)

    def send(self, said: Mapping[str, Any], body: bytes = b"") -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which its stdout tells
            send(self.process.stdin, said, body)


def run(plan: Plan, source: Source, store: Store, tell: Callable[[Progress], None] | None = None) -> None:
    """Explain what is not in the store yet.

    Args:
        plan: How.
        source: The records.
        store: Takes the answers.
        tell: Told how far it is after each block.

    Raises:
        InvalidInput: With `strict`, about the first record that cannot be explained; or the store holds the
            answers to something else.
        PredictorChanged: Another model answers than when the run began.
        ExplainerError: As the processes met it; or one block ends every process.
    """
    _Run(plan, source, store, tell).run()


class _Run:
    def __init__(
        self, plan: Plan, source: Source, store: Store, tell: Callable[[Progress], None] | None
    ) -> None:
        self.plan, self.source, self.store, self.tell = plan, source, store, tell
        self.pace = Pace(1, plan.rows_per_second)
        self.selector = selectors.DefaultSelector()
        self.workers: set[_Worker] = set()
        self.blocks = source.blocks(plan.block, store.done)
        self.again: dict[int, bytes] = {}
        self.ended: Counter[int | None] = Counter()
        self.model: dict[str, str] | None = None
        self.refused: dict[int, str] = {}  # by their blocks, with `strict`
        self.exhausted = False
        # Evenly spread, and the same whenever it is done.
        self.drawn = Counter(which * self.all_blocks // _DRAWN for which in range(_DRAWN))
        self.counts: Counter[str] = Counter()
        self.before = sum(
            min(plan.block, source.total - number * plan.block)
            for number in range(self.all_blocks)
            if store.done(number)
        )
        self.begun = time.monotonic()

    @property
    def all_blocks(self) -> int:
        return -(-self.source.total // self.plan.block)

    def run(self) -> None:
        self.store.check(self.plan.asked)
        left = sum(not self.store.done(number) for number in range(self.all_blocks))
        with self._stopped():
            for _ in range(min(self.plan.workers, max(1, left))):  # one says which model it is, at any rate
                self._start()
            while self._fed():
                for key, _ in self.selector.select():
                    self._hear(key.data)
        if self.refused:
            raise InvalidInput(self.refused[min(self.refused)], "data")

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Within, processes may run; afterwards none does."""
        try:
            yield
        finally:
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                self._reap(worker)
            self.selector.close()

    @staticmethod
    def _reap(worker: _Worker) -> None:
        with worker.process, worker.log:  # closes its pipes, and waits
            pass

    def _start(self) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "explainer_runtime.batch.worker"],
            stdin=pipe,
            stdout=pipe,
            stderr=log,
            bufsize=0,
            env={**os.environ, **_ONE},
        )
        worker = _Worker(process, log)
        self.workers.add(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        how = {"paced": self.plan.rows_per_second is not None, "patience": self.plan.patience}
        worker.send({"kind": "asked", "explains": dict(self.plan.explains), **how})

    def _fed(self) -> bool:
        """Give processes that are ready something to do; whether anything is under way."""
        for worker in sorted(self.workers, key=lambda one: len(one.has)):
            while worker.ready and len(worker.has) < _HAD and (block := self._next()) is not None:
                number, body = block
                worker.has[number] = body
                worker.send({"kind": "block", "block": number, "draw": self.drawn[number]}, body)
        starting = not all(worker.ready for worker in self.workers) and not self.exhausted
        waiting = self.model is None or starting or bool(self.again)
        return waiting or any(worker.has for worker in self.workers)

    def _next(self) -> tuple[int, bytes] | None:
        if self.again:
            number = min(self.again)
            return number, self.again.pop(number)
        if self.exhausted or self.refused:
            return None
        for number, records in self.blocks:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, records.schema) as writer:
                writer.write_table(records)
            return number, sink.getvalue().to_pybytes()
        self.exhausted = True
        return None

    def _hear(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        message = receive(worker.process.stdout)
        if message is None:
            self._replace(worker)
            return
        said, body = message
        match said["kind"]:
            case "turn":
                worker.send({"kind": "grant", "seconds": self.pace.reserve(said["rows"])})
            case "ready":
                self._meet(said["model"])
                worker.ready = True
            case "done":
                self._meet(said["model"])
                del worker.has[said["block"]]
                self._take(said["block"], pa.ipc.open_stream(body).read_all())
            case "error":
                raise _error(said)

    def _meet(self, model: dict[str, str]) -> None:
        """Hold a model to the one that the run began with."""
        if self.model is None:
            self.store.asked({**self.plan.asked, "model": model})
            self.model = model
        elif model != self.model:
            raise PredictorChanged(
                f"another model answers now, {model}; the run began with {self.model}. What is done is kept, "
                "and of that one: answers of this one go to another folder"
            )

    def _take(self, number: int, answers: pa.Table) -> None:
        bad = answers.filter(pc.is_in(answers["status"], pa.array([INVALID, FAILED])))
        if self.plan.strict and len(bad):
            self.refused[number] = f"{bad['id'][0].as_py()}: {bad['reason'][0].as_py()}"
            return
        self.store.keep(number, answers)
        self.counts["here"] += len(answers)
        self.counts["explained"] += answers["found"].drop_null().length()
        self.counts["found"] += pc.sum(answers["found"]).as_py() or 0
        for name in ("calls", "rows"):
            self.counts[name] += round(shared(answers, name))
        if self.tell is not None:
            done, here = self.before + self.counts["here"], self.counts["here"]
            seconds = time.monotonic() - self.begun
            more = (self.counts[name] for name in ("explained", "found", "calls", "rows"))
            self.tell(Progress(done, self.source.total, here, seconds, *more))

    def _replace(self, worker: _Worker) -> None:
        """Start another process in place of one that has ended, which has what that one had."""
        self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self.workers.discard(worker)
        first = min(worker.has, default=None)
        status = worker.process.wait()
        worker.log.seek(0)
        words = worker.log.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
        self._reap(worker)
        self.again |= worker.has
        self.ended[first] += 1
        if self.ended[first] >= _TRIES:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            where = "starting" if first is None else f"from record {first * self.plan.block:,} on"
            raise ExplainerError(f"{where}: {_TRIES} processes ended with {how}{words and ': ' + words}")
        self._start()


def shared(answers: pa.Table, name: str) -> float:
    """The sum of a column of costs: of rows that were explained together each has the cost of all."""
    return float(pc.sum(pc.divide(pc.cast(answers[name], pa.float64()), answers["together"])).as_py() or 0)


def _error(said: Mapping[str, Any]) -> ExplainerError:
    """What a process has met, as it would have been met here."""
    kind = getattr(errors, said["type"], ExplainerError)
    more = (said["field"],) if issubclass(kind, errors.InvalidInput | errors.InvalidOption) else ()
    return kind(said["message"], *more)
