"""V2 over REST: one JSON body there, one back, and never later than agreed.

An HTTP client's time-outs bound each read, so a server that sends one byte a second is never late. Here
the moment by which all must be done goes down to the socket: httpcore (the engine of httpx) hands the
numbers of its `timeout` extension to its network backend untouched, so ours reads them as moments of the
monotonic clock. httpcore also follows no redirects and reads no proxies from the environment, as it should
be for a neighbour in the cluster. (Looking up a host's name is the one wait that Python cannot bound.)

JSON keeps every bit: orjson writes a float32 in its shortest form, which reads back as the same float32.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpcore
import orjson

from explainer_runtime.errors import (
    InvalidPrediction,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors.tensors import Tensor, decode, one_line, pick, seconds_left
from explainer_runtime.spec import Endpoint

_PIECE = 2**16
# A server closes idle connections too (uvicorn after 5 s); closing first avoids sending into a closed one.
_KEEPALIVE = 3.0


class Rest:
    """The REST side of `V2Predictor`; see `Transport` there. Opens nothing until it is used."""

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
        model = f"/v2/models/{quote(settings.model, safe='')}"
        if settings.version is not None:
            model += f"/versions/{quote(settings.version, safe='')}"
        infer = "/" + quote((settings.path or f"{model}/infer").lstrip("/"), safe="/%:@!$&'()*+,;=?")
        self._infer, self._describe = (
            httpcore.URL(scheme=scheme.encode(), host=host.strip("[]").encode(), port=int(port), target=path)
            for path in (infer.encode(), infer.removesuffix("/infer").encode())
        )
        self._headers = {
            "host": address,
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            **headers,
        }
        self._output = settings.output_name
        self._most = most
        self._source = source
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust,
            max_connections=settings.connections,
            keepalive_expiry=_KEEPALIVE,
            network_backend=_Backend(),
        )

    def infer(self, rows: Tensor, until: float) -> Any:
        """Send `rows`, and return the output that was asked for."""
        tensor = {
            "name": rows.name,
            "shape": rows.data.shape,
            "datatype": rows.datatype,
            "data": rows.data.reshape(-1),
        }
        body = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = self._json(self._exchange("POST", self._infer, body, until))
        try:
            outputs = answer["outputs"]
            output = outputs[pick([one["name"] for one in outputs], self._output, self._source)]
            return decode(output["data"], output["datatype"], output["shape"], self._source)
        except (KeyError, TypeError):
            raise InvalidPrediction(f"{self._source} answered with JSON that is no V2 response") from None

    def inputs(self, until: float) -> dict[str, str]:
        """Datatype of each input that the model's metadata declares, in order."""
        answer = self._json(self._exchange("GET", self._describe, None, until))
        try:
            return {str(one["name"]): str(one["datatype"]) for one in answer["inputs"]}
        except (KeyError, TypeError):
            raise InvalidPrediction(f"{self._source} answered with JSON that is no V2 metadata") from None

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    def _exchange(self, method: str, url: httpcore.URL, body: bytes | None, until: float) -> bytearray:
        left = seconds_left(until, self._source)
        timeout = {"connect": until, "read": until, "write": until, "pool": left}
        headers = list(self._headers.items())
        try:
            with self._pool.stream(
                method, url, headers=headers, content=body, extensions={"timeout": timeout}
            ) as response:
                content = self._read(response.iter_stream())
        except httpcore.TimeoutException:
            raise PredictorTimeout(f"{self._source} did not answer in time") from None
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise PredictorUnavailable(
                f"{self._source} cannot be reached: {one_line(str(error)) or type(error).__name__}"
            ) from error
        except httpcore.LocalProtocolError as error:
            raise PredictorError(f"{self._source}: the request cannot be sent: {error}") from error
        if response.status != 200:
            raise self._refusal(response, bytes(content))
        return content

    def _read(self, pieces: Iterable[bytes]) -> bytearray:
        content = bytearray()
        for piece in pieces:
            content += piece
            if len(content) > self._most:
                raise InvalidPrediction(f"{self._source} answered with more than {self._most} bytes")
        return content

    def _json(self, content: bytearray) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            start = one_line(bytes(content[:100]).decode("latin-1"), 60)
            raise InvalidPrediction(
                f"{self._source} answered with something that is not JSON: {start}"
            ) from None

    def _refusal(self, response: httpcore.Response, content: bytes) -> PredictorError:
        status = response.status
        if 300 <= status < 400:
            named = {name.lower(): value for name, value in response.headers}
            to = named.get(b"location", b"elsewhere").decode("latin-1")
            text = f"redirects ({status}) to {one_line(to)}, which is not followed; configure that address"
        else:
            text = f"answered {status}: {_error_text(content)}"
        if status == 413:
            text += "; lower max_message"
        kinds = {429: PredictorUnavailable, 503: PredictorUnavailable, 504: PredictorTimeout}
        return kinds.get(status, PredictorError)(f"{self._source} {text}")


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
