"""The door of the REST server: plain ASGI around everything that MLServer routes.

It decides who and what comes in - token, management API, size, structure - before anything is parsed, and it
watches the connection while the request is answered, so that a client who hangs up stops its explanation.
A body that passes is parsed here, aside from the event loop; the document goes with the scope, where
`infer.py` and the explain routes find it. Everything is decided on the scope's path: the URL that frameworks
build from it can be bent by a Host header (CVE-2026-48710).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import orjson

from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.door import documents
from explainer_runtime.hosts.door.aside import SMALL, aside
from explainer_runtime.hosts.door.limits import Guard, TooLarge, inflate
from explainer_runtime.hosts.door.room import VALUE, NoRoom, Room, Share
from explainer_runtime.hosts.door.tokens import Tokens, mark
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.service.caller import Caller
from explainer_runtime.hosts.service.tracing import incoming
from explainer_runtime.tensors import attach

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DOCUMENT = "explainer_runtime.document"
"""Where in a scope the parsed body is."""
GIVEN = "explainer_runtime.caller"
"""Where in a scope its `Caller` is, if this process sends the request itself: a job, whose owner was let in
when it was asked for. No client has a way to write there."""

HEAD = b"inference-header-content-length"
"""Header of a body of which only so many bytes are JSON; what follows are its tensors."""
EXPLAINS = re.compile(r"[/:]explain$")
"""Paths that take pictures."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NO_JSON = "body: expected a V2 request as JSON, with content-type: application/json"


class Gate:
    """ASGI middleware with an operator's limits.

    Args:
        app: The server inside.
        guard: The limits.
        traffic: Where requests are counted.
        room: What they hold together.
        tokens: Of which one opens the door; None lets everyone in.
        opened: Where everyone may ask besides.

    Attributes:
        open_paths: Where everyone may ask, without a body: health.
    """

    open_paths: Sequence[str] = ("/v2/health/live", "/v2/health/ready")

    def __init__(
        self,
        app: App,
        guard: Guard,
        traffic: Traffic,
        room: Room,
        tokens: Tokens | None,
        opened: Sequence[str] = (),
    ) -> None:
        self.open_paths = (*self.open_paths, *opened)
        self._app, self._guard, self._traffic, self._room, self._tokens = app, guard, traffic, room, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers, state = _headers(scope), scope.get("state", {})
        # A long body that is refused here is not read: the connection ends with the answer.
        long = _declared(headers) > SMALL or b"transfer-encoding" in headers
        leave = closing(send) if long else send
        if self._traffic.leaving:
            send = leave = closing(send)
        path = scope["path"]
        if path in self.open_paths:
            if self._traffic.leaving and path.endswith("ready"):
                return await refuse(send, 503, "the server is stopping")
            return await self._app(scope, _nothing, leave)
        if state.get("spare"):
            return await refuse(closing(send), 503, "too many connections")
        if scope["method"] not in _METHODS:
            return await refuse(leave, 405, f"method: expected one of {', '.join(_METHODS)}")
        if GIVEN not in scope and not self._known(headers, state):
            return await refuse(leave, 401, self._expected, {"www-authenticate": "Bearer"})
        if not self._guard.management and path.startswith("/v2/repository"):
            return await refuse(leave, 403, "the management API is off")
        with self._room.share() as share:
            return await self._enter(scope, headers, share, receive, send)

    def _known(self, headers: dict[bytes, bytes], state: Any) -> bool:
        if state.get("certificate"):
            return True
        if self._tokens is not None:
            return self._tokens.admits(headers.get(b"authorization"))
        return self._guard.tls_client_ca is None

    @property
    def _expected(self) -> str:
        certificate = "a client certificate" if self._guard.tls_client_ca else ""
        token = "authorization: Bearer <token>" if self._tokens else ""
        return f"expected {' or '.join(filter(None, (token, certificate)))}"

    async def _enter(
        self, scope: Scope, headers: dict[bytes, bytes], share: Share, receive: Receive, send: Send
    ) -> None:
        try:
            body, document = await self._body(scope["path"], headers, share, receive)
        except TooLarge as error:
            # A little more is thrown away, so that the client hears of it and may go on.
            too_much = _declared(headers) > 4 * self._guard.max_body or b"transfer-encoding" in headers
            return await refuse(closing(send) if too_much else send, 413, f"body: {error}")
        except TimeoutError:
            return await refuse(closing(send), 408, "body: did not arrive in time")
        except NoRoom:
            return await refuse(closing(send), 503, "the requests being answered leave no room for this one")
        except _Unsupported as error:
            return await refuse(send, 415, f"content-encoding: {error}")
        except (ValueError, InvalidInput) as error:
            return await refuse(send, 422, str(error))
        except _Gone:
            return None
        scope = {**_unpacked(scope, len(body)), DOCUMENT: document}
        token = mark(headers.get(b"authorization")) if self._tokens else ""
        caller = scope.get(GIVEN) or Caller(self._name(scope, headers), token=token)
        caller.hold = share.hold
        caller.enter()
        try:
            with self._traffic.of(caller), incoming(_words(headers)):
                await _answer(self._app, scope, body, caller, receive, send)
        finally:
            if len(body) > SMALL:
                await aside(documents.scatter, document)
        return None

    async def _body(
        self, path: str, headers: dict[bytes, bytes], share: Share, receive: Receive
    ) -> tuple[bytes, Any]:
        """The body, unpacked, and what is written in it; None where there is none."""
        most = self._guard.max_body
        if _declared(headers) > most:
            raise TooLarge(f"expected at most {most} bytes, got {_declared(headers)}")
        body = bytearray()
        async with asyncio.timeout(self._guard.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                piece = message.get("body", b"")
                share.take(len(piece))
                body += piece
                if len(body) > most:
                    raise TooLarge(f"expected at most {most} bytes")
                if not message.get("more_body"):
                    break
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"gzip", b"identity"):
            raise _Unsupported("expected gzip or none")
        if not body:
            return b"", None
        if EXPLAINS.search(path) and HEAD not in headers and not says_json(headers.get(b"content-type")):
            packed = encoding == b"gzip"  # a picture, for `pictured.py` to look at
            return (await aside(self._inflated, body, share) if packed else bytes(body)), None
        if len(body) <= SMALL and encoding == b"identity":
            return self._read(body, encoding, headers, share)
        return await aside(self._read, body, encoding, headers, share)

    def _read(
        self, raw: bytearray, encoding: bytes, headers: dict[bytes, bytes], share: Share
    ) -> tuple[bytes, Any]:
        body = self._inflated(raw, share) if encoding == b"gzip" else bytes(raw)
        said, tail = body, b""
        if HEAD in headers:
            length = headers[HEAD]
            if encoding != b"identity" or not length.isdigit() or int(length) > len(raw):
                raise ValueError("body: expected a V2 request as JSON, and tensors as bytes behind it")
            said, tail = body[: int(length)], body[int(length) :]
        elif not says_json(headers.get(b"content-type")):
            raise ValueError(_NO_JSON)
        try:
            marks = documents.scan(said, self._guard.bounds)
        except ValueError as error:
            raise ValueError(_NO_JSON if str(error) == documents.NO_JSON else f"body: {error}") from None
        share.take(VALUE * marks.values)
        try:
            document = documents.loads(said, marks)
        except ValueError:
            raise ValueError(_NO_JSON) from None
        if HEAD in headers:
            attach(document, tail)
        return body, document

    def _inflated(self, raw: bytearray, share: Share) -> bytes:
        body = inflate(bytes(raw), self._guard.max_body)
        share.take(len(body))
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


def closing(send: Send) -> Send:
    """`send`, ending the connection with the answer."""

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_closing


async def _nothing() -> Message:
    """`receive` of a request whose body nobody wants."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _declared(headers: dict[bytes, bytes]) -> int:
    declared = headers.get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0


def says_json(content_type: bytes | None) -> bool:
    """Whether a body is JSON, as it says; one that says nothing is."""
    if content_type is None:
        return True
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
