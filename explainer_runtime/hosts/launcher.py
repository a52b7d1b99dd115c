"""Starts MLServer in this process, with settings that are safe, and says by its exit status how it went.

`mlserver start` is enough to serve; this adds what it lacks: no debug mode, no workers unless asked for,
messages large enough for images, refusals that name the field also where MLServer fails before our runtime
is asked, one line instead of a traceback for what is not our bug, and a non-zero status when a model cannot
be loaded (MLServer stops with 0). Names that MLServer 1.7 calls private are used in this file only; a test
fails when they move.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc import StatusCode
from mlserver import MLServer, ModelSettings, Settings
from mlserver.errors import MLServerError
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.types import TensorData
from starlette.exceptions import HTTPException

from explainer_runtime.errors import InvalidInput
from explainer_runtime.wire import unpack

MAX_MESSAGE = 64 * 2**20
"""Bytes of one gRPC message; gRPC's own default of 4 MiB holds 1,300 images of 28x28."""


def explainer_settings(
    path: str | Path,
    name: str,
    predictor: str | Mapping[str, Any],
    *,
    version: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Settings that serve the explainer directory `path` as `name`.

    Args:
        path: The explainer's directory.
        name: Name under which it is served.
        predictor: Where the model is; see `spec.parse_predictor`.
        version: Version under which it is served, if any.
        extra: Other settings (`limits`, `threads`); see `service.Settings`.
    """
    return _model("ExplainerRuntime", path, name, version, {"predictor": predictor, **extra})


def keras_settings(
    path: str | Path, name: str, *, version: str | None = None, logits: bool = False
) -> dict[str, Any]:
    """Settings that serve the Keras model at `path` as `name`."""
    return _model("KerasRuntime", path, name, version, {"logits": logits})


def serve(
    models: Sequence[Mapping[str, Any]],
    *,
    http_port: int = 8080,
    grpc_port: int = 8081,
    metrics_port: int = 8082,
    host: str = "127.0.0.1",
    workers: int = 0,
    max_message: int = MAX_MESSAGE,
) -> int:
    """Serve `models` until a signal says stop.

    Args:
        models: What to serve: mappings as in `model-settings.json`, see the two functions above.
        http_port: Port of REST.
        grpc_port: Port of gRPC.
        metrics_port: Port of the Prometheus endpoint.
        host: Address to listen on. There is no authentication: `0.0.0.0` is for a cluster's network.
        workers: Worker processes. 0, one process a pod, is what everything here is made for.
        max_message: Bytes of one gRPC message.

    Returns:
        The exit status: 0 after a signal, 1 when a model could not be loaded or a port is taken.
    """
    if any("ExplainerRuntime" in str(model["implementation"]) for model in models):
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
            # MLServer would write these into, and look for models under, the working directory.
            metrics_dir=scratch,
            environments_dir=scratch,
            model_repository_root=scratch,
        )
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                return runner.run(_serve(settings, [ModelSettings(**model) for model in models]))
        except (RuntimeError, SystemExit) as error:  # a port is taken: gRPC raises, uvicorn exits
            print(f"cannot serve: {error}", file=sys.stderr)
            return 1


async def _serve(settings: Settings, models: list[ModelSettings]) -> int:
    server = _Server(settings)
    await server.start(models)
    return 1 if server.failed else 0


class _Server(MLServer):
    """MLServer with the gaps closed that only the server can close."""

    failed = stopping = False

    async def stop(self, sig: int | None = None) -> None:
        if self.stopping:  # uvicorn raises the signal once more when it has shut down
            return
        self.stopping = True
        # Without a signal, MLServer stops itself for one reason only: a model could not be loaded.
        self.failed = sig is None
        await super().stop(sig)

    def _create_servers(self) -> None:
        super()._create_servers()
        app = self._rest_server._app
        app.add_exception_handler(RequestValidationError, _refuse_body)
        app.add_exception_handler(HTTPException, _refuse_request)
        STATUS_CODE_MAPPING.update(_GRPC_CODES)
        grpc_server = self._grpc_server
        create, options = grpc_server._create_server, grpc_server._get_options

        def create_reading() -> Any:
            created = create()
            servicer = grpc_server._inference_servicer
            servicer._InsertHeaders = _reading(servicer._InsertHeaders)
            return created

        grpc_server._create_server = create_reading
        # By default gRPC lets two servers share a port, each getting some of the requests.
        grpc_server._get_options = lambda: [*options(), ("grpc.so_reuseport", 0)]

    def _configure_logger(self) -> None:
        super()._configure_logger()
        for handler in self._logger.handlers:
            handler.addFilter(_one_line)


_GRPC_CODES = {
    499: StatusCode.CANCELLED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""gRPC codes of statuses that MLServer would answer with UNKNOWN."""


def _reading(convert: Callable[..., Any]) -> Callable[..., Any]:
    """`convert`, which makes a request of a gRPC message, with raw contents as arrays.

    MLServer unpacks them into lists, number by number, and fails on contents that do not fit their shape.
    As arrays they cost nothing, and whether they fit is for the runtime to say. What is no numbers stays
    packed; our runtimes refuse it.
    """

    def read(message: Any, context: Any) -> Any:
        raw = list(message.raw_input_contents)
        del message.raw_input_contents[:]
        payload = convert(message, context)
        bare = [tensor for tensor in payload.inputs if not len(tensor.data)]
        if raw and len(raw) != len(bare):
            raise MLServerError(
                f"raw_input_contents: expected one for each of {len(bare)} inputs, got {len(raw)}", 422
            )
        for tensor, content in zip(bare, raw, strict=False):
            try:
                numbers = unpack(tensor.datatype, content)
            except InvalidInput as error:
                raise MLServerError(str(error), 422) from None
            tensor.data = TensorData(root=[content] if numbers is None else numbers)
        return payload

    return read


async def _refuse_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """A body that is no V2 request, as `{"error": ...}` naming the field, without repeating the body."""
    first = error.errors()[0]
    path, message = "", first["msg"]
    for part in first["loc"][1:]:  # the first is always "body"
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    if first["type"] == "json_invalid" or not path:
        path, message = "body", "expected a V2 request as JSON, with content-type: application/json"
    return JSONResponse({"error": f"{path.lstrip('.')}: {message}"}, 422)


async def _refuse_request(request: Request, error: HTTPException) -> JSONResponse:
    """What the web framework refuses by itself, in V2's form; a body that cannot be unpacked is no 400."""
    status = 422 if error.status_code == 400 else error.status_code
    return JSONResponse({"error": str(error.detail)}, status, error.headers)


def _one_line(record: logging.LogRecord) -> bool:
    """Drop the traceback of an error that was raised on purpose; keep its message."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, MLServerError):
        if record.msg is not error:
            record.msg = f"{record.msg} {error}"
        record.exc_info = None
    return True


def _model(
    implementation: str, path: str | Path, name: str, version: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = {"uri": str(Path(path).resolve()), "extra": dict(extra)}
    if version is not None:
        parameters["version"] = version
    return {"name": name, "implementation": f"explainer_runtime.{implementation}", "parameters": parameters}


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
