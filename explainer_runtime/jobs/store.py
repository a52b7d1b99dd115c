"""The table of jobs: who asked for what, who does it now, and what came of it.

    queued ──lease──> running ──finish──> done | failed
      ^                 │  │
      └────release──────┘  └── its lease ends: the next lease takes it again, under a higher fence
    cancel: a queued job is cancelled at once, a running one when who runs it hears of it

A lease is a time until which a job is somebody's, and a fence, the number of that lease. Whoever holds it
beats before it ends. Who is late is not trusted: each write names its fence, and the table refuses one that
is not the newest. So there may be two who compute the same thing for a while, never two who write it.

Methods block, for a disk or a network; `call` is for event loops.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Literal, NamedTuple, ParamSpec, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt

from explainer_runtime.errors import InvalidInput, Overloaded
from explainer_runtime.jobs.database import Ask, Database, Row
from explainer_runtime.spec import Value

P = ParamSpec("P")
T = TypeVar("T")

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")


class Job(NamedTuple):
    """One row of the table. Times are seconds since 1970.

    Attributes:
        id: 46 hexadecimal digits that nobody guesses (128 of their bits are random); later ones are larger.
        owner: Whose it is; nobody else sees it.
        model: Which explainer it asks.
        request: Digest of the recorded request, in the blobs.
        key: The owner's idempotency key, or None.
        state: See above.
        attempt: How many times it was begun, but for those that were given back.
        retries: How many times it was given back to pause.
        fence: The number of its newest lease.
        due: When it may be taken.
        cancel: Whether its owner wants it no more.
        fraction: How much of it is done, from 0 to 1.
        best: What its progress said last, or None; text of whoever runs it.
        created: When it was submitted.
        ended: When it was done, failed or cancelled; None before.
        expires: When it is forgotten; before it has ended, when it fails for being late.
        bytes: Of its request and its result.
        result: Digest of the body of the answer, in the blobs; None where there is none.
        status: HTTP status of the answer, or of the failure.
        headers: Of the answer, as whoever did it wrote them.
        error: Why it failed, in one line.
        event: When the sink is to be told next; None where nothing is to be told.
        event_tries: How many times that was tried.
    """

    id: str
    owner: str
    model: str
    request: str
    key: str | None
    state: State
    attempt: int
    retries: int
    fence: int
    due: float
    cancel: bool
    fraction: float
    best: str | None
    created: float
    ended: float | None
    expires: float
    bytes: int
    result: str | None
    status: int | None
    headers: str | None
    error: str | None
    event: float | None
    event_tries: int


class Limits(Value):
    """What an operator allows; the defaults are safe."""

    owner_jobs: PositiveInt = 10_000
    """Jobs of one owner that wait or run."""
    jobs: PositiveInt = 100_000
    """Jobs of all owners that wait or run."""
    bytes: PositiveInt = 2 * 2**30
    """Bytes of all requests and results that are kept; beyond that no job is taken until some expire."""
    keep: PositiveFloat = 86_400.0
    """Seconds that a job may wait and run, and seconds that its result is kept after that."""
    lease: PositiveFloat = 30.0
    """Seconds after which a job whose server is silent may be taken by another one."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """How often a job is begun whose server ends while it runs."""


class Standing(NamedTuple):
    """How the queue stands: jobs that wait, jobs that run, seconds for which the oldest waits."""

    queued: int
    running: int
    age: float


class Swept(NamedTuple):
    """What a sweep did: jobs that expired before they were done, and ended ones that were forgotten."""

    expired: int
    forgotten: int


class Store:
    """The table in one database; safe to share by threads, and by processes.

    Args:
        database: See `database.sqlite` and `database.postgresql`.
        limits: What an operator allows.
        events: Whether a sink is to be told of what ends.

    Every method raises `JobsUnavailable` where the database cannot do it now.
    """

    def __init__(self, database: Database, limits: Limits | None = None, events: bool = False) -> None:
        self._database, self.limits, self._events = database, limits or Limits(), events
        self._threads = ThreadPoolExecutor(4, "jobs")
        self._own = ThreadPoolExecutor(4, "jobs-own")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store or of the blobs returns, called off the event loop, four at once."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def own(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call` for who does jobs: a lease is held however many others ask at the same time."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._own, work)

    def submit(self, owner: str, model: str, request: str, size: int, key: str | None = None) -> Job:
        """A new job; the one that there is, where the owner has used `key` for the same request before.

        Args:
            owner: Whose it is.
            model: Which explainer it asks.
            request: Digest of the recorded request, which was put into the blobs.
            size: Its bytes.
            key: The owner's idempotency key.

        Raises:
            InvalidInput: The key was used for another request.
            Overloaded: It would be one too many, for the owner or for all, or the bytes are too many.
        """
        with self._database.transaction() as ask:
            ask("alone")
            if (job := self._before(ask, owner, model, request, size, key)) is not None:
                return job
            ask("owner", owner=owner)
            new = {"id": _id(), "owner": owner, "model": model, "request": request, "key": key}
            return _job(ask("submit", **new, keep=self.limits.keep, bytes=size)[0])

    def before(self, owner: str, model: str, request: str, size: int, key: str | None = None) -> Job | None:
        """What `submit` would raise now, and the job that there is for `key`, if any: to be asked before
        bytes are put into the blobs, where what is refused would stay for an hour."""
        return self._before(self._database.ask, owner, model, request, size, key)

    def _before(
        self, ask: Ask, owner: str, model: str, request: str, size: int, key: str | None
    ) -> Job | None:
        limits = self.limits
        if key is not None and (known := ask("by key", owner=owner, key=key)):
            job = _job(known[0])
            if (job.request, job.model) != (request, model):
                raise InvalidInput("was used for another request; expected a new one", "idempotency-key")
            return job
        used = ask("used", owner=owner)[0]
        if used["mine"] >= limits.owner_jobs:
            raise Overloaded(f"jobs: {limits.owner_jobs} of yours wait or run already", _LATER)
        if used["jobs"] >= limits.jobs:
            raise Overloaded(f"jobs: {limits.jobs} wait or run already", _LATER)
        if used["bytes"] + size > limits.bytes:
            raise Overloaded(f"jobs: expected at most {limits.bytes} bytes to be kept for all", _LATER)
        return None

    def get(self, id: str, owner: str | None) -> Job | None:
        """The owner's job; None where they have none of this name."""
        return _first(self._database.ask("get", id=id, owner=owner))

    def listed(
        self,
        owner: str,
        model: str | None = None,
        state: State | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Job]:
        """The owner's jobs, newest first: at most `limit` of those older than the one of the name `after`."""
        rows = self._database.ask("list", owner=owner, model=model, state=state, limit=limit, after=after)
        return [_job(row) for row in rows]

    def cancel(self, id: str, owner: str) -> Job | None:
        """Want a job no more: cancelled now, or soon while it runs; None where it neither waits nor runs."""
        return _first(self._database.ask("cancel", id=id, owner=owner, keep=self.limits.keep))

    def remove(self, id: str, owner: str) -> bool:
        """Forget the owner's job, if it has ended."""
        return bool(self._database.ask("remove", id=id, owner=owner))

    def lease(self, models: Iterable[str] | None = None) -> Job | None:
        """The next job, now the caller's for `limits.lease` seconds; None where none is due.

        It is the oldest job of the owner who was served least recently, of those for `models`; None is all.
        """
        named = None if models is None else f"/{'/'.join(models)}/"
        which = {"attempts": self.limits.attempts, "models": named}
        for turn in self._database.ask("turns", **which):
            with self._database.transaction() as ask:
                if rows := ask("lease", owner=turn["owner"], lease=self.limits.lease, **which):
                    ask("served", **turn)
                    return _job(rows[0])
        return None

    def heartbeat(
        self, id: str, fence: int, fraction: float | None = None, best: str | None = None
    ) -> Literal["held", "cancelled", "lost"]:
        """Hold a job for another lease, and say how it stands; None says nothing new.

        Returns:
            Whether it is still the caller's, is but its owner wants it no more, or is not.
        """
        values = {"lease": self.limits.lease, "fraction": fraction, "best": best}
        rows = self._database.ask("heartbeat", id=id, fence=fence, **values)
        return ("cancelled" if rows[0]["cancel"] else "held") if rows else "lost"

    def finish(
        self,
        id: str,
        fence: int,
        state: Literal["done", "failed", "cancelled"],
        *,
        result: str | None = None,
        size: int = 0,
        status: int | None = None,
        headers: str | None = None,
        error: str | None = None,
    ) -> bool:
        """End a job; False, and nothing is changed, where it is not the caller's any more.

        Args:
            id: The job.
            fence: As it was leased.
            state: How it ended.
            result: Digest of the body of the answer, which was put into the blobs.
            size: Its bytes.
            status: HTTP status of the answer, or of the failure.
            headers: Of the answer, as text.
            error: Why it failed, in one line.
        """
        values = {"result": result, "bytes": size, "status": status, "headers": headers}
        ending = {"state": state, "error": error, "keep": self.limits.keep}
        events = self._events and state != "cancelled"
        return bool(self._database.ask("finish", id=id, fence=fence, events=events, **ending, **values))

    def release(self, id: str, fence: int, pause: float = 0.0) -> bool:
        """Give a job back, as if it had not been begun; with a pause, it is not due for so many seconds."""
        return bool(self._database.ask("release", id=id, fence=fence, again=int(pause > 0), pause=pause))

    def standing(self) -> Standing:
        """How the queue stands."""
        rows = {row["state"]: row for row in self._database.ask("standing")}
        queued, running = rows.get("queued"), rows.get("running")
        return Standing(
            queued["jobs"] if queued else 0,
            running["jobs"] if running else 0,
            queued["age"] if queued else 0.0,
        )

    def sweep(self) -> Swept:
        """End what nobody does and nobody will, and forget what has expired."""
        limits = self.limits
        values = {"attempts": limits.attempts, "keep": limits.keep, "events": self._events}
        lost = self._database.ask("lost", **values)
        forgotten = self._database.ask("expire")
        self._database.ask("forget")
        late = [row for row in lost if row["state"] == "failed" and row["attempt"] < limits.attempts]
        return Swept(len(late), len(forgotten))

    def named(self) -> set[str]:
        """Digests of all requests and results of the table."""
        return {row["digest"] for row in self._database.ask("named")}

    def events(self, limit: int = 10) -> list[Job]:
        """Jobs of which the sink is to be told now; they come again, later and later, until `told`."""
        return [_job(row) for row in self._database.ask("events", limit=limit)]

    def told(self, id: str) -> None:
        """Note that the sink was told."""
        self._database.ask("told", id=id)

    def close(self) -> None:
        """Let threads and connections go."""
        self._threads.shutdown()
        self._own.shutdown()
        self._database.close()


_LATER = 30
"""Seconds after which a limit may have room again."""


def _id() -> str:
    return f"{time.time_ns() // 1000:014x}{secrets.token_hex(16)}"  # microseconds


def _job(row: Row) -> Job:
    return Job(**{**row, "cancel": bool(row["cancel"])})


def _first(rows: list[Row]) -> Job | None:
    return _job(rows[0]) if rows else None
