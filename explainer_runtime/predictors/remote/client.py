"""A model behind an endpoint, over V2 (REST or gRPC) or V1.

This file holds what all transports have in common: which tensor the rows travel as, how many fit one message,
what the numbers that come back mean, and one moment by which everything must be done. A transport
(`v2_rest.py`, `v2_grpc.py`, `v1.py`) sends one tensor and returns one. Manners have files of their own:
`pace.py`, `retry.py`, `breaker.py`.

What the model's metadata says is a help, not a condition. It is asked for at the first call and kept;
whoever refuses to answer (Seldon's agent answers 400) is sent `input-0` in FP32, the most common choice.
After a call that the model refused, it is asked for again: the model may have been replaced.
"""

from __future__ import annotations

import math
import re
import ssl
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np

from explainer_runtime.errors import (
    InvalidPrediction,
    InvalidSpec,
    MessageTooLarge,
    PredictorChanged,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors import meaning, tally
from explainer_runtime.predictors.remote.breaker import Breaker
from explainer_runtime.predictors.remote.pace import Pace
from explainer_runtime.predictors.remote.retry import persistently
from explainer_runtime.predictors.remote.tensors import (
    DTYPES,
    FLOATS,
    Answer,
    Declared,
    Described,
    Tensor,
    encode,
    held,
    seconds_left,
)
from explainer_runtime.predictors.settings import Endpoint

_HEADROOM = 4096
"""Bytes of a message for what is not rows: names, shapes, framing."""
_MOST_ROWS = 8192
"""Rows of one message however small they are, so that budgets and cancellation are looked at in between."""
_MOST_ANSWER = 64 * 2**20
"""Bytes of an answer: 8,192 rows of 1,000 float64 scores, or of 400 as JSON."""

# Rows made up by a search are no traffic: keep them out of payload logs (Seldon) and monitors (TrustyAI).
_POLITE = {"seldon-skip-logging": "true", "bias-ignore": "true"}


class Transport(Protocol):
    """Tensors there, one back, by a moment `until` of the monotonic clock. Safe to share by threads."""

    def infer(self, inputs: Sequence[Tensor], until: float) -> Answer:
        """The output that was asked for, in the shape the model gave it, of the rows and what goes with them;
        raises as `Predictor`."""
        ...

    def bytes_of(self, datatype: str) -> int:
        """Most bytes that one number of this datatype takes in a message."""
        ...

    def describe(self, until: float) -> Described:
        """What the model's metadata says; raises likewise."""
        ...

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        ...


class RemotePredictor:
    """A served model as a `Predictor`. Safe to share by threads; opens no connection until it is called.

    Args:
        settings: Where and how. `max_message` bounds the rows of one message, in the bytes that they take at
            most as the transport writes them; where the server takes less its refusals say so, and what was
            learnt of them holds from then on.

    Attributes:
        settings: As given.
        name: What to call it in messages.
        changes: How often an answer has come from another model or version than the answer before; whoever
            needs one model all along (`canary.py`) compares it before and after.

    Raises:
        InvalidSpec: An address, header or CA file that cannot be used.
    """

    def __init__(self, settings: Endpoint) -> None:
        self.settings = settings
        address = _address(settings.url)
        self.name = f"model {settings.model!r} at {address}"
        self.changes = 0
        self._model: str | None = None
        self._most = settings.max_message
        self._noting = threading.Lock()
        self._transport = _transport(settings, address, self.name)
        weakref.finalize(self, self._transport.close)  # a predictor that is dropped hangs up
        self._settling = threading.Lock()
        self._settled: _Settled | None = None
        self._breaker = Breaker(self.name)
        self._pace = Pace(settings.calls_at_once, settings.rows_per_second)

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`. The shorter of `timeout` and the configured one bounds all messages together."""
        patient = timeout is None or timeout >= self.settings.timeout
        seconds = self.settings.timeout if timeout is None else min(timeout, self.settings.timeout)
        until = time.monotonic() + seconds
        x = np.ascontiguousarray(x, dtype=np.float32)
        if len(x) == 0:
            return np.empty((0, self.settings.classes or 2), dtype=np.float32)
        with self._breaker.guard(patient):
            try:
                return self._scores(x, until)
            except (PredictorUnavailable, PredictorTimeout):
                raise
            except PredictorError:
                self._settled = None
                raise

    @property
    def exclusive(self) -> bool:
        """See `Predictor`."""
        return meaning.exclusive(self.settings)

    @property
    def integers(self) -> bool:
        """See `Predictor`; false before the model has said so."""
        return self.whole is not None and meaning.unscaled(self.settings)

    def snap(self, x: np.ndarray) -> np.ndarray:
        """See `Predictor`."""
        return meaning.snap(x, self.whole, self.settings)

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        """How many rows of this shape go into one message; see the class."""
        settled = self._settled or self._choose(Described({}))
        return self._rows(shape, settled)

    def close(self) -> None:
        """Close all connections; a call in flight may fail as unavailable, a later call connects again."""
        self._transport.close()

    @property
    def whole(self) -> tuple[float, float] | None:
        """Lowest and highest whole number that the model takes; None where it takes fractions, or has not
        said yet."""
        datatype = self._datatype()
        if datatype in FLOATS:
            return None
        limits = np.iinfo(DTYPES[datatype])
        return float(limits.min), float(limits.max)

    def meet(self) -> None:
        """Ask the model what it takes, if that is not known; who does not say is taken to take floats."""
        self._input(time.monotonic() + self.settings.timeout)

    def identity(self) -> dict[str, str]:
        """Who the model said it is, with its metadata and its last answer: `name`, `version`, `platform`."""
        name, _, version = (self._model or "").partition("/")
        settled = self._settled
        platform = "" if settled is None else settled.platform
        said = {"name": name, "version": version, "platform": platform}
        return {word: text for word, text in said.items() if text not in ("", "None")}

    def _datatype(self) -> str:
        settled = self._settled
        return (self.settings.datatype or "FP32") if settled is None else settled.datatype

    def _rows(self, shape: tuple[int, ...], settled: _Settled) -> int:
        if batch := self._batch(shape, settled):
            return batch
        room = self._most - min(_HEADROOM, self._most // 4)
        return min(_MOST_ROWS, max(1, room // self._bytes(shape, settled)))

    def _bytes(self, shape: tuple[int, ...], settled: _Settled) -> int:
        """What one row takes of a message, at most."""
        # Types narrower than FP32 count as FP32, so that rows_per_call holds before the type is known.
        one = max(self._transport.bytes_of("FP32"), self._transport.bytes_of(settled.datatype))
        others = sum(np.size(value) for value in self.settings.hold.values())
        return max(1, one * (math.prod(shape) + others))

    def _learn(self, refusal: MessageTooLarge, rows: int, shape: tuple[int, ...], settled: _Settled) -> None:
        """Send less from now on than a message of so many rows.

        Raises:
            MessageTooLarge: It was one row, or as many as the model takes at a time.
        """
        half = rows * self._bytes(shape, settled) // 2  # where it does not say how much it takes
        with self._noting:
            self._most = min(self._most, refusal.most or half)
            if self._rows(shape, settled) >= rows:  # what goes with the rows is more than was thought
                self._most = half
        if self._rows(shape, settled) >= rows:
            least = "one row" if rows == 1 else f"the {rows} rows that the model takes at a time"
            said = f"{refusal}; that was {least}: the server, or max_message, has to allow more"
            raise MessageTooLarge(said, refusal.most).quoting(refusal.quoted) from None

    def _batch(self, shape: tuple[int, ...], settled: _Settled) -> int:
        """How many rows the model takes at a time, neither more nor fewer; 0 is any number."""
        if self.settings.batch is not None:
            return self.settings.batch
        declared = settled.shape
        return max(0, declared[0]) if len(declared) == 1 + len(shape) else 0

    def _scores(self, x: np.ndarray, until: float) -> np.ndarray:
        settled = self._input(until)
        self._check_shape(x.shape[1:], settled)
        whole = self._batch(x.shape[1:], settled)
        parts: list[np.ndarray] = []
        models, start, sent = set(), 0, 0
        while start < len(x):
            rows = x[start : start + self._rows(x.shape[1:], settled)]
            count, more = len(rows), max(0, whole - len(rows))
            rows = np.concatenate([rows, np.repeat(rows[-1:], more, axis=0)]) if more else rows
            tally.add(calls=int(sent > 0))
            sent += 1
            try:
                answer = self._ask(rows, settled, until)
            except MessageTooLarge as refusal:  # which the model has not seen
                self._learn(refusal, len(rows), x.shape[1:], settled)
                continue
            tally.add(rows=more)
            start += count
            scores = meaning.scores(answer.numbers, len(rows), self.settings, self.name)
            parts.append(scores[:count])
            models.add(answer.model)
        if len({part.shape[1] for part in parts}) > 1:
            raise InvalidPrediction(f"{self.name} changed its number of classes from message to message")
        if len(models) > 1:
            raise PredictorChanged(f"{self.name} was replaced by another version from message to message")
        return np.concatenate(parts)

    def _check_shape(self, shape: tuple[int, ...], settled: _Settled) -> None:
        """Refuse rows that the model, by its own word, does not take; what may be meant otherwise passes."""
        declared = settled.shape[1:]
        if len(declared) == len(shape) and not all(
            size in (known, -1) for size, known in zip(declared, shape, strict=True)
        ):
            self._settled = None  # it may be replaced by one that does
            raise InvalidSpec(
                f"{self.name}: takes rows of shape {declared}, the explainer is for {shape}; {meaning.PAGE}"
            )

    def _ask(self, rows: np.ndarray, settled: _Settled, until: float) -> Answer:
        given = self.settings
        data = encode(meaning.units(rows, given, self.name), settled.datatype)
        inputs = [
            Tensor(settled.name, settled.datatype, data),
            *(held(name, value, settled.others.get(name), len(rows)) for name, value in given.hold.items()),
        ]
        attempts = 0

        def attempt() -> Answer:
            nonlocal attempts
            attempts += 1
            tally.add(rows=len(rows) * (attempts > 1), calls=int(attempts > 1))
            return self._transport.infer(inputs, until)

        with self._pace.turn(len(rows), until, self.name):
            answer = persistently(attempt, given.attempts, until, self.name)
        with self._noting:
            self.changes += self._model not in (None, answer.model)
            self._model = answer.model
        return answer

    def _input(self, until: float) -> _Settled:
        """What to send rows as; one thread finds out, the others wait for it."""
        settled = self._settled
        if settled is not None:
            return settled
        if not self._settling.acquire(timeout=seconds_left(until, self.name)):
            raise PredictorTimeout(f"{self.name} did not answer in time")
        try:
            settled = self._settled
            if settled is None:
                # At most half of the time: metadata that never comes must leave some for the call itself.
                soon = time.monotonic() + seconds_left(until, self.name) / 2
                try:
                    settled = self._choose(self._transport.describe(soon))
                except (PredictorUnavailable, PredictorTimeout):
                    return self._choose(Described({}))  # not kept: no answer is not an answer
                except PredictorError:
                    settled = self._choose(Described({}))
                self._settled = settled
            return settled
        finally:
            self._settling.release()

    def _choose(self, said: Described) -> _Settled:
        free = (name for name in said.inputs if name not in self.settings.hold)
        name = self.settings.input_name or next(free, "input-0")
        declared = said.inputs.get(name, Declared("FP32"))
        datatype = self.settings.datatype or declared.datatype
        others = {one: it.datatype for one, it in said.inputs.items() if one != name}
        known = datatype if datatype in DTYPES else "FP32"
        return _Settled(name, known, declared.shape, others, said.platform)


class _Settled(NamedTuple):
    """What to send rows as: name and datatype of the input, the shape it declares with its batch; and the
    datatypes of the other inputs."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    others: Mapping[str, str]
    platform: str


def _transport(settings: Endpoint, address: str, source: str) -> Transport:
    scheme, _, _ = settings.url.partition("://")
    most = max(_MOST_ANSWER, settings.max_message)
    headers = _headers(settings.headers)
    # Only the transport that is used is imported.
    if scheme.startswith("grpc"):
        from explainer_runtime.predictors.remote.v2_grpc import Grpc

        roots = _roots(settings.ca_path) if scheme == "grpcs" else None
        return Grpc(settings, address, headers, roots, most, source)
    trust = _trust(settings.ca_path) if scheme == "https" else None
    from explainer_runtime.predictors.remote.http import Http

    http = Http(settings, address, headers, trust, most, source)
    if settings.kind == "v1":
        from explainer_runtime.predictors.remote.v1 import Predict

        return Predict(settings, http, source)
    from explainer_runtime.predictors.remote.v2_rest import Rest

    return Rest(settings, http, source)


def _address(url: str) -> str:
    """`host:port` of an endpoint's URL, which must hold nothing else."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme in ("https", "grpcs") else 80)
    except ValueError:
        raise InvalidSpec(f"predictor.url: the port of {url!r} is not a number up to 65535") from None
    if parts.username is not None or not parts.hostname:
        raise InvalidSpec("predictor.url: expected scheme://host:port; credentials go into headers")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidSpec(f"predictor.url: expected scheme://host:port, got {url!r}; the rest goes into path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def _headers(configured: Mapping[str, str]) -> dict[str, str]:
    headers = {**_POLITE, **{name.lower(): value for name, value in configured.items()}}
    for name, value in headers.items():
        if not re.fullmatch(r"[a-z0-9_.-]+", name) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value):
            raise InvalidSpec(f"predictor.headers: {name!r} is not a header of plain ASCII text")
    return headers


def _trust(ca_path: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_path)
    except OSError as error:
        raise InvalidSpec(f"predictor.ca_path: {ca_path} cannot be used: {error}") from error


def _roots(ca_path: str | None) -> bytes | None:
    path = ca_path or ssl.get_default_verify_paths().cafile
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InvalidSpec(f"predictor.ca_path: {path} cannot be used: {error}") from error
