"""Trying again: only where it may help, never later than agreed, and as the model asks.

Only a model that was not there, or that said it is overloaded, is asked again (`PredictorUnavailable`). A
time-out has used up its time, and an answer that is wrong stays wrong. A model that says when to come back
(Retry-After) is taken at its word; if that is too late the call fails at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from explainer_runtime.errors import PredictorUnavailable

T = TypeVar("T")

LONGEST = 3600.0
"""Seconds that a model is taken at its word for, and that its word is passed on for."""
_FIRST = 0.05
"""Seconds before the second attempt; each later pause is twice as long. Half of it is chance, so that
callers who failed together do not come back together."""
_log = logging.getLogger(__name__)


def persistently(call: Callable[[], T], attempts: int, until: float, name: str = "the model") -> T:
    """What `call` returns, within `attempts` attempts and before the moment `until` of the monotonic clock.

    Args:
        call: Asks the model once.
        attempts: How often at most; at least 1.
        until: When the last attempt may begin.
        name: What to call the model where it is said that it is asked again.

    Raises:
        PredictorUnavailable: Of the last attempt.
        Exception: Any other, of the first attempt that raised it.
    """
    for attempt in range(attempts):
        try:
            return call()
        except PredictorUnavailable as error:
            chance = random.uniform(0.5, 1.0)  # noqa: S311
            wait = _FIRST * 2**attempt * chance if error.retry_after is None else error.retry_after
            if attempt == attempts - 1 or time.monotonic() + wait >= until:
                raise
            _log.warning("%s does not answer; trying again", name)
        time.sleep(wait)
    raise ValueError(f"expected at least one attempt, got {attempts}")
