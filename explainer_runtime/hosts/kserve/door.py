"""The door of KServe's own server: `gate.py`, with what differs between the two servers evened out.

KServe's app routes and parses by itself, and takes bodies of binary tensors, of which only the head is JSON.
It knows strings as parameters only, and an explanation's options are an object.
"""

from __future__ import annotations

from typing import Any

import orjson

from explainer_runtime.hosts.door.gate import HEAD, Gate
from explainer_runtime.hosts.door.room import Share

_OPTIONS = "explain_parameters"


class KServeDoor(Gate):
    """ASGI middleware around KServe's app; see `Gate`."""

    open_paths = ("/", "/metrics", *Gate.open_paths)

    def _read(
        self, raw: bytearray, encoding: bytes, headers: dict[bytes, bytes], share: Share
    ) -> tuple[bytes, Any]:
        body, document = super()._read(raw, encoding, headers, share)
        if HEAD not in headers:
            return _as_text(body, document), document
        inputs = document.get("inputs") if isinstance(document, dict) else None
        for tensor in inputs if isinstance(inputs, list) else ():
            if isinstance(tensor, dict) and tensor.get("datatype") == "BYTES":
                # KServe makes text of them, and fails where they are none.
                raise ValueError("inputs[0].datatype: BYTES are not read as binary tensors here; send base64")
        return body, document


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
