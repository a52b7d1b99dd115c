"""What `all` holds: the best valid point that each descent of a search has passed.

A search asks for its descents through the driver, where they can be watched. The schedules that people know
make one descent for each weight they try and keep its best point. Those of the `fast` schedules grow and
prune instead, and have nothing to show but their answer.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from explainer_runtime.search.asks import Ask, Descend

S = TypeVar("S")


class History:
    """Watches one search for one instance; see `explainers.Prepared`."""

    def __init__(self) -> None:
        self._ends: list[Any] = []

    def __call__(self, ask: Ask, told: Any) -> None:
        """Keep the end of each descent that the model has judged."""
        if isinstance(ask, Descend) and ask.objective is not None:
            self._ends.append(told)

    def ends(self, kind: type[S]) -> list[S]:
        """The ends of all descents whose state is of this kind, in order."""
        return [end for end in self._ends if isinstance(end, kind)]


def by_step(steps: int, found: dict[int, Any], answer: Any | None, same: Any) -> dict[int, list[Any]]:
    """One list for each of `steps` weights, in order, with what was found for it.

    The answer is in one of them: in the first, where none has come up with it on its way.

    Args:
        steps: How many weights.
        found: What to keep, by the number of its weight.
        answer: What the search returned, or None.
        same: Whether two of them are the same point.
    """
    lists: dict[int, list[Any]] = {step: [] for step in range(steps)}
    for step, one in found.items():
        lists[step].append(one)
    if answer is not None and not any(same(one, answer) for one in found.values()):
        lists[0].append(answer)
    return lists


def scalar(values: np.ndarray) -> float:
    """The number of the only lane."""
    return float(np.asarray(values)[0])
