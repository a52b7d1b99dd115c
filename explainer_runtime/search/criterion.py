"""What is asked of an answer: which classes, how likely, how far ahead. The one place that says what is
valid.

A criterion is a value, one entry a lane. `margin` says how far scores are from what a search aims for, in
log-odds, negative where they fall short; `pull` is its slope; `valid` whether a point may be called an
answer. The three agree by construction, on log-scores: a probability of 1e-40 still has a slope, which
float32 probabilities have not.

    margin = least of    sign * (log-odds of the best wanted class - level)
                         log p_wanted - log(lead * p_against + kappa)

The first is how likely (Wachter's `target_proba`), the second how far ahead of the others (kappa of CEM and
of prototypes, as a probability; a lead, as a ratio). A part that is not asked for is infinitely far met.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SLACK = 1e-4
"""Log-odds held back: a model's last bits depend on the batch, and `found` must hold when asked again."""
SURE = float(np.log1p(-1e-7) - np.log(1e-7))
"""Largest level, in log-odds: float32 probabilities know no larger one below 1."""
_NEVER = -1e30
"""Stands for the logarithm of 0 where infinities would make NaN of sums."""


class Criterion(NamedTuple):
    """What is asked, lane by lane.

    Attributes:
        wanted: Classes of which one is to be the answer `(L, K)`, bool.
        against: Classes that it has to lead `(L, K)`, bool.
        level: Log-odds that it should reach `(L,)`, or fall to where `sign` is -1; -inf asks for nothing.
        sign: 1 or -1 `(L,)`.
        least, most: Log-odds between which a point is valid `(L,)`.
        lead: Logarithm of how many times as likely as any class in `against` a search aims for `(L,)`.
        kappa: Logarithm of the probability by which it has to be ahead of them `(L,)`, -inf for none.
        shift: Log-odds by which more than this is asked `(L,)`.
        exclusive: Whether the scores of a row are one distribution; else each class is on or off by itself.
    """

    wanted: np.ndarray
    against: np.ndarray
    level: np.ndarray
    sign: np.ndarray
    least: np.ndarray
    most: np.ndarray
    lead: np.ndarray
    kappa: np.ndarray
    shift: np.ndarray
    exclusive: bool = True

    def only(self, which: np.ndarray) -> Criterion:
        """The criterion of these lanes."""
        parts = (part[which] for part in self[:-1])
        return Criterion(*parts, self.exclusive)  # type: ignore[call-arg]

    def margin(self, log_scores: np.ndarray) -> np.ndarray:
        """How far beyond what is aimed for, in log-odds, from log-scores `(L, K)`: `(L,)`, finite."""
        return np.asarray(np.minimum(*self._parts(log_scores)) - self.shift)

    def pull(self, log_scores: np.ndarray) -> np.ndarray:
        """The slope of `margin` with respect to the log-scores `(L, K)`, float32."""
        rows = np.arange(len(log_scores))
        best, other = _best(log_scores, self.wanted), _best(log_scores, self.against)
        likely, ahead = self._parts(log_scores)
        slope = np.zeros_like(log_scores)
        if self.exclusive:
            rest = _softmax(np.where(np.arange(log_scores.shape[1]) == best[:, None], _NEVER, log_scores))
            slope -= rest
            slope[rows, best] = 1
        else:
            slope[rows, best] = 1 / np.maximum(-np.expm1(log_scores[rows, best]), 1e-30)
        slope *= self.sign[:, None]
        lag = np.flatnonzero(ahead < likely)
        slope[lag] = 0
        slope[lag, best[lag]] = 1
        against = _top(log_scores[lag], self.against[lag]) + self.lead[lag]
        slope[lag, other[lag]] -= np.exp(against - np.logaddexp(against, self.kappa[lag]))
        return np.asarray(slope, np.float32)

    def valid(self, log_scores: np.ndarray) -> np.ndarray:
        """Whether points with these log-scores may be called answers `(L,)`, bool."""
        return self.spare(log_scores) >= 0

    def spare(self, log_scores: np.ndarray) -> np.ndarray:
        """Log-odds that a point could lose and still be valid `(L,)`; negative where it is not."""
        odds = self.odds(log_scores)
        ahead = self._ahead(log_scores, 0 * self.lead)
        # Of classes that share the first place the model's answer is the one of lowest number.
        first = _best(log_scores, self.wanted | self.against)
        leads = np.take_along_axis(self.wanted, first[:, None], axis=1)[:, 0]
        ahead = np.where(leads, ahead, np.minimum(ahead, -SLACK))
        return np.asarray(np.minimum(np.minimum(odds - self.least, ahead) - self.shift, self.most - odds))

    def odds(self, log_scores: np.ndarray) -> np.ndarray:
        """Log-odds of the likeliest wanted class `(L,)`, finite."""
        best = _best(log_scores, self.wanted)
        own = np.take_along_axis(log_scores, best[:, None], axis=1)[:, 0].astype(np.float64)
        if self.exclusive:
            rest = np.where(np.arange(log_scores.shape[1]) == best[:, None], _NEVER, log_scores)
            return np.asarray(own - _logsumexp(rest))
        return np.asarray(own - np.log(np.maximum(-np.expm1(own), 1e-300)))

    def chance(self, log_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of the likeliest wanted class `(L,)`, and its slope with respect to the log-scores `(L,
        K)`."""
        rows, best = np.arange(len(log_scores)), _best(log_scores, self.wanted)
        value, slope = np.exp(log_scores[rows, best]), np.zeros_like(log_scores)
        slope[rows, best] = value
        return value, slope

    def hinge(self, log_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much likelier a wanted class would have to be, as a probability `(L,)`, and the slope of that
        `(L, K)`."""
        rows, slope = np.arange(len(log_scores)), np.zeros_like(log_scores)
        best, other = _best(log_scores, self.wanted), _best(log_scores, self.against)
        own, rest = np.exp(log_scores[rows, best]), np.exp(_top(log_scores, self.against))
        lag = rest + np.exp(self.kappa) - own
        short = np.maximum(lag, 1 / (1 + np.exp(np.minimum(-self.least, 80))) - own)
        slope[rows, best] = np.where(short > 0, -own, 0)
        slope[rows, other] += np.where((short > 0) & (lag >= short), rest, 0)
        return np.maximum(short, 0), slope

    def _parts(self, log_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        likely = np.minimum(self.sign * (self.odds(log_scores) - self.level), -_NEVER)
        return likely, self._ahead(log_scores, self.lead)

    def _ahead(self, log_scores: np.ndarray, lead: np.ndarray) -> np.ndarray:
        own, other = _top(log_scores, self.wanted), _top(log_scores, self.against)
        return np.asarray(own - np.logaddexp(other + lead, np.maximum(self.kappa, _NEVER)))


def criterion(
    wanted: np.ndarray,
    *,
    against: np.ndarray | None = None,
    level: float | np.ndarray = 0.0,
    sign: float | np.ndarray = 1.0,
    least: float | np.ndarray = 0.0,
    most: float | np.ndarray = 1.0,
    lead: float | np.ndarray = 1.0,
    kappa: float | np.ndarray = 0.0,
    exclusive: bool = True,
) -> Criterion:
    """A criterion in the words of the papers: probabilities and ratios, one for all lanes or one for each.

    Args:
        wanted: Classes of which one is to be the answer `(L, K)`, bool.
        against: Classes that it has to lead; None is all others, an empty mask none.
        level: Probability that a search aims for; 0 for none.
        sign: -1 where the probability is to fall to `level`.
        least, most: Probabilities between which a point is valid.
        lead: How many times as likely as any class in `against` a search aims for.
        kappa: Probability by which it has to be ahead of them, for the search and to be valid.
        exclusive: See `Criterion`.
    """
    lanes = len(wanted)

    def each(value: float | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.float64), (lanes,)).copy()

    with np.errstate(divide="ignore"):
        return Criterion(
            wanted,
            ~wanted if against is None else against,
            np.where(each(level) > 0, log_odds(each(level)), _NEVER),
            each(sign),
            np.where(each(least) > 0, log_odds(each(least)), _NEVER),
            np.where(each(most) < 1, log_odds(each(most)), -_NEVER),
            np.log(each(lead)),
            np.maximum(np.log(each(kappa)), _NEVER),
            np.zeros(lanes),
            exclusive,
        )


def log_odds(probability: np.ndarray) -> np.ndarray:
    """`log(p / (1 - p))`, at most `SURE` either way."""
    safe = np.clip(np.asarray(probability, np.float64), 1e-30, 1.0)
    return np.minimum(np.log(safe) - np.log1p(-np.minimum(safe, 1 - 1e-16)), SURE)


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    """Masks `(L, count)`, bool, that hold one class each."""
    return np.asarray(np.arange(count) == np.asarray(classes)[:, None])


def _best(log_scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(among, log_scores, _NEVER).argmax(axis=1))


def _top(log_scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.where(among, log_scores, _NEVER).max(axis=1).astype(np.float64)


def _logsumexp(values: np.ndarray) -> np.ndarray:
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp((values - top[:, None]).astype(np.float64)).sum(axis=1)))


def _softmax(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(values - _logsumexp(values)[:, None]))
