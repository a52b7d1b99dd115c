"""Who may be computed for, and who is next: a bounded pool of threads whose queue is fair.

Explanations differ in cost by orders of magnitude, so they are weighed by the rows they are expected to ask
the model about. What would wait too long is refused at once, because an answer after its deadline helps
nobody, and a refusal that comes at once can be sent elsewhere. Refusals are demand, too: what scales replicas
has to see them, or a server that is full looks like one that is busy.

Whoever has taken least so far is next (start-time fair queueing): a client with a hundred requests waits for
itself, not before others. Only what has waited for as long as was promised goes before that.

What nobody waits for (a job) is taken by a thread that is free, and by no other; when somebody comes who does
wait, and finds none free, the one that began last gives its own up.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from explainer_runtime.errors import Overloaded

T = TypeVar("T")

NICENESS = 10
"""Threads that compute leave the processor to those that answer health checks."""
_MEMORY = 0.8
"""Weight of the past in what is learnt about seconds a row."""


@dataclass(eq=False)
class _Job:
    work: Callable[[float], Any]
    weight: float
    client: str
    arrived: float
    future: Future[Any]
    give_way: Callable[[], None] | None = None


class Admission:
    """A pool of threads behind a bounded, fair queue. Safe to use from any thread.

    Args:
        threads: Jobs computed at the same time.
        places: Jobs that may wait. One client takes at most half of them, rounded up.
        weight: Weight of the jobs that wait and run together; a job alone may weigh more.
        patience: Seconds of expected waiting beyond which a job is refused.
        watch: Told how many jobs run and wait, and the demand, whenever that changes.
    """

    def __init__(
        self,
        threads: int,
        places: int,
        weight: float,
        patience: float,
        watch: Callable[[int, int, int], None] = lambda running, waiting, demand: None,
    ) -> None:
        self.threads, self._places, self._most, self._patience = threads, places, weight, patience
        self._pool = ThreadPoolExecutor(threads, "explain", initializer=be_nice)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[_Job]] = {}
        self._taken: dict[str, float] = {}
        self._clock = 0.0
        self._pending = 0.0
        self._pace: float | None = None
        self._watch = watch
        self.running = self.waiting = 0
        self._refused = 0  # since a thread was last free
        self._spare: list[_Job] = []  # those that would give way

    @property
    def demand(self) -> int:
        """Jobs that run, wait, or have been refused for want of room since a thread was last free.

        Refusals count as `threads` jobs at most: how many come says how often clients ask again, not how many
        clients there are. While work is refused, demand is therefore about twice what can be done.
        """
        return self.running + self.waiting + min(self._refused, self.threads)

    @property
    def free(self) -> int:
        """Threads that have nothing to do."""
        return max(0, self.threads - self.running - self.waiting)

    def submit(
        self,
        work: Callable[[float], T],
        weight: float = 1.0,
        client: str = "",
        give_way: Callable[[], None] | None = None,
    ) -> Future[T]:
        """Have `work` done in a thread of the pool when its turn comes.

        Args:
            work: Called with the seconds that it has waited.
            weight: What it is expected to cost.
            client: Whose turn it takes.
            give_way: Makes it a job that takes a free thread or none; called, in any thread, when it has to
                stop, because somebody waits for its thread.

        Returns:
            Its result; cancelling it before its turn takes it out of the queue.

        Raises:
            Overloaded: There is no room; nothing was queued.
        """
        job = _Job(work, weight, client, time.monotonic(), Future(), give_way)
        with self._lock:
            try:
                self._check(job)
            except Overloaded:
                self._refused += give_way is None
                self._tell()
                raise
            queue = self._waiting.setdefault(client, deque())
            if not queue:  # what others have taken meanwhile is not made up for
                self._taken[client] = max(self._clock, self._taken.get(client, 0.0))
            queue.append(job)
            self._pending += weight
            self.waiting += 1
            self._tell()
        job.future.add_done_callback(lambda future: self._leave(job))
        self._pool.submit(self._next)
        return job.future

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done in a thread of the pool, outside the queue: for loading."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Cancel what waits, let finish what runs, take no more."""
        with self._lock:
            jobs = [job for queue in self._waiting.values() for job in queue]
        for job in jobs:
            job.future.cancel()
        self._pool.shutdown(wait=False)

    def _check(self, job: _Job) -> None:
        if job.give_way is not None:
            if not self.free:
                raise Overloaded("all threads have somebody to answer")
            self._spare.append(job)
            return
        own = len(self._waiting.get(job.client, ()))
        wait = 0.0 if self._pace is None else self._pending * self._pace / self.threads
        if self.free:
            return
        if self._spare:
            self._spare.pop().give_way()  # type: ignore[misc]  # those that are there have one
            return
        if self.waiting >= self._places or own >= ceil(self._places / 2):
            raise Overloaded("too many explanations are waiting", _whole(wait))
        if self._pending + job.weight > self._most:
            raise Overloaded("too much is being explained", _whole(wait))
        if wait > self._patience:
            raise Overloaded(f"expected to wait {wait:.1f} s", _whole(wait - self._patience))

    def _next(self) -> None:
        with self._lock:
            if not self._waiting:  # whoever it was for has gone
                return
            client = self._choose()
            job = self._waiting[client].popleft()
            self._clock = self._taken[client]
            self._taken[client] += job.weight
            if not self._waiting[client]:
                del self._waiting[client]
            self._forget()
            self.waiting -= 1
            self.running += 1
            self._tell()
        start = time.monotonic()
        try:
            if job.future.set_running_or_notify_cancel():
                self._do(job, start)
        finally:
            with self._lock:
                self.running -= 1
                if not self.running and not self.waiting:  # nobody was kept waiting: all begin anew
                    self._taken.clear()
                self._tell()

    def _choose(self) -> str:
        """Whose turn it is: who has taken least, unless somebody has waited as long as anybody should.

        Turns alone bound no wait: whoever comes later but has taken less goes before.
        """
        oldest = min(self._waiting, key=lambda name: self._waiting[name][0].arrived)
        if time.monotonic() - self._waiting[oldest][0].arrived > self._patience:
            return oldest
        return min(self._waiting, key=lambda name: self._taken[name])

    def _do(self, job: _Job, start: float) -> None:
        try:
            result = job.work(start - job.arrived)
        except BaseException as error:
            job.future.set_exception(error)
        else:
            self._learn((time.monotonic() - start) / job.weight, start - job.arrived)
            job.future.set_result(result)

    def _learn(self, pace: float, waited: float = 0.0) -> None:
        with self._lock:
            if self._pace is not None and pace < self._pace and waited > self._patience:
                return  # it was quick because no time was left to it
            self._pace = pace if self._pace is None else _MEMORY * self._pace + (1 - _MEMORY) * pace

    def _leave(self, job: _Job) -> None:
        # Its future knows the job, which knows its rows: they would stay until garbage is looked for.
        job.work = _nothing
        with self._lock:
            self._pending -= job.weight
            if job in self._spare:
                self._spare.remove(job)
            with suppress(KeyError, ValueError):
                self._waiting[job.client].remove(job)
                self.waiting -= 1
                if not self._waiting[job.client]:
                    del self._waiting[job.client]
                self._tell()

    def _tell(self) -> None:
        """The lock is held, so that what is told last is what is so."""
        if self.running + self.waiting < self.threads:
            self._refused = 0
        self._watch(self.running, self.waiting, self.demand)

    def _forget(self) -> None:
        """Drop clients who wait for nothing and have no debt; otherwise names would pile up."""
        idle = [c for c, taken in self._taken.items() if c not in self._waiting and taken <= self._clock]
        for client in idle:
            del self._taken[client]


def _nothing(waited: float) -> None:
    """In place of work that is done."""


def be_nice() -> None:
    """Give the calling thread, and threads that it will start, a lower priority (Linux)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _whole(seconds: float) -> int:
    return min(60, max(1, ceil(seconds)))
