"""What a server writes down: one JSON object a line, with the request it is about, never with its payload.

A request's id is the `x-request-id` that a mesh or gateway has given it, or a new one; it is in every line
that is written on behalf of the request, also from the threads that compute, and in the answer's headers.
A line for each request says what was asked for, how it ended and how long it took. Rows, options and
other headers are not written: they may be anybody's secrets.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import grpc
import orjson

from explainer_runtime.complaints import printable

REQUEST_ID: ContextVar[str] = ContextVar("explainer_runtime_request_id", default="")
"""Id of the request that this task or thread works for."""

_HEADER = "x-request-id"
_QUIET = ("/v2/health/live", "/v2/health/ready", "ServerLive", "ServerReady")
"""Asked every few seconds by whoever probes; written down only when they fail."""
_log = logging.getLogger("explainer_runtime.requests")


_OURS = ("explainer_runtime", "mlserver", "uvicorn", "kserve", "py")
"""Loggers whose words are known; `py.warnings` are Python's own. Others may repeat what a caller has sent."""
_LONGEST_PATH = 200


def message_of(record: logging.LogRecord) -> str:
    """What a record says; without what was put into it where a stranger wrote it."""
    ours = record.name.partition(".")[0] in _OURS
    return record.getMessage() if ours or not record.args else str(record.msg)


def trace_of(error: BaseException | None) -> str:
    """Where an error came from, and what kind it is; not what it says, which may be a row of numbers."""
    parts = []
    while error is not None:
        parts += ["".join(traceback.format_tb(error.__traceback__)) + type(error).__name__]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\ncaused by\n".join(parts)


class TextLines(logging.Formatter):
    """Formats records as text, each on one line of its own whatever is in it, and its traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(" ", "milliseconds")
        line = f"{when} {record.levelname} {record.name}: {printable(message_of(record))}"
        return f"{line}\n{trace_of(record.exc_info[1])}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """Formats records as JSON objects.

    Args:
        labels: What else is known about the work at hand, such as the model's name.
    """

    def __init__(self, labels: Callable[[], Mapping[str, str]] = dict) -> None:
        super().__init__()
        self._labels = labels

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            "request_id": REQUEST_ID.get(),
            **self._labels(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = trace_of(record.exc_info[1])
        return orjson.dumps({key: value for key, value in line.items() if value != ""}, default=str).decode()


def settings(
    json: bool,
    labels: Callable[[], Mapping[str, str]] = dict,
    shorten: Callable[[logging.LogRecord], bool] = bool,
) -> dict[str, Any]:
    """Configuration of `logging` for a server, its web server and this package: all of it on stderr.

    Args:
        json: JSON lines, or text.
        labels: See `JsonLines`.
        shorten: A filter that all records pass.
    """
    logging.captureWarnings(True)
    handler = {"()": _Handler, "formatter": "lines", "filters": ["short"]}
    logger = {"handlers": ["lines"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": JsonLines, "labels": labels} if json else {"()": TextLines}},
        "filters": {"short": {"()": _itself, "value": shorten}},
        "handlers": {"lines": handler},
        "root": {"handlers": ["lines"], "level": "WARNING"},
        "loggers": {
            **dict.fromkeys(("mlserver", "uvicorn", "kserve", "explainer_runtime"), logger),
            # Both write several lines for each request, which have no id.
            "uvicorn.access": {"level": "WARNING"},
            "kserve.trace": {"level": "WARNING"},
        },
    }


_out: TextIO | None = None


def write_to(stream: TextIO | None) -> None:
    """Write the log there; None is what stderr is at the time."""
    global _out
    _out = stream


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the log's stream, which is another one before and after a server has it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = _out or sys.stderr
        super().emit(record)


def _itself(value: Any) -> Any:
    return value


class Recorded:
    """ASGI middleware that gives each request its id and writes down how it ended."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(_HEADER.encode(), b"").decode("latin-1")
        status, began = 499, time.monotonic()
        REQUEST_ID.set(_checked(given))

        async def note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                pair = (_HEADER.encode(), REQUEST_ID.get().encode())
                message = {**message, "headers": [*message.get("headers", ()), pair]}
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            _record(scope["path"], status < 400, began, method=scope["method"], status=status)
        return None


class Recorder(grpc.aio.ServerInterceptor):
    """The same for gRPC."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of one call, watched."""
        handler = await continuation(details)
        if handler is None:
            return None
        given = str(dict(details.invocation_metadata or ()).get(_HEADER, ""))
        name = details.method.rpartition("/")[2]

        @contextmanager
        def recorded(context: Any) -> Iterator[None]:
            done, began = False, time.monotonic()
            REQUEST_ID.set(_checked(given))
            try:
                yield
                done = True
            finally:
                code = context.code() or (grpc.StatusCode.OK if done else grpc.StatusCode.CANCELLED)
                code = (
                    code if isinstance(code, grpc.StatusCode) else _CODES.get(code, grpc.StatusCode.UNKNOWN)
                )
                _record(name, code is grpc.StatusCode.OK, began, method="gRPC", status=code.name)

        async def answer(request: Any, context: Any) -> Any:
            with recorded(context):
                return await handler.unary_unary(request, context)

        async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
            with recorded(context):
                async for response in handler.stream_stream(requests, context):
                    yield response

        make, behaviour = (
            (grpc.unary_unary_rpc_method_handler, answer)
            if handler.unary_unary is not None
            else (grpc.stream_stream_rpc_method_handler, stream)
        )
        return make(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _checked(given: str) -> str:
    """The id of a request: the one it came with, if it is a word."""
    return given if re.fullmatch(r"[\w.:/=+-]{1,128}", given, re.ASCII) else uuid.uuid4().hex


def _record(what: str, good: bool, began: float, **fields: Any) -> None:
    if good and what in _QUIET:
        return
    seconds = round(time.monotonic() - began, 4)
    what = what if len(what) <= _LONGEST_PATH else what[:_LONGEST_PATH] + "..."
    fields = {"method": fields["method"], "path": what, "status": fields["status"], "seconds": seconds}
    _log.info("%s %s %s", fields["method"], fields["path"], fields["status"], extra={"fields": fields})
