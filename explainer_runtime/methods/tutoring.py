"""Fitting a counterfactual to a black box: teach a student from its answers, once, and keep some of them.

What it costs is known beforehand: at most `MOST` rows, in calls of a few hundred. The artifact then holds the
student, a few hundred rows with the model's own answers (where nearest unlike neighbours are looked for), how
many rows were asked about and how often the student agreed with the model on rows it had not been taught.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from explainer_runtime.predictors.base import Predictor
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.search import student
from explainer_runtime.search.ladder import Tutor

LEAST = 50
"""Rows without which nothing is taught."""
MOST = 8500
"""Rows the model is asked about at most."""
_LESSONS, _ROWS, _CHECKS = 8000, 4000, 500
"""Rows taught, of which so many at most are training rows (the rest are mixtures of them); rows to check."""
_KEPT = 500
"""Training rows kept with their answers."""
_CHUNK = 512


def fit(
    x: np.ndarray, predictor: Predictor, seed: int, progress: Callable[[float], None] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What an explainer of this model needs to search without it: arrays and models of a `Fitted`.

    Args:
        x: Training rows `(M, *S)`, float32, at least `LEAST`.
        predictor: The model.
        seed: Of the choice of rows, the mixtures and the student.
        progress: Told the share of the rows that the model has answered.

    Raises:
        PredictorError: The model failed.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    checks, rows = np.split(x[order], [min(_CHECKS, len(x) // 10)])
    rows = rows[:_ROWS]
    mixed = student.mixtures(rows, min(_LESSONS, 4 * len(rows)) - len(rows), rng)
    lessons = np.concatenate([rows, mixed])
    scores = _ask(predictor, np.concatenate([lessons, checks]), progress)
    model = student.teach(lessons, scores[: len(lessons)], seed)
    same = KerasPredictor.of(model)(checks).argmax(axis=1) == scores[len(lessons) :].argmax(axis=1)
    arrays = {
        "reference_rows": rows[:_KEPT],
        "reference_scores": scores[: len(rows)][:_KEPT],
        "student_rows": np.array([len(scores)], np.int64),
        "student_agreement": np.array([same.mean()], np.float32),
    }
    return arrays, {"student": model}


def tutor(arrays: Mapping[str, np.ndarray], models: Mapping[str, Any]) -> Tutor:
    """What `fit` has fitted, ready to be searched."""
    return Tutor(KerasPredictor.of(models["student"]), arrays["reference_rows"], arrays["reference_scores"])


def _ask(predictor: Predictor, x: np.ndarray, progress: Callable[[float], None] | None) -> np.ndarray:
    answers = []
    for start in range(0, len(x), _CHUNK):
        answers.append(predictor(x[start : start + _CHUNK]))
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / len(x)))
    return np.concatenate(answers)
