"""gRPC messages that a stranger sent: unpacked no further than is allowed, counted before they are parsed."""

from __future__ import annotations

import struct
from typing import Any

from explainer_runtime.hosts.door.documents import Bounds
from explainer_runtime.hosts.door.limits import inflate
from explainer_runtime.predictors.remote import counting, oip

_PACKED = (b"\x1f\x8b\x08", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How gzip and deflate begin: in protocol buffers, a wire type that is none and a field nobody has."""
NO_MESSAGE = "body: expected a V2 request"
_REQUEST = counting.layout(oip.ModelInferRequest)
"""Other requests have texts only, in fields that it has too."""


_DOUBLE = b"\x21"
"""Tag of `double_param`, field 4, eight bytes: Triton and KServe know it, MLServer does not."""


def parameters(message: Any) -> dict[str, Any]:
    """The parameters of a message, fractions among them, which MLServer's older messages do not know: they
    arrive as an unknown field, which protobuf keeps."""
    found = {}
    for name, value in message.parameters.items():
        known = value.WhichOneof("parameter_choice")
        if known is not None:
            found[name] = getattr(value, known)
        elif (unread := value.SerializeToString())[:1] == _DOUBLE and len(unread) == 9:
            found[name] = struct.unpack("<d", unread[1:])[0]
    return found


def packed(message: bytes) -> bool:
    """Whether a message was compressed."""
    return message.startswith(_PACKED)


def unpacked(message: bytes, most: int) -> bytes:
    """A message as it was before it was compressed.

    Raises:
        TooLarge: It would have more than `most` bytes.
        ValueError: It begins like gzip or deflate, and is neither.
    """
    return inflate(message, most) if packed(message) else message


def count(message: bytes, bounds: Bounds) -> int:
    """How many objects, texts and numbers a request will be, rows that came raw left out.

    Raises:
        ValueError: It is malformed, or exceeds `bounds`.
    """
    try:
        return counting.count(message, _REQUEST, bounds.names, bounds.values)
    except counting.Malformed:
        raise ValueError(NO_MESSAGE) from None
    except counting.TooMany as error:
        raise ValueError(f"body: {error}") from None
