"""MLServer with the gaps closed that only the server can close: `Server` is one, `run` serves.

    server = Server(settings, Guard(token_file=...))      # mlserver.Settings, limits.Guard
    failure = await server.run(models)                   # list of mlserver.ModelSettings

What it adds to MLServer 1.7: the limits of `limits.Guard` at the door (`gate.py`, `interceptor.py`), refusals
in one form (`refusals.py`), raw gRPC contents as arrays (`reading.py`), streaming with errors that have a
status (`streaming.py`), the routes in the OpenAPI documents (`openapi.py`), a stop that loses no accepted
request, and an exit status that tells when a model could not be loaded.

Names that MLServer calls private are used in this file only; tests/test_server.py fails when they move.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mlserver.metrics.server
import mlserver.rest.server
from grpc import StatusCode
from mlserver import MLServer, ModelSettings, Settings
from mlserver.grpc.utils import STATUS_CODE_MAPPING

from explainer_runtime.hosts.door import grpc_port
from explainer_runtime.hosts.door.aside import give_back, settle, take_turns
from explainer_runtime.hosts.door.connections import METRICS_CONNECTIONS, Port, framed, open_files
from explainer_runtime.hosts.door.desk import Desk
from explainer_runtime.hosts.door.gate import App, Gate
from explainer_runtime.hosts.door.interceptor import Interceptor
from explainer_runtime.hosts.door.jobs import Jobs
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.packing import Packed
from explainer_runtime.hosts.door.pictured import Pictured
from explainer_runtime.hosts.door.room import Room
from explainer_runtime.hosts.door.tls import Tls
from explainer_runtime.hosts.door.tokens import Tokens
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.mlserver import infer, openapi, refusals, streaming
from explainer_runtime.hosts.mlserver.reading import Servicer
from explainer_runtime.hosts.page import File, Page, opened
from explainer_runtime.hosts.service.status import GRPC

_log = logging.getLogger("explainer_runtime.serve")


class Server(MLServer):
    """A server that is not started yet. Make it inside a running event loop.

    Args:
        settings: MLServer's settings: ports, workers, gRPC message size.
        guard: The operator's limits; None are the defaults.
        around: Wraps the whole REST application, outside the limits: a proxy that answers some requests
            itself, streaming, and passes the others on. `traffic` of the server counts those inside only.
        interceptors: gRPC interceptors that go before ours, for the same purpose.
        jobs: Opens the desk where explanations are taken that outlive their connection; None takes none.
        relays: Whether `around` relays another server's answers: they have `date` and `server` headers
            already, and get none from here.
        page: Files of the page; none serve none.

    Raises:
        InvalidSpec: The token file cannot be read.
    """

    stopping = loaded = False

    def __init__(
        self,
        settings: Settings,
        guard: Guard | None = None,
        *,
        around: Callable[[App], App] | None = None,
        interceptors: Sequence[Any] = (),
        jobs: Callable[[Traffic], Desk] | None = None,
        relays: bool = False,
        page: Mapping[str, File] | None = None,
    ) -> None:
        self.guard = guard = guard or Guard()
        self.traffic = Traffic()
        self._desk = jobs(self.traffic) if jobs else None
        self._around, self._before, self._relays = around, interceptors, relays
        self._page = page or {}
        # Made now, so that what is wrong with them is said before anything is started.
        self._tokens = Tokens(guard.token_file) if guard.token_file else None
        self._tls = Tls(guard) if guard.tls_cert else None
        self._room = Room(guard.max_in_flight)
        self._max_message = settings.grpc_max_message_length or grpc_port.MAX_MESSAGE
        self._interceptor = Interceptor(
            guard, self.traffic, self._room, self._tokens, self._max_message, self._desk
        )
        for module in (mlserver.rest.server, mlserver.metrics.server):
            # uvicorn would stop at the first signal by itself; when to stop is decided here.
            module._NoSignalServer.capture_signals = _no_signals
        self.failure: Exception | None = None
        super().__init__(settings)

    async def run(self, models: list[ModelSettings]) -> Exception | None:
        """Serve `models` until a signal says stop; why they could not be loaded, if they could not."""
        take_turns()
        give_back()
        open_files()
        watching = asyncio.create_task(self._tls.watch(_log.info)) if self._tls else None
        try:
            await self.start(models)
        finally:
            if watching is not None:
                watching.cancel()
        return self.failure

    async def start(self, models_settings: Sequence[ModelSettings] = ()) -> None:
        """Listen, and load; ready is said when everything is loaded and listens, and not before."""
        servers = [self._rest_server, self._grpc_server, self._metrics_server]
        listening = asyncio.gather(*(server.start() for server in servers if server is not None))
        try:
            await asyncio.gather(*(self._model_registry.load(model) for model in models_settings))
        except Exception as error:
            self.failure = error
            await self.stop()
        else:
            settle()
            self.loaded = True
            if self._desk is not None:
                self._desk.start(self._rest_server._app)
            while not (self.stopping or getattr(self._rest_server._server, "started", True)):
                await asyncio.sleep(0.01)
            _log.info("ready: %s", ", ".join(model.name for model in models_settings) or "no models yet")
        finally:
            await listening

    async def _ready(self) -> bool:
        return self.loaded and all(model.ready for model in await self._model_registry.get_models())

    async def stop(self, sig: int | None = None) -> None:
        """Stop answering: say so, finish what was accepted, then close.

        Without a signal, MLServer stops itself for one reason only: a model could not be loaded.
        """
        if self.stopping:
            return
        self.stopping, self.loaded = True, False
        if sig is not None:
            self.traffic.leaving = True
            if self._desk is not None:
                await self._desk.stop()
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
        self._data_plane.ready = self._ready
        refusals.install(app, self._data_plane)
        infer.install(app, self._data_plane)
        streaming.install(app, self._data_plane)
        openapi.install(app, self._desk is not None)
        app.add_middleware(Page, files=self._page)
        app.add_middleware(Pictured)
        if self._desk is not None:
            app.add_middleware(Jobs, desk=self._desk)
        app.add_middleware(Packed)
        app.add_middleware(
            Gate,
            guard=self.guard,
            traffic=self.traffic,
            room=self._room,
            tokens=self._tokens,
            opened=opened(self._page),
        )
        around = self._around or (lambda app: app)
        app.add_middleware(lambda app: framed(around(app)))
        STATUS_CODE_MAPPING.update({status: StatusCode[code] for status, code in GRPC.items()})
        self._patch_rest()
        self._patch_grpc()

    @property
    def _most_connections(self) -> int:
        """In a sidecar the model's clients come through as well, and are not ours to turn away."""
        return max(self.guard.max_connections, _RELAYED if self._relays else 0)

    def _patch_rest(self) -> None:
        seconds, tls = self.guard.header_seconds, self._tls
        ports = [(self._rest_server, Port(self._most_connections, seconds, tls.context if tls else None))]
        if self._metrics_server is not None:
            ports.append((self._metrics_server, Port(METRICS_CONNECTIONS, seconds)))
        for server, port in ports:
            server._get_config = self._configured(server._get_config, port)

    def _configured(self, configure: Callable[[], Any], port: Port) -> Callable[[], Any]:
        def get_config() -> Any:
            config = configure()
            config.timeout_graceful_shutdown = 1  # the waiting is done before
            config.date_header = config.server_header = not self._relays
            config.timeout_keep_alive = self.guard.keepalive_seconds
            config.http, config.ws = port.protocol, "none"
            return config

        return get_config

    def _patch_grpc(self) -> None:
        create, module = self._grpc_server._create_server, sys.modules["mlserver.grpc.server"]
        # What is not an explanation is the model's to limit; the door knows what is one.
        most = -1 if self._relays else self._max_message
        settings = grpc_port.options(self.guard, self._most_connections, most)

        def create_guarded() -> Any:
            servicer, module.InferenceServicer = module.InferenceServicer, Servicer  # type: ignore[attr-defined]
            try:
                with grpc_port.ours(module, [*self._before, self._interceptor], settings, self._tls):
                    return create()
            finally:
                module.InferenceServicer = servicer  # type: ignore[attr-defined]

        self._grpc_server._create_server = create_guarded

    def _configure_logger(self) -> None:
        super()._configure_logger()
        for handler in self._logger.handlers:
            handler.addFilter(refusals.one_line)


_RELAYED = 8192
"""Connections at one port of a sidecar, at least."""


@contextlib.contextmanager
def _no_signals(self: Any) -> Iterator[None]:
    yield
