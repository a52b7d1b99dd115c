"""Trying again: only where it may help, never later than agreed, and as the model asks.

Only a model that was not there, or that said it is overloaded, is asked again (`PredictorUnavailable`). A
time-out has used up its time, and an answer that is wrong stays wrong. A model that says when to come back
(Retry-After) is taken at its word; if that is too late the call fails at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import stamina

from explainer_runtime.errors import PredictorUnavailable

T = TypeVar("T")

LONGEST = 3600.0
"""Seconds that a model is taken at its word for, and that its word is passed on for."""
_FIRST = 0.05
"""Seconds before the second attempt; each later pause is twice as long. Half of it is chance, so that
callers who failed together do not come back together."""


def persistently(call: Callable[[], T], attempts: int, until: float) -> T:
    """What `call` returns, within `attempts` attempts and before the moment `until` of the monotonic clock.

    Raises:
        PredictorUnavailable: Of the last attempt.
        Exception: Any other, of the first attempt that raised it.
    """
    pause = _FIRST

    def again(error: Exception) -> bool | float:
        nonlocal pause
        if not isinstance(error, PredictorUnavailable):
            return False
        wait = pause * random.uniform(0.5, 1.0) if error.retry_after is None else error.retry_after  # noqa: S311
        pause *= 2
        return wait if time.monotonic() + wait < until else False

    # stamina counts and pauses, and tells whoever watches retries; when to stop for time is said above.
    for attempt in stamina.retry_context(on=again, attempts=attempts, timeout=None):
        with attempt:
            return call()
    raise AssertionError("stamina returns or raises")
