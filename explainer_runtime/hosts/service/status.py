"""From an error to what the caller sees: the one table of status codes.

A caller's mistake is always 422, never 400 or 404: Seldon's agent answers those two by loading the model
again and repeating the request. Only a job that is not there is 404. What the model behind us did wrong is
502, 503 or 504, as for any gateway. A refusal that may pass by itself says when to try again: `Retry-After`
in REST, the same as trailing metadata in gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from explainer_runtime import errors
from explainer_runtime.errors import ExplainerError


class Rule(NamedTuple):
    """What becomes of one class of errors: an HTTP status, a gRPC code, whether trying again may help."""

    status: int
    grpc: str
    retryable: bool = False


RULES: Mapping[type[ExplainerError], Rule] = {
    errors.InvalidInput: Rule(422, "FAILED_PRECONDITION"),
    errors.InvalidOption: Rule(422, "FAILED_PRECONDITION"),
    errors.InvalidSpec: Rule(500, "INTERNAL"),
    errors.InvalidArtifact: Rule(500, "INTERNAL"),
    errors.MissingExtra: Rule(500, "INTERNAL"),
    errors.NotFound: Rule(404, "NOT_FOUND"),
    errors.Overloaded: Rule(429, "RESOURCE_EXHAUSTED", retryable=True),
    # nginx's "client closed request": nobody reads it, access logs show it.
    errors.Cancelled: Rule(499, "CANCELLED"),
    errors.Stopping: Rule(503, "UNAVAILABLE", retryable=True),
    errors.JobsUnavailable: Rule(503, "UNAVAILABLE", retryable=True),
    errors.PredictorError: Rule(502, "UNKNOWN"),
    errors.PredictorUnavailable: Rule(503, "UNAVAILABLE", retryable=True),
    errors.PredictorTimeout: Rule(504, "DEADLINE_EXCEEDED"),
    ExplainerError: Rule(500, "INTERNAL"),
}

STATUS: Mapping[type[ExplainerError], int] = {kind: rule.status for kind, rule in RULES.items()}
GRPC: Mapping[int, str] = {rule.status: rule.grpc for rule in RULES.values()}
"""gRPC code of each status."""


_LONGEST = 1000
"""Characters of one message."""


class Fault(NamedTuple):
    """What a caller is told: an HTTP status and one line."""

    status: int
    message: str


def fault(error: BaseException) -> Fault:
    """What to tell the caller about `error`: never a traceback, never a class name.

    Our own errors speak for themselves, with the offending field in front; anything else is an
    `internal error` whose details belong in the log.
    """
    if not isinstance(error, ExplainerError):
        return Fault(500, "internal error")
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    message, field = str(error), getattr(error, "field", None)
    return Fault(status, shortened(message if field is None or field in message else f"{field}: {message}"))


def shortened(message: str) -> str:
    """A message that quotes a long part of a request, cut: an answer is not for carrying it back."""
    return message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"


def retry_after(status: int) -> int | None:
    """Seconds after which a refusal of this status may have passed; None when trying again is no use."""
    return 1 if any(rule.retryable for rule in RULES.values() if rule.status == status) else None
