"""What a server is answering at this moment, so that it can stop without dropping any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from explainer_runtime.hosts.service.caller import Caller

_QUIET = 0.1
"""Seconds without a request after which no accepted one is still on its way through the socket."""


_TELLING = 1.0
"""Seconds that telling callers may take; nothing is computed any more."""


class Traffic:
    """Requests that are being answered. Used on the event loop only."""

    def __init__(self) -> None:
        self.leaving = False
        self._running: set[Caller] = set()

    @contextmanager
    def of(self, caller: Caller) -> Iterator[None]:
        """Count the request of this caller while it is answered; then the caller is gone.

        A job is not counted: nobody waits for it here, and another server goes on with it.
        """
        if not caller.spare:
            self._running.add(caller)
        try:
            yield
        finally:
            self._running.discard(caller)
            caller.gone.set()

    async def drain(self, seconds: float) -> bool:
        """Wait until everything is answered.

        Args:
            seconds: How long at most; the callers of what still runs then are told that the server stops.

        Returns:
            Whether everything was answered.
        """
        loop = asyncio.get_running_loop()
        end = quiet_since = loop.time()
        end += seconds
        while loop.time() < end:
            if self._running:
                quiet_since = loop.time()
            elif loop.time() - quiet_since >= _QUIET:
                return True
            await asyncio.sleep(_QUIET / 10)
        cut = list(self._running)
        for caller in cut:
            caller.cut.set()
            caller.gone.set()
        told = loop.time() + _TELLING
        while self._running and loop.time() < told:
            await asyncio.sleep(_QUIET / 10)
        return not cut
