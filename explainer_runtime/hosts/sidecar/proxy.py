"""The sidecar's REST side: explanations are answered here, everything else by the model next door.

In this mode all traffic of a pod reaches us first, and clients of the model must not notice: a request that
is not for an explainer goes to the model's port and its answer comes back as they are, piece by piece, with
all headers but those that HTTP defines for one connection only. Nothing is parsed, unpacked or limited on
the way. The explainer's own door (limits, token, logs) stands behind this one.

What is for an explainer is told by the path: any explain verb, for whatever model's name (the pod has one
model; a name that is no explainer's stands for the first), and everything under an explainer's own name,
unless the model has the same. The decision is taken on the scope's path, as in `gate.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from urllib.parse import urlsplit

import h11

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.door.gate import App, Receive, Scope, Send, refuse
from explainer_runtime.hosts.sidecar.upstream import BrokenOff, Unreachable, Upstream

PROBES = {
    "/explain/live": "/v2/health/live",
    "/explain/ready": "/v2/health/ready",
    "/explain/models": "/v2/models",
}
"""Where to ask for our own health, and what we serve; `/v2/health` and `/v2/models` are the model's."""

_SELDON = re.compile(r"(/api/v[01]\.[01])?/explain")
_VERB = re.compile(
    r"(?P<before>/v[12]/models/)(?P<name>[^/:]+)"
    r"(?P<after>(?P<version>/versions/[^/]+)?/explain|:explain|/explanations(/[^/]+(/result)?)?)"
)
_OWN = re.compile(r"/v[12]/models/(?P<name>[^/:]+)([/:].*)?")

# RFC 9110, section 7.6.1: these are about one connection. `transfer-encoding` is kept for the libraries on
# both sides, which frame the body anew as it says.
_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"}
# Whoever names these in `connection` asks for a message without its end, or without its host.
_NEVER = {b"content-length", b"transfer-encoding", b"host"}


class Proxy:
    """ASGI middleware that sends what is not for an explainer to the model.

    Args:
        app: Our own server.
        upstream: The model's REST address, `http://host:port`.
        explainers: Names under which explainers are served; the first answers for the model's name.
        model: The model's name, where an explainer has it too.
        counted: Entered while a request is passed on, so that a server that stops waits for it.
        pages: Paths that we answer besides; `/` is the model's all the same.

    Raises:
        InvalidSpec: The address is none.
    """

    def __init__(
        self,
        app: App,
        upstream: str,
        explainers: Sequence[str],
        model: str | None = None,
        counted: Callable[[], AbstractContextManager[None]] = nullcontext,
        pages: Collection[str] = (),
    ) -> None:
        parts = urlsplit(upstream)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise InvalidSpec(f"upstream: expected http://host:port, got {upstream!r}")
        self._app, self._counted, self._pages = app, counted, frozenset(pages)
        self._first = explainers[0]
        self._explainers, self._own = set(explainers), set(explainers) - {model}
        self._upstream = Upstream(parts.hostname, parts.port or 80)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, here or there."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["method"] == "CONNECT":
            return await refuse(send, 405, "method: CONNECT is not relayed")
        path = self.ours(scope["path"])
        if path is None:
            with self._counted():
                return await self._forward(scope, receive, send)
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        return await self._app(scope, receive, send)

    async def close(self) -> None:
        """Let go of connections to the model."""
        await self._upstream.close()

    def ours(self, path: str) -> str | None:
        """The path under which our server answers this one; None if the model does."""
        if path in PROBES:
            return PROBES[path]
        if path in self._pages or _SELDON.fullmatch(path):
            return path
        verb = _VERB.fullmatch(path)
        if verb:
            if verb["name"] in self._explainers:
                return path
            # A version, too, is the model's.
            return f"{verb['before']}{self._first}{verb['after'].removeprefix(verb['version'] or '')}"
        own = _OWN.fullmatch(path)
        return path if own and own["name"] in self._own else None

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward until the model has answered or the client has gone."""
        sent = asyncio.Event()
        body = _body(receive, sent) if _has_body(scope["headers"]) else None
        if body is None:
            sent.set()
        exchange = asyncio.ensure_future(self._exchange(scope, body, sent, send))
        watching = asyncio.ensure_future(_watch(receive, sent))
        try:
            await asyncio.wait({exchange, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            exchange.cancel()  # does nothing where it is done
        with suppress(asyncio.CancelledError, _Gone):
            await exchange

    async def _exchange(
        self, scope: Scope, body: AsyncIterator[bytes] | None, sent: asyncio.Event, send: Send
    ) -> None:
        method, headers = scope["method"].encode(), kept(scope["headers"])
        began = False
        try:
            async with aclosing(self._upstream.exchange(method, _target(scope), headers, body)) as answer:
                async for part in answer:
                    if isinstance(part, bytes):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                        continue
                    strange = _strange(part)
                    if strange is not None:
                        return await refuse(send, 502, f"the model answered with {strange}")
                    began = True
                    start = {"type": "http.response.start", "status": part.status_code}
                    # Answered while the client is still sending: the rest of that is not the next request.
                    ending = [] if sent.is_set() else [(b"connection", b"close")]
                    await send({**start, "headers": kept(part.headers.raw_items()) + ending})
            await send({"type": "http.response.body", "body": b""})
        except Unreachable as error:
            return await refuse(send, 503, f"the model cannot be reached: {error}")
        except BrokenOff as error:
            if began:  # the server ends the connection: half an answer must not be taken for a whole one
                return None
            return await refuse(send, 502, f"the model broke off: {error}")
        return None


def _target(scope: Scope) -> bytes:
    # As the client wrote it: decoding a path and encoding it again does not always give the same.
    target = bytes(scope.get("raw_path") or scope["path"].encode())
    return target + b"?" + scope["query_string"] if scope["query_string"] else target


def _strange(head: h11.Response) -> str | None:
    """What of an answer cannot be passed on."""
    if head.status_code > 599:
        return f"the status {head.status_code}"
    names = [name for name, _ in head.headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        return "content-length and transfer-encoding"
    return None


class _Gone(Exception):
    """The client hung up before its request was complete."""


async def _body(receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """The request's body as it arrives."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        if not message.get("more_body"):
            sent.set()
            return


async def _watch(receive: Receive, sent: asyncio.Event) -> None:
    """Return when the client has gone; that is heard only once its body has been read."""
    await sent.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


def kept(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """All headers but those of one connection."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    return [pair for pair in headers if pair[0].lower() not in _HOP | named - _NEVER]
