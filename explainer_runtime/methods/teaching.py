"""Fitting for a black box: teach a surrogate from the model's answers, once, and keep some of them.

What it costs is known beforehand: at most `MOST` rows, in calls of a few hundred. The artifact then holds the
surrogate, a few hundred rows with the model's own answers (where nearest unlike neighbours are looked for),
how many rows were asked about and how often the surrogate agreed with the model on rows it had not been
taught.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.fitted import Fitted, Shape, check_arrays
from explainer_runtime.predictors.base import WhiteBox, answered
from explainer_runtime.search import surrogate
from explainer_runtime.search.feedback import Guide
from explainer_runtime.search.kept import Kept, as_bytes
from explainer_runtime.search.surrogate import Surrogate

if TYPE_CHECKING:
    from explainer_runtime.methods.ground import Given

LEAST = 50
"""Rows without which nothing is taught."""
MOST = 8500
"""Rows the model is asked about at most."""
_LESSONS, _ROWS, _CHECKS = 8000, 4000, 500
"""Rows taught, of which so many at most are training rows (the rest are mixtures of them); rows to check."""
_SMALL = 2**14
"""Features of a row up to which one is taught of a model in this process, unasked: of larger rows the lessons
alone would be gigabytes."""
_KEPT = 500
"""Training rows kept with their answers."""
_TINY = float(np.finfo(np.float32).tiny)


def fit(given: Given) -> dict[str, np.ndarray]:
    """What an explainer of this model needs to search without it: arrays of a `Fitted`; none where it is not
    to be taught.

    The seed of the spec is that of the choice of rows, of the mixtures and of the surrogate.

    Raises:
        InvalidSpec: A surrogate is asked for, and there is no model or there are too few rows.
        PredictorError: The model failed.
    """
    x, predictor, inputs, seed = given.rows(), given.predictor, given.inputs, given.spec.seed
    if not _useful(given, x) or x is None or predictor is None:
        return {}
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    checks, rows = np.split(x[order], [min(_CHECKS, len(x) // 10)])
    rows = rows[:_ROWS]
    mixed = surrogate.mixtures(rows, min(_LESSONS, 4 * len(rows)) - len(rows), rng)
    lessons = np.concatenate([rows, mixed])
    scores = answered(predictor, np.concatenate([lessons, checks]), given.progress)
    learnt = surrogate.teach(
        lessons, scores[: len(lessons)], inputs.low, inputs.high, seed=seed,
        channels_first=inputs.layout == "channels_first",
    )  # fmt: skip
    same = learnt(checks).argmax(axis=1) == scores[len(lessons) :].argmax(axis=1)
    return learnt.arrays() | {
        "reference_rows": as_bytes(rows[:_KEPT], inputs.low, inputs.high),
        "reference_scores": scores[: len(rows)][:_KEPT],
        "surrogate_rows": np.array([len(scores)], np.int64),
        "surrogate_agreement": np.array([same.mean()], np.float32),
    }


def _useful(given: Given, x: np.ndarray | None) -> bool:
    """Whether a surrogate is to be taught: where it is asked for, or can be without being asked for.

    A model in this process has slopes of its own now, but may be behind an endpoint when it is explained.
    """
    spec = given.spec
    enough = given.predictor is not None and x is not None and len(x) >= LEAST
    if spec.gradient == "surrogate":
        if not enough:
            raise InvalidSpec(f"gradient='surrogate' needs a `predictor` and {LEAST} or more rows `x` at fit")
        return True
    if not (given.surrogate and enough and (spec.gradient, spec.schedule) == ("auto", "fast")):
        return False
    return not isinstance(given.predictor, WhiteBox) or math.prod(given.inputs.shape) <= _SMALL


def check(fitted: Fitted) -> None:
    """Refuse an explainer that is to be searched by a surrogate and has none, or no rows beside it.

    Raises:
        InvalidSpec: It is.
    """
    inputs, spec = fitted.inputs, fitted.spec
    if getattr(spec, "gradient", None) == "surrogate" and not taught(fitted):
        raise InvalidSpec("gradient='surrogate' needs a surrogate: fit with training rows and a predictor")
    if taught(fitted):
        rows: dict[str, tuple[str, Shape]] = {
            "reference_rows": ("fB", ("R", *inputs.shape)),
            "reference_scores": ("f", ("R", "K")),
        }
        check_arrays(fitted, rows)
    if "surrogate_kernel_0" in fitted.arrays:
        try:
            said = guide(fitted).surrogate.log_scores(np.zeros((1, *inputs.shape), np.float32))
        except (KeyError, ValueError, IndexError):
            raise InvalidSpec("surrogate: its weights do not fit together; fit and save again") from None
        if said.shape != (1, inputs.classes):
            raise InvalidSpec(
                f"surrogate: expected {inputs.classes} classes, got {said.shape[1:]}; fit again"
            )


def taught(fitted: Fitted) -> bool:
    """Whether a surrogate was fitted."""
    return "surrogate_kernel_0" in fitted.arrays or "student" in fitted.models


def missed(spec: Any) -> str:
    """What it costs, in a sentence, that estimated slopes are searched for want of a surrogate; nothing where
    one would not be searched."""
    if (spec.slopes, spec.schedule) != ("auto", "fast"):
        return ""
    return (
        "no surrogate was fitted, so slopes are estimated: a thousand rows and more an explanation in place "
        "of some 150, and larger changes; fit it again, with rows and the model"
    )


def guide(fitted: Fitted) -> Guide:
    """What `fit` has fitted, ready to be searched."""
    arrays, inputs = fitted.arrays, fitted.inputs
    if "student" in fitted.models:  # 0.1.0 kept it as a Keras model, which saw rows as they are
        flat = fitted.models["student"].get_weights()
        found = Surrogate(list(zip(flat[::2], flat[1::2], strict=True)), -0.5, 0.5)
    else:
        found = Surrogate.of(arrays, inputs.low, inputs.high, inputs.layout == "channels_first")
    rows = Kept(arrays["reference_rows"], inputs.low, inputs.high)
    return Guide(found, rows, np.log(np.maximum(arrays["reference_scores"], _TINY)))
