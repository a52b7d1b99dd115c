"""The model's side of a relay: HTTP/1.1 connections, each used for one exchange at a time.

A client's library sends a whole request before it looks at the answer, and keeps a connection whatever came
behind that. A relay may do neither: a server that refuses a body early is heard while the body is still
coming, and a connection on which anything was left over, or on which the model said something without being
asked, is thrown away: it would be the answer of the next client. The protocol itself is h11's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import h11

Headers = Sequence[tuple[bytes, bytes]]

_PIECE = 64 * 1024
_CONNECT_SECONDS = 5.0
# Closed before the model closes it (uvicorn does after 5 s), so that nothing is sent into a closed one.
_KEEPALIVE = 3.0
_MOST_IDLE = 64


class Unreachable(Exception):
    """The model takes no connection."""


class BrokenOff(Exception):
    """The model ended the connection, or answered with something that is no HTTP/1.1 of its own."""


class Upstream:
    """Connections to one server. Opened on the event loop that uses it.

    Args:
        host: Its name or address.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[_Connection] = []

    async def exchange(
        self, method: bytes, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> AsyncGenerator[h11.Response | bytes, None]:
        """One request, and what comes back: the head of the answer, then its body as it comes.

        Raises:
            Unreachable: The model takes no connection; nothing was sent.
            BrokenOff: It did not answer, or not in whole.
            Exception: Whatever `body` raises.
        """
        connection = await self._taken()
        sending: asyncio.Future[None] | None = None
        try:
            await connection.send(h11.Request(method=method, target=target, headers=list(headers)))
            sending = asyncio.ensure_future(connection.send_body(body))
            async for event in connection.answer(sending):
                yield event
            if sending.done() and connection.clean:
                self._keep(connection)
        except h11.ProtocolError as error:
            raise BrokenOff("what it sent is no HTTP/1.1 answer") from error
        except (OSError, EOFError) as error:
            raise BrokenOff(str(error) or "the connection was lost") from error
        finally:
            if sending is not None:
                sending.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await sending
            if connection not in self._idle:
                connection.close()

    async def close(self) -> None:
        """Close what is open and rests."""
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # sockets are let go of in the loop's next turn

    async def _taken(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.silent:
                connection.wake()
                return connection
            connection.close()
        loop, reader = asyncio.get_running_loop(), _Reader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, _ = await loop.create_connection(lambda: protocol, self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise Unreachable(str(error) or "no connection in time") from error
        return _Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def _keep(self, connection: _Connection) -> None:
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
            connection.rest(self._forget)

    def _forget(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
            connection.close()


class _Reader(asyncio.StreamReader):
    """A reader that knows how many bytes have come, whether or not anyone has asked for them."""

    come = 0

    def feed_data(self, data: Any) -> None:
        self.come += len(data)
        super().feed_data(data)


class _Connection:
    """One connection and the state of its exchange."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self._taken = 0
        self._resting: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing has come that was not asked for."""
        quiet = self._reader.come == self._taken and not self._writer.transport.is_closing()
        return quiet and not self._reader.at_eof()

    @property
    def clean(self) -> bool:
        """Whether both sides have said all, and nothing is left over."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return done and self._http.trailing_data == (b"", False) and self.silent

    async def send(self, event: h11.Event) -> None:
        """Send one event."""
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def send_body(self, body: AsyncIterator[bytes] | None) -> None:
        """Send the body of a request, and its end."""
        if body is not None:
            async for piece in body:
                await self.send(h11.Data(piece))
        await self.send(h11.EndOfMessage())

    async def answer(self, sending: asyncio.Future[None]) -> AsyncIterator[h11.Response | bytes]:
        """The head of an answer, then its body; a body that cannot be sent any more is no error by itself."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._read(sending))
            elif isinstance(event, h11.Response):
                yield event
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return
            elif event.status_code == 101:
                raise EOFError("it changes the protocol, which was not asked for")

    async def _read(self, sending: asyncio.Future[None]) -> bytes:
        reading = asyncio.ensure_future(self._reader.read(_PIECE))
        try:
            if not sending.done():
                both: set[asyncio.Future[Any]] = {reading, sending}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                failed = None if not sending.done() or sending.cancelled() else sending.exception()
                if failed is not None and not isinstance(failed, OSError):
                    raise failed  # the client's side
            data = await reading
            self._taken += len(data)
        finally:
            reading.cancel()
        if not data and self._http.their_state is h11.SEND_RESPONSE:
            raise EOFError("it closed the connection without an answer")
        return data

    def rest(self, ended: Callable[[_Connection], None]) -> None:
        """Be ready for the next exchange, for a while."""
        self._http.start_next_cycle()
        self._resting = asyncio.get_running_loop().call_later(_KEEPALIVE, ended, self)

    def wake(self) -> None:
        """Be used again."""
        if self._resting is not None:
            self._resting.cancel()

    def close(self) -> None:
        """Close it at once."""
        self.wake()
        self._writer.transport.abort()
