"""Where jobs are taken, looked at and done: what REST and gRPC say in words of their own.

A job belongs to the token by which it was asked for; to anybody else it is not there. A server without
tokens trusts everybody: there jobs are a client's for fairness and for lists, and whoever knows the name of
one, which nobody guesses, may ask for it, because addresses change on their way through proxies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import orjson

from explainer_runtime.driver import Progress
from explainer_runtime.errors import InvalidInput, NotFound
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.door.again import Answer, Request
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.door.gate import App
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.service import metrics
from explainer_runtime.hosts.service.caller import Caller, caller
from explainer_runtime.hosts.service.service import free, names
from explainer_runtime.jobs import Kept, Limits, kept
from explainer_runtime.jobs.events import Sink
from explainer_runtime.jobs.queue import Answer as Done
from explainer_runtime.jobs.queue import Beat, Worker
from explainer_runtime.jobs.results import digest_of
from explainer_runtime.jobs.store import ENDED, Job, State
from explainer_runtime.spec import parse
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import decode

ANSWERED = ("done", "failed")
"""States in which a job has a result."""
_LONGEST_KEY = 256
_ID = re.compile("[0-9a-f]{46}")
_ARTIFACT = ":artifact"
"""Kept beside the headers of an answer: who gave it, as no header is called."""
_LOOK, _SLOWEST = 0.02, 0.5
"""Seconds between two looks at a job that is waited for, at first and at last."""


class Desk:
    """Jobs of one server.

    Args:
        kept: Where they are kept.
        sink: Told of what has ended.
        traffic: Of the server; while it is leaving, nobody is kept waiting for a job.
    """

    def __init__(self, kept: Kept, sink: Sink | None, traffic: Traffic) -> None:
        self._store, self._blobs, self._traffic = kept.store, kept.blobs, traffic
        self._worker = Worker(kept.store, kept.blobs, self._do, free, names, metrics.jobs, sink)
        self._app: App | None = None

    def start(self, app: App) -> None:
        """Begin to do jobs, each by a request to `app`, the whole server."""
        self._app = app
        self._worker.start()

    async def stop(self) -> None:
        """Give back what is being done, for another server to go on with."""
        await self._worker.stop()

    async def take(self, asked: Request, model: str, by: Caller, key: str | None) -> Job:
        """A new job that does what was `asked`, or the one that there is for this idempotency key.

        Raises:
            InvalidInput: The key was used for another request, or is none.
            Overloaded, JobsUnavailable: There is no room for it, or no place to keep it, now.
        """
        if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
            raise InvalidInput(
                f"expected 1 to {_LONGEST_KEY} printable characters of ASCII", "idempotency-key"
            )
        written = asked.dumps()
        digest = await self._store.call(digest_of, written)
        job = await self._store.call(self._store.before, _owner(by), model, digest, len(written), key)
        if job is None:
            await self._store.call(self._blobs.put, written)
            job = await self._store.call(self._store.submit, _owner(by), model, digest, len(written), key)
        self._worker.wake()
        return job

    async def find(self, id_: str, model: str, by: Caller) -> Job:
        """The job of this name.

        Raises:
            NotFound: There is none for this caller.
        """
        known = "\0" not in id_  # no text of PostgreSQL
        job = await self._store.call(self._store.get, id_, None) if known else None
        if job is None or job.model != model or not _may(by, job):
            raise NotFound(f"no explanation {id_[:64]} of {model} is here")
        return job

    async def list(
        self, model: str, by: Caller, state: State | None, limit: int, after: str | None
    ) -> list[Job]:
        """The caller's jobs, the newest first, those older than the one called `after`.

        Raises:
            InvalidInput: No job is called so.
        """
        if after is not None and not _ID.fullmatch(after):
            raise InvalidInput("expected the id of an explanation", "after")
        if "\0" in model:
            return []
        return await self._store.call(self._store.listed, _owner(by), model, state, limit, after)

    async def drop(self, job: Job) -> None:
        """Cancel a job, or forget it, if it has ended."""
        if await self._store.call(self._store.cancel, job.id, job.owner) is None:
            await self._store.call(self._store.remove, job.id, job.owner)
        self._worker.cancelled(job.id)

    async def answer(self, job: Job) -> Answer:
        """The answer of a job that has been done, or has failed.

        Raises:
            InvalidInput, Overloaded: What is being answered leaves no room for it.
        """
        headers = [(name, value) for name, value in _headers(job) if name != _ARTIFACT]
        if job.result is None:
            body = orjson.dumps({"error": job.error})
            return Answer(job.status or 500, [("content-type", "application/json")], body)
        caller().hold(job.bytes)  # until it is sent, however slowly it is read
        return Answer(job.status or 500, headers, await self._store.call(self._blobs.get, job.result))

    async def drawn(self, job: Job, answer: Answer, kind: str) -> Answer | None:
        """A JSON answer of a job as `kind`, drawn from it; None where it does not say enough, or another
        artifact is served by now."""
        try:
            kept = await aside(_explanation, answer)
        except (ValueError, KeyError, TypeError):
            return None
        request = await self._request(job)
        headers = [*(pair for pair in request.headers if pair[0] != "accept"), ("accept", kind)]
        asked = request._replace(path=re.sub("/infer$", "/explain", request.path), headers=headers)
        drawn = await self._send(
            asked, job, Caller(kept=kept, artifact=dict(_headers(job)).get(_ARTIFACT, ""))
        )
        return drawn if drawn.status == 200 else None

    async def watch(self, job: Job, seconds: float = float("inf")) -> AsyncIterator[Job]:
        """The job as it is, and then again and again, until it has ended, the time is up, or the server
        stops: whichever server does it."""
        clock, pause = asyncio.get_running_loop().time, _LOOK
        end = clock() + seconds
        yield job
        while job.state not in ENDED and not self._traffic.leaving and clock() < end:
            await asyncio.sleep(min(pause, max(0.0, end - clock())))
            pause = min(_SLOWEST, 1.5 * pause)
            seen = await self._store.call(self._store.get, job.id, job.owner)
            if seen is None:  # it was removed
                return
            yield (job := seen)

    async def _do(self, job: Job, beat: Beat) -> Done:
        def told(at: Progress) -> None:
            beat.told(at.fraction, None if at.best is None else str(at.best))

        by = Caller(told=told)
        answer = await self._send(await self._request(job), job, by)
        error = None if answer.status == 200 else _error(answer.body)
        headers = [*answer.headers, (_ARTIFACT, by.artifact)]
        return Done(answer.status, answer.body, orjson.dumps(headers).decode(), error)

    async def _request(self, job: Job) -> Request:
        return Request.loads(await self._store.call(self._blobs.get, job.request))

    async def _send(self, request: Request, job: Job, by: Caller) -> Answer:
        """The answer of this server to a request that is sent again in the name of a job's owner."""
        kind, _, name = job.owner.partition(" ")
        by.name, by.token, by.spare = name, name if kind == "token" else "", True
        assert self._app is not None
        return await request.send(self._app, by, job.id)


def opening(
    where: str, sink: str | None = None, limits: Mapping[str, Any] | None = None
) -> Callable[[Traffic], Desk]:
    """What makes the desk of a server.

    Args:
        where: A directory, or a URL `postgresql://...`; nothing is opened yet.
        sink: URL that events are posted to.
        limits: See `jobs.Limits`.

    Raises:
        InvalidSpec: One of them cannot be used.
        MissingExtra: It takes what is not installed.
    """
    place = kept(where, parse(Limits, limits or {}, "jobs_limits"), events=sink is not None)
    return partial(Desk, place, None if sink is None else Sink(sink))


def said(job: Job) -> dict[str, Any]:
    """What is told of a job."""
    place = f"{places(job.model)}/{job.id}"
    told: dict[str, Any] = {
        "id": job.id,
        "model": job.model,
        "state": job.state,
        "fraction": job.fraction,
        "best": None if job.best is None else float(job.best),
        "attempts": job.attempt,
        "created": _written(job.created),
        "ended": None if job.ended is None else _written(job.ended),
        "expires": _written(job.expires),
        "status": job.status,
        "error": job.error,
        "links": {"self": place, "result": f"{place}/result"},
    }
    return {name: value for name, value in told.items() if value is not None}


def places(model: str) -> str:
    """The path of a model's jobs."""
    return f"/v2/models/{quote(model)}/explanations"


def _explanation(answer: Answer) -> Explanation:
    """The explanation that a JSON answer tells, in V2's words or without tensors.

    Raises:
        ValueError, KeyError, TypeError: It is none, or leaves out what was not asked for.
    """
    document = orjson.loads(answer.body)
    if "data" in document:
        return Explanation.from_json(answer.body)
    return decode(
        Tensor(*(one[name] for name in ("name", "datatype", "shape", "data"))) for one in document["outputs"]
    )


def _headers(job: Job) -> list[tuple[str, str]]:
    return [(name, value) for name, value in orjson.loads(job.headers or "[]")]


def _error(body: bytes) -> str | None:
    """The line by which a server says why it refuses."""
    try:
        return str(orjson.loads(body)["error"]).replace("\0", "\ufffd")  # no text of PostgreSQL has one
    except (ValueError, KeyError, TypeError):
        return None


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _owner(by: Caller) -> str:
    return f"token {by.token}" if by.token else f"client {by.name}"


def _may(by: Caller, job: Job) -> bool:
    return job.owner == _owner(by) if by.token else job.owner.startswith("client ")
