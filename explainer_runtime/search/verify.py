"""Is this probability really above the threshold? A test that looks again and again, and knows when to stop.

A set is accepted when its share of hits is at least the threshold and its lower bound is above the
threshold less `SLACK`: to tell .950 from .949 would take for ever. The usual test (Ribeiro et al. 2018)
allows five times that slack, and anchors come out of it that do not hold what they promise.

The other half is to give up in time. Whoever is below the threshold, or so little above it that the draws
left cannot show it, is not waited for: a larger set will be, and it inherits the draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search.bandit import Tally, exceeds, kl_bernoulli

SLACK = 0.01
"""How far below the threshold the probability of what was accepted may lie."""
_MOST = 2000
"""Draws for one set, after which it is given up."""
_EARLY = 300
"""Draws for one set before which its mean says too little to give it up."""
_DOUBT = 0.5
"""How far a mean may lie below the threshold by chance, in nats of evidence against it."""
_AHEAD = 200
"""Draws for a set that seems to miss the threshold but may not; its extensions inherit them."""


class Verdict(NamedTuple):
    """What a tally says of each arm, `(A,)`."""

    valid: np.ndarray
    """Whether it is accepted."""
    wanted: np.ndarray
    """Draws, int64, that should decide it; 0 where it is accepted or given up."""
    promising: np.ndarray
    """Whether its mean is what it should be and more draws may prove it."""


def verify(tally: Tally, own: Tally, threshold: float, level: float, least: int) -> Verdict:
    """Accept, ask for more, or give up.

    Args:
        tally: All that is known of each arm, which is also what it was chosen by.
        own: What was drawn for it since; only this can prove it, for the best of many tallies flatters.
        threshold: Least probability of a hit.
        level: Minus the logarithm of the probability that the test may fail.
        least: Draws that are worth asking for.
    """
    bar = max(0.0, threshold - SLACK)
    above = tally.mean >= threshold
    valid = above & exceeds(own, bar, level)
    # If the mean stays where it is, so many draws lift the lower bound over the bar.
    enough = level / kl_bernoulli(np.maximum(tally.mean, threshold), bar)
    left = (own.tries < _MOST) & ~valid
    promising = left & above & ((own.tries < _EARLY) | (enough <= _MOST))
    against = tally.tries * kl_bernoulli(tally.mean, threshold)
    doubtful = left & ~above & (tally.tries < _EARLY) & (against <= _DOUBT)
    more = np.clip(np.ceil(1.1 * (enough - own.tries)), least, max(least, _MOST))
    wanted = np.where(promising, more, np.where(doubtful, max(least, _AHEAD), 0))
    return Verdict(valid, wanted.astype(np.int64), promising)
