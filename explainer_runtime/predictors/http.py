"""One HTTP exchange: a body there, one back, and never later than agreed.

An HTTP client's time-outs bound each read, so a server that sends one byte a second is never late. Here
the moment by which all must be done goes down to the socket: httpcore (the engine of httpx) hands the
numbers of its `timeout` extension to its network backend untouched, so ours reads them as moments of the
monotonic clock. httpcore also follows no redirects and reads no proxies from the environment, as it should
be for a neighbour in the cluster. (Looking up a host's name is the one wait that Python cannot bound.)
"""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import httpcore
import orjson

from explainer_runtime.errors import (
    InvalidPrediction,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors.context import outgoing
from explainer_runtime.predictors.tensors import one_line, seconds_left
from explainer_runtime.spec import Endpoint

_PIECE = 2**16
# A server closes idle connections too (uvicorn after 5 s); closing first avoids sending into a closed one.
_KEEPALIVE = 3.0


class Reply(NamedTuple):
    """A body, and the headers that came with it under lower-case names."""

    content: bytearray
    headers: Mapping[str, str]


class Http:
    """Connections to one server. Opens nothing until it is used.

    Args:
        settings: Where and how.
        address: `host:port`.
        headers: Sent with each request.
        trust: Of a server with TLS.
        most: Bytes of an answer; one that announces or sends more is refused.
        source: Who is called, for messages.
    """

    def __init__(
        self,
        settings: Endpoint,
        address: str,
        headers: Mapping[str, str],
        trust: ssl.SSLContext | None,
        most: int,
        source: str,
    ) -> None:
        scheme, _, _ = settings.url.partition("://")
        host, _, port = address.rpartition(":")
        self._origin = {"scheme": scheme.encode(), "host": host.strip("[]").encode(), "port": int(port)}
        self._headers = {
            "host": address,
            "content-type": "application/json",
            "accept": "*/*",
            "accept-encoding": "identity",
            **headers,
        }
        self._packed = settings.compression == "gzip"
        self._most = most
        self._source = source
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust,
            max_connections=settings.connections,
            keepalive_expiry=_KEEPALIVE,
            network_backend=_Backend(),
        )

    def get(self, path: str, until: float) -> Reply:
        """What is at `path`; raises as `Predictor`."""
        return self._exchange("GET", path, None, {}, until)

    def post(self, path: str, body: bytes, until: float, headers: Mapping[str, str] | None = None) -> Reply:
        """The answer to `body` sent to `path`; raises as `Predictor`."""
        more = dict(headers or {})
        if self._packed:
            body, more["content-encoding"] = gzip.compress(body, compresslevel=1), "gzip"
        return self._exchange("POST", path, body, more, until)

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str], until: float
    ) -> Reply:
        left = seconds_left(until, self._source)
        timeout = {"connect": until, "read": until, "write": until, "pool": left}
        target = quote(path, safe="/%:@!$&'()*+,;=?").encode()
        url = httpcore.URL(**self._origin, target=target)  # type: ignore[arg-type]
        headers = list({**self._headers, **outgoing(), **more}.items())
        try:
            with self._pool.stream(
                method, url, headers=headers, content=body, extensions={"timeout": timeout}
            ) as response:
                found = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                content = self._read(response, found)
        except httpcore.ConnectTimeout:
            raise PredictorTimeout(
                f"{self._source} did not answer in time: no connection came about. A network policy has to "
                "allow the port of the model's pods, not that of their Service"
            ) from None
        except httpcore.TimeoutException:
            raise PredictorTimeout(f"{self._source} did not answer in time") from None
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise PredictorUnavailable(
                f"{self._source} cannot be reached: {one_line(str(error)) or type(error).__name__}"
            ) from error
        except httpcore.LocalProtocolError as error:
            raise PredictorError(f"{self._source}: the request cannot be sent: {error}") from error
        if response.status != 200:
            raise self._refusal(response.status, found, bytes(content))
        return Reply(content, found)

    def _read(self, response: httpcore.Response, headers: Mapping[str, str]) -> bytearray:
        announced = headers.get("content-length", "")
        content = bytearray()
        if announced.isdecimal() and int(announced) > self._most:  # before a byte of it is read
            raise InvalidPrediction(f"{self._source} answered with more than {self._most} bytes")
        for piece in response.iter_stream():
            content += piece
            if len(content) > self._most:
                raise InvalidPrediction(f"{self._source} answered with more than {self._most} bytes")
        return content

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> PredictorError:
        if 300 <= status < 400:
            to = one_line(headers.get("location", "elsewhere"))
            text = f"redirects ({status}) to {to}, which is not followed; configure that address"
        else:
            text = f"answered {status}: {_error_text(content)}"
        if status == 413:
            text += "; lower max_message"
        text = f"{self._source} {text}"
        match status:
            case 429 | 503:
                return PredictorUnavailable(text, retry_after(headers.get("retry-after", "")))
            case 504:
                return PredictorTimeout(text)
            case _:
                return PredictorError(text)


def read_json(content: bytes | bytearray | memoryview, source: str) -> Any:
    """The JSON document in `content`.

    Raises:
        InvalidPrediction: It is something else.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        start = one_line(bytes(content[:100]).decode("latin-1"), 60)
        raise InvalidPrediction(f"{source} answered with something that is not JSON: {start}") from None


def retry_after(text: str) -> float | None:
    """Seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3); None if it says neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _error_text(content: bytes) -> str:
    """The `error` of a V2 error body, or what else there is to read."""
    try:
        body = orjson.loads(content)
        text = str(body["error"] if "error" in body else body["detail"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        text = content.decode("utf-8", "replace")
    return one_line(text) or "(no reason given)"


class _Backend(httpcore.NetworkBackend):
    """The plain socket backend, but `timeout` is a moment of the monotonic clock."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *rest: Any, **more: Any
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, left, *rest, **more))


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):  # in pieces: the clock is looked at between them
            self._inner.write(buffer[start : start + _PIECE], _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()


def _left(until: float | None, late: type[httpcore.TimeoutException]) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise late
    return left
