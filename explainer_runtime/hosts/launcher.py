"""Starts MLServer in this process, with settings that are safe, and says by its exit status how it went.

What is served is `deployment.py`'s to say, and what MLServer lacks `server.py`'s to add; here the two meet:
ports, logs, the sidecar's proxies, and a scratch directory for everything that MLServer would otherwise
write into, or look for in, the working directory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from mlserver import ModelSettings, Settings
from mlserver.context import model_name_var, model_version_var
from mlserver.errors import MLServerError
from mlserver.repository.factory import ModelRepositoryFactory

from explainer_runtime.errors import TO_CHANGE
from explainer_runtime.hosts.door.desk import Desk
from explainer_runtime.hosts.door.gate import App
from explainer_runtime.hosts.door.grpc_port import MAX_MESSAGE
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.mlserver import refusals
from explainer_runtime.hosts.mlserver.server import Server
from explainer_runtime.hosts.page import File
from explainer_runtime.hosts.platform.deployment import explainer_settings, keras_settings
from explainer_runtime.hosts.service import logs
from explainer_runtime.hosts.service.caller import Caller
from explainer_runtime.hosts.sidecar.proxy import Proxy
from explainer_runtime.hosts.sidecar.proxy_grpc import GrpcProxy

_log = logging.getLogger("explainer_runtime.serve")

_HANDSHAKE_SECONDS = 10.0

__all__ = ["Guard", "Upstream", "explainer_settings", "keras_settings", "serve"]


class Upstream(NamedTuple):
    """The model beside which this server is a sidecar.

    Attributes:
        rest: Its REST address, `http://host:port`.
        grpc: Its gRPC address, `host:port`; None relays no gRPC.
        model: Its name, which matters where an explainer has the same.
    """

    rest: str
    grpc: str | None = None
    model: str | None = None


def serve(
    models: Sequence[Mapping[str, Any]],
    *,
    http_port: int = 8080,
    grpc_port: int = 8081,
    metrics_port: int = 8082,
    host: str = "127.0.0.1",
    workers: int = 0,
    max_message: int = MAX_MESSAGE,
    guard: Guard | None = None,
    upstream: Upstream | None = None,
    repository: str | Path | None = None,
    jobs: Callable[[Traffic], Desk] | None = None,
    page: Mapping[str, File] | None = None,
    json_logs: bool = True,
) -> int:
    """Serve `models` until a signal says stop.

    Args:
        models: What to serve: mappings as in `model-settings.json`; see `explainer_settings` and
            `keras_settings`.
        http_port: Port of REST.
        grpc_port: Port of gRPC.
        metrics_port: Port of the Prometheus endpoint.
        host: Address to listen on. Without a token in `guard`, `0.0.0.0` is for a cluster's network.
        workers: Worker processes. 0, one process a pod, is what everything here is made for.
        max_message: Bytes of one gRPC message.
        guard: The operator's limits; None are the defaults.
        upstream: Makes this server a sidecar: what is not for an explainer goes there.
        repository: A directory of models with a `model-settings.json` each; they are served too, and may
            be loaded and unloaded where `guard` allows it.
        jobs: Opens the desk of explanations that outlive their connection; see `desk.opening`.
        page: Files of the page, `page.Shown(...).files()`; None serves none.
        json_logs: Write JSON objects, one a line, to stderr; else text.

    Returns:
        The exit status: 0 after a signal, 2 when a model cannot be loaded without a change, else 1.
    """
    if not models or any("KerasRuntime" not in str(model["implementation"]) for model in models):
        # Requests run side by side; one thread for each operation of one takes the least processor time.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="explainer-runtime-") as scratch:
        settings = Settings(
            debug=False,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            parallel_workers=workers,
            grpc_max_message_length=max_message,
            cache_enabled=False,
            gzip_enabled=False,  # it packs on the event loop; see door/packing.py
            logging_settings=logs.settings(json_logs, _labels, refusals.one_line),
            # MLServer would write these into, and look for models under, the working directory.
            metrics_dir=scratch,
            environments_dir=scratch,
            model_repository_root=str(repository or scratch),
        )
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                failure = runner.run(_serve(settings, models, guard, upstream, jobs, page))
        except (RuntimeError, SystemExit) as error:  # a port is taken: gRPC raises, uvicorn exits
            failure = error
        if failure is None:
            return 0
        # The last line, which is what `kubectl describe` shows of a container that has ended.
        _log.error("cannot serve: %s", _why(failure))
        # What a model could not be loaded for is behind MLServer's error.
        reason = failure.__context__ if isinstance(failure, MLServerError) else failure
        return 2 if isinstance(reason, TO_CHANGE) else 1


def _why(failure: BaseException) -> str:
    if isinstance(failure, SystemExit):
        return "a port cannot be listened on; it may be taken"
    return " ".join(str(failure).split()) or type(failure).__name__


async def _serve(
    settings: Settings,
    models: Sequence[Mapping[str, Any]],
    guard: Guard | None,
    upstream: Upstream | None,
    jobs: Callable[[Traffic], Desk] | None,
    page: Mapping[str, File] | None,
) -> BaseException | None:
    served = [ModelSettings(**model) for model in models]
    if settings.load_models_at_startup:
        served += await ModelRepositoryFactory.resolve_model_repository(settings).list()
    interceptors: list[Any] = [logs.Recorder()]
    around: Callable[[App], App] = logs.Recorded
    proxies: list[Proxy] = []
    if upstream is not None:
        names = [model.name for model in served]
        model, rest = upstream.model, upstream.rest
        if upstream.grpc is not None:
            interceptors.insert(0, GrpcProxy(upstream.grpc, set(names) - {model}))

        def around(app: App) -> App:
            def counted() -> AbstractContextManager[None]:
                return server.traffic.of(Caller())

            proxies.append(Proxy(logs.Recorded(app), rest, names, model, counted, page or ()))
            return proxies[-1]

    relays = upstream is not None
    server = Server(
        settings, guard, around=around, interceptors=interceptors, jobs=jobs, relays=relays, page=page
    )
    try:
        return await server.run(served)  # what has failed, if anything
    finally:
        for proxy in proxies:
            await proxy.close()


def _labels() -> Mapping[str, str]:
    """The model that the work at hand is for, where MLServer knows it."""
    return {"model": model_name_var.get(""), "version": model_version_var.get("")}


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None

    class Loop(uvloop.Loop):
        """uvloop's, in which a TLS handshake has as long as a header by default, not a minute."""

        async def create_server(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("ssl") is not None:
                kwargs.setdefault("ssl_handshake_timeout", _HANDSHAKE_SECONDS)
            return await super().create_server(*args, **kwargs)

    return Loop
