"""What a request may be before anybody parses it: how large, how large unpacked, how deeply nested.

MLServer limits none of these: a body is read whole, a gzip body is inflated whole (half a megabyte can become
gigabytes), and nesting is left to whatever recurses into it. The functions here are pure, work on bytes and
hold no more memory than the limit allows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from explainer_runtime.spec import Value

_STEP = 64 * 1024
_OTHERS = bytes(set(range(256)) - set(b'[]{}"\\'))


class Guard(Value):
    """What an operator configures for a whole server; the defaults are safe."""

    max_body: PositiveInt = 16 * 2**20
    """Bytes of one REST body, as sent and as inflated."""
    max_depth: Annotated[int, Field(ge=4, le=500)] = 32
    """Levels of nesting in one JSON body."""
    body_seconds: PositiveFloat = 30.0
    """Seconds in which a body has to arrive."""
    management: bool = False
    """Whether `/v2/repository` and its gRPC methods, which load and unload models, may be used."""
    token_file: Path | None = None
    """File of bearer tokens, one a line, of which a request must carry one; read again when it changes.
    Health may always be asked. None lets everyone in."""
    client_header: str | None = None
    """Header that names the client, for fairness behind a proxy; None goes by the address."""
    grace: Annotated[float, Field(ge=0)] = 25.0
    """Seconds that running requests have to finish in after SIGTERM."""
    linger: Annotated[float, Field(ge=0)] = 0.0
    """Seconds after SIGTERM in which new requests are still answered, while readiness already says no."""


class TooLarge(ValueError):
    """More bytes than are allowed."""


def inflate(body: bytes, most: int) -> bytes:
    """A gzip body unpacked; never more than `most` bytes.

    Its size is found first, without keeping anything, so that a bomb costs no memory.

    Raises:
        TooLarge: It would be larger than `most`.
        ValueError: It is not one complete gzip stream.
    """
    size = 0
    for part in _inflated(body):
        size += len(part)
        if size > most:
            raise TooLarge(f"expected at most {most} bytes, also after unpacking gzip")
    return b"".join(_inflated(body))


def _inflated(body: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=31)
    rest = body
    try:
        while rest and not stream.eof:
            yield stream.decompress(rest, _STEP)
            rest = stream.unconsumed_tail
    except zlib.error:
        raise ValueError("expected gzip, as content-encoding says") from None
    # Several streams one after another are legal gzip, but no client sends them.
    if not stream.eof or stream.unused_data:
        raise ValueError("expected one complete gzip stream")


def check_depth(body: bytes, most: int) -> None:
    """Refuse JSON nested deeper than `most`; what is no JSON passes, for the parser to refuse.

    Brackets are counted, those within strings left out, without parsing: numbers fall away first, so that
    a body of numbers costs next to nothing.

    Raises:
        ValueError: With what is allowed.
    """
    marks = body.translate(None, _OTHERS)
    if b"\\" in marks:
        # Escapes pair off from the left; what then precedes a quote escapes it.
        marks = _unescaped(body)
    depth, inside = 0, False
    for start in range(0, len(marks), _STEP):
        part = np.frombuffer(marks, np.uint8, min(_STEP, len(marks) - start), start)
        quoted = (np.cumsum(part == ord('"')) + inside) % 2 == 1
        opens = ((part == ord("[")) | (part == ord("{"))) & ~quoted
        closes = ((part == ord("]")) | (part == ord("}"))) & ~quoted
        levels = depth + np.cumsum(opens.astype(np.int64) - closes)
        if levels.max() > most:
            raise ValueError(f"expected at most {most} levels of nesting")
        depth, inside = int(levels[-1]), bool(quoted[-1])


def _unescaped(body: bytes) -> bytes:
    return body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _OTHERS).replace(b"\\", b"")
