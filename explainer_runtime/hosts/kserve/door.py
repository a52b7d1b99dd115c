"""The door of KServe's own server: `gate.py`, with what differs between the two servers evened out.

KServe's app routes and parses by itself, and takes bodies of binary tensors, of which only the head is JSON.
It knows strings as parameters only, and an explanation's options are an object.
"""

from __future__ import annotations

from typing import Any

import orjson

from explainer_runtime.hosts.door import documents
from explainer_runtime.hosts.door.gate import Gate
from explainer_runtime.hosts.door.room import VALUE, Share

_OPTIONS = "explain_parameters"
_HEAD = b"inference-header-content-length"


class KServeDoor(Gate):
    """ASGI middleware around KServe's app; see `Gate`."""

    open_paths = ("/", "/metrics", *Gate.open_paths)

    def _read(
        self, raw: bytearray, encoding: bytes, headers: dict[bytes, bytes], share: Share
    ) -> tuple[bytes, Any]:
        if _HEAD not in headers:
            body, document = super()._read(raw, encoding, headers, share)
            return _as_text(body, document), document
        length = headers[_HEAD]
        if encoding != b"identity" or not length.isdigit() or int(length) > len(raw):
            raise ValueError("body: expected a V2 request as JSON, and tensors as bytes behind it")
        marks = documents.scan(bytes(raw[: int(length)]), self._guard.bounds)
        share.take(VALUE * marks.values)
        return bytes(raw), None


def _as_text(body: bytes, document: Any) -> bytes:
    """A V2 request whose options are an object, with the same as a string; any other body as it is."""
    try:
        options = document["parameters"][_OPTIONS]
        if not isinstance(options, dict) or "inputs" not in document:
            return body
    except (KeyError, TypeError):
        return body
    parameters = {**document["parameters"], _OPTIONS: orjson.dumps(options).decode()}
    return orjson.dumps({**document, "parameters": parameters})
