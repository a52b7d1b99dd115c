"""What a model's numbers mean, on every road: probabilities, logits, labels, or just scores.

A promise that is not kept is found here and nowhere else. A model that promises probabilities and answers
with logits would still have an argmax, and every counterfactual found on it would be wrong by its own terms.
So the promise is looked at in every answer; where nothing was said, it is that of probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from explainer_runtime.errors import InvalidPrediction, InvalidSpec
from explainer_runtime.predictors.settings import ModelContract

PAGE = "see docs/models.md"
TINY = np.finfo(np.float32).tiny
"""The least score that has a logarithm of its own."""
_SLACK = 1e-6
_AWAY_FROM_ONE = 1e-2
"""A thousand FP16 probabilities sum to 1 within 5e-4; what is further off than this is no distribution."""


def exclusive(contract: ModelContract) -> bool:
    """Whether the scores of a row are one distribution; see `Predictor`."""
    return contract.output != "scores" or contract.label is not None


def unscaled(contract: ModelContract) -> bool:
    """Whether the model is given rows in their own units."""
    return (contract.scale, contract.offset) == (1.0, 0.0)


def affine(contract: ModelContract, shape: Sequence[int | None], source: str) -> tuple[Any, Any]:
    """Scale and offset as they broadcast to rows of this shape `(*S)`: of lists the numbers are those of the
    channels, which are the last axis, or the first where only that is as long.

    Raises:
        InvalidSpec: No axis has so many channels.
    """
    return tuple(_by_channel(getattr(contract, name), shape, name, source) for name in ("scale", "offset"))


def _by_channel(value: Any, shape: Sequence[int | None], name: str, source: str) -> Any:
    if not isinstance(value, tuple):
        return value
    numbers = np.asarray(value, np.float32)
    if shape and shape[-1] == len(value):
        return numbers
    if len(shape) > 1 and shape[0] == len(value):
        return numbers.reshape(-1, *[1] * (len(shape) - 1))
    raise InvalidSpec(
        f"{source}: {name} has {len(value)} numbers, rows of shape {tuple(shape)} have no axis of as many "
        f"channels, last or first; {PAGE}"
    )


def units(x: np.ndarray, contract: ModelContract, source: str) -> np.ndarray:
    """Rows `(N, *S)` in the units that the model is given."""
    if unscaled(contract):
        return x
    scale, offset = affine(contract, x.shape[1:], source)
    return np.asarray(x * scale + offset)


def snap(x: np.ndarray, whole: tuple[float, float] | None, contract: ModelContract) -> np.ndarray:
    """Rows as a model of whole numbers, from the first of `whole` to the second, sees them; see
    `Predictor`."""
    if whole is None:
        return x
    scale, offset = affine(contract, x.shape[1:], "the model")
    seen = np.rint(x.astype(np.float64) * scale + offset).clip(*whole)
    return np.asarray((seen - offset) / scale, np.float32)


def scores(numbers: Any, rows: int, contract: ModelContract, source: str) -> np.ndarray:
    """Class scores `(rows, K)` float32 of what a model answered.

    Args:
        numbers: `(rows, K)`; one number a row `(rows,)` or `(rows, 1)` where it is one probability, one logit
            or a label.
        rows: How many rows were asked about.
        contract: What the numbers are.
        source: Who answered, for messages.

    Raises:
        InvalidPrediction: They cannot be that; says what was expected, and the setting that may be meant.
    """
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise InvalidPrediction(f"{source} answered with a ragged list") from None
    if array.dtype.kind not in "fiub":
        raise InvalidPrediction(f"{source} answered with something that is not numbers; {PAGE}")
    if not rows:
        return np.empty((0, contract.classes or 2), np.float32)
    if contract.output == "labels":
        return _one_hot(array, rows, contract.classes or 0, source)
    found = _scores(array, rows, contract, source)
    if contract.classes is not None and found.shape[1] != contract.classes:
        raise InvalidPrediction(f"{source}: expected {contract.classes} class scores, got {found.shape[1]}")
    return found


def _scores(array: np.ndarray, rows: int, contract: ModelContract, source: str) -> np.ndarray:
    alone = array.ndim == 1 or array.shape[1:] == (1,)
    if not array.ndim or len(array) != rows:
        raise InvalidPrediction(f"{source}: expected scores of {rows} rows, got shape {array.shape}")
    if array.dtype.kind in "iu" or (alone and array.dtype.kind == "b"):
        raise InvalidPrediction(
            f"{source}: expected class scores in floats, got whole numbers; say output 'labels' and "
            f"`classes` if they are class numbers; {PAGE}"
        )
    if array.ndim > 2 or 0 in array.shape[1:]:
        raise InvalidPrediction(
            f"{source}: expected class scores of shape ({rows}, classes), got {array.shape}"
        )
    with np.errstate(over="ignore"):  # infinite is refused here, with NaN
        found = np.asarray(array, dtype=np.float32).reshape(rows, -1)
    if not np.isfinite(found).all():
        raise InvalidPrediction(f"{source} answered with NaN or infinite scores")
    if contract.label is not None:
        if contract.label >= found.shape[1]:
            raise InvalidPrediction(
                f"{source}: label {contract.label} is to be explained, and there are {found.shape[1]}, from 0"
            )
        found, alone = found[:, contract.label, None], True
    if not alone:
        return _several(found, contract, source)
    match contract.output:
        case "logits":
            return np.concatenate([_sigmoid(-found), _sigmoid(found)], axis=1)
        case "scores" if contract.label is None:
            raise InvalidPrediction(
                f"{source}: one score a row has no second class; say output 'probabilities' or 'logits'; "
                f"{PAGE}"
            )
    if found.min(initial=0.0) < -_SLACK or found.max(initial=0.0) > 1 + _SLACK:
        raise InvalidPrediction(
            f"{source}: expected one probability a row, got {found.min():.4g} to {found.max():.4g}; say "
            f"output 'logits' if that is what they are; {PAGE}"
        )
    found = found.clip(0, 1)
    return np.concatenate([1 - found, found], axis=1)


def _several(found: np.ndarray, contract: ModelContract, source: str) -> np.ndarray:
    match contract.output:
        case "logits":
            return softmax(found)
        case "probabilities":
            _check_probabilities(found, source)
    return found


def logarithms(
    numbers: np.ndarray, end: str, contract: ModelContract
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Logarithms `(N, K)` of the scores that a model's numbers mean, and the way back; see `WhiteBox`.

    Args:
        numbers: `(N, L)` or `(N,)`, float32: what goes into the model's last function, or what it ends in.
        end: That function, `softmax` (of more than one number) or `sigmoid`; empty where none can be seen.
        contract: What the model's answers are; not labels.

    Returns:
        The logarithms, and a function from the weight of each `(N, K)` to that of each number, shaped like
        `numbers`: their part of the chain rule.
    """
    z = numbers.reshape(len(numbers), -1)
    alone, k = contract.label is not None or z.shape[1] == 1, contract.label or 0
    if contract.output == "logits":
        end = "sigmoid" if alone else "softmax"
    if alone and end:
        # Two classes, by one logit: number k, or how far it leads the others of a softmax.
        logit, slope = z[:, k], np.zeros_like(z)
        if end == "softmax":
            others = np.delete(z, k, axis=1)
            logit = logit - _log_sum(others)[:, 0]
            slope[:, np.arange(z.shape[1]) != k] = -softmax(others)
        slope[:, k] = 1
        logs = np.stack([-np.logaddexp(0, logit), -np.logaddexp(0, -logit)], axis=1)
        share = np.exp(logs)
        return logs, lambda w: ((w[:, 1] * share[:, 0] - w[:, 0] * share[:, 1])[:, None] * slope).reshape(
            numbers.shape
        )
    if end == "softmax":
        logs = z - _log_sum(z)
        return logs, lambda w: w - np.exp(logs) * w.sum(axis=1, keepdims=True)
    if end == "sigmoid":
        return -np.logaddexp(0, -z), lambda w: w * _sigmoid(-z)
    scores = np.stack([1 - z[:, k], z[:, k]], axis=1) if alone else z
    floored = np.maximum(scores, TINY)

    def back(w: np.ndarray) -> np.ndarray:
        slope = np.where(scores >= TINY, w / floored, 0)
        if not alone:
            return slope
        weight = np.zeros_like(z)
        weight[:, k] = slope[:, 1] - slope[:, 0]
        return weight.reshape(numbers.shape)

    return np.log(floored), back


def _log_sum(z: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials, `(N, L)` -> `(N, 1)`."""
    most = z.max(axis=1, keepdims=True)
    return np.asarray(most + np.log(np.exp(z - most).sum(axis=1, keepdims=True)))


def check_logarithms(found: np.ndarray, source: str) -> None:
    """Refuse scores `(N, K)` that have no logarithms, which is what searches look at.

    Raises:
        InvalidPrediction: One is negative.
    """
    if (least := found.min(initial=0.0)) < -_SLACK:
        raise InvalidPrediction(
            f"{source}: expected scores of 0 or more, got {least:.4g}; say output 'logits' if they may be "
            f"negative (margins, log-probabilities); {PAGE}"
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(N, K)`, each row shifted by its maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of what is far below is infinite, and its share 0
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)


def _one_hot(numbers: np.ndarray, rows: int, classes: int, source: str) -> np.ndarray:
    if numbers.ndim == 0 or numbers.size != rows or len(numbers) != rows:
        raise InvalidPrediction(f"{source}: expected {rows} class numbers, got shape {numbers.shape}; {PAGE}")
    labels = numbers.reshape(rows)
    if not ((labels >= 0) & (labels < classes) & (labels == np.floor(labels))).all():
        raise InvalidPrediction(
            f"{source}: expected class numbers, whole ones from 0 to {classes - 1}; {PAGE}"
        )
    return np.eye(classes, dtype=np.float32)[labels.astype(np.int64)]


def _check_probabilities(found: np.ndarray, source: str) -> None:
    total = found.sum(axis=1, dtype=np.float64)
    worst = total[np.abs(total - 1).argmax()] if len(total) else 1.0
    low, high = found.min(initial=0.0), found.max(initial=0.0)
    if low >= -_SLACK and abs(worst - 1) <= _AWAY_FROM_ONE:
        return
    units = low >= -_SLACK and high <= 1 + _SLACK
    labels = ", or `label` to explain one label of a multi-label model" if units else ""
    scores = ", or 'scores'" if low >= -_SLACK else ""
    hint = f"say output 'logits'{scores} if that is what they are{labels}"
    raise InvalidPrediction(
        f"{source}: expected probabilities, got a row that sums to {worst:.4g} and a least value of "
        f"{low:.4g}; {hint}; {PAGE}"
    )
