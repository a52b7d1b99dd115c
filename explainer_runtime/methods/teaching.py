"""Fitting to a black box: teach a surrogate from its answers, once, and keep some of them.

What it costs is known beforehand: at most `MOST` rows, in calls of a few hundred. The artifact then holds the
surrogate, a few hundred rows with the model's own answers (where nearest unlike neighbours are looked for),
how many rows were asked about and how often the surrogate agreed with the model on rows it had not been
taught.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainer_runtime.artifact import Fitted
from explainer_runtime.predictors.base import Predictor
from explainer_runtime.search import surrogate
from explainer_runtime.search.feedback import Guide
from explainer_runtime.search.surrogate import Surrogate
from explainer_runtime.spec import Inputs

LEAST = 50
"""Rows without which nothing is taught."""
MOST = 8500
"""Rows the model is asked about at most."""
_LESSONS, _ROWS, _CHECKS = 8000, 4000, 500
"""Rows taught, of which so many at most are training rows (the rest are mixtures of them); rows to check."""
_KEPT = 500
"""Training rows kept with their answers."""
_CHUNK = 512
_TINY = float(np.finfo(np.float32).tiny)


def fit(
    x: np.ndarray,
    predictor: Predictor,
    inputs: Inputs,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, np.ndarray]:
    """What an explainer of this model needs to search without it: arrays of a `Fitted`.

    Args:
        x: Training rows `(M, *S)`, float32, at least `LEAST`.
        predictor: The model.
        inputs: The input contract.
        seed: Of the choice of rows, the mixtures and the surrogate.
        progress: Told the share of the rows that the model has answered.

    Raises:
        PredictorError: The model failed.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    checks, rows = np.split(x[order], [min(_CHECKS, len(x) // 10)])
    rows = rows[:_ROWS]
    mixed = surrogate.mixtures(rows, min(_LESSONS, 4 * len(rows)) - len(rows), rng)
    lessons = np.concatenate([rows, mixed])
    scores = _ask(predictor, np.concatenate([lessons, checks]), progress)
    pupil = surrogate.teach(
        lessons, scores[: len(lessons)], inputs.low, inputs.high, seed=seed,
        channels_first=inputs.layout == "channels_first",
    )  # fmt: skip
    same = pupil(checks).argmax(axis=1) == scores[len(lessons) :].argmax(axis=1)
    return pupil.arrays() | {
        "reference_rows": rows[:_KEPT],
        "reference_scores": scores[: len(rows)][:_KEPT],
        "surrogate_rows": np.array([len(scores)], np.int64),
        "surrogate_agreement": np.array([same.mean()], np.float32),
    }


def taught(fitted: Fitted) -> bool:
    """Whether a surrogate was fitted."""
    return "surrogate_kernel_0" in fitted.arrays or "student" in fitted.models


def guide(fitted: Fitted) -> Guide:
    """What `fit` has fitted, ready to be searched."""
    arrays, inputs = fitted.arrays, fitted.inputs
    if "student" in fitted.models:  # 0.1.0 kept it as a Keras model, which saw rows as they are
        flat = fitted.models["student"].get_weights()
        found = Surrogate(list(zip(flat[::2], flat[1::2], strict=True)), -0.5, 0.5)
    else:
        found = Surrogate.of(arrays, inputs.low, inputs.high, inputs.layout == "channels_first")
    return Guide(found, arrays["reference_rows"], np.log(np.maximum(arrays["reference_scores"], _TINY)))


def _ask(predictor: Predictor, x: np.ndarray, progress: Callable[[float], None] | None) -> np.ndarray:
    answers = []
    for start in range(0, len(x), _CHUNK):
        answers.append(predictor(x[start : start + _CHUNK]))
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / len(x)))
    return np.concatenate(answers)
