"""Before anything is explained: do the explainer and the model go together?

What can be seen without asking is compared: shapes, numbers of classes, the range of whole numbers. A model
in this process is asked for the scores of one row many times, to see what they are and whether they are by
chance. A function and a model behind an endpoint are looked at with their first answers, in `canary.py`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidPrediction, InvalidSpec
from explainer_runtime.predictors import agreement, fingerprint
from explainer_runtime.predictors.base import LocalPredictor, Predictor, fits, named, told
from explainer_runtime.predictors.canary import check_chance
from explainer_runtime.predictors.meaning import PAGE, affine, check_logarithms
from explainer_runtime.predictors.tally import Tally, tally
from explainer_runtime.spec import Inputs

_log = logging.getLogger("explainer_runtime.model")
_COPIES = 8
_examined: weakref.WeakKeyDictionary[Predictor, int] = weakref.WeakKeyDictionary()
"""How many classes each model in this process was found to score; it is asked once, and cannot change."""


def examine(predictor: Predictor, inputs: Inputs) -> None:
    """Refuse a model in this process that does not go with an explainer of these inputs; others pass.

    Raises:
        InvalidSpec: Another shape, number of classes or range of values; both sides are named.
        InvalidPrediction: Its answers are not what its contract says, or depend on chance.
        PredictorError: It failed.
    """
    if not isinstance(predictor, LocalPredictor):
        return
    if not fits(inputs.shape, predictor.shape):
        raise InvalidSpec(
            f"{predictor.name}: takes rows of shape {predictor.shape}, the explainer is for {inputs.shape}; "
            f"{PAGE}"
        )
    check_classes(predictor, predictor.classes, inputs)
    check_range(predictor, predictor.whole, inputs)
    if predictor not in _examined:
        _examined[predictor] = _asked(predictor, inputs)
    check_classes(predictor, _examined[predictor], inputs)


def _asked(predictor: LocalPredictor, inputs: Inputs) -> int:
    """How many classes a model scores, by its answers to copies of one row; those of chance are refused."""
    row = np.random.default_rng(0).uniform(inputs.low, inputs.high, inputs.shape).astype(np.float32)
    tolerance = told(predictor).canary
    copies = np.repeat(row[None], _COPIES, axis=0)
    scores = [predictor(copies) for _ in range(1 if tolerance is None else 2)]
    check_logarithms(scores[0], predictor.name)  # of a white box nobody sees them later
    if tolerance is not None:
        check_chance(np.concatenate(scores), tolerance, predictor.name)
    return scores[0].shape[1]


def check_classes(predictor: Predictor, classes: int | None, inputs: Inputs) -> None:
    """Refuse a model of another number of classes than the explainer's; None is not known.

    Raises:
        InvalidSpec: It is another.
    """
    if (classes or inputs.classes) != inputs.classes:
        raise InvalidSpec(
            f"{named(predictor)}: scores {classes} classes, the explainer is for {inputs.classes}; {PAGE}"
        )


def check_range(predictor: Predictor, whole: tuple[float, float] | None, inputs: Inputs) -> None:
    """Refuse a model of whole numbers that cannot take the explainer's range, or of bytes that would see two
    of them; None takes fractions.

    Raises:
        InvalidSpec: Names both ranges and the setting that brings them together.
    """
    if whole is None:
        return
    given = told(predictor)
    scale, offset = (np.asarray(one) for one in affine(given, inputs.shape, named(predictor)))
    low, high = float(np.min(inputs.low * scale + offset)), float(np.max(inputs.high * scale + offset))
    pixels = whole == (0, 255)  # other whole numbers may be two codes
    if (high - low > 2 or not pixels) and whole[0] - 0.5 <= low and high <= whole[1] + 0.5:
        return
    raise InvalidSpec(
        f"{named(predictor)}: takes whole numbers from {whole[0]:.0f} to {whole[1]:.0f}, the explainer's "
        f"values, from {inputs.low:g} to {inputs.high:g}, come to {low:g} to {high:g}; say `scale` and "
        f"`offset`, 255 and 0 for values from 0 to 1; {PAGE}"
    )


class Known(NamedTuple):
    """What an explainer keeps of the model that it was fitted to; see `fingerprint.py`."""

    words: dict[str, str]
    arrays: dict[str, np.ndarray]


def introduced(
    predictor: Predictor | None,
    inputs: Inputs,
    x: np.ndarray | None,
    y: np.ndarray | None,
    *,
    force: bool = False,
) -> Known:
    """What `fit` keeps of a model that goes with its data; nothing where there is no model.

    Raises:
        InvalidSpec, InvalidPrediction: As `examine` and `agreement.accuracy`.
        InvalidInput: `y` does not go with `x`.
        PredictorError: The model failed.
    """
    if predictor is None:
        return Known({}, {})
    examine(predictor, inputs)
    words, arrays = fingerprint.taken(predictor, inputs, x)
    check_classes(predictor, arrays[fingerprint.SCORES].shape[1], inputs)
    if x is not None and y is not None:
        words["accuracy"] = agreement.accuracy(predictor, inputs, x, y, force=force)
    return Known(words, arrays)


class Strangeness:
    """Whether the model that answers is the one that an explainer was fitted to. Safe to share by threads.

    Args:
        inputs: What rows are.
        words, arrays: What was kept of the model; see `introduced`.

    Attributes:
        warning: How it differs, in a sentence; None while it does not.
    """

    def __init__(self, inputs: Inputs, words: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
        self._inputs, self._words, self._arrays = inputs, words, arrays
        self._lock = threading.Lock()
        self._met: object = None  # which model was looked at last: it is not looked at twice
        self.warning: str | None = None

    def price(self, model: Predictor) -> int:
        """How many rows it takes to `meet` this model, in one call; 0 if it has been."""
        met = self._met == (getattr(model, "changes", 0),)
        return 0 if met else len(self._arrays.get(fingerprint.ROWS, ()))

    def meet(self, asked: Predictor, model: Predictor) -> Tally:
        """Look at the model, if this is the first contact or it has been exchanged since.

        Args:
            asked: Who is asked: the model, or what stands before it.
            model: The model itself.

        Returns:
            The rows and calls that it took.

        Raises:
            InvalidSpec: It takes whole numbers of another range.
            InvalidPrediction: It is another model, and `strict` was said.
            PredictorError: It cannot be asked.
        """
        with self._lock:
            if self._met == (now := (getattr(model, "changes", 0),)):
                return Tally()
            getattr(model, "meet", bool)()  # a served model says what it takes
            check_range(model, getattr(model, "whole", None), self._inputs)
            with tally() as spent:
                self.warning = fingerprint.difference(asked, self._words, self._arrays)
            self._met = now
        if self.warning is None:
            return spent
        if told(model).strict:
            self._met = None
            raise InvalidPrediction(f"{named(model)}: {self.warning}; `strict` refuses it; {PAGE}")
        _log.warning("%s: %s; explanations may be about nothing: fit again", named(model), self.warning)
        return spent
