"""Work that is not done on the event loop: reading and writing large messages.

The threads are few, because what they do is bounded, and of low priority, like those that explain.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from explainer_runtime.hosts.service.admission import be_nice

T = TypeVar("T")

SMALL = 32 * 1024
"""Bytes, or values, up to which work is done at once: handing it over takes longer."""


_TURN = 0.001
"""Seconds after which a thread that computes in Python lets another one run; Python's own 0.005 would make
each step of answering a health check wait that long."""


def take_turns() -> None:
    """Let no thread of this process compute for long while another one waits."""
    sys.setswitchinterval(_TURN)


_TRIM, _MAP = (-1, 4 * 2**20), (-3, 16 * 2**20)
"""glibc's `M_TRIM_THRESHOLD`, free bytes that it may keep, and `M_MMAP_THRESHOLD`, pieces that it may not."""


def give_back() -> None:
    """Let free memory go. A glibc that has seen large messages keeps up to 64 MB of it for each thread."""
    with suppress(AttributeError):  # another C library
        for option in (_TRIM, _MAP):
            ctypes.CDLL(None).mallopt(*option)


def settle() -> None:
    """Look for garbage no more in what is there now: all of it took everybody a quarter of a second."""
    gc.collect()
    gc.freeze()


async def aside(function: Callable[..., T], *args: Any) -> T:
    """What `function` returns, called in another thread and in this context."""
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_pool(), run, function, *args)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "door", initializer=be_nice)
