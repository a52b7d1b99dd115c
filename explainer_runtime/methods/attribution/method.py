"""Attributions: how much does each region of the image matter for the answer?

The Shapley value of a superpixel is what showing it adds to the score of a class, on average over all orders
in which superpixels could be shown (Lundberg, Lee, arXiv:1705.07874). The values of all superpixels add up to
the score of the image, less that of the image with everything hidden; nothing is left over. Which sets are
asked about is `search/shapley.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.explanation import COMMON, OK, Explanation, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas
from explainer_runtime.methods.attribution.drawing import draw
from explainer_runtime.methods.attribution.settings import Attribution
from explainer_runtime.methods.canvas import check, fit
from explainer_runtime.methods.ground import Ground
from explainer_runtime.search.asks import Search, Stop, lockstep
from explainer_runtime.search.shapley import design, values
from explainer_runtime.search.subject import Subject

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "search"]

NETWORKS = ()
_LEAST = float(np.finfo(np.float32).tiny)
_SURE = 2.0
"""Standard errors that a value has to lie from zero to be named."""
_SAMPLES = 200
_NAMED = 5
"""Superpixels that are named."""


def search(x: np.ndarray, spec: Attribution, ground: Ground) -> Search[Explanation]:
    """What each superpixel of each image adds to the score of a class.

    See `Method`. Superpixels are places, alike in every channel.

    Returns:
        An explanation with `attribution`, the value of the superpixel of each pixel; `attribution_error`, a
        standard error of it, of what was drawn by chance; `segments`; `target_class`, whose score is shared
        out; `value` and `base_value`, that of the image and with everything hidden, whose difference is the
        sum over superpixels; the class and scores of the image. `found` is false where the budget ended
        before there was anything to tell; all else is zero then. `raw` has `values` and `errors`, one a
        superpixel, `num_preds`, and `top`: the superpixels that matter most, of those that surely
        do.

    Raises:
        InvalidInput, InvalidSpec, MissingExtra: See `canvas.subjects`.
    """
    subjects = canvas.subjects(x, spec, ground, most=canvas.MOST)
    answers = yield from lockstep([_one(subject, spec, ground.exclusive) for subject in subjects])
    return canvas.explanation("attribution", answers)


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    image, number, count = canvas.size(fitted), ("FP32", ()), ("INT64", ())
    return {
        **COMMON,
        "attribution": ("FP32", image),
        "attribution_error": ("FP32", image),
        "segments": ("INT64", image),
        "target_class": count,
        "value": number,
        "base_value": number,
        "original_class": count,
        "original_proba": ("FP32", (fitted.inputs.classes,)),
    }


def _one(subject: Subject, spec: Attribution, exclusive: bool) -> Search[dict[str, Any]]:
    count = subject.superpixels
    samples = spec.n_samples or max(_SAMPLES, 5 * count)
    plan = design(count, samples, np.random.default_rng(spec.seed))
    ends = np.repeat([[True], [False]], count, axis=1)
    try:
        log_scores = yield from subject.said(np.concatenate([ends, plan.shown]))
    except Stop as stop:
        return _answer(subject, -1, np.zeros(2), np.zeros(count), np.zeros(count), stop.status)
    target = subject.prediction if isinstance(spec.target_class, str) else spec.target_class
    score = _score(log_scores, target, spec.output, exclusive)
    added, errors = values(plan, score[2:], nothing=score[1], everything=score[0])
    return _answer(subject, target, score[:2], added, errors, OK)


def _score(log_scores: np.ndarray, target: int, output: str, exclusive: bool) -> np.ndarray:
    own = log_scores[:, target].astype(np.float64)
    if output == "proba":
        return np.exp(own)
    if not exclusive:  # scores of their own: what is not the class is not the others
        return np.asarray(own - np.log(np.maximum(-np.expm1(np.minimum(own, 0)), _LEAST)))
    others = np.delete(log_scores, target, axis=1).astype(np.float64)
    most = others.max(axis=1)
    return np.asarray(own - most - np.log(np.exp(others - most[:, None]).sum(axis=1)))


def _answer(
    subject: Subject, target: int, ends: np.ndarray, added: np.ndarray, errors: np.ndarray, status: str
) -> dict[str, Any]:
    """What is said of one image: the fields of an explanation, and `raw`."""
    segments = subject.canvas.segments
    return {
        "found": status == OK,
        "status": status,
        "attribution": added[segments],
        "attribution_error": errors[segments],
        "segments": segments,
        "target_class": target,
        "value": ends[0],
        "base_value": ends[1],
        "original_class": subject.prediction,
        "original_proba": subject.scores,
        "raw": {
            "values": added.tolist(),
            "errors": errors.tolist(),
            "top": _top(segments, added, errors),
            "num_preds": subject.rows,
        },
    }


def _top(segments: np.ndarray, added: np.ndarray, errors: np.ndarray) -> list[dict[str, Any]]:
    """The superpixels that matter most, of those that surely do, and where they lie."""
    order = np.argsort(-np.abs(added), kind="stable")
    sure = [int(one) for one in order if abs(added[one]) > _SURE * errors[one]][:_NAMED]
    return [
        {
            "superpixel": one,
            "value": float(added[one]),
            "error": float(errors[one]),
            "speaks": "for" if added[one] > 0 else "against",
            "where": _place(segments == one),
        }
        for one in sure
    ]


def _place(where: np.ndarray) -> str:
    """The ninth of the image in which a part has its middle, in words."""
    down, across = (
        min(2, int(3 * axis.mean() / size)) for axis, size in zip(np.nonzero(where), where.shape, strict=True)
    )
    words = f"{('upper', 'middle', 'lower')[down]} {('left', 'middle', 'right')[across]}"
    return "middle" if words == "middle middle" else words
