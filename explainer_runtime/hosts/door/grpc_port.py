"""The gRPC port of somebody else's server: MLServer's and KServe's make one each, in modules of their own.

Both know few of gRPC's settings. So while they make it, what they call in gRPC's place is ours, which adds
the door's interceptors, its limits and its certificates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.tls import Tls

MAX_MESSAGE = 64 * 2**20
"""Bytes of one gRPC message; gRPC's own default of 4 MiB holds 1,300 images of 28x28."""
_IDENTITY_DEFLATE_GZIP = 0b111
_STREAMS = 256
"""Calls at a time on one connection; a client's others wait."""


def options(guard: Guard, connections: int, max_message: int) -> dict[str, int]:
    """gRPC's settings for a server with these limits; `max_message` of -1 is none, and for a relay."""
    return {
        "grpc.max_concurrent_streams": _STREAMS if max_message >= 0 else 2**31 - 1,
        "grpc.so_reuseport": 0,  # by default two servers may share a port, each getting some requests
        "grpc.max_receive_message_length": max_message,
        "grpc.max_send_message_length": -1,
        # Messages are unpacked at the door, where it is counted what they unpack to.
        "grpc.per_message_decompression": 0,
        "grpc.compression_enabled_algorithms_bitset": _IDENTITY_DEFLATE_GZIP,
        # No more is taken of a message than one window, before somebody wants to read it.
        "grpc.http2.bdp_probe": 0,
        "grpc.max_allowed_incoming_connections": connections,
        "grpc.server_handshake_timeout_ms": int(1000 * guard.header_seconds),
        "grpc.max_connection_idle_ms": int(1000 * guard.keepalive_seconds),
    }


@contextmanager
def ours(
    module: Any, first: Sequence[Any], settings: dict[str, int], tls: Tls | None, host: str | None = None
) -> Iterator[None]:
    """Within, a gRPC server that `module` makes has these settings, and the interceptors `first` first.

    It listens at `host`, if one is given: KServe listens everywhere.
    """
    aio = module.aio

    class Aio:
        @staticmethod
        def server(pool: Any, *, interceptors: Any = (), options: Any = (), **more: Any) -> Any:
            both = {**dict(options), **settings}
            server = aio.server(pool, interceptors=[*first, *interceptors], options=[*both.items()], **more)
            plain, secure = server.add_insecure_port, server.add_secure_port

            def listen(address: str) -> int:
                if host is not None:
                    address = f"{host}:{address.rpartition(':')[2]}"
                return int(secure(address, tls.credentials()) if tls else plain(address))

            server.add_insecure_port = listen
            return server

    module.aio = Aio
    try:
        yield
    finally:
        module.aio = aio
