"""The sidecar's gRPC side: bytes in, bytes out, to the model next door, except for the explainers' own calls.

No message is parsed that is not for an explainer. Which model a call is about stands in the first field of
each message of the protocol that has one (`ModelInfer`, `ModelStreamInfer`, `ModelReady`, `ModelMetadata`),
so a look at a few bytes is enough. A method that is known to take one message is relayed as one; every other
method of every other service as a stream in both directions, which on the wire is no different. (Not the
other way round: grpcio loses the status of a stream that the server ends before it has read it.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc

from explainer_runtime.hosts.door import messages
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.predictors.remote.oip import SERVICE

_NAMED = {f"/{SERVICE}/{name}" for name in ("ModelInfer", "ModelReady", "ModelMetadata")}
_STREAM = f"/{SERVICE}/ModelStreamInfer"
_SINGLE = (f"/{SERVICE}/", "/inference.model_repository.", "/grpc.health.v1.Health/Check")
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_LARGEST = 2**31 - 1
"""Bytes of the largest message that protocol buffers know."""
# Transport's own; the libraries on both sides write theirs.
_RESERVED = ("user-agent", "content-type", "te", "grpc-")


class GrpcProxy(grpc.aio.ServerInterceptor):
    """Interceptor that relays what is not for an explainer.

    Args:
        target: The model's gRPC address, `host:port`.
        explainers: Names of explainers that the model does not have.
    """

    def __init__(self, target: str, explainers: Collection[str]) -> None:
        self._target = target
        self._explainers = {name.encode() for name in explainers}
        self._opened: Any = None

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of one call: the explainer's, or one that relays."""
        method = details.method
        if method.startswith(_SINGLE) and method != _STREAM:
            own = await continuation(details) if method in _NAMED else None
            return grpc.unary_unary_rpc_method_handler(self._single(method, own))
        own = await continuation(details) if method == _STREAM else None
        return grpc.stream_stream_rpc_method_handler(self._stream(method, own))

    def _single(self, method: str, own: Any) -> Callable[..., Any]:
        async def answer(request: bytes, context: Any) -> bytes:
            request = await _plain(request)
            if own is not None and model_name(request) in self._explainers:
                async for response in own.stream_stream(_only(request), context):
                    return bytes(response)
            call = self._channel().unary_unary(method)(
                request, timeout=context.time_remaining(), metadata=_passed(context.invocation_metadata())
            )
            try:
                response = await call
            except grpc.aio.AioRpcError as error:
                del request, call  # gRPC keeps what ends a call, and so this frame
                await _abort(context, error)
            await context.send_initial_metadata(_passed(await call.initial_metadata()))
            context.set_trailing_metadata(_passed(await call.trailing_metadata()))
            return bytes(response)

        return answer

    def _stream(self, method: str, own: Any) -> Callable[..., Any]:
        async def relay(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            if own is not None:
                first = await anext(requests, None)
                requests = _again(first, requests)
                if first is not None and model_name(await _plain(first)) in self._explainers:
                    async for response in own.stream_stream(requests, context):
                        yield response
                    return
            requests = _each_plain(requests)
            call = self._channel().stream_stream(method)(
                requests, timeout=context.time_remaining(), metadata=_passed(context.invocation_metadata())
            )
            try:
                await context.send_initial_metadata(_passed(await call.initial_metadata()))
                async for response in call:
                    yield response
                context.set_trailing_metadata(_passed(await call.trailing_metadata()))
            except grpc.aio.AioRpcError as error:
                await _abort(context, error)
            finally:
                call.cancel()

        return relay

    def _channel(self) -> Any:
        # Opened on the event loop that uses it.
        if self._opened is None:
            self._opened = grpc.aio.insecure_channel(self._target, options=_UNLIMITED)
        return self._opened


def model_name(message: bytes) -> bytes:
    """Field 1 of a serialized message, if it is text and comes first, as every serializer writes it."""
    if message[:1] != b"\x0a":
        return b""
    size, shift, at = 0, 0, 1
    while at < len(message) and shift < 35:
        size |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            return bytes(message[at : at + size])
    return b""


async def _again(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for message in rest:
        yield message


async def _abort(context: Any, error: grpc.aio.AioRpcError) -> None:
    """End the call as the model has ended it."""
    error.__traceback__ = None
    await context.abort(error.code(), error.details() or "", _passed(error.trailing_metadata()))


def _passed(metadata: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in metadata or () if not key.startswith(_RESERVED))


async def _plain(message: bytes) -> bytes:
    """A message as it was before it was compressed, which is left to whoever reads it."""
    if not messages.packed(message):
        return message
    try:
        return await aside(messages.unpacked, message, _LARGEST)
    except ValueError:
        return message  # not compressed after all


async def _each_plain(raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for message in raw:
        yield await _plain(message)


async def _only(message: bytes) -> AsyncIterator[bytes]:
    yield message
