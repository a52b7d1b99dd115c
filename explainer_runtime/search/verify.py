"""Is this probability really above the threshold? An exact test that knows when to stop.

A set is *proven* when draws of its own would so seldom have turned out so well by chance, were its
probability at the bar or below it: the tail of a binomial distribution, computed and not bounded. The bar is
the threshold less `SLACK`, since to tell .950 from .949 would take for ever; the share of hits must be the
threshold at least. (The usual test, Ribeiro et al.
2018, allows five times that slack, and anchors come out of it that do not hold what they promise.)

Who tests often is deceived some time, so `delta`, the chance of a wrong acceptance in a whole search, is
dealt out beforehand: the r-th set that is put to the test gets 1 / (r (r + 1)) of it, which sums to one, and
each of its looks a fixed share. When a look is due depends on nothing that was drawn: after as many draws as
a clean record would take, then after twice as many, and so on. By the union bound a search accepts a set
below the bar with probability `delta` at most, however it came by its sets.
"""

from __future__ import annotations

from math import ceil, log, log1p
from typing import NamedTuple

import numpy as np

SLACK = 0.01
"""How far below the threshold the probability of what was accepted may lie."""
SHARES = (0.1, 0.4, 0.25, 0.15, 0.1)
"""What each look gets of its set's part of delta. Most sets are proven at the second."""
_LEAST = 24
"""Draws before the first look, at least: a low bar is passed in a few, but then little is known."""
_HOPE = 0.9
"""How a record is read when it is asked whether more draws may prove it: as if one more draw, this much of
which was a hit, had been seen."""


class Trial(NamedTuple):
    """How sets are put to the test.

    Attributes:
        threshold: Least share of hits.
        bar: What the probability must exceed.
        delta: Chance that any of the sets tested is accepted wrongly.
        looks: Draws of a set after which it is looked at.
        enough: How many of them to draw at once for a set that is likely to pass.
    """

    threshold: float
    bar: float
    delta: float
    looks: tuple[int, ...]
    enough: int

    @classmethod
    def of(cls, threshold: float, delta: float, least: int = 1) -> Trial:
        """For this threshold and risk; `least`: draws that are worth asking for at a time."""
        bar = max(1e-9, threshold - SLACK)
        # A clean record passes at `delta / 5` after this many draws and a third; a look before saves draws.
        first = max(_LEAST, ceil(0.75 * log(5 / delta) / -log(bar)))
        looks = tuple(max(first, least) << look for look in range(len(SHARES)))
        return cls(threshold, bar, delta, looks, next(look for look in looks if look >= 2 * first))

    def level(self, rank: int, look: int) -> float:
        """What the `look`-th look (from 0) at the `rank`-th set (from 1) may take of delta."""
        return self.delta * SHARES[look] / (rank * (rank + 1))

    def proven(self, tries: int, hits: int, rank: int) -> bool:
        """Whether `hits` in `tries` draws, one of `looks`, prove the `rank`-th set."""
        return tries in self.looks and self._passes(tries, hits, rank)

    def wanted(self, tries: int, hits: int, rank: int) -> int:
        """How many more draws may prove the set if it goes on as it has begun; 0: give it up."""
        share = (hits + _HOPE) / (tries + 1)
        for goal in self.looks:
            if goal > tries and self._passes(goal, hits + ceil((goal - tries) * share), rank):
                return goal - tries
        return 0

    def _passes(self, tries: int, hits: int, rank: int) -> bool:
        level = self.level(rank, self.looks.index(tries))
        return hits >= self.threshold * tries and tail(hits, tries, self.bar) <= level


def tail(hits: int, tries: int, p: float) -> float:
    """The probability of `hits` or more in `tries` draws that hit with probability `p`, in (0, 1)."""
    misses = np.arange(1, tries - hits + 1)
    # Each term of the sum from the one before it, in logarithms: none of them overflows.
    steps = np.log((tries - misses + 1) / misses) + (log1p(-p) - log(p))
    return min(1.0, float(np.exp(tries * log(p) + np.append(0.0, np.cumsum(steps))).sum()))
