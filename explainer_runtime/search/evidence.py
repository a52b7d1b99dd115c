"""What random masks have told so far, and of which sets each of them speaks.

A draw *for* a set shows all of that set and each other feature by chance. The same draw is an exact draw
for every larger set that it happens to show: given that the rest of the larger set is shown, what lies
outside it is still chance. So one pool of draws serves every set between what was forced and what was shown,
and a search that grows sets starts each of them with the draws it already has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search.bandit import Tally


class Evidence(NamedTuple):
    """Draws, in the order they were made.

    Attributes:
        forced: The set each was drawn for, `(M, K)`, bool.
        shown: What it showed, `(M, K)`, bool; never less than `forced`.
        kept: Whether the answer stayed, `(M,)`, bool.
    """

    forced: np.ndarray
    shown: np.ndarray
    kept: np.ndarray

    @classmethod
    def none(cls, features: int) -> Evidence:
        """No draws yet."""
        return cls(np.zeros((0, features), bool), np.zeros((0, features), bool), np.zeros(0, bool))

    def plus(self, forced: np.ndarray, shown: np.ndarray, kept: np.ndarray) -> Evidence:
        """These draws, and those."""
        return Evidence(
            np.concatenate([self.forced, forced]),
            np.concatenate([self.shown, shown]),
            np.concatenate([self.kept, kept]),
        )

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
        """The same of draws that were made for just this set: those that had no part in choosing it."""
        same = np.ones((len(self.kept), len(sets)), dtype=bool)
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
