"""How hard a model may be pressed: calls at the same time, and rows a second.

The model is production's, and every made-up row takes capacity from real ones. Both limits make a call wait
for its turn, never longer than it may take itself. Rows are let through at an even rate: a call goes at
once if those before it are paid for, and then the next one waits until it is paid for as well, so that no
second sees more than the limit and one message.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from explainer_runtime.errors import PredictorTimeout

_SOON = 0.01
"""Share of a call's time that may pass before its turn and still leave the model all of it."""


class NoTurn(PredictorTimeout):
    """Our own limits took the time of a call. That says nothing about the model, which was not asked, or
    hurried."""


class Pace:
    """Turns at one model. Safe to share by threads.

    Args:
        calls_at_once: Calls under way at the same time.
        rows_per_second: Rows a second on average; None is no limit.
        clock: Tells the time in seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        calls_at_once: int,
        rows_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._places = threading.Semaphore(calls_at_once)
        self._rate, self._clock, self._sleep = rows_per_second, clock, sleep
        self._lock = threading.Lock()
        self._paid = clock()  # when all rows let through so far are paid for

    @contextmanager
    def turn(self, rows: int, until: float, source: str) -> Iterator[None]:
        """Wait for the turn of a call with that many rows.

        Raises:
            NoTurn: It does not come by the moment `until` of the clock, or so late that the call, the block,
                ran out of time.
        """
        came = self._clock()
        wait = self.reserve(rows, until)
        if wait > 0:
            self._sleep(wait)
        if self._clock() >= until:
            raise NoTurn(f"{source}: rows_per_second leaves no room for {rows} more rows in time")
        if not self._places.acquire(timeout=max(0.0, until - self._clock())):
            raise NoTurn(f"{source} is busy with as many calls as calls_at_once allows")
        try:
            turn = self._clock()
            try:
                yield
            except PredictorTimeout as error:
                if turn - came < _SOON * (until - came):
                    raise
                raise NoTurn(
                    f"{error}: of {until - came:.3g} s its limits left {until - turn:.3g}"
                ) from error
        finally:
            self._places.release()

    def reserve(self, rows: int, until: float = math.inf) -> float:
        """Seconds to wait until so many rows may go. A turn that would come too late is not taken, but waited
        for as long as may be."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            start = max(now, self._paid)
            if start >= until:
                return until - now
            self._paid = start + rows / self._rate
            return start - now
