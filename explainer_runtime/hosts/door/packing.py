"""Answers as gzip, for who accepts it, packed aside from the event loop."""

from __future__ import annotations

import gzip
from typing import Any

from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.door.gate import App, Message, Receive, Scope, Send

_WORTHWHILE = 1000
"""Bytes below which an answer stays as it is."""
_LEVEL = 5


class Packed:
    """ASGI middleware. An answer that comes in several pieces is a stream, and is passed on as it comes."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not _accepted(dict(scope["headers"])):
            return await self._app(scope, receive, send)
        start: Message = {}

        async def packing(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start:
                body, whole = message.get("body", b""), not message.get("more_body")
                said = {name.lower(): value for name, value in start.get("headers", ())}
                # A picture is packed already.
                large = len(body) >= _WORTHWHILE and not said.get(b"content-type", b"").startswith(b"image/")
                headers = [*start.get("headers", ()), (b"vary", b"accept-encoding")]
                if whole and large and b"content-encoding" not in said:
                    body = await aside(gzip.compress, body, _LEVEL)
                    message = {**message, "body": body}
                    headers = [(name, _weak(name, value)) for name, value in headers]
                    headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
                    length = b"%d" % len(body)
                    headers += [(b"content-encoding", b"gzip"), (b"content-length", length)]
                await send({**start, "headers": headers})
                start = {}
            await send(message)

        return await self._app(scope, receive, packing)


def _weak(name: bytes, value: bytes) -> bytes:
    """A header's value; a tag is of the answer as it was (RFC 9110, section 8.8.1)."""
    return b"W/" + value if name == b"etag" and value.startswith(b'"') else value


def _accepted(headers: dict[bytes, Any]) -> bool:
    return b"gzip" in headers.get(b"accept-encoding", b"").lower()
