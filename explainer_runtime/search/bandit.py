"""Which of many coins lands heads most often? Bounds of Bernoulli means, and the contest between arms.

A coin that fell heads in a share `mean` of `tries` tosses has a true probability `q` with
`tries * kl(mean, q) > level` only with probability `exp(-level)` (Chernoff). KL-LUCB (Kaufmann,
Kalyanakrishnan, COLT 2013) turns that into a search for the best arms: compare the lower bound of the
weakest leader with the upper bounds of all others, toss where they overlap, stop when no rival can be
better by more than `tau`.

The paper tosses two arms a round. A round here is a call to a model, and a call is dear, so `contest` names
every rival that overlaps and the caller tosses as many of them at once as it likes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_HALVINGS = 20
"""Of an interval no longer than 1: bounds are good to 1e-6."""


class Tally(NamedTuple):
    """How often each arm was tried and how often it hit, `(A,)` int64."""

    tries: np.ndarray
    hits: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Share of hits `(A,)`; one half for an arm that was never tried."""
        return np.where(self.tries > 0, self.hits / np.maximum(self.tries, 1), 0.5)


class Contest(NamedTuple):
    """A round of the contest: the arms in front, and those that may still be better."""

    leaders: np.ndarray
    """Indices of the arms with the highest means, best first."""
    rivals: np.ndarray
    """Indices of the other arms whose upper bound passes the weakest leader's lower bound by more than
    `tau`, the most threatening first. Empty when the contest is decided."""


def contest(tally: Tally, places: int, level: float, tau: float) -> Contest:
    """Who leads, and whose place is not settled yet.

    Args:
        tally: Of all arms.
        places: How many leaders are sought, at least 1.
        level: Minus the logarithm of the probability that one bound may fail.
        tau: How much better than a leader a rival may still be, as a probability.

    Source: KL-LUCB, Kaufmann & Kalyanakrishnan 2013, algorithm 1, with all overlapping rivals for the one
    of highest upper bound.
    """
    leaders = leading(tally, places)
    others = np.setdiff1d(np.arange(len(tally.tries)), leaders)
    lower = lower_bound(tally.mean[leaders], level / np.maximum(tally.tries[leaders], 1))
    upper = upper_bound(tally.mean[others], level / np.maximum(tally.tries[others], 1))
    threatening = np.argsort(-upper, kind="stable")
    overlapping = threatening[upper[threatening] - lower.min() > tau]
    return Contest(leaders, others[overlapping])


def leading(tally: Tally, places: int) -> np.ndarray:
    """Indices of the arms in front: by mean, then by tries (who has shown it for longer), then by index."""
    return np.lexsort((-tally.tries, -tally.mean))[:places]


def exceeds(tally: Tally, bar: float, level: float) -> np.ndarray:
    """Whether the lower bound of each arm at `level` lies above `bar`, `(A,)` bool."""
    return (tally.mean > bar) & (tally.tries * kl_bernoulli(tally.mean, bar) > level)


def kl_bernoulli(p: np.ndarray | float, q: np.ndarray | float) -> np.ndarray:
    """Relative entropy of a coin of probability `p` against one of probability `q`, in nats.

    Not negative, zero where they are equal, large but finite where `q` is 0 or 1 and `p` is not.
    """
    tiny = np.finfo(np.float64).tiny
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    heads = p * np.log(np.maximum(p, tiny) / np.maximum(q, tiny))
    tails = (1 - p) * np.log(np.maximum(1 - p, tiny) / np.maximum(1 - q, tiny))
    return np.maximum(heads + tails, 0.0)


def upper_bound(mean: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """The largest `q` with `kl(mean, q) <= level`, to within 1e-6 above; `mean` in [0, 1]."""
    mean = np.asarray(mean, np.float64)
    # Pinsker: kl(mean, q) >= 2 (q - mean)^2, so the root lies between these two.
    inside, outside = mean, np.minimum(1.0, mean + np.sqrt(np.asarray(level) / 2))
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        beyond = kl_bernoulli(mean, middle) > level
        inside, outside = np.where(beyond, inside, middle), np.where(beyond, middle, outside)
    return outside


def lower_bound(mean: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """The least `q` with `kl(mean, q) <= level`, to within 1e-6 below; `mean` in [0, 1]."""
    return 1.0 - upper_bound(1.0 - np.asarray(mean, np.float64), level)
