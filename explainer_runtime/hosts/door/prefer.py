"""What a client prefers of how it is answered: the header `Prefer` (RFC 7240)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.request import parse_http_list

_LONGEST = 60
"""Seconds that are waited at most, whatever is preferred: a connection costs as much as any other."""


class Preference(NamedTuple):
    """What is understood of it.

    Attributes:
        asynchronous: Whether `respond-async` was said: an answer may come later, at a place of its own.
        wait: Seconds for which the client would rather wait for the answer itself; None where it did not say.
    """

    asynchronous: bool = False
    wait: int | None = None

    @property
    def applied(self) -> str:
        """What is honoured of it, for `Preference-Applied`."""
        return "respond-async" if self.wait is None else f"respond-async, wait={self.wait}"


def preferred(values: Iterable[str]) -> Preference:
    """What these headers say. Names have no case, the first of two of one name counts (section 2), parameters
    and what is not understood are left out."""
    said: dict[str, str] = {}
    for value in values:
        for part in parse_http_list(value):
            name, _, word = part.partition(";")[0].partition("=")
            said.setdefault(name.strip().lower(), word.strip().strip('"'))
    seconds = said.get("wait", "")
    known = seconds.isascii() and seconds.isdigit() and len(seconds) < 10
    return Preference("respond-async" in said, min(int(seconds), _LONGEST) if known else None)
