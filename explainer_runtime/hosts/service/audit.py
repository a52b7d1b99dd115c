"""The audit record: one JSON line for each explanation, enough to make it again, and never a row in it.

What was asked is told by digests, what was answered by another, so that whoever has kept the rows can show
how an explanation came about (`cli/replaying.py`), and whoever has the record alone has no rows. What cannot
be written down is not answered: a record with gaps proves nothing.

Where lines go is a variable of the process, as nothing beside an artifact may decide it: a file, which is
opened for each line, so that it may be rotated; stdout; or the process' own OpenTelemetry logs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from explainer_runtime.artifact import Report
from explainer_runtime.artifact.provenance import digest
from explainer_runtime.errors import ExplainerError, InvalidOption, InvalidSpec
from explainer_runtime.explainers import Prepared
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service.caller import Caller
from explainer_runtime.hosts.service.logs import REQUEST_ID
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.predictors.fingerprint import identity
from explainer_runtime.spec import Limits, Spec, parse_options

SINK = "EXPLAINER_RUNTIME_AUDIT"
"""Variable with a path, `-` for stdout, or `otel`; nothing is recorded without it."""
_WORDS = 16
"""Entries of a list that are written out; what is longer is as large as a row, and told by its digest."""
_lock = threading.Lock()
_stdout = 1


def write_to(descriptor: int) -> None:
    """Take this for stdout, where a server has another one for what is printed."""
    global _stdout
    _stdout = descriptor


def check() -> bool:
    """Whether explanations are to be recorded.

    Raises:
        InvalidSpec: They are, and the file cannot be written, or OpenTelemetry's logs go nowhere.
    """
    sink = os.environ.get(SINK)
    if not sink:
        return False
    try:
        if sink == "otel":
            _check_provider()
        elif sink != "-":
            os.close(_opened(sink))
    except (OSError, ImportError) as error:
        raise InvalidSpec(f"audit: {sink}: {getattr(error, 'strerror', None) or error}") from None
    return True


def record(
    name: str,
    report: Report,
    prepared: Prepared,
    by: Caller,
    asked: tuple[np.ndarray, Mapping[str, Any] | None, Limits],
    answer: Explanation | BaseException,
    seconds: float,
) -> dict[str, Any]:
    """What is to be written down of one request.

    Args:
        name: Under which the explainer is served.
        report: Its artifact.
        prepared: What explained, or was about to.
        by: Who asked.
        asked: The rows `(N, *S)`, the options, and what was allowed.
        answer: The explanation, or what went wrong.
        seconds: How long it took.
    """
    from explainer_runtime import __version__

    rows, options, limits = asked
    line: dict[str, Any] = {
        "record": 1,
        "id": REQUEST_ID.get(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "explainer": name,
        "caller": caller_of(by),
        "artifact": report.digest,
        "signature": report.signature,
        "release": __version__,
        "model": {
            "fitted_to": dict(prepared.fitted.model),
            "asked": identity(prepared.predictor),
            "same": prepared.strangeness.warning is None,
        },
        "input": {"sha256": digest(np.asarray(rows, np.float32)), "shape": list(np.shape(rows))},
        "options": options_of(prepared.fitted.spec, options),
        "limits": limits.model_dump(mode="json"),
        "seconds": round(seconds, 6),
    }
    if isinstance(answer, Explanation):
        found, counts = np.unique(answer["status"], return_counts=True)
        line |= {
            "seed": answer.meta["spec"].get("seed"),
            "cost": {"calls": answer.cost.calls, "rows": answer.cost.rows, "steps": answer.cost.steps},
            "status": 200,
            "cached": "cached" in answer.meta,
            "rows": dict(zip(found.tolist(), counts.tolist(), strict=True)),
            "result": answer.digest(),
        }
    else:
        line |= {"status": fault(answer).status, "result": None}
    return line


def result_of(explanation: Explanation) -> str:
    """What a record has of an answer."""
    return explanation.digest()


def options_of(spec: Spec, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that were given, each as its setting has it; what is as large as a row by its digest.

    Options that are refused, which nobody has looked at, are not written down.
    """
    try:
        given = parse_options(spec, options).model_dump(mode="json", exclude_none=True)
    except InvalidOption:
        return {}
    return {name: short(value) for name, value in given.items()}


def short(value: Any) -> Any:
    """`value` itself, or its digest where it is a long list or text, or has lists in it."""
    large = isinstance(value, dict) or (
        isinstance(value, list | str)
        and (
            len(value) > (_WORDS if isinstance(value, list) else 200)
            or any(isinstance(v, list) for v in value)
        )
    )
    if not large:
        return value
    return {"sha256": hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()}


def caller_of(by: Caller) -> str:
    """Who asked, as a hash: of the token, where there was one, else of the name that fairness goes by."""
    if by.token:
        return f"token {by.token}"
    return f"client {hashlib.sha256(by.name.encode()).hexdigest()[:16]}" if by.name else ""


def write(line: Mapping[str, Any]) -> None:
    """Write one record.

    Raises:
        ExplainerError: It cannot be written, so nothing may be answered.
    """
    sink, text = os.environ[SINK], orjson.dumps(line)
    try:
        if sink == "otel":
            _emit(text.decode())
        elif sink == "-":
            with _lock:
                _all(_stdout, text + b"\n")
        else:
            descriptor = _opened(sink)
            try:
                _all(descriptor, b"\n" * _torn(descriptor, sink) + text + b"\n")
            finally:
                os.close(descriptor)
    except OSError as error:
        raise ExplainerError(
            "the audit record cannot be written, and nothing is answered without it"
        ) from error


def _opened(path: str) -> int:
    # Not to wait for whoever would read a pipe: if nobody does, it cannot be written.
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, how, 0o600)
    try:
        os.set_blocking(descriptor, True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of all processes that write there, until it is closed
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _torn(descriptor: int, path: str) -> bool:
    """Whether a file ends within a line, as on a disk that was full: the next would be lost with it."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    with suppress(OSError), open(path, "rb") as file:  # who may write it may not have to read it
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
    return False


def _all(descriptor: int, data: bytes) -> None:
    while data:  # a file takes a line at once, a pipe may take a part
        data = data[os.write(descriptor, data) :]


def _check_provider() -> None:
    from opentelemetry import _logs

    if type(_logs.get_logger_provider()).__module__.startswith("opentelemetry._logs"):
        raise ImportError("this process has no OpenTelemetry logger provider; records would go nowhere")


def _emit(text: str) -> None:
    from opentelemetry import _logs

    severity = _logs.SeverityNumber.INFO
    said = _logs.LogRecord(body=text, severity_number=severity, event_name="explainer_runtime.audit")
    _logs.get_logger("explainer_runtime.audit").emit(said)
