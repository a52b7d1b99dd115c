"""What one explanation may take from the model, and what it has taken so far.

Before the model is asked, `allow` says whether it may be, and what it then has to answer is counted whether
it succeeds or not. What shows only afterwards (attempts that failed, rows that filled a fixed batch up) is
counted as well: it may lie beyond a limit, and then nothing more is asked. The clock and the cancel flag are
looked at each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from explainer_runtime.errors import Cancelled
from explainer_runtime.explanation import BUDGET_EXHAUSTED, Cost
from explainer_runtime.search.asks import Stop


@dataclass(frozen=True)
class Budget:
    """What one explanation may take from the model."""

    rows: int = 200_000
    calls: int = 20_000
    seconds: float = 30.0


@dataclass(frozen=True)
class Progress:
    """How far an explanation is: `fraction` of the search, cost so far, distance of the best answers."""

    fraction: float
    rows: int
    calls: int
    best: float | None = None


class Meter:
    """Counts what is spent, and stops the search before it asks for more than a limit allows.

    Args:
        budget: Most rows, calls and seconds.
        cancel: Asked at every look; true stops at once.
        progress: Told when something has been answered.
        shard: Rows whose slopes are asked for between two looks at the clock; None goes by their size.
    """

    def __init__(
        self,
        budget: Budget,
        cancel: Callable[[], bool] | None = None,
        progress: Callable[[Progress], None] | None = None,
        shard: int | None = None,
    ) -> None:
        self.budget, self.cancel, self._progress, self.shard = budget, cancel, progress, shard
        self.rows = self.calls = self.steps = 0
        self.waited = 0.0
        self.cut = False
        self._best: float | None = None
        self._fraction = 0.0
        self._deadline = time.monotonic() + budget.seconds

    def allow(self, rows: int, calls: int = 1) -> None:
        """Pass if `rows` more, in `calls` calls, are within the budget; else stop the search."""
        self.look()
        if self.rows + rows > self.budget.rows or self.calls + calls > self.budget.calls:
            raise Stop(BUDGET_EXHAUSTED)

    def look(self) -> None:
        """Pass if nobody has cancelled and there is time left."""
        if self.cancel is not None and self.cancel():
            raise Cancelled("the explanation was cancelled")
        if self.left() <= 0:
            raise Stop(BUDGET_EXHAUSTED)

    def left(self) -> float:
        """Seconds left."""
        return self._deadline - time.monotonic()

    def spend(self, rows: int, calls: int = 1) -> None:
        """Count what the model is asked for, before it is known to succeed: it has the work either way."""
        self.rows += rows
        self.calls += calls

    def report(self, done: float, best: float | None = None) -> None:
        """Tell how far the search is; the best that it has ever named is told until it names a better one."""
        self._best = self._best if best is None else best
        self._fraction = max(self._fraction, min(1.0, done))
        if self._progress is not None:
            self._progress(Progress(self._fraction, self.rows, self.calls, self._best))

    def cost(self) -> Cost:
        """What was spent."""
        return Cost(self.calls, self.rows, self.waited, self.steps, self.cut)
