"""Does the model know the rows that it is about to be explained on?

A network trained on [0, 1] and given [-0.5, 0.5] answers all the same, and every explanation of it is about
nothing. Where the true classes are at hand this shows: the model is right no more often than chance, or far
less often than on the same rows in another of the ranges that pixels usually have.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.predictors.base import Predictor, answered, named
from explainer_runtime.predictors.meaning import PAGE
from explainer_runtime.spec import Inputs

_MOST = 1000
"""Rows that are asked about, evenly spaced."""
_OTHERWISE = 200
"""Rows that are asked about in each other range."""
_FEWEST = 30
"""With fewer rows than these nothing is refused."""
_FAR = 0.15
"""Difference of two shares that is never an accident of 30 rows and more and leaves no doubt about which."""
SCALES = ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0), (0.0, 255.0))
"""Ranges that pixels usually have."""


def accuracy(
    predictor: Predictor, inputs: Inputs, x: np.ndarray, y: np.ndarray, *, force: bool = False
) -> str:
    """How often the model is right about rows `x` `(M, *S)` of classes `y` `(M,)`, in words.

    Raises:
        InvalidInput: `y` is not one whole number a row, or no class of the explainer.
        InvalidSpec: No more often than chance, or far less often than in another range, which is named; not
            with `force`.
        PredictorError: The model failed.
    """
    y = np.asarray(y)
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise InvalidInput(f"expected a class for each of {len(x)} rows, got {y.dtype} {y.shape}", "y")
    if len(y) and not 0 <= y.min() <= y.max() < inputs.classes:
        raise InvalidInput(
            f"expected classes from 0 to {inputs.classes - 1}, got {y.min()} to {y.max()}", "y"
        )
    rows, truth = _spaced(x, y, _MOST)
    share = _share(predictor, rows, truth)
    if not force and len(rows) >= _FEWEST:
        _check(predictor, inputs, rows, truth, share)
    return f"{share:.3f} of {len(rows)} rows"


def _check(predictor: Predictor, inputs: Inputs, rows: np.ndarray, truth: np.ndarray, share: float) -> None:
    name = named(predictor)
    few, known = _spaced(rows, truth, _OTHERWISE)
    unit = (few - np.float32(inputs.low)) / np.float32(inputs.high - inputs.low)
    others = {
        (low, high): _share(predictor, np.float32(low) + unit * np.float32(high - low), known)
        for low, high in SCALES
        if (low, high) != (inputs.low, inputs.high)
    }
    best = max(others, key=others.__getitem__)
    by_chance = _by_chance(inputs.classes, len(few))
    if others[best] > max(by_chance, _share(predictor, few, known) + _FAR):
        raise InvalidSpec(
            f"inputs: {name} is right about {share:.0%} of the rows in [{inputs.low:g}, {inputs.high:g}], "
            f"and about {others[best]:.0%} of the same in [{best[0]:g}, {best[1]:g}]; fit with that range "
            f"(`--range {best[0]:g} {best[1]:g}` scales bytes; scale other numbers yourself), or insist "
            f"(`--force`); {PAGE}"
        )
    if share <= _by_chance(inputs.classes, len(rows)):
        raise InvalidSpec(
            f"y: {name} is right about {share:.0%} of {len(rows)} rows, no more than chance; look at the "
            f"range of the rows and the order of the classes, or insist (`--force`); {PAGE}"
        )


def _by_chance(classes: int, rows: int) -> float:
    """The share that guessing hardly ever exceeds: its mean and three standard deviations."""
    chance = 1 / classes
    return float(chance + 3 * np.sqrt(chance * (1 - chance) / rows))


def _share(predictor: Predictor, rows: np.ndarray, truth: np.ndarray) -> float:
    return float((answered(predictor, rows).argmax(axis=1) == truth).mean()) if len(rows) else 0.0


def _spaced(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(int)
    return np.asarray(x[chosen], np.float32), y[chosen]
