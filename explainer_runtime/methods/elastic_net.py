"""What prototype counterfactuals and contrastive explanations have in common: how a search goes.

Both ask the model what it says of the rows, look for the point of small elastic net at which it says
something else (elastic_task.py: what exactly), ask again, and answer. `reference` looks with the schedule
that people know (elastic_known.py), `fast` along one proximal path (elastic_fast.py), either of them
without any gradient of the model where c is 0 (elastic_blind.py).
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.explanation import NOT_FOUND, OK
from explainer_runtime.methods import elastic_blind, elastic_fast, elastic_known, elastic_trim
from explainer_runtime.methods.elastic_task import Task
from explainer_runtime.methods.quality import change
from explainer_runtime.search.asks import Rows, Search, Stop
from explainer_runtime.search.incumbents import Incumbents


def opened(x: np.ndarray, classes: int) -> Search[tuple[np.ndarray, str]]:
    """What the model says of rows `(N, *S)`, and how the search stands.

    Returns:
        Class scores `(N, K)` and `OK`; or zeros, and why nothing could be asked.
    """
    try:
        return (yield Rows(x)), OK
    except Stop as stop:
        return np.zeros((len(x), classes), np.float32), stop.status


def settled(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[str]:
    """Search for valid points of these rows of small elastic net, and ask the model about them once more.

    Args:
        task: What is sought.
        held: The best so far, bettered as the search goes.
        rows: Which rows to search for.
        exact: Whether gradients of the model are exact.

    Returns:
        How it ended.
    """
    try:
        if len(rows):
            yield from _seek(task, held, rows, exact)
        held.scores[:] = yield Rows(held.x, 0.98)
        held.found &= task.valid(held.x, held.scores, np.arange(len(held.x)))[0]
    except Stop as stop:
        return stop.status
    return OK


def answered(
    field: str, task: Task, held: Incumbents, scores: np.ndarray, status: str
) -> dict[str, np.ndarray]:
    """The fields that both methods answer with.

    Args:
        field: What the point itself is called, and its class and probabilities after it.
        task: What was sought.
        held: What was found.
        scores: Of the rows as they came `(N, K)`.
        status: How the search ended.
    """
    rows = np.arange(len(scores))
    known = scores.any(axis=1)  # all zero where nothing could be asked
    missing = NOT_FOUND if status == OK else status
    return {
        "found": held.found,
        "status": np.where(held.found & (status == OK), OK, missing),
        field: held.x,
        "original_class": np.where(known, scores.argmax(axis=1), -1),
        "original_proba": scores,
        f"{field}_class": np.where(known, held.scores.argmax(axis=1), -1),
        f"{field}_proba": held.scores,
        **change(task.origin, held.x),
        "elastic_net": task.net(held.x, rows).astype(np.float32),
        "autoencoder_error": task.networks.errors(held.x),
        "c": held.tag.astype(np.float32),
    }


def _seek(task: Task, held: Incumbents, rows: np.ndarray, exact: bool) -> Search[None]:
    blind = not task.spec.c_init
    if task.spec.schedule == "reference":
        if blind:
            yield from elastic_blind.along(task, held, rows, elastic_known.known_slope(task, rows))
        else:
            yield from elastic_known.bisect(task, held, rows)
        return
    if blind:
        yield from elastic_blind.pulled(task, held, rows)
    else:
        yield from elastic_fast.rounds(task, held, rows, exact)
    yield from elastic_trim.polish(task, held, rows[held.found[rows]])
    if not blind and task.pace.room is not None:
        yield from elastic_trim.carve(
            task, held, rows[held.found[rows]], times=1, groups=48, room=task.pace.room
        )
