"""What `all` holds: the valid points that a search has passed on its way, ever cheaper ones, under their
weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby, pairwise
from typing import Any, TypeVar

import numpy as np

from explainer_runtime.explanation import Explanation

P = TypeVar("P")


def by_step(
    answer: Explanation, steps: int, point: Callable[[int, Mapping[str, Any]], P], final: P
) -> dict[int, list[P]]:
    """One list for each of `steps` weights, with what was found on the way; the last one found is the answer.

    The schedules that people know try one weight a step. With the others every point has a weight of its own:
    the way is spread over the steps, first ones far and clumsy, later ones nearer.

    Args:
        answer: Of one row, with its path kept.
        steps: How many lists.
        point: `(step, entry of the path) -> what to keep`.
        final: What to keep of the counterfactual, where one was found that the path does not hold.
    """
    path = answer.raw[0]["path"] if answer.raw else []
    groups = [list(group) for _, group in groupby(path, lambda entry: entry["weight"])]
    if len(groups) > steps:
        groups = [list(chain.from_iterable(part)) for part in _parts(groups, steps)]
    places = np.linspace(0, max(0, min(len(groups), steps) - 1), len(groups)).round().astype(int)
    lists: dict[int, list[P]] = {step: [] for step in range(steps)}
    for place, group in zip(places, groups, strict=True):
        lists[int(place)] += [point(int(place), entry) for entry in group]
    passed = any(np.array_equal(entry["x"], answer["counterfactual"][0]) for entry in path)
    if answer["found"][0] and not passed:
        lists[max((step for step, some in lists.items() if some), default=0)].append(final)
    return lists


def _parts(groups: Sequence[P], count: int) -> list[list[P]]:
    edges = np.linspace(0, len(groups), count + 1).round().astype(int)
    return [list(groups[start:end]) for start, end in pairwise(edges)]
