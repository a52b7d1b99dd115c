"""A request written down, and sent again: what a job is, and how it is done.

What is written down is what a server answers by: path, query, a few headers and the body. It is sent again
through the whole of the server, by the road that all requests take, so that the answer has the bytes that a
client who waits would have got, on every route of every host.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

import orjson

from explainer_runtime.hosts.door.exchange import Collected, again
from explainer_runtime.hosts.door.gate import GIVEN, App, Message, Scope
from explainer_runtime.hosts.service.caller import Caller

_ASKED = ("content-type", "accept", "inference-header-content-length")
"""Headers that an answer goes by. No other is written down, least of all a token."""
_OF_ONE_ANSWER = (
    "connection",
    "content-length",
    "content-encoding",
    "date",
    "server",
    "vary",
    "x-request-id",
)
"""Headers that are not of the explanation."""

_EVENTS = "text/event-stream"

Headers = list[tuple[str, str]]


class Request(NamedTuple):
    """A request as it came through the door."""

    path: str
    query: str
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> Request:
        """What is to be written down of it; of events, which a job has itself, nothing is."""
        query = scope.get("query_string", b"").decode("latin-1")
        headers = [
            one for one in _read(scope["headers"]) if one[0] in _ASKED and _EVENTS not in one[1].lower()
        ]
        return cls(scope["path"], query, headers, body)

    @classmethod
    def loads(cls, written: bytes) -> Request:
        """What `dumps` wrote."""
        head, _, body = written.partition(b"\n")
        path, query, headers = orjson.loads(head)
        return cls(path, query, [(name, value) for name, value in headers], body)

    def dumps(self) -> bytes:
        """It as bytes, one line of JSON and the body; the same request gives the same."""
        return orjson.dumps((self.path, self.query, self.headers)) + b"\n" + self.body

    async def send(self, app: App, by: Caller, name: str) -> Answer:
        """The answer of `app`, which is a whole server, to this request; when this is cancelled, it stops.

        Args:
            app: The server, its door included.
            by: Who is taken to ask.
            name: Of the request, in the log.
        """
        ours = [("host", "localhost"), ("content-length", str(len(self.body))), ("x-request-id", name)]
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self.path,
            "raw_path": quote(self.path).encode(),
            "query_string": self.query.encode("latin-1"),
            "root_path": "",
            "headers": [
                (key.encode("latin-1"), value.encode("latin-1")) for key, value in ours + self.headers
            ],
            "client": None,
            "server": None,
            "state": {},
            GIVEN: by,
        }
        collected = Collected()
        with suppress(Exception):  # what a framework has answered with 500, and logged, and raises again
            await app(scope, again(self.body, _staying), collected)
        headers = [one for one in _read(collected.headers) if one[0] not in _OF_ONE_ANSWER]
        return Answer(collected.status, headers, collected.body)


class Answer(NamedTuple):
    """What a server has answered."""

    status: int
    headers: Headers
    body: bytes


async def _staying() -> Message:
    """`receive` of a client who does not hang up."""
    await asyncio.Event().wait()
    return {}


def _read(headers: list[tuple[bytes, bytes]]) -> Headers:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
