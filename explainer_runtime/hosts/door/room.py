"""How much all requests together may hold: bodies, and what they become when they are parsed.

A limit for each request is none for a hundred of them. Each takes its share before it grows, and gives it
back when it is answered; one for which there is no room is refused, and may come again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from explainer_runtime.errors import InvalidInput, Overloaded
from explainer_runtime.hosts.door.limits import TooLarge

VALUE = 32
"""Bytes that one parsed value takes: a float and its place in a list."""


class NoRoom(Exception):
    """What is being answered leaves no room for one more; later there will be."""


class Room:
    """So many bytes for all requests. Safe to share by threads."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """The share of one request, for as long as it is answered."""
        share = Share(self)
        try:
            yield share
        finally:
            share.close()

    def take(self, more: int) -> None:
        """Hold so many bytes more, or fewer.

        Raises:
            NoRoom: There is no room; what was held still is.
        """
        with self._lock:
            if more > 0 and self.held + more > self.most:
                raise NoRoom
            self.held += more


class Share:
    """What one request holds. A thread that reads for it may outlive it: what that takes does not count."""

    def __init__(self, room: Room) -> None:
        self._room, self.held = room, 0
        self._lock, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Hold nothing, from now on."""
        with self._lock:
            self._closed = True
            self._room.take(-self.held)
            self.held = 0

    def take(self, more: int) -> None:
        """Hold so many bytes more.

        Raises:
            TooLarge: It would be more than there is for all together.
            NoRoom: As `Room.take`.
        """
        with self._lock:
            if self._closed:
                return
            if self.held + more > self._room.most:
                raise TooLarge(f"expected what takes at most {self._room.most} bytes when it is parsed")
            self._room.take(more)
            self.held += more

    def hold(self, more: int) -> None:
        """`take`, for whoever knows nothing of doors.

        Raises:
            InvalidInput: It would be more than there is for all together.
            Overloaded: There is no room now.
        """
        try:
            self.take(more)
        except TooLarge as error:
            raise InvalidInput(str(error), "body") from None
        except NoRoom:
            raise Overloaded("the requests being answered leave no room for this one") from None
