"""The door of the REST server: plain ASGI around everything that MLServer routes.

It decides who and what comes in - token, management API, size, nesting - before anything is parsed, and it
watches the connection while the request is answered, so that a client who hangs up stops its explanation.
Everything is decided on the scope's path: the URL that frameworks build from it can be bent by a Host header
(CVE-2026-48710).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from explainer_runtime.hosts.caller import Caller
from explainer_runtime.hosts.limits import Guard, TooLarge, check_depth, inflate
from explainer_runtime.hosts.tokens import Tokens
from explainer_runtime.hosts.tracing import incoming
from explainer_runtime.hosts.traffic import Traffic

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SMALL = 64 * 1024
"""Bytes up to which a body is checked on the event loop; larger ones would make others wait."""


class Gate:
    """ASGI middleware with an operator's limits.

    Args:
        app: The server inside.
        guard: The limits.
        traffic: Where requests are counted.
    """

    def __init__(self, app: App, guard: Guard, traffic: Traffic) -> None:
        self._app, self._guard, self._traffic = app, guard, traffic
        self._tokens = Tokens(guard.token_file) if guard.token_file else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._traffic.leaving:
            send = _closing(send)
        path, headers = scope["path"], _headers(scope)
        if path in ("/v2/health/live", "/v2/health/ready"):
            if self._traffic.leaving and path.endswith("ready"):
                return await refuse(send, 503, "the server is stopping")
            return await self._app(scope, receive, send)
        if self._tokens is not None and not self._tokens.admits(headers.get(b"authorization")):
            extra = {"www-authenticate": "Bearer"}
            return await refuse(send, 401, "expected authorization: Bearer <token>", extra)
        if not self._guard.management and path.startswith("/v2/repository"):
            return await refuse(send, 403, "the management API is off")
        try:
            body = await self._body(headers, receive)
        except TooLarge as error:
            return await refuse(send, 413, f"body: {error}")
        except TimeoutError:
            return await refuse(send, 408, "body: did not arrive in time")
        except _Unsupported as error:
            return await refuse(send, 415, f"content-encoding: {error}")
        except ValueError as error:
            return await refuse(send, 422, f"body: {error}")
        except _Gone:
            return None
        scope = _unpacked(scope, len(body))
        caller = Caller(self._name(scope, headers))
        caller.enter()
        with self._traffic.of(caller), incoming(_words(headers)):
            await _answer(self._app, scope, body, caller, receive, send)
        return None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        most = self._guard.max_body
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise TooLarge(f"expected at most {most} bytes, got {int(declared)}")
        body = bytearray()
        async with asyncio.timeout(self._guard.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                body += message.get("body", b"")
                if len(body) > most:
                    raise TooLarge(f"expected at most {most} bytes")
                if not message.get("more_body"):
                    break
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"gzip", b"identity"):
            raise _Unsupported("expected gzip or none")
        if len(body) <= _SMALL and encoding == b"identity":
            return self._checked(bytes(body), encoding)
        return await asyncio.to_thread(self._checked, bytes(body), encoding)

    def _checked(self, body: bytes, encoding: bytes) -> bytes:
        if encoding == b"gzip":
            body = inflate(body, self._guard.max_body)
        check_depth(body, self._guard.max_depth)
        return body

    def _name(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        if self._guard.client_header is not None:
            named = headers.get(self._guard.client_header.lower().encode())
            if named:
                return named.decode("latin-1")
        return str((scope.get("client") or ("",))[0])


class _Gone(Exception):
    """The client hung up before its request was complete."""


class _Unsupported(Exception):
    """A content encoding that is not read."""


async def refuse(send: Send, status: int, message: str, headers: dict[str, str] | None = None) -> None:
    """Answer with V2's error body."""
    body = orjson.dumps({"error": message})
    lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    if status in (429, 503):
        lines.setdefault("retry-after", "1")
    pairs = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _answer(app: App, scope: Scope, body: bytes, caller: Caller, receive: Receive, send: Send) -> None:
    """Let the server answer; when the client hangs up before it has, or the server stops, stop it."""
    replay = iter([{"type": "http.request", "body": body, "more_body": False}])
    begun = complete = False

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def receive_again() -> Message:
        message = next(replay, None)
        if message is None:
            await asyncio.wait({watching})
            message = {"type": "http.disconnect"}
        return message

    async def send_noting(message: Message) -> None:
        nonlocal begun, complete
        begun = True
        complete = message["type"] == "http.response.body" and not message.get("more_body")
        await send(message)

    watching = asyncio.create_task(watch())
    answering = asyncio.ensure_future(app(scope, receive_again, send_noting))
    cut = asyncio.create_task(caller.cut.wait())
    try:
        await asyncio.wait({watching, answering, cut}, return_when=asyncio.FIRST_COMPLETED)
        if complete:  # a server says "disconnect" after a whole answer, too
            await asyncio.wait({answering})
    finally:
        gone = watching.done()
        watching.cancel()
        cut.cancel()
        if not answering.done():
            caller.gone.set()
            answering.cancel()
            await asyncio.wait({answering})
    if not answering.cancelled():
        answering.result()
    elif not begun and not gone:
        await refuse(send, 503, "the server stops, and could not wait for this request")


def _words(headers: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _unpacked(scope: Scope, length: int) -> Scope:
    """The scope of a request whose body was unpacked here."""
    skipped = (b"content-encoding", b"content-length", b"transfer-encoding")
    headers = [pair for pair in scope["headers"] if pair[0] not in skipped]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % length)]}


def _closing(send: Send) -> Send:
    """`send`, asking the client to come back by another connection."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing
