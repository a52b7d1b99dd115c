"""The bearer tokens that open a server: read from a file, which may change while the server runs.

A secret that a cluster mounts is replaced as a file, so the file's state is looked at on each request (one
`stat`) and its content read again when that has changed. A file that cannot be read lets nobody in, and so
does one that others than its owner may write to. Tokens are kept and looked up as digests: how long that
takes says nothing about them, however many there are.
"""

from __future__ import annotations

import hashlib
import logging
import re
import stat
import time
from pathlib import Path

from explainer_runtime.errors import InvalidSpec

_TOKEN = re.compile(rb"[!-~]{1,4096}")
_MOST = 2**20
_FRESH = 100_000_000
"""Nanoseconds in which a file may change again without a later time of change."""
_log = logging.getLogger("explainer_runtime.tokens")


def mark(authorization: str | bytes | None) -> str:
    """What tells a token from others and opens nothing, 16 digits of its SHA-256; "" where there is none."""
    given = authorization.encode() if isinstance(authorization, str) else authorization or b""
    token = given.partition(b" ")[2].strip()
    return hashlib.sha256(token).hexdigest()[:16] if token else ""


class Tokens:
    """The tokens in a file, one a line; an empty file refuses everyone.

    Raises:
        InvalidSpec: The file cannot be read now, is larger than a megabyte, others may write to it, or a line
            of it is no token: one word of printable ASCII.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, ...] | None = None
        self._digests: frozenset[bytes] = frozenset()
        try:
            self._digests, mode = self._read()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidSpec(f"token_file: {path}: {reason}") from None
        if not self._digests:
            _log.warning("token_file: %s is empty: everyone is refused", path)
        if mode & stat.S_IROTH:
            _log.warning("token_file: everyone on this machine may read %s; mode 0440 is enough", path)

    def admits(self, authorization: str | bytes | None) -> bool:
        """Whether an `authorization` header carries one of the tokens."""
        given = authorization.encode() if isinstance(authorization, str) else authorization or b""
        scheme, _, token = given.partition(b" ")
        known = hashlib.sha256(token.strip()).digest() in self._current()
        return known and scheme.lower() == b"bearer"

    def _current(self) -> frozenset[bytes]:
        try:
            found = self._path.stat()
            state = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size, found.st_mode)
            if state != self._state:
                self._digests, _ = self._read()
                settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _FRESH
                self._state = state if settled else None
        except (OSError, ValueError) as error:
            if self._digests:
                _log.error("token_file: nobody is let in: %s", type(error).__name__)
            self._digests, self._state = frozenset(), None
        return self._digests

    def _read(self) -> tuple[frozenset[bytes], int]:
        with self._path.open("rb") as file:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise ValueError(f"has more than {_MOST} bytes")
        lines = [line.strip() for line in content.splitlines()]
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others may write to it (mode {mode:o})")
        for number, line in enumerate(lines, 1):
            if line and not _TOKEN.fullmatch(line):
                raise ValueError(f"line {number} is no token: expected one word of printable ASCII")
        return frozenset(hashlib.sha256(line).digest() for line in lines if line), mode
