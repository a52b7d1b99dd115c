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

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Explanation, Fields
from explainer_runtime.fitted import Fitted, check_arrays
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.methods.neighbours.drawing import draw
from explainer_runtime.methods.neighbours.settings import Neighbours
from explainer_runtime.predictors.base import answered
from explainer_runtime.search.asks import Rows, Search, Stop
from explainer_runtime.search.prototypes import nearest

__all__ = ["NETWORKS", "SLOPES", "check", "draw", "fields", "fit", "search"]

SLOPES = False
NETWORKS = ("encoder",)


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    check_arrays(
        fitted,
        {
            "reference_rows": ("f", ("M", *fitted.inputs.shape)),
            "reference_codes": ("f", ("M", "E")),
            "reference_scores": ("f", ("M", "K")),
        },
    )
    rows, codes, scores = (fitted.arrays[f"reference_{name}"] for name in ("rows", "codes", "scores"))
    wide = codes.shape[1] if "encoder" in fitted.models else rows[0].size
    if not len(rows) == len(codes) == len(scores) or codes.shape[1] != wide:
        raise InvalidSpec("arrays 'reference_rows', '_codes', '_scores': do not belong together; fit again")


def fit(given: Given) -> dict[str, np.ndarray]:
    """Some of the training rows, evenly spaced: `reference_rows` `(M, *S)`, their codes `reference_codes`
    `(M, E)`, and what the model says of them, `reference_scores` `(M, K)`."""
    x = given.rows()
    if x is None or given.predictor is None:
        raise InvalidSpec("neighbours: needs training rows `x` and a `predictor` at fit")
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), given.spec.n_reference)).round().astype(int))]
    return {
        "reference_rows": x,
        "reference_codes": given.networks.codes(x),
        "reference_scores": answered(given.predictor, x, given.progress),
    }


def search(x: np.ndarray, spec: Neighbours, ground: Ground) -> Search[Explanation]:
    """The known rows that are most like each of `x` `(N, *S)`.

    Returns:
        An explanation with `like` and `unlike`, the nearest row of the same class and of any other; their
        distances, `unlike_class`, and `trust_score`, the distance to the unlike one in distances to the like
        one (Jiang et al. 2018): what is far above 1 lies well inside its class. `found` is false where
        there is no row of the class or none of another; what is missing is the row itself then, at distance
        -1. `raw` has, for each class that has rows, the `k` nearest: which they are, their distances and
        scores.
    """
    try:
        said = yield Rows(x)
        status = OK
    except Stop as stop:
        said, status = np.full((len(x), ground.inputs.classes), -np.inf), stop.status
    asked = status == OK
    rows, codes, scores = (ground.arrays[f"reference_{name}"] for name in ("rows", "codes", "scores"))
    known, own = scores.argmax(axis=1), said.argmax(axis=1)
    here = ground.plausible().codes(x)
    each = _nearest(codes, known, here, spec.k)
    like = [_first(near, lambda one, row=row: asked and one == own[row]) for row, near in enumerate(each)]
    unlike = [_first(near, lambda one, row=row: asked and one != own[row]) for row, near in enumerate(each)]
    found = np.array([a is not None and b is not None for a, b in zip(like, unlike, strict=True)])

    def shown(chosen: list[tuple[int, float] | None]) -> np.ndarray:
        return np.stack([x[i] if one is None else rows[one[0]] for i, one in enumerate(chosen)])

    def far(chosen: list[tuple[int, float] | None]) -> np.ndarray:
        return np.array([-1.0 if one is None else one[1] for one in chosen], np.float32)

    score = np.where(found, far(unlike) / np.maximum(far(like), 1e-10), -1)
    fields = {
        "found": found,
        "status": np.where(found, OK, NOT_FOUND if asked else status),
        "like": shown(like),
        "unlike": shown(unlike),
        "like_distance": far(like),
        "unlike_distance": far(unlike),
        "unlike_class": np.array([-1 if one is None else known[one[0]] for one in unlike]),
        "trust_score": np.minimum(score, 1e6).astype(np.float32),
        "original_class": own if asked else np.full(len(x), -1),
        "original_proba": np.exp(said).astype(np.float32),
    }
    return Explanation("neighbours", fields, raw=tuple(_raw(near, scores) for near in each))


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


def _nearest(
    codes: np.ndarray, known: np.ndarray, here: np.ndarray, k: int
) -> list[dict[int, list[tuple[int, float]]]]:
    """For each of some codes, of each class the k nearest: which, and how far away, nearest first."""
    found: list[dict[int, list[tuple[int, float]]]] = [{} for _ in here]
    for one in np.unique(known):
        own = np.flatnonzero(known == one)
        for near, order, far in zip(found, *nearest(here, codes[own], k), strict=True):
            near[int(one)] = list(zip(own[order].tolist(), far.tolist(), strict=True))
    return found


def _first(near: dict[int, list[tuple[int, float]]], wanted: Any) -> tuple[int, float] | None:
    """The nearest of all those of classes that are wanted; None where there is none."""
    return min(
        (some[0] for one, some in near.items() if wanted(one)), key=lambda one: (one[1], one[0]), default=None
    )


def _raw(near: dict[int, list[tuple[int, float]]], scores: np.ndarray) -> dict[str, Any]:
    return {
        "neighbours": [
            {"class": one, "row": row, "distance": far, "proba": scores[row]}
            for one, some in sorted(near.items(), key=lambda item: item[1][0][1])
            for row, far in some
        ]
    }
