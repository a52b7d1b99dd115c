"""Which features hold the answer? A logistic model of masks, taught from what the draws have shown.

It says how likely the answer stays, given which features are shown: a bias and one weight a feature. As in
LIME (Ribeiro, Singh, Guestrin 2016) it is a linear model of masks; here it only *proposes* sets, and what it
says proves nothing. Its lesson is not only whether the answer stayed but how clearly: a draw in which the
class leads by a hair teaches the place of the border, so that some sixty draws do where bare yes and no take
several hundred. Where that is all that is known (a model of labels), it is a plain logistic regression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_EDGE = 0.25
"""Leads smaller than about this much of their median count as doubtful."""
_RIDGE = 0.05
"""Penalty of squared weights, in nats: features that no draw tells apart share what they explain."""
_STEPS = 8
"""Newton steps at most; the longest of them moves no weight by more than `_STRIDE`."""
_STRIDE = 4.0
_STILL = 0.01
"""A step that moves no weight by more than this is the last."""


class MaskSurrogate(NamedTuple):
    """`bias`, and `weights` `(K,)` of the features shown, in nats."""

    bias: float
    weights: np.ndarray

    def precision(self, sets: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """How often the answer should stay with each of `sets` `(A, K)`, bool, shown: `(A,)`, 0 to 1.

        `masks` `(Z, K)`, bool, is what chance shows of the other features, the same for every set.
        """
        by_chance = self.bias + masks @ self.weights
        added = ~masks @ (sets * self.weights).T
        return np.asarray(_logistic(by_chance[:, None] + added).mean(axis=0))


def fit(shown: np.ndarray, lead: np.ndarray) -> MaskSurrogate:
    """Teach a surrogate.

    Args:
        shown: Masks `(M, K)`, bool.
        lead: How far the answer was from changing, `(M,)`, in any unit; positive where it stayed.

    Returns:
        The weights of least cross-entropy, by Newton's method (iteratively reweighted least squares).
    """
    target = _logistic(lead / (_EDGE * max(float(np.median(np.abs(lead))), 1e-9)))
    rows = np.concatenate([np.ones((len(shown), 1)), shown], axis=1)
    penalty = np.diag(np.append(1e-3, np.full(shown.shape[1], _RIDGE)))
    found = np.zeros(rows.shape[1])
    odds = (target.sum() + 0.5) / (len(target) - target.sum() + 0.5)
    found[0] = np.log(odds)
    for _ in range(_STEPS):
        said = _logistic(rows @ found)
        slope = rows.T @ (target - said) - penalty @ found
        step = np.linalg.solve((rows.T * (said * (1 - said))) @ rows + penalty, slope)
        longest = np.abs(step).max()
        found += step * min(1.0, _STRIDE / max(longest, _STRIDE))
        if longest < _STILL:
            break
    return MaskSurrogate(float(found[0]), found[1:])


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
