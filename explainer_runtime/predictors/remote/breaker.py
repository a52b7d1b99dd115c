"""A circuit breaker: a model that has just failed again and again is left alone for a moment.

Closed, calls pass. After some failures in a row it opens, and calls fail at once instead of queueing for
a model that is not there. When the rest is over one call is let through as a probe: if it succeeds the
breaker closes, if it fails the next rest is twice as long, up to half a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from explainer_runtime.errors import PredictorError, PredictorTimeout, PredictorUnavailable
from explainer_runtime.predictors.remote.pace import NoTurn

_LONGEST = 30.0


class Breaker:
    """Guards the calls to one model. Safe to share by threads.

    Args:
        source: Who is called, for messages.
        failures: Calls that fail in a row before it opens.
        rest: Seconds until the first probe.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        source: str,
        failures: int = 5,
        rest: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._most, self._rest, self._clock = source, failures, rest, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._until: float | None = None  # open until then; None is closed
        self._probing = False

    @contextmanager
    def guard(self, patient: bool = True) -> Iterator[None]:
        """Pass while closed, and learn from how the block ends.

        Args:
            patient: Whether a time-out is the model's failure; with less time than usual it may not be.

        Raises:
            PredictorUnavailable: It is open; `retry_after` says for how long.
        """
        self._enter()
        try:
            yield
        except PredictorUnavailable:
            self._leave(failed=True)
            raise
        except NoTurn:
            self._leave(failed=None)
            raise
        except PredictorTimeout:
            self._leave(failed=True if patient else None)
            raise
        except PredictorError:
            self._leave(failed=False)  # it answered: it is there
            raise
        except BaseException:
            self._leave(failed=None)
            raise
        self._leave(failed=False)

    def _enter(self) -> None:
        with self._lock:
            if self._until is None:
                return
            left = self._until - self._clock()
            if left > 0 or self._probing:
                left = max(left, 0.1)
                raise PredictorUnavailable(
                    f"{self._source} has failed {self._failed} times in a row; it is left alone for "
                    f"{left:.1f} s",
                    retry_after=left,
                )
            self._probing = True

    def _leave(self, failed: bool | None) -> None:
        """Note how a call ended; None says nothing about the model."""
        with self._lock:
            self._probing = False
            if failed is None:
                return
            self._failed = self._failed + 1 if failed else 0
            if self._failed < self._most:
                self._until = None
            else:
                rest = self._rest * 2.0 ** min(self._failed - self._most, 10)
                self._until = self._clock() + min(rest, _LONGEST)
