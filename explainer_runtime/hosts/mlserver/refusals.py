"""What MLServer and its framework refuse or fail at by themselves, told as V2 errors.

A body that is no V2 request never reaches our runtime; FastAPI refuses it with a list of its own, repeating
the body. With worker processes MLServer puts the class of an error in front of its message. Here each becomes
one line, `{"error": ...}`, that names the field and no class.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from mlserver.errors import MLServerError, ModelNotFound, ModelNotReady
from mlserver.parallel.errors import WorkerError
from starlette.exceptions import HTTPException

from explainer_runtime.complaints import expected
from explainer_runtime.hosts.service.caller import caller
from explainer_runtime.hosts.service.status import retry_after, shortened


def install(app: FastAPI, data_plane: Any) -> None:
    """Make every refusal of this app, and every failure of this data plane, one of ours."""
    registry = data_plane._model_registry
    known = registry.get_model

    async def named(name: str, version: str | None = None) -> Any:
        try:
            return await known(name, version)
        except ModelNotFound as error:
            of = f" with version {version}" if version else ""
            error.args = (f"Model {name}{of} not found; {await _served(registry)}",)
            raise

    async def refuse_request(request: Request, error: HTTPException) -> JSONResponse:
        """What the web framework refuses by itself; a body that cannot be parsed is no 400."""
        status = 422 if error.status_code == 400 else error.status_code
        there = f"; {await _served(registry)}" if status == 404 else ""
        return JSONResponse({"error": f"{error.detail}{there}"}, status, error.headers)

    registry.get_model = named
    handlers: dict[type[Exception], Any] = {
        RequestValidationError: _refuse_body,
        HTTPException: refuse_request,
        MLServerError: _refuse_model,
        Exception: _fail,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    data_plane.infer = _plain(data_plane.infer, named)
    data_plane.infer_stream = _plain_stream(data_plane.infer_stream, named)


async def _served(registry: Any) -> str:
    """What is there, for who asks for something else; strangers have been refused before."""
    names = sorted({model.name for model in await registry.get_models()})
    return f"served here: {', '.join(names[:20]) or 'nothing yet'}"


def answer(error: MLServerError) -> JSONResponse:
    """An error as a REST answer; one that may pass says when to try again."""
    seconds = caller().retry_after or retry_after(error.status_code)
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    return JSONResponse({"error": plain(error).args[0]}, error.status_code, headers)


def plain(error: Exception) -> MLServerError:
    """`error` without the class that a worker process has put in front of it; a bug tells nothing."""
    if not isinstance(error, MLServerError):
        return MLServerError("internal error", 500)
    message = str(error)
    if isinstance(error, WorkerError):
        name, mark, rest = message.partition(": ")
        if mark and re.fullmatch(r"[\w.]+", name):
            message = rest if name.startswith("mlserver.") else "internal error"
    status = error.status_code
    if isinstance(error, ModelNotReady):  # 400, to MLServer; but it is no mistake, and will pass
        status = 503
    elif status == 400:
        status = 422
    return MLServerError(shortened(message), status)


def where(location: Sequence[str | int]) -> str:
    """A place in a body, as `inputs[0].shape`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".")


def _plain(infer: Callable[..., Any], known: Callable[..., Any]) -> Callable[..., Any]:
    async def plain_infer(payload: Any, name: str, version: str | None = None) -> Any:
        try:
            await known(name, version)  # MLServer would keep a series of metrics for whatever it was asked
            return await infer(payload, name, version)
        except Exception as error:
            raise noted(error) from None

    return plain_infer


def _plain_stream(infer_stream: Callable[..., Any], known: Callable[..., Any]) -> Callable[..., Any]:
    async def plain_infer_stream(payloads: Any, name: str, version: str | None = None) -> AsyncIterator[Any]:
        try:
            await known(name, version)
            async for response in infer_stream(payloads, name, version):
                yield response
        except Exception as error:
            raise noted(error) from None

    return plain_infer_stream


def noted(error: Exception) -> MLServerError:
    """An error as it is told; a bug is written down."""
    if not isinstance(error, MLServerError):
        logging.getLogger("mlserver").exception("unexpected error")
    known = plain(error)
    seconds = retry_after(known.status_code)
    if seconds is not None and caller().retry_after is None:
        caller().retry_after = seconds
    return known


async def _refuse_model(request: Request, error: MLServerError) -> JSONResponse:
    return answer(error)


async def _refuse_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """A body that is no V2 request, naming the field, without repeating the body."""
    first = error.errors()[0]
    path, message = where(first["loc"][1:]), expected(first)  # the first part is always "body"
    if first["type"] == "json_invalid" or not path:
        path, message = "body", "expected a V2 request as JSON, with content-type: application/json"
    return JSONResponse({"error": shortened(f"{path}: {message}")}, 422)


async def _fail(request: Request, error: Exception) -> JSONResponse:
    """A bug: the log has the traceback, the caller is told nothing."""
    return JSONResponse({"error": "internal error"}, 500)


def one_line(record: logging.LogRecord) -> bool:
    """Keep out of the log what was raised on purpose: it quotes the caller, and its status is there."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, MLServerError)
