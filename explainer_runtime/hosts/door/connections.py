"""Connections: how many, how long they may be silent, and how they end.

uvicorn waits for ever for a client who has connected and says nothing, and one who opens a thousand such
connections takes every descriptor that the process has. Here a connection is either being answered or silent.
A silent one has some seconds to ask; at the limit the one that has been silent longest makes place for a new
one, and where all are being answered a few more are let in to ask about health, and about nothing else.

Under TLS a connection is one from the moment at which it is accepted: who does not shake hands is silent. So
the handshake is begun here; asyncio would tell nobody of a connection before its end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from explainer_runtime.hosts.door.gate import App, Receive, Scope, Send, closing, refuse

METRICS_CONNECTIONS = 64
"""Connections at the metrics port, which scrapers need a few of."""
SPARE = 16
"""Connections beyond the limit, which may ask about health."""
_LINGER = 2.0
"""Seconds in which a client may read an answer to what it is still sending."""
_LINGERING = 2**18
"""Bytes thrown away meanwhile."""


@dataclass(eq=False)
class Port:
    """The connections at one port.

    Attributes:
        most: How many there may be.
        seconds: For which one may be silent before it has asked, and in which a header must arrive.
        tls: What they shake hands by, if they do.
        silent: Those that wait to be asked something, the one that has waited longest first.
    """

    most: int
    seconds: float
    tls: ssl.SSLContext | None = None
    silent: dict[Connection | Handshake, None] = field(default_factory=dict)

    def protocol(self, *args: Any, **kwargs: Any) -> Connection | Handshake:
        """What uvicorn makes for each connection."""
        connection = Connection(self, *args, **kwargs)
        return Handshake(self, connection, self.tls) if self.tls else connection

    def spare(self, new: Connection | Handshake) -> bool:
        """Whether `new`, which is silent, is beyond the limit, and no other silent one could make place."""
        if len(new.connections) <= self.most:
            return False
        silent = next(iter(self.silent))
        if silent is new and len(new.connections) <= self.most + SPARE:
            return True
        silent.drop()
        return False


class Connection(H11Protocol):
    """One connection."""

    handshake: Handshake | None = None
    """What it was before."""

    def __init__(self, port: Port, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._port = port
        self._late: asyncio.TimerHandle | None = None
        self._lingering = 0

    def connection_made(self, transport: Any) -> None:
        """Let it in, or make place for it."""
        if self.handshake is not None:
            self.handshake.end()
        self._ending = _Ending(transport, self)
        super().connection_made(self._ending)  # type: ignore[arg-type]
        certificate = transport.get_extra_info("peercert")
        self._wait(self._port.seconds)
        spare = self._port.spare(self)
        self.app_state = {**self.app_state, "certificate": bool(certificate), "spare": spare}

    def data_received(self, data: bytes) -> None:
        """Go on reading a request, or throw away what comes behind its answer."""
        if self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.drop()
            return
        super().data_received(data)
        self._look(arrived=True)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and what had arrived: it goes now, not when garbage is looked for."""
        self._busy()
        super().connection_lost(exc)
        if self.cycle is None or self.cycle.response_complete:
            self.cycle = None  # type: ignore[assignment]
            self._ending.forget()

    def linger(self, transport: Any) -> None:
        """End with an answer that the client should hear, though it is still sending."""
        self._busy()
        self._lingering = _LINGERING
        self._wait(_LINGER)
        transport.write_eof()
        transport.resume_reading()

    def _look(self, arrived: bool = False) -> None:
        if self._lingering:
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._busy()
        else:
            self._wait(self._port.seconds if arrived else None)

    def _wait(self, seconds: float | None) -> None:
        """Be silent. Without `seconds`, uvicorn ends it after `keepalive_seconds`."""
        self._port.silent.setdefault(self)
        if seconds is not None and self._late is None:
            self._late = self.loop.call_later(seconds, self.drop)

    def _busy(self) -> None:
        self._port.silent.pop(self, None)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def drop(self) -> None:
        """End it without a word."""
        self._busy()
        self.connections.discard(self)
        if self.transport is not None:
            self.transport.abort()


class Handshake(asyncio.Protocol):
    """A connection that is not yet one: it counts, is silent, and has as long to shake hands as to ask."""

    def __init__(self, port: Port, connection: Connection, tls: ssl.SSLContext) -> None:
        self._port, self._connection, self._tls = port, connection, tls
        self.connections, connection.handshake = connection.connections, self

    def connection_made(self, transport: Any) -> None:
        """Begin. Nothing has been read yet, so the socket may have another transport, which reads TLS."""
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        transport.abort()
        self.connections.add(self)  # type: ignore[arg-type]  # uvicorn wants `shutdown` of it, and no more
        self._port.silent[self] = None
        self._shaking = self._connection.loop.create_task(self._shake())
        self._port.spare(self)

    async def _shake(self) -> None:
        with suppress(OSError):  # of which `ssl.SSLError` and `TimeoutError` are some
            await self._connection.loop.connect_accepted_socket(
                lambda: self._connection,
                self._socket,
                ssl=self._tls,
                ssl_handshake_timeout=self._port.seconds,
            )
        self.end()

    def end(self) -> None:
        """Count no more."""
        self.connections.discard(self)
        self._port.silent.pop(self, None)
        self._connection.handshake = None

    def drop(self) -> None:
        """End it without a word."""
        self.end()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    shutdown = drop


class _Ending:
    """A transport that, when it is closed while the client is sending, closes one direction first.

    Closing both would reset the connection, and the answer would be lost on its way.
    """

    def __init__(self, transport: Any, connection: Connection) -> None:
        self._transport = transport
        self._connection: Connection | None = connection

    def forget(self) -> None:
        self._connection = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        connection = self._connection
        sending = connection is not None and connection.conn.their_state is h11.SEND_BODY
        if connection and sending and self._transport.can_write_eof() and not self._transport.is_closing():
            connection.linger(self._transport)
        else:
            self._transport.close()


def framed(app: App) -> App:
    """`app`, without requests of which two servers might see different ends (RFC 9112, section 6.3)."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = [name for name, _ in scope["headers"]]
            if b"content-length" in names and b"transfer-encoding" in names:
                return await refuse(
                    closing(send), 400, "expected content-length or transfer-encoding, got both"
                )
        return await app(scope, receive, send)

    return checked


def open_files() -> None:
    """Allow as many open files as may be allowed: the usual 1,024 are fewer than two ports' connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65536
    if soft != resource.RLIM_INFINITY and soft < min(wanted, 65536):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 65536), hard))
