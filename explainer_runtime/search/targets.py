"""What a search is after: which classes, in which direction, how far."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_TINY = 1e-30  # keeps the logarithm finite where a softmax has underflowed


class Aim(NamedTuple):
    """The aim of each lane.

    Attributes:
        mask: Classes that count `(L, K)`, float32, 1 or 0.
        sign: Whether their probability is to rise (1) or fall (-1), `(L,)`, float32.
        level: Probability at which the lane has arrived `(L,)`, float32.
    """

    mask: Any
    sign: Any
    level: Any


def reach(aim: Aim, scores: Any) -> Any:
    """The largest probability among the classes that count: scores `(L, K)` -> `(L,)`."""
    return tf.reduce_max(aim.mask * scores, axis=1)


def log_reach(aim: Aim, scores: Any) -> Any:
    """Log of `reach`, signed so that more is better; its slope does not vanish where a softmax saturates."""
    return aim.sign * tf.math.log(reach(aim, scores) + _TINY)


def arrived(aim: Aim, scores: Any) -> Any:
    """Whether each lane has reached its level `(L,)`, bool."""
    return aim.sign * reach(aim, scores) >= aim.sign * aim.level


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    """Masks `(L, count)`, float32, that let one class count."""
    return np.asarray(np.eye(count, dtype=np.float32)[classes])
