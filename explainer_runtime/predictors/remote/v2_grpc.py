"""V2 over gRPC: rows as raw bytes, the cheaper transport.

Channels are pooled: one HTTP/2 connection would send everything to one replica behind a Kubernetes Service,
and its reader is one thread. A channel that found its server gone is thrown away instead of kept: gRPC would
wait out a back-off before trying again, a new channel connects at once, so the next call works as soon as
the server is back.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from explainer_runtime.errors import (
    InvalidPrediction,
    MessageTooLarge,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors.remote import counting, oip
from explainer_runtime.predictors.remote.context import outgoing
from explainer_runtime.predictors.remote.retry import LONGEST
from explainer_runtime.predictors.remote.tensors import (
    DTYPES,
    MOST_VALUES,
    Answer,
    Declared,
    Described,
    Tensor,
    decode,
    one_line,
    pick,
    seconds_left,
    unpacked,
)
from explainer_runtime.predictors.settings import Endpoint


class Grpc:
    """V2's gRPC side of a `RemotePredictor`; see `Transport` there. Opens nothing until it is used."""

    def __init__(
        self,
        settings: Endpoint,
        address: str,
        headers: Mapping[str, str],
        roots: bytes | None,
        most: int,
        source: str,
    ) -> None:
        secure = settings.url.startswith("grpcs://")
        metadata = dict(headers)
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", settings.max_message),
            ("grpc.max_receive_message_length", most),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # or equal channels would share one connection
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if "host" in metadata:  # gRPC says :authority where HTTP says Host
            options.append(("grpc.default_authority", metadata.pop("host")))

        def connect() -> Any:
            if secure:
                return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
            return grpc.insecure_channel(address, options)

        self._metadata = metadata
        self._compression = grpc.Compression.Gzip if settings.compression == "gzip" else None
        self._model = {"name": settings.model, "version": settings.version or ""}
        self._output = settings.output_name
        self._source = source
        self._channels = _Channels(connect, settings.connections)

    def infer(self, inputs: Sequence[Tensor], until: float) -> Answer:
        """Send the rows and what goes with them, and return the output that was asked for."""
        request = oip.ModelInferRequest(
            model_name=self._model["name"],
            model_version=self._model["version"],
            inputs=[{"name": one.name, "datatype": one.datatype, "shape": one.data.shape} for one in inputs],
            outputs=[] if self._output is None else [{"name": self._output}],
            raw_input_contents=[one.data.tobytes() for one in inputs],
        )
        answer = self._call("ModelInfer", request, until)
        index = pick([output.name for output in answer.outputs], self._output, self._source)
        output = answer.outputs[index]
        numbers = _contents(output, index, answer.raw_output_contents, self._source)
        decoded = decode(numbers, output.datatype, list(output.shape), self._source)
        return Answer(decoded, one_line(f"{answer.model_name}/{answer.model_version}"))

    def bytes_of(self, datatype: str) -> int:
        """Bytes of one number of this datatype."""
        return DTYPES[datatype].itemsize

    def describe(self, until: float) -> Described:
        """The inputs that the model's metadata declares."""
        answer = self._call("ModelMetadata", oip.ModelMetadataRequest(**self._model), until)
        inputs = {one.name: Declared(one.datatype, tuple(one.shape)) for one in answer.inputs}
        return Described(inputs, answer.platform)

    def close(self) -> None:
        """Close the channels, each when its last call has ended."""
        self._channels.close()

    def _call(self, name: str, request: Any, until: float) -> Any:
        with self._channels.lease() as channel:
            # Bytes in, bytes out: what cannot be parsed is then our error, not a traceback in gRPC's log.
            call = channel.unary_unary(f"/{oip.SERVICE}/{name}")
            metadata = tuple({**self._metadata, **outgoing()}.items())
            left = seconds_left(until, self._source)
            try:
                answer = call(
                    request.SerializeToString(),
                    timeout=left,
                    metadata=metadata,
                    compression=self._compression,
                )
            except grpc.RpcError as error:
                raise self._refusal(error) from None
        try:
            counting.count(answer, _LAYOUTS[name], _MOST_FIELDS, MOST_VALUES)
            return _ANSWERS[name].FromString(answer)
        except counting.TooMany as error:
            raise InvalidPrediction(f"{self._source} answered with more than scores take: {error}") from None
        except (counting.Malformed, DecodeError):
            raise InvalidPrediction(
                f"{self._source} answered with something that is no {name}Response"
            ) from None

    def _refusal(self, error: Any) -> PredictorError:
        details = one_line(error.details() or "(no reason given)")
        return self._refused(error, details).quoting(details)

    def _refused(self, error: Any, details: str) -> PredictorError:
        status = error.code()
        match status:
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return PredictorTimeout(f"{self._source} did not answer in time")
            case grpc.StatusCode.UNAVAILABLE:
                return PredictorUnavailable(f"{self._source} cannot be reached: {details}", _pause(error))
            case grpc.StatusCode.RESOURCE_EXHAUSTED if any(words in details for words in _TOO_MUCH):
                return InvalidPrediction(f"{self._source} answered with more than is taken: {details}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED if found := _TOO_LARGE.search(details):
                return MessageTooLarge(f"{self._source}: {details}", int(found[1] or found[2]))
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return PredictorUnavailable(f"{self._source} is overloaded: {details}", _pause(error))
            case _:
                return PredictorError(f"{self._source} answered {status.name}: {details}")


def _pause(error: Any) -> float | None:
    """Seconds to wait before the next attempt, where the server says so.

    `retry-after` is HTTP's header as gateways pass it on; `grpc-retry-pushback-ms` is gRPC's own.
    """
    said = {name: str(value) for name, value in error.trailing_metadata() or ()}
    for name, unit in (("retry-after", 1.0), ("grpc-retry-pushback-ms", 1e-3)):
        if said.get(name, "").isdecimal():
            return min(LONGEST, float(said[name]) * unit)
    return None


_TOO_MUCH = ("CLIENT: Received message", "Decompressed message larger than max")
"""How gRPC says that an answer, and not the request, is too large."""
_TOO_LARGE = re.compile(r"larger than max \(\d+ vs\. (\d+)\)|exceeds maximum size (\d+)")
"""How gRPC, in C++, Python and Go, and in Java, says that a request is, and what would not be."""
_ANSWERS = {name: oip.MESSAGES[f"{name}Response"] for name in ("ModelInfer", "ModelMetadata")}
_LAYOUTS = {name: counting.layout(message) for name, message in _ANSWERS.items()}
_MOST_FIELDS = 10_000
"""Of one answer: outputs, shapes, parameters; the scores are in one field."""

_CONTENTS = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
}
"""Which of a tensor's typed contents holds what; FP16 comes raw only."""


def _contents(output: Any, index: int, raw: Any, source: str) -> Any:
    """The numbers of one output: raw bytes, or typed contents where the server sends those."""
    if not raw:
        return getattr(output.contents, _CONTENTS.get(output.datatype, "fp32_contents"))
    if index >= len(raw):
        raise InvalidPrediction(f"{source} answered with raw contents of another output")
    return unpacked(raw[index], output.datatype, source)


class _Channels:
    """At most `limit` channels, opened when all that are open are busy."""

    def __init__(self, connect: Callable[[], Any], limit: int) -> None:
        self._connect = connect
        self._limit = limit
        self._lock = threading.Lock()
        self._users: dict[Any, int] = {}  # calls on each channel that is not closed
        self._good: list[Any] = []  # those of them that new calls may use

    @contextmanager
    def lease(self) -> Iterator[Any]:
        """The channel with the fewest calls on it; given up if the call finds no server at its end."""
        channel = self._take()
        try:
            yield channel
        except PredictorUnavailable:
            self._give_up(channel)
            raise
        finally:
            self._release(channel)

    def close(self) -> None:
        """Let go of all channels; a later lease opens a new one."""
        with self._lock:
            self._good.clear()
            idle = [channel for channel, users in self._users.items() if users == 0]
            for channel in idle:
                del self._users[channel]
        for channel in idle:
            channel.close()

    def _take(self) -> Any:
        with self._lock:
            channel = min(self._good, key=self._users.__getitem__, default=None)
            if channel is None or (self._users[channel] > 0 and len(self._good) < self._limit):
                channel = self._connect()
                self._good.append(channel)
                self._users[channel] = 0
            self._users[channel] += 1
            return channel

    def _give_up(self, channel: Any) -> None:
        with self._lock:
            if channel in self._good:
                self._good.remove(channel)

    def _release(self, channel: Any) -> None:
        with self._lock:
            self._users[channel] -= 1
            done = self._users[channel] == 0 and channel not in self._good
            if done:
                del self._users[channel]
        if done:
            channel.close()
