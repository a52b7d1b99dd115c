"""The bytes of requests and answers, named by their SHA-256 and checked when they are read.

The same bytes have one name and are kept once. What the table names no more is swept an hour after it was put
there last: who puts bytes has an hour to name them, and needs no lock for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from explainer_runtime.errors import ExplainerError
from explainer_runtime.jobs.database import Database, unavailable
from explainer_runtime.jobs.store import Store

YOUNG = 3600.0
"""Seconds for which bytes are kept that nothing names."""


class Damaged(ExplainerError):
    """Bytes that were kept are gone, or are not what they were."""


class Blobs(Protocol):
    """Where bytes are kept. Both methods that keep raise `JobsUnavailable` where that cannot be done now."""

    def put(self, data: bytes) -> str:
        """Keep `data`; return its digest, 64 hexadecimal digits."""

    def get(self, digest: str) -> bytes:
        """The bytes of this digest.

        Raises:
            Damaged: They are gone, or are not what they were.
        """

    def sweep(self, store: Store) -> None:
        """Forget what the table names no more and nobody has put in the last hour."""


class Files:
    """A file for each, in a directory that several processes of one machine may share.

    A file appears with its last byte, on the disk: it is written beside, synced and renamed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, data: bytes) -> str:
        """See `Blobs`."""
        digest = digest_of(data)
        path = self._path(digest)
        try:
            with self._shared(fcntl.LOCK_SH):
                if path.exists() and digest_of(path.read_bytes()) == digest:
                    os.utime(path)
                else:
                    self._write(path, data)
        except OSError as error:
            raise unavailable(error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise Damaged("what was kept of this job is gone") from None
        except OSError as error:
            raise unavailable(error) from error
        return _checked(data, digest)

    def sweep(self, store: Store) -> None:
        """See `Blobs`."""
        now = time.time()
        try:
            old = [
                path
                for path in self._directory.glob("[0-9a-f][0-9a-f]/*")
                if path.stat().st_mtime <= now - YOUNG
            ]
            named = store.named() if old else set()
            for path in old:
                if path.name not in named:
                    self._forget(path, now - YOUNG)
        except OSError as error:
            raise unavailable(error) from error

    def _forget(self, path: Path, before: float) -> None:
        # Whoever puts the same bytes now either has touched the file, or will find it gone.
        with self._shared(fcntl.LOCK_EX), suppress(FileNotFoundError):
            if path.stat().st_mtime <= before:
                path.unlink()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")  # swept, if we end here
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _shared(self, how: int) -> Iterator[None]:
        for folder in (self._directory.parent, self._directory):  # `mode` is of the last one
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest


class Rows:
    """A row for each, beside the table: for replicas that share no disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, data: bytes) -> str:
        """See `Blobs`."""
        digest = digest_of(data)
        self._database.ask("put", digest=digest, data=data)
        return digest

    def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        rows = self._database.ask("data", digest=digest)
        if not rows:
            raise Damaged("what was kept of this job is gone")
        return _checked(bytes(rows[0]["data"]), digest)

    def sweep(self, store: Store) -> None:
        """See `Blobs`."""
        self._database.ask("sweep", age=YOUNG)


def digest_of(data: bytes) -> str:
    """By what name bytes are kept: their SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _checked(data: bytes, digest: str) -> bytes:
    if digest_of(data) != digest:
        raise Damaged("what was kept of this job is damaged: its digest is another")
    return data
