"""An explainer on KServe's own server, for clusters that want all their servers to be alike.

KServe's SDK and MLServer cannot be imported in one process (both register the protobuf package `inference`),
so this file is used in an environment of its own: `pip install 'explainer-runtime[kserve]'`. It is a shell
over the same `service.py` and `wire.py`: V1 `:explain` answers with the bare explanation, V2 `infer` (JSON,
binary tensors, gRPC) with typed tensors.

The server is KServe's, with its ways: 400 for a body that it cannot read by itself, one name a model. Around
it stands a door of ours (`kserve_door.py`), and what is served is scaled, scraped and stopped as on MLServer.
What our model refuses is 422 and names the field, as everywhere.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import grpc
import orjson
import prometheus_client
import uvicorn
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from grpc_interceptor.exceptions import GrpcException

from explainer_runtime.complaints import expected
from explainer_runtime.errors import TO_CHANGE, ExplainerError, InvalidInput
from explainer_runtime.hosts.door.aside import aside, give_back, settle, take_turns
from explainer_runtime.hosts.door.connections import METRICS_CONNECTIONS, Port, framed, open_files
from explainer_runtime.hosts.door.desk import Desk
from explainer_runtime.hosts.door.grpc_port import MAX_MESSAGE, options, ours
from explainer_runtime.hosts.door.interceptor import Interceptor
from explainer_runtime.hosts.door.jobs import Jobs
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.pictured import Pictured
from explainer_runtime.hosts.door.room import Room
from explainer_runtime.hosts.door.tls import Tls
from explainer_runtime.hosts.door.tokens import Tokens
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.kserve.door import KServeDoor
from explainer_runtime.hosts.page import File, Page, opened
from explainer_runtime.hosts.service import logs
from explainer_runtime.hosts.service.asked import (
    answered,
    asked,
    asked_in,
    described,
    document,
    explained,
    listed,
)
from explainer_runtime.hosts.service.names import check_id, check_name
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.hosts.service.settings import Settings, parse_settings
from explainer_runtime.hosts.service.status import GRPC, fault, retry_after

_line, sys.argv = (
    sys.argv,
    sys.argv[:1],
)  # KServe reads the command line on import, and ends on what it mistakes
import kserve  # noqa: E402
from kserve import InferRequest, InferResponse  # noqa: E402
from kserve.logging import logger  # noqa: E402
from kserve.model_server import app  # noqa: E402

from explainer_runtime.hosts.kserve import v2types  # noqa: E402

sys.argv = _line


class ExplainerModel(kserve.Model):
    """One explainer as a model of KServe's server. `load` it before the server starts.

    Args:
        name: Name under which it is served.
        settings: The explainer's directory, where its model is, limits.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, return_response_headers=True)
        self._service = Service(settings, name)
        app.add_exception_handler(_Refused, _answer_refusal)
        app.add_exception_handler(RequestValidationError, _refuse_body)
        # What is left of ours after `_refusal` is what KServe itself stumbles over in a body.
        for kind in (ValueError, KeyError, TypeError):
            app.add_exception_handler(kind, _refuse_unreadable)

    def load(self) -> bool:
        """Read the artifact and compile; the model being explained need not be up.

        Raises:
            InvalidArtifact, InvalidSpec, MissingExtra: What the operator must change.
        """
        check_name(self.name)
        self._service.load()
        self.ready = True
        return True

    def stop(self) -> None:
        """Take no more requests; running ones finish."""
        super().stop()
        self._service.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        """The input, for metadata."""
        return [v2types.described(tensor) for tensor in described(self._service)[0]]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs, for metadata."""
        return [v2types.described(tensor) for tensor in described(self._service)[1]]

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer V1 `:explain`: `{"instances": [...]}` in, `{"meta", "data"}` out.

        Options stand in `parameters`, or in `explain_parameters`.
        """
        # KServe answers with this very mapping as its headers: nothing of the request may be left in it.
        headers = {} if headers is None else headers
        for name in [name for name in headers if not name.startswith("ce-")]:
            del headers[name]
        try:
            if not isinstance(payload, Mapping):
                raise InvalidInput('expected {"instances": [...]}', "body")
            read = await aside(asked_in, self._service, payload)
            said = await aside(document, self._service, read, await explained(self._service, read))
        except Exception as error:
            raise _refusal(error) from None
        answer: dict[str, Any] = orjson.loads(said)
        return answer

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Answer V2 `infer`: the explanation of every row, as typed tensors; V1 `:predict` as `:explain`."""
        if not isinstance(payload, InferRequest):
            return await self.explain(payload, None)
        try:
            check_id(payload.id)
            wanted = [output.name for output in payload.request_outputs or ()]
            inputs = [v2types.tensor(one) for one in payload.inputs]
            read = await aside(asked, self._service, inputs, v2types.parameters(payload.parameters), wanted)
            explanation = await explained(self._service, read)
            tensors, took, marks = await aside(answered, self._service, read, explanation)
        except Exception as error:
            raise _refusal(error, over_grpc=payload.from_grpc is True) from None
        if response_headers is not None:
            response_headers |= marks
        return InferResponse(
            payload.id or str(uuid.uuid4()),
            self.name,
            [v2types.output(tensor, payload) for tensor in tensors],
            parameters=took if payload.from_grpc is not True else v2types.whole(took),
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def serve(
    models: Sequence[Mapping[str, Any]],
    *,
    http_port: int = 8080,
    grpc_port: int = 8081,
    metrics_port: int = 8082,
    host: str = "0.0.0.0",  # noqa: S104
    guard: Guard | None = None,
    jobs: Callable[[Traffic], Desk] | None = None,
    page: Mapping[str, File] | None = None,
) -> int:
    """Serve explainers on KServe's server until a signal says stop.

    Args:
        models: Mappings as in `model-settings.json`; see `deployment.explainer_settings`.
        http_port: Port of REST.
        grpc_port: Port of gRPC.
        metrics_port: Port of the Prometheus endpoint, which REST has at `/metrics`, too.
        host: Address to listen on.
        guard: The operator's limits; None are the defaults.
        jobs: Opens the desk of explanations that outlive their connection; see `desk.opening`.
        page: Files of the page, `page.Shown(...).files()`; None serves none.

    Returns:
        The exit status: 0 after a signal, 2 when a model cannot be loaded without a change, else 1.

    Raises:
        InvalidSpec: The token file or a certificate cannot be read.
    """
    guard = guard or Guard()
    tokens = Tokens(guard.token_file) if guard.token_file else None
    tls = Tls(guard) if guard.tls_cert else None
    loaded = []
    for model in models:
        parameters = model["parameters"]
        try:
            one = ExplainerModel(model["name"], parse_settings(parameters["uri"], parameters["extra"]))
            one.load()
        except ExplainerError as error:
            print(f"cannot serve {model['name']}: {error}", file=sys.stderr)
            return 2 if isinstance(error, TO_CHANGE) else 1
        loaded.append(one)
    traffic, room = Traffic(), Room(guard.max_in_flight)
    app.router.routes[:0] = [APIRoute(f"/v{version}/models", _listing(loaded)) for version in (1, 2)]
    app.add_middleware(Page, files=page or {})
    app.add_middleware(Pictured, verb="infer")
    desk = jobs(traffic) if jobs else None
    if desk is not None:
        app.add_middleware(Jobs, desk=desk)
    app.add_middleware(
        KServeDoor, guard=guard, traffic=traffic, room=room, tokens=tokens, opened=opened(page or {})
    )
    app.add_middleware(framed)
    app.add_middleware(logs.Recorded)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        metrics = socket.create_server((host, metrics_port), family=family)
    except OSError as error:
        print(f"cannot serve metrics at port {metrics_port}: {error}", file=sys.stderr)
        return 1
    open_files()
    take_turns()
    give_back()
    settle()
    server = _Server(
        host,
        guard,
        traffic,
        tls,
        metrics,
        desk,
        http_port=http_port,
        grpc_port=grpc_port,
        workers=1,
        enable_grpc=True,
        enable_latency_logging=False,
        ssl_certfile=None,  # what KServe's own settings name is in the guard
        ssl_keyfile=None,
        # Connections are closed when everything is answered, or cut by us, which tells why.
        grace_period=math.ceil(guard.grace) + 2,
    )
    interceptor = Interceptor(guard, traffic, room, tokens, MAX_MESSAGE, desk)
    limits = options(guard, guard.max_connections, MAX_MESSAGE)
    with ours(sys.modules["kserve.protocol.grpc.server"], [interceptor], limits, tls, host):
        server.start(loaded)
    return 0


def _listing(models: Sequence[ExplainerModel]) -> Callable[[], Any]:
    async def listing() -> JSONResponse:
        """The explainers of this server: their names, and what is to be known before one asks."""
        explainers = [listed(one._service, "ready" if one.ready else "loading") for one in models]
        return JSONResponse({"models": [one.name for one in models], "explainers": explainers})

    return listing


class _Server(kserve.ModelServer):
    def __init__(
        self,
        host: str,
        guard: Guard,
        traffic: Traffic,
        tls: Tls | None,
        metrics: socket.socket,
        desk: Desk | None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._host, self._guard, self._traffic, self._tls = host, guard, traffic, tls
        self._metrics, self._desk = metrics, desk
        self._leaving: asyncio.Task[None] | None = None

    def setup_event_loop(self) -> None:
        """Called when the servers are made and not yet started: KServe has no setting for the address, none
        for connections, and none for what a signal does."""
        config, tls = self._rest_server.config, self._tls
        config.host = self._host
        config.timeout_keep_alive = self._guard.keepalive_seconds
        port = Port(self._guard.max_connections, self._guard.header_seconds, tls.context if tls else None)
        config.http, config.ws = port.protocol, "none"
        server = self._rest_server._server
        stop, server.handle_exit = server.handle_exit, self._leave
        self._stop = stop
        super().setup_event_loop()

    async def _serve(self) -> None:
        watching = asyncio.ensure_future(self._tls.watch(logger.info)) if self._tls else None
        port = Port(METRICS_CONNECTIONS, self._guard.header_seconds)
        scraped = _Metrics(
            uvicorn.Config(
                prometheus_client.make_asgi_app(),
                http=port.protocol,  # type: ignore[arg-type]  # a factory is as good as a class
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=math.ceil(self._guard.keepalive_seconds),
                timeout_graceful_shutdown=1,
            )
        )
        scraping = asyncio.ensure_future(scraped.serve([self._metrics]))
        if self._desk is not None:
            self._desk.start(app)
        try:
            await super()._serve()
        finally:
            scraped.should_exit = True
            await scraping
            if watching is not None:
                watching.cancel()

    def _leave(self, signal: int, frame: Any) -> None:
        """Called by a signal, at any moment; what is to be done is done by the event loop."""
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._begin_to_leave, signal, frame)

    def _begin_to_leave(self, signal: int, frame: Any) -> None:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._finish(signal, frame))

    async def _finish(self, signal: int, frame: Any) -> None:
        """Say that the server leaves, answer whoever has not heard of it, finish what was accepted, stop."""
        self._traffic.leaving = True
        if self._desk is not None:
            await self._desk.stop()
        await asyncio.sleep(self._guard.linger)
        for listener in self._rest_server._server.servers:
            listener.close()
        await self._traffic.drain(self._guard.grace)
        self._stop(signal, frame)


class _Metrics(uvicorn.Server):
    def capture_signals(self) -> Any:
        """None: who stops the server stops this."""
        return nullcontext()


class _Refused(HTTPException):
    """An error that KServe's server answers with our status and one line."""


async def _answer_refusal(request: Any, error: Any) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _refuse_body(request: Any, error: Any) -> JSONResponse:
    """A body that is no V2 request, naming the field and not repeating the body."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if part not in ("body", "InferenceRequest", "bytes")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names)
    return JSONResponse({"error": f"{path.lstrip('.') or 'body'}: {expected(first)}"}, 422)


async def _refuse_unreadable(request: Any, error: Any) -> JSONResponse:
    logger.warning("a body cannot be read", exc_info=error)
    return JSONResponse({"error": "body: expected a V2 request whose tensors fit their shapes"}, 422)


def _refusal(error: Exception, over_grpc: bool = False) -> Exception:
    told = fault(error)
    if not isinstance(error, ExplainerError):
        logger.exception("unexpected error")
    error.__traceback__ = None  # as in `faults.py`
    if over_grpc:
        return GrpcException(told.message, grpc.StatusCode[GRPC[told.status]])
    after = retry_after(told.status)
    return _Refused(told.status, told.message, {} if after is None else {"retry-after": str(after)})
