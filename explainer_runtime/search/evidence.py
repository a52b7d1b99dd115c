"""What random masks have told so far, and of which sets each of them speaks.

A draw *for* a set shows all of that set and each other feature by chance. The same draw is an exact draw
for every larger set that it happens to show: given that the rest of the larger set is shown, what lies
outside it is still chance. So one pool of draws serves every set between what was forced and what was shown.

That holds for estimates. A proof is stricter: only `own` draws of a set count, which were made for it after
it had been chosen and had no part in choosing it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Tally(NamedTuple):
    """How often each set was tried and in how many draws the answer stayed, `(A,)` int64."""

    tries: np.ndarray
    hits: np.ndarray


class Evidence(NamedTuple):
    """Draws, in the order they were made.

    Attributes:
        forced: The set each was drawn for, `(M, K)`, bool.
        shown: What it showed, `(M, K)`, bool; never less than `forced`.
        lead: How far the answer was from changing, `(M,)`, in any unit; positive where it stayed.
        fresh: Whether the draw may prove its set, `(M,)`, bool: independent of all others, and made after
            the set was chosen.
    """

    forced: np.ndarray
    shown: np.ndarray
    lead: np.ndarray
    fresh: np.ndarray

    @classmethod
    def none(cls, features: int) -> Evidence:
        """No draws yet."""
        masks = np.zeros((0, features), bool)
        return cls(masks, masks, np.zeros(0), np.zeros(0, bool))

    @property
    def kept(self) -> np.ndarray:
        """Whether the answer stayed, `(M,)`, bool."""
        return self.lead > 0

    def plus(self, forced: np.ndarray, shown: np.ndarray, lead: np.ndarray, *, fresh: bool) -> Evidence:
        """These draws, and those."""
        more = Evidence(forced, shown, np.asarray(lead, np.float64), np.full(len(forced), fresh))
        return Evidence(*map(np.concatenate, zip(self, more, strict=True)))

    def about(self, sets: np.ndarray) -> np.ndarray:
        """Which draws are draws for which of `sets` `(A, K)`, bool: `(M, A)`, bool."""
        about = np.ones((len(self.kept), len(sets)), dtype=bool)
        # 64 features at a time: nothing forced is outside the set, nothing of the set is hidden.
        for forced, shown, own in zip(_words(self.forced), _words(self.shown), _words(sets), strict=True):
            about &= ((forced[:, None] & ~own) | (own & ~shown[:, None])) == 0
        return about

    def tally(self, sets: np.ndarray) -> Tally:
        """Draws for each of `sets` `(A, K)`, bool, and in how many of them the answer stayed."""
        return self._count(self.about(sets))

    def own(self, sets: np.ndarray) -> Tally:
        """The same of fresh draws that were made for just this set: those that can prove it."""
        same = np.repeat(self.fresh[:, None], len(sets), axis=1)
        for forced, own in zip(_words(self.forced), _words(sets), strict=True):
            same &= forced[:, None] == own
        return self._count(same)

    def _count(self, draws: np.ndarray) -> Tally:
        return Tally(draws.sum(axis=0), (draws & self.kept[:, None]).sum(axis=0))


def _words(masks: np.ndarray) -> np.ndarray:
    """Masks `(M, K)` as bits `(ceil(K / 64), M)`, uint64."""
    padded = np.zeros((len(masks), masks.shape[1] + -masks.shape[1] % 64), dtype=bool)
    padded[:, : masks.shape[1]] = masks
    return np.packbits(padded, axis=1).view(np.uint64).T
