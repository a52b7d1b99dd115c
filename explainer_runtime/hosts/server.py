"""MLServer with the gaps closed that only the server can close: `build` makes one, `run` serves.

    server = build(settings, Guard(token_file=...))      # mlserver.Settings, limits.Guard
    status = await server.run(models)                    # list of mlserver.ModelSettings -> exit status

What it adds to MLServer 1.7: the limits of `limits.Guard` at the door (`gate.py`, `interceptor.py`), refusals
in one form (`refusals.py`), raw gRPC contents as arrays (`reading.py`), streaming with errors that have a
status (`streaming.py`), the routes in the OpenAPI documents (`openapi.py`), a stop that loses no accepted
request, and an exit status that tells when a model could not be loaded.

Names that MLServer calls private are used in this file only; tests/test_server.py fails when they move.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlserver.metrics.server
import mlserver.rest.server
from grpc import StatusCode
from mlserver import MLServer, ModelSettings, Settings
from mlserver.grpc.utils import STATUS_CODE_MAPPING

from explainer_runtime.hosts import openapi, refusals, streaming
from explainer_runtime.hosts.gate import App, Gate
from explainer_runtime.hosts.interceptor import Interceptor
from explainer_runtime.hosts.limits import Guard
from explainer_runtime.hosts.reading import reading
from explainer_runtime.hosts.status import GRPC
from explainer_runtime.hosts.traffic import Traffic

SWITCH_INTERVAL = 0.001
"""Seconds after which a thread that computes in Python lets another one run; Python's own 0.005 would make
each step of answering a health check wait that long."""


def build(
    settings: Settings,
    guard: Guard | None = None,
    *,
    around: Callable[[App], App] | None = None,
    interceptors: Sequence[Any] = (),
    relays: bool = False,
) -> Server:
    """A server that is not started yet. Call it inside a running event loop.

    Args:
        settings: MLServer's settings: ports, workers, gRPC message size.
        guard: The operator's limits.
        around: Wraps the whole REST application, outside the limits: a proxy that answers some requests
            itself, streaming, and passes the others on. `traffic` of the server counts those inside only.
        interceptors: gRPC interceptors that go before ours, for the same purpose.
        relays: Whether `around` relays another server's answers: they have `date` and `server` headers
            already, and get none from here.

    Raises:
        InvalidSpec: The token file cannot be read.
    """
    return Server(settings, guard or Guard(), around, interceptors, relays)


class Server(MLServer):
    """See `build`."""

    failed = stopping = False

    def __init__(
        self,
        settings: Settings,
        guard: Guard,
        around: Callable[[App], App] | None = None,
        interceptors: Sequence[Any] = (),
        relays: bool = False,
    ) -> None:
        self.guard, self.traffic = guard, Traffic()
        self._around, self._before, self._relays = around, interceptors, relays
        # Made now, so that what is wrong with them is said before anything is started.
        self._interceptor = Interceptor(guard, self.traffic)
        for module in (mlserver.rest.server, mlserver.metrics.server):
            # uvicorn would stop at the first signal by itself; when to stop is decided here.
            module._NoSignalServer.capture_signals = _no_signals
        super().__init__(settings)

    async def run(self, models: list[ModelSettings]) -> int:
        """Serve `models` until a signal says stop; the exit status, 1 when a model could not be loaded."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        await self.start(models)
        return 1 if self.failed else 0

    async def stop(self, sig: int | None = None) -> None:
        """Stop answering: say so, finish what was accepted, then close.

        Without a signal, MLServer stops itself for one reason only: a model could not be loaded.
        """
        if self.stopping:
            return
        self.stopping, self.failed = True, sig is None
        if sig is not None:
            self.traffic.leaving = True
            await asyncio.sleep(self.guard.linger)
            self._stop_listening()
            # A little longer than ours: gRPC cancels without a word.
            grpc = asyncio.create_task(self._grpc_server._server.stop(self.guard.grace + 1))
            await self.traffic.drain(self.guard.grace)
            await grpc
        await super().stop(sig)

    def _stop_listening(self) -> None:
        for listener in getattr(self._rest_server._server, "servers", ()):
            listener.close()

    def _create_servers(self) -> None:
        super()._create_servers()
        app = self._rest_server._app
        refusals.install(app, self._data_plane)
        streaming.install(app, self._data_plane)
        openapi.install(app)
        app.add_middleware(Gate, guard=self.guard, traffic=self.traffic)
        if self._around is not None:
            around = self._around
            app.add_middleware(lambda app: around(app))
        STATUS_CODE_MAPPING.update({status: StatusCode[code] for status, code in GRPC.items()})
        self._patch_rest()
        self._patch_grpc()

    def _patch_rest(self) -> None:
        rest_server = self._rest_server
        configure = rest_server._get_config

        def get_config() -> Any:
            config = configure()
            config.timeout_graceful_shutdown = 1  # the waiting is done before
            config.date_header = config.server_header = not self._relays
            return config

        rest_server._get_config = get_config

    def _patch_grpc(self) -> None:
        grpc_server = self._grpc_server
        create, options = grpc_server._create_server, grpc_server._get_options

        def create_reading() -> Any:
            with _interceptors([*self._before, self._interceptor]):
                created = create()
            servicer = grpc_server._inference_servicer
            servicer._InsertHeaders = reading(servicer._InsertHeaders)
            return created

        grpc_server._create_server = create_reading
        # By default gRPC lets two servers share a port, each getting some of the requests.
        grpc_server._get_options = lambda: [*options(), ("grpc.so_reuseport", 0)]

    def _configure_logger(self) -> None:
        super()._configure_logger()
        for handler in self._logger.handlers:
            handler.addFilter(refusals.one_line)


@contextlib.contextmanager
def _interceptors(ours: Sequence[Any]) -> Iterator[None]:
    """Within, a gRPC server that MLServer makes gets these interceptors before its own."""
    module: Any = sys.modules["mlserver.grpc.server"]
    aio = module.aio

    class Aio:
        @staticmethod
        def server(pool: Any, interceptors: Sequence[Any], **options: Any) -> Any:
            return aio.server(pool, interceptors=[*ours, *interceptors], **options)

    module.aio = Aio
    try:
        yield
    finally:
        module.aio = aio


@contextlib.contextmanager
def _no_signals(self: Any) -> Iterator[None]:
    yield
