"""Explanations that outlive their connection: recorded requests, done later, and what came of them.

A job is a recorded request: bytes that the door can send through the server again. An explanation is
deterministic, so doing it twice is harmless, and the answer is that of the synchronous call. What has to be
right is only who does which job now, and that is kept in one table:

    store.py     the table: submit, lease, heartbeat, finish, release, cancel, list, expire
    results.py   the bytes of requests and answers, named by their SHA-256
    queue.py     the worker: takes jobs while there is room, and beats while they run
    events.py    tells an operator's sink of what has ended
    database.py  jobs.sql on SQLite or PostgreSQL

No room here knows a server: what does a job is a function (`queue.Worker`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from explainer_runtime.jobs import database
from explainer_runtime.jobs.results import Blobs, Files, Rows
from explainer_runtime.jobs.store import Limits, Store


class Kept(NamedTuple):
    """Where jobs are kept: their table, and their bytes."""

    store: Store
    blobs: Blobs


def kept(
    where: str, limits: Limits | None = None, events: bool = False, now: Callable[[], float] | None = None
) -> Kept:
    """Jobs in a directory, or in the PostgreSQL of a URL `postgresql://...`; made when they are first needed.

    Args:
        where: The directory, or the URL.
        limits: What an operator allows.
        events: Whether a sink is to be told of what ends.
        now: The clock, in seconds since 1970; None is the system's, for PostgreSQL that of its server.

    Raises:
        MissingExtra: psycopg is not installed.
        InvalidSpec: The URL cannot be read.
    """
    if where.startswith(("postgresql://", "postgres://")):
        shared = database.postgresql(where, now)
        return Kept(Store(shared, limits, events), Rows(shared))
    directory = Path(where)
    table = database.sqlite(directory / "jobs.sqlite", now)
    return Kept(Store(table, limits, events), Files(directory / "blobs"))
