"""The statements of `jobs.sql`, on SQLite or on PostgreSQL.

A connection is used by one thread at a time and kept for the next; one that has seen an error is closed. What
goes wrong is `JobsUnavailable`, and nothing is deleted to make it go right.
"""

from __future__ import annotations

import errno
import logging
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from explainer_runtime.errors import ExplainerError, InvalidSpec, JobsUnavailable, MissingExtra

Row = Mapping[str, Any]
Ask = Callable[..., list[Row]]
"""What does one statement: `ask("get", id=..., owner=...)`."""

WAIT = 5.0
"""Seconds that a statement waits for others, or for the network, before it is given up."""

_QUIET = 30.0
"""Seconds for which the log does not repeat what is wrong."""
_said: dict[str, float] = {}
_log = logging.getLogger("explainer_runtime.jobs")
_FULL, _FIXED, _BUSY = "the disk is full", "the disk is read-only", "the database is busy"
_SQLITE = {
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _FIXED,
    "SQLITE_CANTOPEN": "the database cannot be opened",
    "SQLITE_CORRUPT": "the database is damaged",
    "SQLITE_NOTADB": "the database is damaged",
    "SQLITE_BUSY": _BUSY,
    "SQLITE_IOERR": "the disk cannot be read or written",
}
_POSTGRESQL = {
    None: "the database cannot be reached",
    "53100": _FULL,
    "25006": _FIXED,
    "57014": _BUSY,
    "55P03": _BUSY,
}
_FILES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _FIXED,
    errno.EACCES: _FIXED,
    errno.EPERM: _FIXED,
}


class Database:
    """One database.

    Args:
        connect: A new connection; it commits each statement that is in no transaction.
        statements: By name.
        begin: How a transaction begins that will write.
        failures: What its driver raises.
        now: The clock, in seconds since 1970; None is the database's own.
        place: What a new connection would lead to; those that lead to something else are let go.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        statements: Mapping[str, str],
        begin: str,
        failures: type[Exception] | tuple[type[Exception], ...],
        now: Callable[[], float] | None,
        place: Callable[[], Any] = lambda: None,
    ) -> None:
        self._place = place
        self._connect, self._statements, self._begin = connect, statements, begin
        self._failures, self._now = failures, now
        self._free: deque[Any] = deque()
        self._making, self._made = threading.Lock(), False

    def ask(self, name: str, **values: Any) -> list[Row]:
        """What one statement returns; it is a transaction of its own.

        Raises:
            JobsUnavailable: The database cannot do it now.
        """
        with self._connection() as connection:
            return self._run(connection, name, values)

    @contextmanager
    def transaction(self) -> Iterator[Ask]:
        """Several statements that happen together, or not at all.

        Raises:
            JobsUnavailable: The database cannot do it now.
        """
        with self._connection() as connection:
            connection.execute(self._begin)
            try:
                yield lambda name, **values: self._run(connection, name, values)
            except ExplainerError:
                connection.execute("rollback")
                raise
            connection.execute("commit")

    def close(self) -> None:
        """Let the connections go that nobody uses."""
        with suppress(IndexError):
            while True:
                self._free.pop()[1].close()

    def _run(self, connection: Any, name: str, values: dict[str, Any]) -> list[Row]:
        now = self._now() if self._now is not None else None
        cursor = connection.execute(self._statements[name], {**values, "now": now})
        return list(cursor.fetchall()) if cursor.description else []

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = None
        try:
            place, now = None, self._place()
            while connection is None:
                try:
                    place, connection = self._free.pop()
                except IndexError:
                    connection = self._connect()
                    self._make(connection)
                    place = now = self._place()
                if place != now:
                    connection.close()
                    connection, self._made = None, False
            try:
                yield connection
            except ExplainerError:  # a refusal of ours; the connection is as good as before
                self._free.append((place, connection))
                connection = None
                raise
            self._free.append((place, connection))
        except BaseException as error:
            if connection is not None:
                with suppress(Exception):
                    connection.close()  # what it had begun is undone
            if isinstance(error, self._failures):
                self.close()  # a server that was restarted has forgotten the others, too
                self._made = False
                raise unavailable(error) from error
            raise

    def _make(self, connection: Any) -> None:
        """Make the tables, unless they are there."""
        with self._making:
            if self._made:
                return
            connection.execute(self._begin)
            self._run(connection, "alone", {})
            for name in self._statements:
                if name.startswith(("table", "index")):
                    self._run(connection, name, {})
            connection.execute("commit")
            self._made = True


def sqlite(path: Path, now: Callable[[], float] | None = None) -> Database:
    """The database in a file, made when it is first needed; processes of one machine may share it."""

    def connect() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # everybody's rows are in there
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        connection.row_factory = lambda cursor, row: dict(
            zip((c[0] for c in cursor.description), row, strict=True)
        )
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")  # what was accepted outlives a power cut
        except BaseException:
            connection.close()
            raise
        return connection

    def place() -> tuple[int, int] | None:
        with suppress(OSError):
            found = path.stat()
            return found.st_dev, found.st_ino
        return None  # what is written into a file that was removed is kept by nobody

    # A directory that cannot be made is a database that cannot be opened.
    failures = (sqlite3.Error, OSError)
    return Database(connect, _statements(), "begin immediate", failures, now or time.time, place)


def postgresql(url: str, now: Callable[[], float] | None = None) -> Database:
    """The database at a URL `postgresql://...`, which several replicas may share; the clock is its own.

    Raises:
        MissingExtra: psycopg is not installed.
        InvalidSpec: The URL cannot be read.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
        from psycopg.rows import dict_row
    except ImportError:
        raise MissingExtra("jobs in PostgreSQL: expected `pip install explainer-runtime[postgres]`") from None
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        raise InvalidSpec("jobs: expected a URL as libpq reads it: postgresql://user@host/database") from None
    millis = int(WAIT * 1000)
    bounds = {"statement_timeout": 2 * millis, "lock_timeout": millis}
    bounds["idle_in_transaction_session_timeout"] = 2 * millis  # a server that hangs holds up nobody
    options = " ".join(f"-c {name}={value}" for name, value in bounds.items())
    given = {"connect_timeout": int(WAIT), "tcp_user_timeout": millis, **given}
    given["options"] = f"{options} {given.get('options', '')}"

    def connect() -> Any:
        return psycopg.connect(**given, autocommit=True, row_factory=dict_row)

    def adapted(statement: str) -> str:
        statement = re.sub(r"/\*postgresql (.*?)\*/", r"\1", statement)
        statement = statement.replace(
            ":now", "coalesce(:now::float8, extract(epoch from statement_timestamp())::float8)"
        )
        return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement)

    statements = {name: adapted(statement) for name, statement in _statements().items()}
    return Database(connect, statements, "begin", psycopg.Error, now)


def _statements() -> dict[str, str]:
    text = resources.files(__package__).joinpath("jobs.sql").read_text()
    pairs = (part.split("\n", 1) for part in text.split("-- name: ")[1:])
    return {name: re.sub(r"(?m)^--.*$", "", statement).strip().rstrip(";") for name, statement in pairs}


def unavailable(error: Exception) -> JobsUnavailable:
    """What a database or a disk said, in words that tell a client no path and no address."""
    if isinstance(error, OSError):
        words = _FILES.get(error.errno or 0, "the disk cannot be read or written")
    elif (code := getattr(error, "sqlite_errorname", None)) is not None:
        words = next(
            (words for name, words in _SQLITE.items() if code.startswith(name)), "the database failed"
        )
    else:
        words = _POSTGRESQL.get(getattr(error, "sqlstate", None), "the database failed")
    if time.monotonic() >= _said.get(words, 0.0):
        _said[words] = time.monotonic() + _QUIET
        _log.error("jobs cannot be kept or read now: %s: %s", type(error).__name__, error)
    return JobsUnavailable(f"jobs cannot be kept or read now: {words}")
