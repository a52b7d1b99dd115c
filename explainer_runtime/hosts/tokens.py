"""The bearer tokens that open a server: read from a file, which may change while the server runs.

A secret that a cluster mounts is replaced as a file, so the file's state is looked at on each request (one
`stat`) and its content read again when that has changed. A file that cannot be read lets nobody in.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from explainer_runtime.errors import InvalidSpec


class Tokens:
    """The tokens in a file, one a line; empty lines are none.

    Raises:
        InvalidSpec: The file cannot be read now, or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, ...] | None = None
        self._tokens: list[bytes] = []
        if not self._current():
            raise InvalidSpec(f"token_file: {path} cannot be read or holds no token")

    def admits(self, authorization: str | bytes | None) -> bool:
        """Whether an `authorization` header carries one of the tokens; takes as long when it does not."""
        given = authorization.encode() if isinstance(authorization, str) else authorization or b""
        scheme, _, token = given.partition(b" ")
        # Every token is compared, so that the time does not tell which one came close.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._current()]
        return scheme.lower() == b"bearer" and any(matches)

    def _current(self) -> list[bytes]:
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if state != self._state:
                self._tokens = self._path.read_bytes().split()
                self._state = state
        except OSError:
            self._tokens, self._state = [], None
        return self._tokens
