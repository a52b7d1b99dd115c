"""How far an explanation is, from the thread that computes it to whoever tells its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from explainer_runtime.driver import Progress
from explainer_runtime.tensors import Tensor

_BETWEEN = 0.1
"""Seconds between two progress events of one stream, at least."""


class Reports:
    """Progress, from the thread that computes to the task that tells: the newest, and not too often."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._last = 0.0

    def report(self, progress: Progress) -> None:
        """Called by the thread."""
        now = time.monotonic()
        if now - self._last >= _BETWEEN:
            self._last = now
            self._loop.call_soon_threadsafe(self._queue.put_nowait, progress)

    def end(self, work: asyncio.Future[Any]) -> None:
        """Called by the event loop: there will be no more."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while (progress := await self._queue.get()) is not None:
            yield progress


def told(progress: Progress) -> list[Tensor]:
    """The outputs of one progress event."""
    tensors = [
        Tensor("progress", "FP32", (1,), [progress.fraction]),
        Tensor("predictor_rows", "INT64", (1,), [progress.rows]),
        Tensor("predictor_calls", "INT64", (1,), [progress.calls]),
    ]
    if progress.best is not None:
        tensors.append(Tensor("best", "FP32", (1,), [float(progress.best)]))
    return tensors
