"""The trace that a call belongs to, carried from whoever was asked to the model that is asked.

A host that was called within a W3C trace puts its headers here while it works; each call to the model sends
them on. Where the host traces with OpenTelemetry, the span that is current goes before them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("traceparent", "tracestate", "baggage")
"""Headers that are passed on (https://www.w3.org/TR/trace-context/, https://www.w3.org/TR/baggage/)."""

_MOST = 8192  # characters of one header: what W3C asks of baggage, and far more than a trace needs
_NONE: Mapping[str, str] = {}
_carried: ContextVar[Mapping[str, str]] = ContextVar("explainer_runtime_trace", default=_NONE)


@contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """Pass on the trace headers among `headers`, the caller's, with each call to a model made inside."""
    found = {name.lower(): value for name, value in headers.items() if name.lower() in NAMES}
    token = _carried.set({name: value for name, value in found.items() if _sendable(value)})
    try:
        yield
    finally:
        _carried.reset(token)


def outgoing() -> dict[str, str]:
    """Headers to send with a call made here and now."""
    headers = dict(_carried.get())
    if "opentelemetry.trace" in sys.modules:  # who traces has imported it; who does not is spared the import
        from opentelemetry import propagate

        own: dict[str, str] = {}
        propagate.inject(own)
        headers.update((name, value) for name, value in own.items() if _sendable(value))
    return headers


def _sendable(value: str) -> bool:
    return len(value) <= _MOST and re.fullmatch(r"[!-~]([ -~]*[!-~])?", value) is not None
