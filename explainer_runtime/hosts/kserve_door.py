"""The door of KServe's own server, which has none: what `gate.py` is to MLServer's, as far as it goes here.

KServe's app routes and parses by itself. Around it stands what an operator has configured for any host: a
token, the size of a body, the management API, a stop that loses nothing. And one difference between the two
servers is evened out: KServe takes strings as parameters only, and an explanation's options are an object.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from explainer_runtime.hosts.caller import Caller
from explainer_runtime.hosts.gate import App, Message, Receive, Scope, Send, _answer, refuse
from explainer_runtime.hosts.limits import Guard
from explainer_runtime.hosts.tokens import Tokens
from explainer_runtime.hosts.traffic import Traffic

_HEALTH = ("/", "/v2/health/live", "/v2/health/ready", "/metrics")
_OPTIONS = "explain_parameters"


class KServeDoor:
    """ASGI middleware around KServe's app.

    Args:
        app: KServe's.
        guard: The operator's limits.
        traffic: Where requests are counted.
    """

    def __init__(self, app: App, guard: Guard, traffic: Traffic) -> None:
        self._app, self._guard, self._traffic = app, guard, traffic
        self._tokens = Tokens(guard.token_file) if guard.token_file else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, headers = scope["path"], dict(scope["headers"])
        if path in _HEALTH:
            if self._traffic.leaving and path.endswith("ready"):
                return await refuse(send, 503, "the server is stopping")
            return await self._app(scope, receive, send)
        if self._tokens is not None and not self._tokens.admits(headers.get(b"authorization")):
            extra = {"www-authenticate": "Bearer"}
            return await refuse(send, 401, "expected authorization: Bearer <token>", extra)
        if not self._guard.management and path.startswith("/v2/repository"):
            return await refuse(send, 403, "the management API is off")
        try:
            body = await self._body(receive)
        except TimeoutError:
            return await refuse(send, 408, "body: did not arrive in time")
        if body is None:
            return await refuse(send, 413, f"body: expected at most {self._guard.max_body} bytes")
        if b"inference-header-content-length" not in headers:
            body = _as_text(body)
        sizes = (b"content-length", b"transfer-encoding")
        rest = [pair for pair in scope["headers"] if pair[0] not in sizes]
        scope = {**scope, "headers": [*rest, (b"content-length", b"%d" % len(body))]}
        caller = Caller(self._name(scope, headers))
        caller.enter()
        with self._traffic.of(caller):
            return await _answer(self._app, scope, body, caller, receive, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body; None where it is too large."""
        body = bytearray()
        async with asyncio.timeout(self._guard.body_seconds):
            while True:
                message: Message = await receive()
                body += message.get("body", b"")
                if len(body) > self._guard.max_body:
                    return None
                if not message.get("more_body"):
                    return bytes(body)

    def _name(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        named = headers.get((self._guard.client_header or "").lower().encode())
        return named.decode("latin-1") if named else str((scope.get("client") or ("",))[0])


def _as_text(body: bytes) -> bytes:
    """A V2 request whose options are an object, with the same as a string; any other body as it is."""
    if f'"{_OPTIONS}"'.encode() not in body:
        return body
    try:
        document: Any = orjson.loads(body)
        options = document["parameters"][_OPTIONS]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body
    if not isinstance(options, dict) or "inputs" not in document:
        return body
    document["parameters"][_OPTIONS] = orjson.dumps(options).decode()
    return orjson.dumps(document)
