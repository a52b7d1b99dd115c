"""Who waits for an answer, as far as the code that computes it needs to know.

MLServer hands a runtime the body of a request and nothing of its connection. Whatever stands at the door
(`gate.py` for REST, `interceptor.py` for gRPC) leaves a `Caller` in a context variable; the runtime finds it
there, on the same task. Where nobody did, under a plain `mlserver start` or in a worker process, there is a
caller without a name who never goes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from explainer_runtime.driver import Progress
from explainer_runtime.errors import Stopping
from explainer_runtime.explanation import Explanation

T = TypeVar("T")

_CALLER: ContextVar[Caller | None] = ContextVar("explainer_runtime_caller", default=None)


@dataclass(eq=False)
class Caller:
    """One request's caller.

    Attributes:
        name: What fairness goes by: requests of one name share their turns.
        token: Which token opened the door, where one did; see `tokens.mark`.
        gone: Set when nobody waits any more; the explanation stops.
        cut: Set when the server cannot wait any longer; whoever waits is told so. For the event loop only.
        retry_after: Seconds after which to try again, left here by whoever refuses, told by the transport.
        checks: Whether it only wants to know if its request would be taken; `Checked` says that it would.
        spare: Whether it is a job, which takes a thread that nobody else wants, and gives way to who does.
        told: Told how far its explanation is.
        kept: What it was answered before, and wants in another form; then nothing is computed.
        artifact: Digest of the artifact that answers, left here by whoever does; beside what was `kept`, that
            of the one that did.
        hold: Told how many bytes more it holds, or fewer, before it does.
    """

    name: str = ""
    gone: threading.Event = field(default_factory=threading.Event)
    retry_after: int | None = None
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    token: str = ""
    checks: bool = False
    spare: bool = False
    told: Callable[[Progress], None] | None = None
    kept: Explanation | None = None
    artifact: str = ""
    hold: Callable[[int], None] = lambda more: None

    async def unless_cut(self, work: Future[T]) -> T:
        """What `work` comes to, unless the server cannot wait for it.

        Raises:
            Stopping: It cannot.
        """
        waiting = asyncio.wrap_future(work)
        cut = asyncio.ensure_future(self.cut.wait())
        try:
            both: set[asyncio.Future[Any]] = {waiting, cut}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Stopping("the server stops, and could not wait for this explanation")
            return waiting.result()
        finally:
            cut.cancel()
            waiting.cancel()

    def enter(self) -> None:
        """Be the caller of everything that this task does from here on."""
        _CALLER.set(self)


class Checked(BaseException):
    """A request would be taken, and whoever sent it wanted no more. No error: like a cancellation, it ends
    what is under way, and no server between makes an answer of it, or counts it as a failure.

    Args:
        model: Name of the explainer that was asked.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


def caller() -> Caller:
    """The caller of the request that this task answers."""
    return _CALLER.get() or Caller()
