"""What a suite of tests has left running, or listening. Linux only: it reads /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"


def processes(mark: str, grace: float = 5.0) -> Iterator[str]:
    """Other processes with `mark`, `NAME=value`, in their environment that do not end in `grace` seconds."""
    until = time.monotonic() + grace
    left = list(_with(mark))
    while left and time.monotonic() < until:  # one that was told to stop a moment ago may do so
        time.sleep(0.1)
        left = list(_with(mark))
    yield from left


def _with(mark: str) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):  # it has just ended, or belongs to somebody else
                if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield f"process {folder.name}: {words[:120]}"


def ports() -> Iterator[str]:
    """TCP ports that this process listens on."""
    held = set()
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            held.add(os.readlink(handle))
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, address, _, state, *_, inode = line.split()[:10]
                if state == _LISTENING and f"socket:[{inode}]" in held:
                    yield f"port {int(address.rpartition(':')[2], 16)}"
