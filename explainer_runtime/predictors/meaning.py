"""What a model's numbers mean, as the operator says: probabilities, logits, labels, or just scores.

A promise that is not kept is found here and nowhere else. A model that promises probabilities and answers
with logits would still have an argmax, and every counterfactual found on it would be wrong by its own terms.
"""

from __future__ import annotations

import numpy as np

from explainer_runtime.errors import InvalidPrediction
from explainer_runtime.predictors.base import check_scores, softmax
from explainer_runtime.spec import Endpoint

_NEGATIVE = -1e-6
_AWAY_FROM_ONE = 1e-2
"""A thousand FP16 probabilities sum to 1 within 5e-4; what is further off than this is no distribution."""


def scores(numbers: np.ndarray, rows: int, settings: Endpoint, source: str) -> np.ndarray:
    """Class scores `(rows, K)` float32 of what a model answered.

    Args:
        numbers: Float32 or int64, in the shape the model gave them.
        rows: How many rows were asked about.
        settings: `output` says what the numbers are, `classes` how many a row has.
        source: Who answered, for messages.

    Raises:
        InvalidPrediction: They cannot be that.
    """
    if settings.output == "labels":
        return _one_hot(numbers, rows, settings.classes or 0, source)
    if numbers.dtype.kind != "f":
        raise InvalidPrediction(
            f"{source}: expected class scores in floats, got whole numbers; say output 'labels' if they are"
        )
    found = check_scores(numbers, rows, source)
    if settings.classes is not None and found.shape[1] != settings.classes:
        raise InvalidPrediction(f"{source}: expected {settings.classes} class scores, got {found.shape[1]}")
    match settings.output:
        case "logits":
            return softmax(found)
        case "probabilities":
            _check_probabilities(found, source)
    return found


def _one_hot(numbers: np.ndarray, rows: int, classes: int, source: str) -> np.ndarray:
    if numbers.size != rows or len(numbers) != rows:
        raise InvalidPrediction(f"{source}: expected {rows} class numbers, got shape {numbers.shape}")
    labels = numbers.reshape(rows)
    if not ((labels >= 0) & (labels < classes) & (labels == np.floor(labels))).all():
        raise InvalidPrediction(f"{source}: expected class numbers from 0 to {classes - 1}")
    return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]


def _check_probabilities(found: np.ndarray, source: str) -> None:
    total = found.sum(axis=1, dtype=np.float64)
    worst = total[np.abs(total - 1).argmax()] if len(total) else 1.0
    if found.min(initial=0.0) < _NEGATIVE or abs(worst - 1) > _AWAY_FROM_ONE:
        raise InvalidPrediction(
            f"{source}: expected probabilities, got a row that sums to {worst:.4g} and a least value of "
            f"{found.min(initial=0.0):.4g}; say output 'logits', or 'scores' if that is what they are"
        )
