"""Explain many rows a few at a time, so that what a search holds in memory is bounded.

A search holds some dozens of arrays as large as each of its rows: of images of 224x224x3 tens of megabytes a
row. Rows are strangers, so a batch is explained part by part, with the answer that it has as a whole. Little
is lost by that: images that are too large to be searched all together fill messages of their own, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from explainer_runtime.driver.meter import Budget, Progress
from explainer_runtime.driver.solve import solve
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.predictors.base import Predictor
from explainer_runtime.search.asks import Search

FEATURES = 2**20
"""Features of the rows that are explained together: 6 of 224x224x3, 1,337 of 28x28."""


def explain(
    x: np.ndarray,
    search: Callable[[np.ndarray], Search[Explanation]],
    predictor: Predictor,
    budget: Budget,
    *,
    progress: Callable[[Progress], None] | None = None,
    **how: Any,
) -> Explanation:
    """The answer for rows `(N, *S)`, with its cost.

    Args:
        x: The rows.
        search: Makes the search of some of them.
        predictor: The model that answers.
        budget: Of all rows together. Each part may take what is its share of what is left.
        progress: Told how far all of it is.
        how: Everything else that `solve` takes.

    Raises:
        Cancelled, PredictorError: As `solve`.
    """
    size, end = max(1, FEATURES // max(1, x[0].size)), time.monotonic() + budget.seconds
    spent, answers = Cost(), list[Explanation]()
    for start in range(0, len(x), size):
        part = x[start : start + size]
        share = len(part) / (len(x) - start)
        own = Budget(
            int(share * max(0, budget.rows - spent.rows)),
            int(share * max(0, budget.calls - spent.calls)),
            share * (end - time.monotonic()),
        )
        told = progress and _whole(progress, start / len(x), len(part) / len(x), spent)
        answer, cost = solve(search(part), predictor, own, progress=told, **how)
        spent += cost
        answers.append(answer)
    return replace(_joined(answers), cost=spent)


def _whole(
    progress: Callable[[Progress], None], before: float, part: float, spent: Cost
) -> Callable[[Progress], None]:
    """What a part tells of itself, told of all rows."""

    def told(at: Progress) -> None:
        rows, calls = spent.rows + at.rows, spent.calls + at.calls
        progress(Progress(before + part * at.fraction, rows, calls, at.best))

    return told


def _joined(answers: Sequence[Explanation]) -> Explanation:
    first = answers[0]
    if len(answers) == 1:
        return first
    arrays = {name: np.concatenate([one[name] for one in answers]) for name in first.arrays}
    raw = [entry for one in answers for entry in (one.raw or ({},) * len(one))]
    return replace(first, arrays=arrays, raw=tuple(raw) if any(raw) else ())
