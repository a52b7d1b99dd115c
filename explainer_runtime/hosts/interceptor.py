"""The door of the gRPC server: token, management methods, and who is asking.

Size is limited by gRPC itself, and a call that is cancelled cancels the coroutine that answers it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc import StatusCode

from explainer_runtime.hosts.caller import Caller
from explainer_runtime.hosts.limits import Guard
from explainer_runtime.hosts.tokens import Tokens
from explainer_runtime.hosts.tracing import incoming
from explainer_runtime.hosts.traffic import Traffic

_HEALTH = ("ServerLive", "ServerReady")


class Interceptor(grpc.aio.ServerInterceptor):
    """Interceptor with an operator's limits; see `gate.Gate`."""

    def __init__(self, guard: Guard, traffic: Traffic) -> None:
        self._guard, self._traffic = guard, traffic
        self._tokens = Tokens(guard.token_file) if guard.token_file else None

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
                return _refusing(handler, StatusCode.UNAVAILABLE, "the server is stopping")
            return handler
        if self._tokens is not None and not self._tokens.admits(metadata.get("authorization")):
            expected = "expected metadata authorization: Bearer <token>"
            return _refusing(handler, StatusCode.UNAUTHENTICATED, expected)
        if not self._guard.management and name.startswith("Repository"):
            return _refusing(handler, StatusCode.PERMISSION_DENIED, "the management API is off")
        return self._counted(handler, metadata)

    def _counted(self, handler: Any, metadata: dict[str, str | bytes]) -> Any:
        if handler.unary_unary is not None:

            async def answer(request: Any, context: Any) -> Any:
                caller = self._enter(metadata, context)
                with self._traffic.of(caller), incoming(_words(metadata)):
                    return await handler.unary_unary(request, _Telling(context, caller))

            return _like(handler, grpc.unary_unary_rpc_method_handler, answer)

        async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
            caller = self._enter(metadata, context)
            with self._traffic.of(caller), incoming(_words(metadata)):
                async for response in handler.stream_stream(requests, _Telling(context, caller)):
                    yield response

        return _like(handler, grpc.stream_stream_rpc_method_handler, stream)

    def _enter(self, metadata: dict[str, str | bytes], context: Any) -> Caller:
        named = metadata.get((self._guard.client_header or "").lower())
        # A peer is "ipv4:10.0.0.7:51312": each connection has a port of its own.
        caller = Caller(str(named or context.peer().rpartition(":")[0]))
        caller.enter()
        return caller


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


def _like(handler: Any, make: Callable[..., Any], behaviour: Any) -> Any:
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _refusing(handler: Any, code: StatusCode, message: str) -> Any:
    if handler.unary_unary is not None:

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(code, message)

        return _like(handler, grpc.unary_unary_rpc_method_handler, refuse)

    async def refuse_stream(requests: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(code, message)
        yield

    return _like(handler, grpc.stream_stream_rpc_method_handler, refuse_stream)
