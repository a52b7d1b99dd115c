"""Reference rows: training rows that an artifact keeps, with what the model said of them.

They are shown to whoever asks, and are data of persons, sometimes: a method keeps them only where its
settings say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.fitted import Fitted, check_arrays
from explainer_runtime.methods.ground import Given
from explainer_runtime.predictors.base import answered
from explainer_runtime.search.prototypes import nearest


class Neighbour(NamedTuple):
    """A reference row: its number, its class as the model says, and how far away it is."""

    row: int
    known: int
    distance: float


class References(NamedTuple):
    """The rows `(M, *S)`, their codes `(M, E)`, and the model's scores `(M, K)`, all float32."""

    rows: np.ndarray
    codes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> References:
        """Those of an artifact."""
        return cls(arrays["reference_rows"], arrays["reference_codes"], arrays["reference_scores"])

    def near(self, codes: np.ndarray, k: int) -> list[list[Neighbour]]:
        """For each of some codes `(N, E)` the k nearest of every class that has rows: class by class as their
        nearest lie, nearest first."""
        known = self.scores.argmax(axis=1)
        found: list[list[list[Neighbour]]] = [[] for _ in codes]
        for one in np.unique(known):
            own = np.flatnonzero(known == one)
            for each, order, far in zip(found, *nearest(codes, self.codes[own], k), strict=True):
                pairs = zip(own[order].tolist(), far.tolist(), strict=True)
                each.append([Neighbour(row, int(one), distance) for row, distance in pairs])
        # Of classes equally far the one whose row comes first.
        return [[one for some in sorted(each, key=_nearer) for one in some] for each in found]


def first(near: list[Neighbour], wanted: np.ndarray) -> Neighbour | None:
    """The nearest of those of the classes that are wanted `(K,)`, bool; None where there is none."""
    return next((one for one in near if wanted[one.known]), None)


def fit(given: Given, count: int) -> dict[str, np.ndarray]:
    """At most `count` of the training rows, evenly spaced: `reference_rows` `(M, *S)`, their codes
    `reference_codes` `(M, E)`, and what the model says of them, `reference_scores` `(M, K)`.

    Raises:
        InvalidSpec: There are no training rows, or no model.
        PredictorError: The model failed.
    """
    x = given.rows()
    if x is None or given.predictor is None:
        raise InvalidSpec(f"{given.spec.kind}: needs training rows `x` and a `predictor` at fit")
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), count)).round().astype(int))]
    return {
        "reference_rows": x,
        "reference_codes": given.networks.codes(x),
        "reference_scores": answered(given.predictor, x, given.progress),
    }


def check(fitted: Fitted) -> None:
    """Refuse an explainer whose reference rows are missing, or do not belong together.

    Raises:
        InvalidSpec: They are.
    """
    check_arrays(
        fitted,
        {
            "reference_rows": ("f", ("M", *fitted.inputs.shape)),
            "reference_codes": ("f", ("M", "E")),
            "reference_scores": ("f", ("M", "K")),
        },
    )
    rows, codes, scores = References.of(fitted.arrays)
    wide = codes.shape[1] if "encoder" in fitted.models else rows[0].size
    if not len(rows) == len(codes) == len(scores) or codes.shape[1] != wide:
        raise InvalidSpec("arrays 'reference_rows', '_codes', '_scores': do not belong together; fit again")


def _nearer(some: list[Neighbour]) -> tuple[float, int]:
    return some[0].distance, some[0].row
