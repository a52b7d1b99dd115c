"""Who waits for an answer, as far as the code that computes it needs to know.

MLServer hands a runtime the body of a request and nothing of its connection. Whatever stands at the door
(`gate.py` for REST, `interceptor.py` for gRPC) leaves a `Caller` in a context variable; the runtime finds it
there, on the same task. Where nobody did, under a plain `mlserver start` or in a worker process, there is a
caller without a name who never goes.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field

_CALLER: ContextVar[Caller | None] = ContextVar("explainer_runtime_caller", default=None)


@dataclass(eq=False)
class Caller:
    """One request's caller.

    Attributes:
        name: What fairness goes by: requests of one name share their turns.
        gone: Set when nobody waits any more; the explanation stops.
        retry_after: Seconds after which to try again, left here by whoever refuses, told by the transport.
    """

    name: str = ""
    gone: threading.Event = field(default_factory=threading.Event)
    retry_after: int | None = None

    def enter(self) -> None:
        """Be the caller of everything that this task does from here on."""
        _CALLER.set(self)


def caller() -> Caller:
    """The caller of the request that this task answers."""
    return _CALLER.get() or Caller()
