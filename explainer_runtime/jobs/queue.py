"""The worker of one server: takes jobs while there is room for them, and beats while they run.

What does a job is a function of whoever starts the worker; here is only what it takes that a job is done
once, and by somebody. An answer is kept before the table says `done`. A stop gives back at once what runs. A
job that found no room, or whose model could not be reached, is given back to be due again later; any other
answer but 200 is how it failed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from explainer_runtime.errors import JobsUnavailable
from explainer_runtime.jobs.events import Sink
from explainer_runtime.jobs.results import Blobs, Damaged
from explainer_runtime.jobs.store import Job, Standing, Store

TICK = 1.0
"""Seconds between two looks for jobs that other servers took, and between two beats; at most."""
_SETTLES = 0.25
"""Seconds after which a job that has begun is seen by whoever counts the room."""
_TIDY, _SWEEP = 5.0, 600.0
"""Seconds between two looks at what has expired, and at bytes that nobody names."""
_LATER = (429, 499, 503)
"""Statuses of an answer that says nothing of the job: no room, given way, not now."""
_SHORTEST, _LONGEST = 0.5, 60.0
"""Seconds for which a job pauses that is tried again, at first and at last."""
_PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0, 0.0)
"""Seconds between tries of writing down what came of a job."""

_log = logging.getLogger("explainer_runtime.jobs")


class Answer(NamedTuple):
    """What came of a job.

    Attributes:
        status: Of HTTP.
        body: What is kept as the result, byte for byte.
        headers: As text; the worker does not read it.
        error: Why it failed, in one line, where it did.
    """

    status: int
    body: bytes = b""
    headers: str | None = None
    error: str | None = None


class Beat:
    """How far a job is, told by who does it, in any thread."""

    def __init__(self) -> None:
        self.fraction: float | None = None
        self.best: str | None = None
        self.ended: Literal["cancelled", "lost"] | None = None
        self.now = asyncio.Event()

    def told(self, fraction: float, best: str | None = None) -> None:
        """Note that `fraction` of it is done, from 0 to 1, and the best so far, as text."""
        self.fraction, self.best = fraction, best


Do = Callable[[Job, Beat], Coroutine[Any, Any, Answer]]
"""Does a job. It is cancelled when its owner wants it no more, when it is somebody else's, and by a stop."""
Told = Callable[[Standing, int, int], None]
"""Told how the queue stands, and how many jobs were given back to pause, and have expired, since then."""


class Worker:
    """Does jobs of one store, in the event loop of a server.

    Args:
        store: The table.
        blobs: The bytes.
        do: Does one.
        places: How many more jobs there is room for now; asked before each is taken.
        serves: The models that are served here, whose jobs are taken; None is all.
        told: Told every few seconds how things stand.
        sink: Told of what has ended.
        tick: Seconds between two looks for jobs, and between two beats; at most.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        do: Do,
        places: Callable[[], int],
        serves: Callable[[], Iterable[str]] | None = None,
        told: Told | None = None,
        sink: Sink | None = None,
        tick: float = TICK,
    ) -> None:
        self._store, self._blobs, self._do, self._places = store, blobs, do, places
        self._serves, self._told, self._sink, self._tick = serves, told, sink, tick
        self._wake, self._stop = asyncio.Event(), asyncio.Event()
        self._running: dict[asyncio.Task[None], _Carried] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._retried = 0

    def start(self) -> None:
        """Begin; in the event loop."""
        loops = [self._take(), self._tidy(), *([self._tell(self._sink)] if self._sink else [])]
        self._loops = [asyncio.create_task(loop) for loop in loops]

    def wake(self) -> None:
        """There may be a job to take, or room for one."""
        self._wake.set()

    def cancelled(self, id: str) -> None:
        """Look at once whether a job is still wanted, if it runs here."""
        for job, beat, _ in self._running.values():
            if job.id == id:
                beat.now.set()

    async def stop(self) -> None:
        """Take no more, and give back at once what runs; other servers go on with it."""
        self._stop.set()
        self._wake.set()
        taking, *others = self._loops
        await asyncio.wait({taking})  # not cancelled: a lease that is being taken would be nobody's
        held = dict(self._running)
        for task in [*held, *others]:
            task.cancel()
        await asyncio.wait({*held, *self._loops})
        for job, _, _ in held.values():
            with suppress(JobsUnavailable):  # then its lease ends by itself
                await self._store.own(self._store.release, job.id, job.fence)

    async def _take(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            pause = self._tick
            with suppress(JobsUnavailable):  # it was logged
                while not self._stop.is_set() and self._room() > 0:
                    models = None if self._serves is None else list(self._serves())
                    job = await self._store.own(self._store.lease, models)
                    if job is None:
                        break
                    self._begin(job)
                else:
                    pause = _SETTLES
            await _nap(self._wake, pause)

    def _room(self) -> int:
        now = asyncio.get_running_loop().time()
        return self._places() - sum(now - begun < _SETTLES for _, _, begun in self._running.values())

    def _begin(self, job: Job) -> None:
        beat = Beat()
        task = asyncio.create_task(self._carry(job, beat))
        self._running[task] = _Carried(job, beat, asyncio.get_running_loop().time())

        def ended(task: asyncio.Task[None]) -> None:
            del self._running[task]
            self._wake.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("a job ended without a word", exc_info=error)

        task.add_done_callback(ended)

    async def _carry(self, job: Job, beat: Beat) -> None:
        doing = asyncio.create_task(self._do(job, beat))
        beating = asyncio.create_task(self._beats(job, beat, doing))
        try:
            await asyncio.wait({doing})
            answer = _came(doing)
            for pause in _PATIENCE:
                if beat.ended == "lost":
                    return
                with suppress(JobsUnavailable):  # else its lease ends by itself
                    self._retried += await self._store.own(self._write, job, beat, answer)
                    return
                await asyncio.sleep(pause)
        finally:
            doing.cancel()
            beating.cancel()
            await asyncio.wait({doing, beating})

    def _write(self, job: Job, beat: Beat, answer: Answer) -> bool:
        """Write down what came of a job; whether it is to be tried again."""
        if beat.ended == "cancelled":
            self._store.finish(job.id, job.fence, "cancelled")
        elif answer.status in _LATER:
            pause = min(_LONGEST, _SHORTEST * 2 ** min(job.retries, 16))
            return self._store.release(job.id, job.fence, pause)
        else:
            state: Literal["done", "failed"] = "done" if answer.status == 200 else "failed"
            result = self._blobs.put(answer.body) if answer.body else None
            size, status, headers, error = len(answer.body), answer.status, answer.headers, answer.error
            kept = {"result": result, "headers": headers, "error": error}
            self._store.finish(job.id, job.fence, state, size=size, status=status, **kept)
        return False

    async def _beats(self, job: Job, beat: Beat, doing: asyncio.Task[Answer]) -> None:
        while True:
            await _nap(beat.now, min(self._tick, self._store.limits.lease / 3))
            beat.now.clear()
            with suppress(JobsUnavailable):
                held = await self._store.own(
                    self._store.heartbeat, job.id, job.fence, beat.fraction, beat.best
                )
                if held != "held":
                    beat.ended = held
                    doing.cancel()
                    return

    async def _tidy(self) -> None:
        clock = asyncio.get_running_loop().time
        sweep = clock()
        while True:
            with suppress(JobsUnavailable):
                swept = await self._store.own(self._store.sweep)
                standing = await self._store.own(self._store.standing)
                if self._told is not None:
                    self._told(standing, self._retried, swept.expired)
                    self._retried = 0
                if clock() >= sweep:
                    await self._store.own(self._blobs.sweep, self._store)
                    sweep = clock() + _SWEEP
            await _nap(self._stop, _TIDY)

    async def _tell(self, sink: Sink) -> None:
        while True:
            with suppress(JobsUnavailable):
                for job in await self._store.own(self._store.events):
                    if await asyncio.to_thread(sink.post, job):
                        await self._store.own(self._store.told, job.id)
            await _nap(self._stop, self._tick)


class _Carried(NamedTuple):
    job: Job
    beat: Beat
    begun: float


async def _nap(until: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for some time that is not the same for all servers."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds * random.uniform(0.5, 1.0)):  # noqa: S311
            await until.wait()


def _came(doing: asyncio.Task[Answer]) -> Answer:
    """What came of a job, if only an error."""
    if doing.cancelled():
        return Answer(499)
    error = doing.exception()
    if error is None:
        return doing.result()
    if isinstance(error, JobsUnavailable):
        return Answer(503)
    if isinstance(error, Damaged):
        return Answer(500, error=str(error))
    _log.error("a job failed", exc_info=error)
    return Answer(500, error="internal error")
