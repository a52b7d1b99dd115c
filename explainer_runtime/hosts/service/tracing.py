"""Spans, where OpenTelemetry is installed; nothing, and at no cost, where it is not.

Only its API is used: whether and where spans go is for the process to configure. The context of a request
(`traceparent`) is taken up at the door, so spans here hang below the caller's, and calls of the model being
explained carry it on, with an SDK or without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from explainer_runtime.predictors.base import Around
from explainer_runtime.predictors.remote.context import carrying

try:
    from opentelemetry import context, propagate, trace
except ImportError:
    _INSTALLED = False
else:
    _INSTALLED = True

_NAME = "explainer_runtime"


@contextmanager
def incoming(headers: Mapping[str, str]) -> Iterator[None]:
    """Within, everything belongs to the trace that these headers name, if any."""
    with carrying(headers):
        if not _INSTALLED or "traceparent" not in headers:
            yield
            return
        token = context.attach(propagate.extract(dict(headers)))
        try:
            yield
        finally:
            context.detach(token)


def span(name: str, **attributes: Any) -> Any:
    """A context manager: a span around its body, marked with the error that leaves it."""
    if not _INSTALLED:
        return nullcontext()
    attributes = {f"{_NAME}.{key}": value for key, value in attributes.items()}
    return trace.get_tracer(_NAME).start_as_current_span(name, attributes=attributes)


class Traced(Around):
    """A predictor behind a network, with a span around each call."""

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`."""
        with span("predict", rows=len(x)):
            return self._predictor(x, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)
