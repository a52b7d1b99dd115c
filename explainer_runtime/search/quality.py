"""How good is an order of regions? What the model says as they are hidden, or shown, one after the other.

Petsiuk et al. (arXiv:1806.07421, section 4) hide what matters most first (deletion: the score should fall
soon) or show it first (insertion: it should rise soon), and take the area below the curve. An area says
little by itself, since it goes with the image, the fill and the number of regions; beside it stands that of
random orders, which is the same of both curves on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search

Said = Callable[[np.ndarray], Search[np.ndarray]]
"""Masks of what is shown `(M, K)`, bool -> log-scores `(M, classes)`."""
_STEPS = 12
"""Parts of a curve at most."""
_ORDERS = 6
"""Random orders."""


class Curves(NamedTuple):
    """Areas below curves of a class's probability, 0 to 1.

    Attributes:
        deletion: As regions are hidden, those first that matter most.
        insertion: As they are shown, those first that matter most.
        random: The mean of random orders.
        random_error: Its standard error.
    """

    deletion: float
    insertion: float
    random: float
    random_error: float


def curves(order: np.ndarray, target: int, said: Said, rng: np.random.Generator) -> Search[Curves]:
    """The curves of an order of all regions `(K,)`, those that matter most first."""
    count = len(order)
    sizes = np.unique(np.linspace(0, count, min(count, _STEPS) + 1).round().astype(int))

    def shown(order: np.ndarray) -> np.ndarray:
        """The first regions of an order, ever more of them."""
        return np.asarray(order.argsort() < sizes[:, None])

    orders = [shown(rng.permutation(count)) for _ in range(_ORDERS)]
    everything, rest = np.ones((1, count), bool), [~shown(order), shown(order), *orders]
    log_scores = yield from said(np.concatenate([everything, *rest]))
    chances = np.exp(log_scores[1:, target].astype(np.float64)).reshape(len(rest), -1)
    areas = _areas(chances, sizes / count)
    spread = areas[2:].std(ddof=1) / np.sqrt(_ORDERS)
    return Curves(float(areas[0]), float(areas[1]), float(areas[2:].mean()), float(spread))


def cout(regions: list[int], other: int, target: int, count: int, said: Said) -> Search[float]:
    """The counterfactual transition score (Khorram, Fuxin, arXiv:2203.15064): the area below the curve of the
    class that is reached, less that of the class that was, as regions are hidden in this order; -1 to 1, and
    high where few of them do it."""
    steps = np.zeros((len(regions) + 1, count), bool)
    for size in range(1, len(steps)):
        steps[size, regions[:size]] = True
    log_scores = yield from said(~steps)
    chances = np.exp(log_scores.astype(np.float64))
    areas = _areas(chances[:, [other, target]].T, np.linspace(0, 1, len(steps)))
    return float(areas[0] - areas[1])


def _areas(heights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Below curves `(M, N)` of straight lines between places `(N,)`."""
    return np.asarray((heights[:, 1:] + heights[:, :-1]) @ np.diff(places) / 2)
