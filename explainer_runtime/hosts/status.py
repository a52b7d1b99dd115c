"""From an error to what the caller sees: the one table of status codes.

A caller's mistake is always 422, never 400 or 404: Seldon's agent answers those two by loading the model
again and repeating the request. What the model behind us did wrong is 502, 503 or 504, as for any gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from explainer_runtime.errors import (
    Cancelled,
    ExplainerError,
    InvalidArtifact,
    InvalidInput,
    InvalidOption,
    InvalidSpec,
    MissingExtra,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)

STATUS: Mapping[type[ExplainerError], int] = {
    InvalidInput: 422,
    InvalidOption: 422,
    InvalidSpec: 500,
    InvalidArtifact: 500,
    MissingExtra: 500,
    Cancelled: 499,  # nginx's "client closed request": nobody reads it, access logs show it
    PredictorError: 502,
    PredictorUnavailable: 503,
    PredictorTimeout: 504,
    ExplainerError: 500,
}


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
    return Fault(status, message if field is None or field in message else f"{field}: {message}")
