"""What an operator allows a server's clients, and gzip that is unpacked no further than that.

MLServer limits none of it: a body is read whole, a gzip body is inflated whole (half a megabyte can become
gigabytes), and what is in it is left to whatever parses it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from explainer_runtime.hosts.door.documents import Bounds
from explainer_runtime.spec import Value

_STEP = 64 * 1024


class Guard(Value):
    """What an operator configures for a whole server; the defaults are safe."""

    max_body: PositiveInt = 16 * 2**20
    """Bytes of one REST body, as sent and as inflated."""
    max_depth: Annotated[int, Field(ge=4, le=500)] = 32
    """Levels of nesting in one JSON body."""
    max_values: PositiveInt = 2_500_000
    """Values in one body or message: numbers, texts, lists. Sixteen images of 224x224x3 have 2.4 million."""
    max_names: Annotated[int, Field(ge=100)] = 10_000
    """Names, texts and objects in one body, or fields in one gRPC message; rows are none of these."""
    max_in_flight: PositiveInt = 256 * 2**20
    """Bytes that all requests together may hold, as sent, unpacked and parsed; at least what one takes."""
    max_connections: Annotated[int, Field(ge=1)] = 512
    """Connections at one port. Beyond that the one that has been silent longest is closed; where none is
    silent, new ones are answered about health only."""
    header_seconds: PositiveFloat = 10.0
    """Seconds in which a new connection has to ask something, and the header of a request to arrive."""
    keepalive_seconds: PositiveFloat = 75.0
    """Seconds for which a connection is kept between requests: longer than a load balancer keeps its own."""
    body_seconds: PositiveFloat = 30.0
    """Seconds in which a body has to arrive."""
    management: bool = False
    """Whether `/v2/repository` and its gRPC methods, which load and unload models, may be used."""
    token_file: Path | None = None
    """File of bearer tokens, one a line, of which a request must carry one; read again when it changes.
    Health may always be asked. None lets everyone in."""
    tls_cert: Path | None = None
    """PEM file of the certificate chain for REST and gRPC; read again when it changes. None is no TLS."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    tls_client_ca: Path | None = None
    """PEM file of authorities: a client who shows a certificate of theirs needs no token."""
    client_header: str | None = None
    """Header that names the client, for fairness behind a proxy; None goes by the address."""
    grace: Annotated[float, Field(ge=0)] = 25.0
    """Seconds that running requests have to finish in after SIGTERM."""
    linger: Annotated[float, Field(ge=0)] = 0.0
    """Seconds after SIGTERM in which new requests are still answered, while readiness already says no."""

    @model_validator(mode="after")
    def _check_tls(self) -> Guard:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("expected tls_cert and tls_key together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: expected tls_cert and tls_key beside it")
        return self

    @property
    def bounds(self) -> Bounds:
        """What one document may hold."""
        return Bounds(self.max_depth, self.max_values, self.max_names)


class TooLarge(ValueError):
    """More bytes than are allowed."""


def inflate(body: bytes, most: int) -> bytes:
    """A gzip or zlib body unpacked; never more than `most` bytes.

    Its size is found first, without keeping anything, so that a bomb costs no memory.

    Raises:
        TooLarge: It would be larger than `most`.
        ValueError: It is not one complete stream.
    """
    size = 0
    for part in _inflated(body):
        size += len(part)
        if size > most:
            raise TooLarge(f"expected at most {most} bytes, also after unpacking gzip")
    return b"".join(_inflated(body))


def _inflated(body: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=47)  # either header
    try:
        for start in range(0, len(body), _STEP):  # in pieces: what is left over is copied each time
            rest = body[start : start + _STEP]
            while rest and not stream.eof:
                yield stream.decompress(rest, _STEP)
                rest = stream.unconsumed_tail
            if stream.eof:
                complete = start + _STEP >= len(body) and not stream.unused_data
                break
        else:
            complete = False
    except zlib.error:
        raise ValueError("expected gzip, as content-encoding says") from None
    # Several streams one after another are legal gzip, but no client sends them.
    if not complete:
        raise ValueError("expected one complete gzip stream")
