"""Asks of explanations that run at the same time, merged into few calls to the model.

A round trip is dear and a row is cheap, so explanations beside each other share round trips. An ask waits for
others to join it, but never in vain and never long: it goes out at once when every other explanation that
is running waits as well or has its rows with the model already, when enough rows have come together, or when
it has waited `wait` microseconds for each of the others. Alone, nobody waits at all.

What they share is the call and nothing else. Each is handed its own rows back. A call goes out with the
longest time that any of its members has left, and each member gives up at its own. An answer that is wrong
may be the fault of one member's rows, so each then asks alone; that a model cannot be reached, or is too
slow, is told to all of them instead of asking it many times more. What a call takes beyond its rows is shared
by its members (`tally.py`).
"""

from __future__ import annotations

import contextvars
import copy
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from explainer_runtime.errors import PredictorTimeout, PredictorUnavailable
from explainer_runtime.predictors import tally
from explainer_runtime.predictors.base import Around, Predictor
from explainer_runtime.predictors.tally import Tally

WAIT = 3000
"""Microseconds that an ask waits at most for each other explanation that is running."""
LONGEST = 100_000
"""Microseconds that it waits at most, however many there are."""
ROWS = 4096
"""Rows that go out together at most."""
_CALLS_AT_ONCE = 8


_Outcome = np.ndarray | Exception | None
"""What became of an ask: its scores, an error of its own, or None where it is to be asked alone."""


@dataclass(eq=False)
class _Ask:
    """Rows that wait; `until` is when nobody wants them any more."""

    x: np.ndarray
    until: float | None
    answer: Future[np.ndarray | None] = field(default_factory=Future)
    more: Tally = field(default_factory=Tally)  # what its share of the call took beyond it

    def left(self) -> float | None:
        """Seconds until nobody wants them any more."""
        return None if self.until is None else max(1e-3, self.until - time.monotonic())


class Merging(Around):
    """A predictor around a predictor. Safe to call from several threads, which is what it is for.

    Args:
        predictor: Who is asked.
        wait: Microseconds that an ask waits at most for each other explanation that is running.
        longest: Microseconds that it waits at most, however many there are.
        rows: Rows that go out together at most; fewer where the predictor's messages hold fewer.
    """

    def __init__(
        self, predictor: Predictor, *, wait: int = WAIT, longest: int = LONGEST, rows: int = ROWS
    ) -> None:
        super().__init__(predictor)
        self._rows = rows
        self._wait, self._longest = wait / 1e6, longest / 1e6
        self._changed = threading.Condition()
        self._waiting: list[_Ask] = []
        self._running = self._away = 0
        self._asked = self._sent = 0
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """While an explanation runs in this thread: others may wait for its asks."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @property
    def asked(self) -> int:
        """Calls that explanations have made."""
        return self._asked

    @property
    def sent(self) -> int:
        """Calls that the model has had; `asked / sent` is how much coalescing saves."""
        return self._sent

    def __call__(self, x: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """See `Predictor`; the time that an ask waits for others counts as the model's."""
        ask = _Ask(x, None if timeout is None else time.monotonic() + timeout)
        with self._changed:
            self._asked += 1
            alone = self._running <= 1 and not self._waiting
            if not alone:
                self._waiting.append(ask)
                self._changed.notify_all()
                self._gather(ask)
        scores = None if alone else _outcome(ask)
        tally.add(ask.more.rows, ask.more.calls)
        return self._send(x, ask.left()) if scores is None else scores

    def close(self) -> None:
        """Let go of threads and connections once the calls under way have ended."""
        with self._changed:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        super().close()

    # --- who goes when; the lock is held ----------------------------------------------------------------

    def _gather(self, ask: _Ask) -> None:
        """Wait until `ask` has gone out, or is to go; then send all that waits."""
        patience = min(self._longest, self._wait * (self._running - 1), (ask.left() or np.inf) / 4)
        due = time.monotonic() + patience
        while ask in self._waiting:
            left = due - time.monotonic()
            full = sum(len(one.x) for one in self._waiting) >= self._rows
            if left <= 0 or full or len(self._waiting) + self._away >= self._running:
                self._depart()
            else:
                self._changed.wait(left)

    def _depart(self) -> None:
        """Send everything that waits, in as few calls as it fits."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="coalesced")
        groups: list[list[_Ask]] = []
        for ask in self._waiting:
            most = min(self._rows, self.rows_per_call(ask.x.shape[1:]))
            if groups and _joins(groups[-1], ask, most):
                groups[-1].append(ask)
            else:
                groups.append([ask])
        self._away += len(self._waiting)
        self._waiting.clear()
        self._changed.notify_all()
        for group in groups:  # in the context, such as a trace, of the one who sends
            self._pool.submit(contextvars.copy_context().run, self._deliver, group)

    # --- what becomes of it; in a thread of the pool ----------------------------------------------------

    def _deliver(self, group: list[_Ask]) -> None:
        try:
            for ask, outcome in zip(group, self._outcomes(group), strict=True):
                if isinstance(outcome, Exception):
                    ask.answer.set_exception(outcome)
                else:
                    ask.answer.set_result(outcome)
        finally:
            with self._changed:
                self._away -= len(group)
                self._changed.notify_all()

    def _outcomes(self, group: list[_Ask]) -> Sequence[_Outcome]:
        times = [ask.left() for ask in group]
        longest = max((time for time in times if time is not None), default=None)
        rows = np.concatenate([ask.x for ask in group])
        more = Tally()
        try:
            with tally.tally() as more:
                scores = self._send(rows, None if None in times else longest)
        except (PredictorUnavailable, PredictorTimeout) as error:
            return [copy.copy(error) for _ in group]
        except Exception as error:
            if len(group) == 1:
                return [error]
            more = Tally(more.rows + len(rows), more.calls + 1)  # all of it was in vain
            return [None] * len(group)
        finally:
            for ask in group:
                ask.more = Tally(math.ceil(more.rows * len(ask.x) / len(rows)), more.calls)
        return np.split(scores, np.cumsum([len(ask.x) for ask in group])[:-1])

    def _send(self, x: np.ndarray, timeout: float | None) -> np.ndarray:
        with self._changed:
            self._sent += 1
        return self._predictor(x, timeout=timeout)


def _joins(group: list[_Ask], ask: _Ask, most: int) -> bool:
    """Whether rows of the same kind still fit into one message."""
    same = group[0].x.shape[1:] == ask.x.shape[1:] and group[0].x.dtype == ask.x.dtype
    return same and sum(len(one.x) for one in group) + len(ask.x) <= most


def _outcome(ask: _Ask) -> np.ndarray | None:
    try:
        return ask.answer.result(ask.left())
    except FutureTimeout:
        raise PredictorTimeout("the model did not answer within the time that was left") from None
