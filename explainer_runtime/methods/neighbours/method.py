"""Neighbours: which known rows are most like this one, and what does the model say of them?

The nearest row of the same class says what the model takes this one for, the nearest of another class (the
*nearest unlike neighbour*: Nugent, Cunningham 2005) what it might have taken it for. Both are rows that were
there, not made up. Distances are those of codes where an encoder was fitted, else of the rows in ranges of a
feature. The model is asked about the row itself and nothing more.

The rows are kept in the artifact, and are shown to whoever asks: fit it to rows that may be shown.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Explanation, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import references
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.methods.neighbours.drawing import draw
from explainer_runtime.methods.neighbours.drawing import draw as pictured
from explainer_runtime.methods.neighbours.settings import Neighbours
from explainer_runtime.methods.references import Neighbour, References, first
from explainer_runtime.search.asks import Rows, Search, Stop
from explainer_runtime.search.criterion import one_hot
from explainer_runtime.search.subject import Subject

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "one", "pictured", "search"]

NETWORKS = ("encoder",)


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    references.check(fitted)


def fit(given: Given) -> dict[str, np.ndarray]:
    """Some of the training rows; see `references.fit`."""
    return references.fit(given, given.spec.n_reference)


def search(x: np.ndarray, spec: Neighbours, ground: Ground) -> Search[Explanation]:
    """The known rows that are most like each of `x` `(N, *S)`.

    Returns:
        An explanation with `like` and `unlike`, the nearest row of the same class and of any other; their
        distances, `unlike_class`, and `trust_score`, the distance to the unlike one in distances to the like
        one (Jiang et al. 2018): what is far above 1 lies well inside its class. `found` is false where
        there is no row of the class or none of another; what is missing is the row itself then, at distance
        -1. `raw` has, for each class that has rows, the `k` nearest: which they are, their distances and
        the scores of their classes.
    """
    try:
        said = yield Rows(x)
    except Stop as stop:
        return _told(x, None, stop.status, spec, ground)
    return _told(x, said, OK, spec, ground)


def one(subject: Subject, spec: Neighbours, ground: Ground) -> Search[dict[str, Any]]:
    """The same of one image that others ask about as well; see `together`."""
    x = subject.canvas.image[None]
    try:
        said = yield from subject.said(np.ones((1, subject.superpixels), bool))
        answer = _told(x, said, OK, spec, ground)
    except Stop as stop:
        answer = _told(x, None, stop.status, spec, ground)
    return {name: array[0] for name, array in answer.arrays.items()} | {"raw": dict(answer.raw[0])}


def _told(
    x: np.ndarray, said: np.ndarray | None, status: str, spec: Neighbours, ground: Ground
) -> Explanation:
    """What there is to tell where the model `said` log-scores `(N, K)` of the rows, or nothing."""
    asked = said is not None
    said = np.full((len(x), ground.inputs.classes), -np.inf) if said is None else said
    known, own = References.of(ground.arrays, ground.inputs), said.argmax(axis=1)
    each = known.near(ground.plausible().codes(x), spec.k)
    same = one_hot(own, said.shape[1])
    like = [first(near, asked & wanted) for near, wanted in zip(each, same, strict=True)]
    unlike = [first(near, asked & wanted) for near, wanted in zip(each, ~same, strict=True)]
    found = np.array([a is not None and b is not None for a, b in zip(like, unlike, strict=True)])

    def shown(chosen: list[Neighbour | None]) -> np.ndarray:
        return np.stack([x[i] if one is None else known.rows[one.row] for i, one in enumerate(chosen)])

    def far(chosen: list[Neighbour | None]) -> np.ndarray:
        return np.array([-1.0 if one is None else one.distance for one in chosen], np.float32)

    score = np.where(found, far(unlike) / np.maximum(far(like), 1e-10), -1)
    fields = {
        "found": found,
        "status": np.where(found, OK, NOT_FOUND if asked else status),
        "like": shown(like),
        "unlike": shown(unlike),
        "like_distance": far(like),
        "unlike_distance": far(unlike),
        "unlike_class": np.array([-1 if one is None else one.known for one in unlike]),
        "trust_score": np.minimum(score, 1e6).astype(np.float32),
        "original_class": own if asked else np.full(len(x), -1),
        "original_proba": np.exp(said).astype(np.float32),
    }
    return Explanation("neighbours", fields, raw=tuple(_raw(near, known.scores) for near in each))


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    row, number, count = ("FP32", fitted.inputs.shape), ("FP32", ()), ("INT64", ())
    return {
        **COMMON,
        "like": row,
        "unlike": row,
        "like_distance": number,
        "unlike_distance": number,
        "unlike_class": count,
        "trust_score": number,
        "original_class": count,
        "original_proba": ("FP32", (fitted.inputs.classes,)),
    }


def _raw(near: list[Neighbour], scores: np.ndarray) -> dict[str, Any]:
    told = [
        {"class": known, "row": row, "distance": far, "proba": float(scores[row, known])}
        for row, known, far in near
    ]
    return {"neighbours": told}
