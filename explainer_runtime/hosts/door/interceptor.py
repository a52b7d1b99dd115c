"""The door of the gRPC server: token, management methods, size, and who is asking.

Every method is answered as a stream of bytes in both directions, which on the wire is no different. So
nothing is read before the metadata has opened the door, a message has its time to arrive in, and it is
unpacked, counted and parsed here, aside from the event loop, rather than by gRPC on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from explainer_runtime.hosts.door import messages
from explainer_runtime.hosts.door.aside import SMALL, aside
from explainer_runtime.hosts.door.desk import Desk
from explainer_runtime.hosts.door.jobs_grpc import deferring
from explainer_runtime.hosts.door.limits import Guard, TooLarge
from explainer_runtime.hosts.door.room import VALUE, NoRoom, Room, Share
from explainer_runtime.hosts.door.tokens import Tokens, mark
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.service.caller import Caller
from explainer_runtime.hosts.service.tracing import incoming

_log = logging.getLogger("explainer_runtime.grpc")
_HEALTH = ("ServerLive", "ServerReady")
_SLOW = 1.0
"""Seconds after which a message that has not come is slow."""
_SLOW_ONES = 8


class Interceptor(grpc.aio.ServerInterceptor):
    """Interceptor with an operator's limits; see `gate.Gate`.

    Args:
        guard: The limits.
        traffic: Where calls are counted.
        room: What they hold together.
        tokens: Of which one opens the door; None lets everyone in.
        max_message: Bytes of one message, as sent and as unpacked.
        desk: Where explanations are taken that outlive their connection.
    """

    def __init__(
        self,
        guard: Guard,
        traffic: Traffic,
        room: Room,
        tokens: Tokens | None,
        max_message: int,
        desk: Desk | None = None,
    ) -> None:
        self._desk = desk
        self._guard, self._traffic, self._room, self._most = guard, traffic, room, max_message
        # A certificate that gRPC has asked for and checked needs no token.
        self._tokens = None if guard.tls_client_ca else tokens
        self._arrivals = Arrivals(max(_SLOW_ONES, room.most // max_message))

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of one call, or one that refuses."""
        handler = await continuation(details)
        if handler is None:
            return None
        name = details.method.rpartition("/")[2]
        metadata = dict(details.invocation_metadata or ())
        if name in _HEALTH:
            if name == "ServerReady" and self._traffic.leaving:
                return _refusing(StatusCode.UNAVAILABLE, "the server is stopping")
            return grpc.stream_stream_rpc_method_handler(_unread(handler))
        if self._tokens is not None and not self._tokens.admits(metadata.get("authorization")):
            return _refusing(StatusCode.UNAUTHENTICATED, "expected metadata authorization: Bearer <token>")
        if not self._guard.management and name.startswith("Repository"):
            return _refusing(StatusCode.PERMISSION_DENIED, "the management API is off")
        if self._desk is not None and name == "ModelInfer":
            said = details.invocation_metadata or ()
            handler = deferring(handler, self._desk, said, self._guard.max_body)
        return grpc.stream_stream_rpc_method_handler(self._answering(handler, metadata))

    def _answering(self, handler: Any, metadata: dict[str, str | bytes]) -> Callable[..., Any]:
        async def answer(raw: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            caller = self._enter(metadata, context)
            telling = _Telling(context, caller)
            with self._room.share() as share, self._traffic.of(caller), incoming(_words(metadata)):
                caller.hold = share.hold
                requests = self._requests(raw, handler.request_deserializer, share, context)
                try:
                    async for response in _responses(handler, requests, telling):
                        yield handler.response_serializer(response)
                except grpc.aio.AbortError as error:
                    raise forgetful(error) from None
                except Exception:  # gRPC would tell the caller its class
                    _log.exception("unexpected error")
                    await context.abort(StatusCode.INTERNAL, "internal error")
                finally:
                    await requests.aclose()
                    with suppress(RuntimeError):  # it is still being waited for, and ends by itself
                        await aiter(raw).aclose()  # type: ignore[attr-defined]  # it knows itself, and a message

        return answer

    async def _requests(
        self, raw: AsyncIterator[bytes], parse: Callable[[bytes], Any], share: Share, context: Any
    ) -> AsyncGenerator[Any]:
        """The messages of a call, each in its time and within the limits; what is not ends the call."""
        for index in count():
            refusal = StatusCode.FAILED_PRECONDITION, messages.NO_MESSAGE
            try:
                message = await self._arrivals.next(raw, self._guard.body_seconds)
                if message is None:
                    return
                if len(message) > self._most:
                    raise TooLarge(f"expected at most {self._most} bytes")
                share.take(len(message) - share.held)
                small = len(message) <= SMALL and not messages.packed(message)
                work = self._parsed, message, parse, share
                request = self._parsed(message, parse, share) if small else await aside(*work)
            except TimeoutError:
                if index:  # a stream that has had its answer, and asks nothing more
                    return
                refusal = StatusCode.DEADLINE_EXCEEDED, "body: did not arrive in time"
            except NoRoom:
                refusal = (
                    StatusCode.UNAVAILABLE,
                    "the requests being answered leave no room for this one",
                )
            except TooLarge as error:
                refusal = StatusCode.RESOURCE_EXHAUSTED, f"body: {error}"
            except DecodeError:
                pass
            except ValueError as error:
                refusal = StatusCode.FAILED_PRECONDITION, str(error)
            else:
                yield request
                continue
            await context.abort(*refusal)

    def _parsed(self, message: bytes, parse: Callable[[bytes], Any], share: Share) -> Any:
        plain = messages.unpacked(message, self._most)
        if plain is not message:
            share.take(len(plain))
        share.take(VALUE * messages.count(plain, self._guard.bounds))
        return parse(plain)

    def _enter(self, metadata: dict[str, str | bytes], context: Any) -> Caller:
        named = metadata.get((self._guard.client_header or "").lower())
        # A peer is "ipv4:10.0.0.7:51312": each connection has a port of its own.
        token = mark(metadata.get("authorization")) if self._tokens else ""
        caller = Caller(str(named or context.peer().rpartition(":")[0]), token=token)
        caller.enter()
        return caller


def forgetful(error: grpc.aio.AbortError) -> grpc.aio.AbortError:
    """`error` without the calls that it came from.

    gRPC keeps it with the call, which those know: message and rows would stay until garbage is looked for.
    """
    error.__context__ = None
    return error.with_traceback(None)


async def _responses(handler: Any, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """What a handler answers, whether it takes one message or a stream of them."""
    if handler.unary_unary is None:
        async for response in handler.stream_stream(requests, context):
            yield response
        return
    async for request in requests:
        yield await handler.unary_unary(request, context)
        return
    await context.abort(StatusCode.FAILED_PRECONDITION, messages.NO_MESSAGE)


class Arrivals:
    """Messages on their way, of which only so many may be slow.

    gRPC has room for each as soon as it is waited for, however slowly it comes.

    Args:
        most: How many slow ones are waited for; then the one that has taken longest is given up.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._slow: dict[asyncio.Future[bytes | None], None] = {}

    async def next(self, raw: AsyncIterator[bytes], seconds: float) -> bytes | None:
        """The next message, or None at the end.

        Raises:
            TimeoutError: It did not come in that many seconds, or had to be given up.
        """
        reading = asyncio.ensure_future(_next(raw))
        try:
            await asyncio.wait({reading}, timeout=_SLOW)
            if not reading.done():
                if len(self._slow) >= self._most:
                    next(iter(self._slow)).cancel()
                self._slow[reading] = None
                await asyncio.wait({reading}, timeout=seconds - _SLOW)
            if not reading.done() or reading.cancelled():
                raise TimeoutError
            return reading.result()
        finally:
            self._slow.pop(reading, None)
            reading.cancel()


async def _next(raw: AsyncIterator[bytes]) -> bytes | None:
    return await anext(raw, None)


def _words(metadata: dict[str, str | bytes]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


class _Telling:
    """A call's context that adds to a refusal when to try again."""

    def __init__(self, context: Any, caller: Caller) -> None:
        self._context, self._caller = context, caller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        after = self._caller.retry_after
        if after is not None:
            trailing_metadata = (*trailing_metadata, ("retry-after", str(after)))
        await self._context.abort(code, details, trailing_metadata)


def _unread(handler: Any) -> Callable[..., Any]:
    """Answers a probe, whose message says nothing, without reading it."""

    async def answer(raw: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        response = await handler.unary_unary(handler.request_deserializer(b""), context)
        yield handler.response_serializer(response)

    return answer


def _refusing(code: StatusCode, message: str) -> Any:
    async def refuse(raw: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(code, message)
        yield b""

    return grpc.stream_stream_rpc_method_handler(refuse)
