"""What a call took of the model beyond the rows that were asked about: attempts, and rows that fill a batch.

Whoever counts opens a tally around a call; whoever sends more than was asked adds to it. Between them may
be any number of predictors around predictors, which need not know. A tally is bound to the context of the
call, so calls of other threads do not touch it; who hands a call to another thread carries what is found
there back (`add`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Tally:
    """Rows and messages that the model was sent beside those of the call itself."""

    rows: int = 0
    calls: int = 0


_OPEN: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def tally() -> Iterator[Tally]:
    """Within, what calls take beyond their rows; a tally around this one sees nothing of it."""
    own = Tally()
    token = _OPEN.set(own)
    try:
        yield own
    finally:
        _OPEN.reset(token)


def add(rows: int = 0, calls: int = 0) -> None:
    """Add to the tally that is open, if any."""
    if (own := _OPEN.get()) is not None:
        own.rows, own.calls = own.rows + rows, own.calls + calls
