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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import httpcore
import orjson

from explainer_runtime.errors import (
    InvalidPrediction,
    MessageTooLarge,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors.remote.context import outgoing
from explainer_runtime.predictors.remote.retry import LONGEST
from explainer_runtime.predictors.remote.tensors import MOST_VALUES, one_line, seconds_left
from explainer_runtime.predictors.settings import Endpoint

_PIECE = 2**16
_MOST_LISTS = 200_000
"""Of one answer: a message has at most 8,192 rows."""
_MOST_ERROR = 2**16
"""Bytes of an error that are looked at."""
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
        origin = httpcore.Origin(**self._origin)  # type: ignore[arg-type]
        backend = _Backend()

        def connect() -> httpcore.HTTPConnection:
            return httpcore.HTTPConnection(
                origin, ssl_context=trust, keepalive_expiry=_KEEPALIVE, network_backend=backend
            )

        self._connections = _Connections(connect, settings.connections)

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
        self._connections.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str], until: float
    ) -> Reply:
        left = seconds_left(until, self._source)
        timeout = {"connect": until, "read": until, "write": until}
        target = quote(path, safe="/%:@!$&'()*+,;=?").encode()
        url = httpcore.URL(**self._origin, target=target)  # type: ignore[arg-type]
        headers = list({**self._headers, **outgoing(), **more}.items())
        try:
            with (
                self._connections.lease(left) as connection,
                connection.stream(
                    method, url, headers=headers, content=body, extensions={"timeout": timeout}
                ) as response,
            ):
                found = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                content = self._read(response, found)
                if _left_over(response):
                    connection.close()
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
            quoted = one_line(headers.get("location", "elsewhere"))
            text = f"redirects ({status}) to {quoted}, which is not followed; configure that address"
        else:
            quoted = _error_text(content[:_MOST_ERROR])
            text = f"answered {status}: {quoted}"
        text = f"{self._source} {text}"
        match status:
            case 429 | 503:
                error: PredictorError = PredictorUnavailable(
                    text, retry_after(headers.get("retry-after", ""))
                )
            case 413:
                error = MessageTooLarge(text)
            case 504:
                error = PredictorTimeout(text)
            case _:
                error = PredictorError(text)
        return error.quoting(quoted)


def path(settings: Endpoint, end: str) -> str:
    """The path of a call to a model, by the rules of its protocol or as it was set."""
    model = f"/{settings.kind}/models/{quote(settings.model, safe='')}"
    if settings.version is not None:
        model += f"/versions/{quote(settings.version, safe='')}"
    return "/" + (settings.path or model + end).lstrip("/")


def read_json(content: bytes | bytearray | memoryview, source: str) -> Any:
    """The JSON document in `content`.

    Raises:
        InvalidPrediction: It is something else.
    """
    text = bytes(content)
    if text.count(b"[") + text.count(b"{") > _MOST_LISTS or text.count(b",") > MOST_VALUES:
        raise InvalidPrediction(f"{source} answered with more lists or values than any scores take")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        start = one_line(text[:100].decode("latin-1"), 60)
        raise InvalidPrediction(f"{source} answered with something that is not JSON: {start}").quoting(
            start
        ) from None


def retry_after(text: str) -> float | None:
    """Seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3); None if it says neither.

    At most `LONGEST`: nobody waits longer.
    """
    if text.strip().isdecimal():
        return min(LONGEST, float(text))
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(LONGEST, max(0.0, seconds))


def _error_text(content: bytes) -> str:
    """The `error` of a V2 error body, or what else there is to read."""
    try:
        body = orjson.loads(content)
        text = str(body["error"] if "error" in body else body["detail"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        text = content.decode("utf-8", "replace")
    return one_line(text) or "(no reason given)"


def _left_over(response: httpcore.Response) -> bool:
    """Whether more came than the answer, which the next request on this connection would take for its own.

    httpcore has no word for it: these are names of 1.0, and a test sends such an answer.
    """
    stream: Any = response.stream
    left: tuple[bytes, bool] = stream._connection._h11_state.trailing_data
    return bool(left[0])


class _Connections:
    """At most `most` connections, each used by one thread at a time; the one used last is used next.

    httpcore's own pool loses a wake-up now and then when many threads wait for few connections.
    """

    def __init__(self, connect: Callable[[], httpcore.HTTPConnection], most: int) -> None:
        self._connect = connect
        self._places = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[httpcore.HTTPConnection] = []
        self._times_closed = 0

    @contextmanager
    def lease(self, seconds: float) -> Iterator[httpcore.HTTPConnection]:
        """A connection that nobody else uses, opened when it is asked something.

        Raises:
            PoolTimeout: None became free in so many seconds.
        """
        if not self._places.acquire(timeout=seconds):
            raise httpcore.PoolTimeout
        try:
            connection, times_closed = self._take(), self._times_closed
            try:
                yield connection
            finally:
                with self._lock:
                    keep = connection.is_idle() and times_closed == self._times_closed
                    if keep:
                        self._idle.append(connection)
                if not keep:
                    connection.close()
        finally:
            self._places.release()

    def close(self) -> None:
        """Close those that are idle, and the others when they are given back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._times_closed += 1
        for connection in idle:
            connection.close()

    def _take(self) -> httpcore.HTTPConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else self._connect()
            # One that can be read has been ended by the server, or says what it was not asked.
            if not (connection.is_closed() or connection.has_expired()):
                return connection
            connection.close()


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
