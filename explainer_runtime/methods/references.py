"""Reference rows: training rows that an artifact keeps, with what the model said of them.

They are shown to whoever asks, and are data of persons, sometimes: a method keeps them only where its
settings say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.fitted import Fitted, Shape, check_arrays
from explainer_runtime.methods.ground import Given
from explainer_runtime.predictors.base import answered
from explainer_runtime.search.kept import Kept, as_bytes
from explainer_runtime.search.prototypes import nearest
from explainer_runtime.spec import Inputs


class Neighbour(NamedTuple):
    """A reference row: its number, its class as the model says, and how far away it is."""

    row: int
    known: int
    distance: float


class References(NamedTuple):
    """The rows `(M, *S)`, their codes `(M, E)`, and the model's scores `(M, K)`; taken as float32."""

    rows: Kept
    codes: Kept
    scores: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], inputs: Inputs) -> References:
        """Those of an artifact; without an encoder the codes are the rows, in ranges of a feature."""
        rows, low, high = arrays["reference_rows"], inputs.low, inputs.high
        codes = arrays.get("reference_codes")
        coded = Kept(rows.reshape(len(rows), -1), low, high, high - low) if codes is None else Kept(codes)
        return cls(Kept(rows, low, high), coded, arrays["reference_scores"])

    def near(self, codes: np.ndarray, k: int) -> list[list[Neighbour]]:
        """For each of some codes `(N, E)` the k nearest of every class that has rows: class by class as their
        nearest lie, nearest first."""
        known = self.scores.argmax(axis=1)
        found: list[list[list[Neighbour]]] = [[] for _ in codes]
        for one in np.unique(known):
            own = np.flatnonzero(known == one)
            for each, order, far in zip(found, *nearest(codes, self.codes, k, own), strict=True):
                pairs = zip(order.tolist(), far.tolist(), strict=True)
                each.append([Neighbour(row, int(one), distance) for row, distance in pairs])
        # Of classes equally far the one whose row comes first.
        return [[one for some in sorted(each, key=_nearer) for one in some] for each in found]


def first(near: list[Neighbour], wanted: np.ndarray) -> Neighbour | None:
    """The nearest of those of the classes that are wanted `(K,)`, bool; None where there is none."""
    return next((one for one in near if wanted[one.known]), None)


def fit(given: Given, count: int) -> dict[str, np.ndarray]:
    """At most `count` of the training rows, evenly spaced: `reference_rows` `(M, *S)`, as bytes where their
    pixels are some; what the model says of them, `reference_scores` `(M, K)`; and where there is an encoder
    their codes `reference_codes` `(M, E)`.

    Raises:
        InvalidSpec: There are no training rows, or no model.
        PredictorError: The model failed.
    """
    x = given.rows()
    if x is None or given.predictor is None:
        raise InvalidSpec(
            f"{given.spec.kind}: needs training rows `x` (--data) and a `predictor` (--model) at fit, "
            "for what it shows are known rows"
        )
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), count)).round().astype(int))]
    fitted = {
        "reference_rows": as_bytes(x, given.inputs.low, given.inputs.high),
        "reference_scores": answered(given.predictor, x, given.progress),
    }
    if given.networks.encoder is not None:
        fitted["reference_codes"] = given.codes(x)
    return fitted


def check(fitted: Fitted) -> None:
    """Refuse an explainer whose reference rows are missing, or do not belong together.

    Raises:
        InvalidSpec: They are.
    """
    wanted: dict[str, tuple[str, Shape]] = {
        "reference_rows": ("fB", ("M", *fitted.inputs.shape)),
        "reference_scores": ("f", ("M", "K")),
    }
    if "encoder" in fitted.models or "reference_codes" in fitted.arrays:
        wanted["reference_codes"] = ("f", ("M", "E"))
    check_arrays(fitted, wanted)


def _nearer(some: list[Neighbour]) -> tuple[float, int]:
    return some[0].distance, some[0].row
