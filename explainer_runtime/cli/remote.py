"""Asking a served explainer, and hearing how far it is: server-sent events of `/infer_stream`. Or asking it
for a job, which may be looked at, waited for and cancelled later."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import numpy as np
import orjson

from explainer_runtime.errors import ExplainerError, InvalidInput, PredictorError, PredictorUnavailable
from explainer_runtime.explanation import Explanation
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import decode

_SECONDS = 3600.0
"""How long the next event may take; the server's own limits end an explanation long before."""


def explain(
    address: str, x: np.ndarray, options: Mapping[str, Any], progress: Callable[[float], None]
) -> Explanation:
    """The explanation of rows by the explainer at `address`, `http://host:port/name`.

    A token in EXPLAINER_RUNTIME_TOKEN is sent along.

    Args:
        address: Where it is served.
        x: Rows `(N, *S)`, float32.
        options: Options of the method.
        progress: Told the fraction that is done.

    Raises:
        InvalidInput: The address, or what the server refuses as the caller's mistake.
        PredictorUnavailable: It cannot be reached, or has no room now.
        PredictorError: It failed.
    """
    last: dict[str, Any] = {}
    seconds = 0.0
    with _opened("POST", f"{model(address)}/infer_stream", _request(x, options)) as response:
        for event in _parsed(response.iter_stream()):
            if "error" in event:
                raise PredictorError(f"{address}: {event['error']}")
            last = {output["name"]: output for output in event["outputs"]}
            seconds = event["parameters"].get("predictor_seconds", 0.0)
            if "progress" in last:
                progress(min(1.0, last["progress"]["data"][0]))
    if "explanation" not in last:
        raise PredictorError(f"{address}: the stream ended without an explanation")
    tensors = (Tensor(name, one["datatype"], one["shape"], one["data"]) for name, one in last.items())
    return decode(tensors, seconds)


def submit(address: str, x: np.ndarray, options: Mapping[str, Any]) -> dict[str, Any]:
    """The job that explains rows, as the server tells of it; arguments and errors as of `explain`."""
    with _opened("POST", f"{model(address)}/infer", _request(x, options), prefer="respond-async") as response:
        if response.status != 202:
            raise InvalidInput("this server takes no jobs; it is to be started with --jobs", "async")
        return dict(orjson.loads(response.read()))


def ask(method: str, url: str, accept: str = "application/json") -> bytes:
    """What a server answers to a request without a body; errors as of `explain`."""
    with _opened(method, url, accept=accept) as response:
        return bytes(response.read())


def watch(url: str) -> Iterator[dict[str, Any]]:
    """A job as often as it changes, until it has ended, or the server stops."""
    with _opened("GET", url, accept="text/event-stream") as response:
        yield from _parsed(response.iter_stream())


def model(address: str) -> str:
    """The URL of the explainer at `address`, `http://host:port/name`.

    Raises:
        InvalidInput: It is no such address.
    """
    parts = urlsplit(address)
    name = parts.path.strip("/").removeprefix("v2/models/")
    if parts.scheme not in ("http", "https") or not parts.netloc or not name or "/" in name:
        raise InvalidInput(f"expected http://host:port/name, got {address!r}", "server")
    return f"{parts.scheme}://{parts.netloc}/v2/models/{quote(name, safe='%')}"


def _request(x: np.ndarray, options: Mapping[str, Any]) -> bytes:
    x = np.ascontiguousarray(x, np.float32)
    rows = {"name": "input", "datatype": "FP32", "shape": x.shape, "data": x.ravel()}
    body = {"inputs": [rows], "parameters": {"explain_parameters": dict(options)}}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


@contextmanager
def _opened(method: str, url: str, body: bytes | None = None, **headers: str) -> Iterator[httpcore.Response]:
    """The answer to a request, if it is none that refuses, while it is read."""
    if body is not None:
        headers["content-type"] = "application/json"
    token = os.environ.get("EXPLAINER_RUNTIME_TOKEN")
    if token:
        headers["authorization"] = f"Bearer {token}"
    timeout = {"timeout": {"connect": 10.0, "read": _SECONDS, "write": 60.0, "pool": 10.0}}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=ssl.create_default_context()) as pool,
            pool.stream(
                method, url, headers=[*headers.items()], content=body, extensions=timeout
            ) as response,
        ):
            if response.status >= 300:
                raise _refusal(response.status, response.read(), url)
            yield response
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise PredictorUnavailable(f"{url}: {error or type(error).__name__}") from None


def _parsed(parts: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    buffer = b""
    for part in parts:
        *events, buffer = (buffer + part).split(b"\n\n")
        for event in events:
            data = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
            if data:  # a comment has none
                yield orjson.loads(b"\n".join(data))


def _refusal(status: int, body: bytes, url: str) -> ExplainerError:
    try:
        message = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"{url} answered with status {status}"
    if status in (429, 503):
        return PredictorUnavailable(message)
    return InvalidInput(message, message.partition(":")[0]) if status < 500 else PredictorError(message)
