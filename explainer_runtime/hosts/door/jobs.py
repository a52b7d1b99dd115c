"""Explanations that outlive their connection, over REST: `Prefer: respond-async`, and where jobs are found.

    POST   .../explain, ...:explain, .../infer      with the header: 202 and a place, if it takes long
    GET    /v2/models/{model}/explanations          the caller's, newest first
    GET    /v2/models/{model}/explanations/{id}     how far it is; as events, where those are accepted
    GET    .../{id}/result                          the answer, byte for byte what a client who waits gets
    DELETE /v2/models/{model}/explanations/{id}     cancel it, or remove what has ended

Nothing is validated here: before a job is written down its request goes the way of all requests, by a caller
who only wants it checked, and whatever comes back instead is the answer. Plain ASGI, inside `gate.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args
from urllib.parse import parse_qs, urlencode

import orjson

from explainer_runtime.errors import ExplainerError, InvalidInput
from explainer_runtime.hosts.door.again import Answer, Request
from explainer_runtime.hosts.door.desk import ANSWERED, Desk, places, said
from explainer_runtime.hosts.door.exchange import again
from explainer_runtime.hosts.door.gate import GIVEN, App, Receive, Scope, Send, refuse
from explainer_runtime.hosts.door.pictured import DRAWN, JSON, accepted
from explainer_runtime.hosts.door.prefer import Preference, preferred
from explainer_runtime.hosts.service.caller import Checked, caller
from explainer_runtime.hosts.service.status import fault, retry_after
from explainer_runtime.jobs.store import ENDED, Job, State

_EXPLAINS = re.compile(r"(/explain|:explain|/infer)$")
_PLACE = re.compile(r"/v2/models/(?P<model>[^/]+)/explanations(/(?P<id>[^/]+)(?P<result>/result)?)?")
_PAGE, _LARGEST_PAGE = 50, 500
"""Jobs in one list."""
_LATER = {"retry-after": "1"}
"""Seconds after which to look again."""


class Jobs:
    """ASGI middleware.

    Args:
        app: The server inside.
        desk: Where jobs are taken.
    """

    def __init__(self, app: App, desk: Desk) -> None:
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http" or GIVEN in scope:
            return await self._app(scope, receive, send)
        place = _PLACE.fullmatch(scope["path"])
        preference = preferred(_values(scope, b"prefer"))
        takes = scope["method"] == "POST" and preference.asynchronous and _EXPLAINS.search(scope["path"])
        if not place and not takes:
            return await self._app(scope, receive, send)
        try:
            if place:
                return await self._tell(place["model"], place["id"], bool(place["result"]), scope, send)
            return await self._take(preference, scope, receive, send)
        except ExplainerError as error:
            status, message = fault(error)
            after = getattr(error, "retry_after", retry_after(status))
            return await refuse(send, status, message, {} if after is None else {"retry-after": str(after)})

    async def _take(self, preference: Preference, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")  # the gate has the whole of it
        model = await self._checked(scope, body, receive, send)
        if model is None:  # it was answered
            return None
        key = next(_values(scope, b"idempotency-key"), None)
        asked = Request.of(scope, body)
        job = await self._desk.take(asked, model, caller(), key)
        async for seen in self._desk.watch(job, preference.wait or 0):
            job = seen
        applied = {"preference-applied": preference.applied}
        if preference.wait and job.state in ANSWERED:
            answer = await self._desk.answer(job)
            return await _send(send, answer._replace(headers=[*answer.headers, *applied.items()]))
        headers = {"location": said(job)["links"]["self"], **_LATER, **applied}
        return await _send(send, _document(202, said(job), headers))

    async def _checked(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> str | None:
        """The name of the explainer that would take the request; None where it was answered instead."""
        caller().checks = True
        try:
            await self._app(scope, again(body, receive), send)
        except Checked as checked:
            return checked.model
        finally:
            caller().checks = False
        return None

    async def _tell(self, model: str, id_: str | None, result: bool, scope: Scope, send: Send) -> None:
        method, allowed = scope["method"], ("GET", "DELETE") if id_ and not result else ("GET",)
        if method not in allowed:
            message = f"method: expected {' or '.join(allowed)}, got {method}"
            return await refuse(send, 405, message, {"allow": ", ".join(allowed)})
        if id_ is None:
            return await _send(send, await self._listed(model, scope))
        job = await self._desk.find(id_, model, caller())
        if method == "DELETE":
            await self._desk.drop(job)
            return await _send(send, Answer(204, [], b""))
        if result:
            return await _send(send, await self._answered(job, scope))
        if any("text/event-stream" in value for value in _values(scope, b"accept")):
            return await self._stream(job, send)
        return await _send(send, _document(200, said(job), {} if job.state in ENDED else _LATER))

    async def _answered(self, job: Job, scope: Scope) -> Answer:
        """The answer of a job, or that there is none."""
        if job.state not in ANSWERED:
            error = {"error": f"the explanation is {job.state}, and has no result"}
            return _document(404, error, {} if job.state in ENDED else _LATER)
        answer = await self._desk.answer(job)
        if job.result is None or answer.status != 200:
            return answer
        said = dict(answer.headers).get("content-type", "").partition(";")[0]
        kinds = (said, *DRAWN) if said == JSON else (said,)
        kind = accepted(",".join(_values(scope, b"accept")) or "*/*", kinds)
        tag = f'"{job.result}"' if kind == said else f'"{job.result}-{kind}"'
        marks = [("etag", tag), ("cache-control", "private, no-cache"), ("vary", "accept")]
        known = [
            one.strip().removeprefix("W/") for one in ",".join(_values(scope, b"if-none-match")).split(",")
        ]
        if kind and (tag in known or known == ["*"]):
            return Answer(304, marks, b"")
        shown = answer if kind == said else kind and await self._desk.drawn(job, answer, kind)
        if not shown:
            return _document(406, {"error": f"accept: this answer is there as {said}"})
        return shown._replace(headers=[*shown.headers, *marks])

    async def _listed(self, model: str, scope: Scope) -> Answer:
        """A page of the caller's jobs, and where the next one is."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        state, after, limit = (query.get(name, [None])[0] for name in ("state", "after", "limit"))
        if state is not None and state not in get_args(State):
            raise InvalidInput(f"expected one of {', '.join(get_args(State))}, got {state!r}", "state")
        digits = limit or str(_PAGE)
        if not (re.fullmatch("[0-9]{1,9}", digits) and 1 <= int(digits) <= _LARGEST_PAGE):
            raise InvalidInput(f"expected a whole number from 1 to {_LARGEST_PAGE}, got {limit!r}", "limit")
        most = int(digits)
        jobs = await self._desk.list(model, caller(), state, most + 1, after)
        document: dict[str, Any] = {"explanations": [said(job) for job in jobs[:most]]}
        if len(jobs) > most:
            more = {"after": jobs[most - 1].id, "limit": digits, **({"state": state} if state else {})}
            document["next"] = f"{places(model)}?{urlencode(more)}"
        return _document(200, document)

    async def _stream(self, job: Job, send: Send) -> None:
        """The job as often as it changes, as server-sent events, until it ends; comments in between, so that
        nothing on the way takes the connection for dead."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        told = b""
        async for seen in self._desk.watch(job):
            event = b"data: " + orjson.dumps(said(seen)) + b"\n\n"
            body = b":\n\n" if event == told else event
            await send({"type": "http.response.body", "body": body, "more_body": True})
            told = event
        await send({"type": "http.response.body", "body": b""})


def _values(scope: Scope, name: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _document(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
    lines = {"content-type": "application/json", **(headers or {})}
    return Answer(status, [*lines.items()], orjson.dumps(document))


async def _send(send: Send, answer: Answer) -> None:
    lines = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    if answer.status not in (204, 304):
        lines.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": lines})
    await send({"type": "http.response.body", "body": answer.body})
