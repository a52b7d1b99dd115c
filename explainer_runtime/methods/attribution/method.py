"""Attributions: how much does each region of the image matter for the answer?

The Shapley value of a superpixel is what showing it adds to the score of a class, on average over all orders
in which superpixels could be shown (Lundberg, Lee, arXiv:1705.07874). The values of all superpixels add up to
the score of the image, less that of the image with everything hidden; nothing is left over. Which sets are
asked about is `search/shapley.py`. Other algorithms ask for random halves (`search/occlusion.py`) or for
gradients (`gradients.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import numpy as np

from explainer_runtime.explanation import COMMON, OK, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas
from explainer_runtime.methods.attribution import gradients
from explainer_runtime.methods.attribution.drawing import draw as pictured
from explainer_runtime.methods.attribution.gradients import Pixels
from explainer_runtime.methods.attribution.settings import Attribution
from explainer_runtime.methods.ground import Ground
from explainer_runtime.methods.together import Pointed, check, draw, fit, search
from explainer_runtime.search import occlusion, shapley
from explainer_runtime.search.asks import Search, Stop
from explainer_runtime.search.subject import Subject

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "one", "pictured", "search"]

NETWORKS = ("encoder",)
_Tells = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_LEAST = float(np.finfo(np.float32).tiny)
_SURE = 2.0
"""Standard errors that a value has to lie from zero to be named."""
_NAMED = 5
"""Superpixels that are named."""


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    image, number, count = canvas.size(fitted), ("FP32", ()), ("INT64", ())
    gap = {"completeness_gap": number} if fitted.spec.algorithm == "integrated_gradients" else {}  # type: ignore[attr-defined]
    return {
        **COMMON,
        "attribution": ("FP32", image),
        "attribution_error": ("FP32", image),
        "segments": ("INT64", image),
        "target_class": count,
        "value": number,
        "base_value": number,
        **gap,
        "original_class": count,
        "original_proba": ("FP32", (fitted.inputs.classes,)),
    }


def one(subject: Subject, spec: Attribution, ground: Ground) -> Search[dict[str, Any]]:
    """What each superpixel of an image, or each pixel, adds to the score of a class.

    Superpixels are places, alike in every channel.

    Returns:
        `attribution`, the value of each pixel, or of its superpixel; `attribution_error`, a
        standard error of it, of what was drawn by chance; `segments`; `target_class`, whose score is shared
        out; `value` and `base_value`, that of the image and with everything hidden, whose difference is the
        sum of Shapley values, and but for `completeness_gap` of integrated gradients; the class and scores of
        the image. `found` is false where the budget ended before there was anything to tell; all else is zero
        then. `raw` has `values` and `errors`, one a superpixel, `num_preds`, and `top`: the superpixels that
        matter most, of those that surely do.
    """
    count, segments = subject.superpixels, subject.canvas.segments
    ends = np.repeat([[True], [False]], count, axis=1)
    masks, told_by = _asking(spec, count)
    try:
        log_scores = yield from subject.said(np.concatenate([ends, masks]))
        target = subject.prediction if isinstance(spec.target_class, str) else spec.target_class
        score = _score(log_scores, target, spec.output, ground.exclusive)
        if told_by is None:
            told = yield from _pixels(subject, spec, ground, target)
        else:
            values, errors = told_by(score)
            told = Pixels(values[segments], errors[segments], values, errors)
    except Stop as stop:
        nothing = Pixels(*(np.zeros(segments.shape) for _ in range(2)), *(np.zeros(count) for _ in range(2)))
        return _answer(subject, spec, -1, np.zeros(2), nothing, stop.status)
    return _answer(subject, spec, target, score[:2], told, OK)


def _asking(spec: Attribution, count: int) -> tuple[np.ndarray, _Tells | None]:
    """What is asked, and how it is read.

    Returns:
        The sets `(M, K)`, bool, and what tells values and errors `(K,)` from the scores of the image, of
        nothing, and of these sets; None where gradients do.
    """
    rng = np.random.default_rng(spec.seed)
    match spec.algorithm:
        case "shap":
            plan = shapley.design(count, spec.n_samples or max(200, 5 * count), rng)
            return plan.shown, lambda score: shapley.values(
                plan, score[2:], nothing=score[1], everything=score[0]
            )
        case "rise" | "hsic":
            rows = spec.n_samples or max(400, 10 * count)
            paired = spec.algorithm == "rise"
            masks = occlusion.halves(count, rows + rows % 2 * paired, rng, paired=paired)
            tell = occlusion.rise if paired else occlusion.hsic
            return masks, lambda score: tell(masks, score[2:])
        case "integrated_gradients" | "smooth_grad" | "grad_cam":
            return np.zeros((0, count), bool), None
        case _:
            assert_never(spec.algorithm)


def _pixels(subject: Subject, spec: Attribution, ground: Ground, target: int) -> Search[Pixels]:
    shown, pull = subject.canvas, gradients.pull_of(target, spec.output, ground.exclusive)
    if spec.algorithm == "grad_cam":
        return (yield from gradients.activated(shown.image, shown.segments, spec.layer, pull))
    hidden = shown.draw(np.zeros((1, subject.superpixels), bool))[0]
    given = shown.image, hidden, shown.segments, shown.channels
    if spec.algorithm == "integrated_gradients":
        return (yield from gradients.integrated(*given, spec.n_steps, pull))
    bounds = ground.inputs.low, ground.inputs.high
    return (yield from gradients.smooth(*given, spec, bounds, pull))


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
    subject: Subject, spec: Attribution, target: int, ends: np.ndarray, told: Pixels, status: str
) -> dict[str, Any]:
    """What is said of one image: the fields of an explanation, and `raw`."""
    segments, gaps = subject.canvas.segments, {}
    if spec.algorithm == "integrated_gradients":
        gaps = {"completeness_gap": told.values.sum() - (ends[0] - ends[1])}
    # Where steps were too few to add up, nothing is said of what is smaller than what is missing.
    doubt = _SURE * told.value_errors + abs(sum(gaps.values()))
    sure = np.abs(told.values) > doubt
    if spec.algorithm == "hsic":
        sure &= told.values > 0
    return {
        "found": status == OK,
        "status": status,
        "attribution": told.added,
        "attribution_error": told.errors,
        "segments": segments,
        "target_class": target,
        "value": ends[0],
        "base_value": ends[1],
        **gaps,
        "original_class": subject.prediction,
        "original_proba": subject.scores,
        "raw": {
            "values": told.values.tolist(),
            "errors": told.value_errors.tolist(),
            "top": _top(segments, told, sure, signed=spec.algorithm != "hsic"),
            "num_preds": subject.rows,
        },
        "pointed": Pointed(
            target, np.argsort(-told.values, kind="stable"), _where(spec, told, sure[segments])
        ),
    }


def _where(spec: Attribution, told: Pixels, sure: np.ndarray) -> np.ndarray:
    """The pixels that are pointed at: what surely matters or, of feature maps, what does so half as much as
    the most."""
    half = told.added.max() / 2
    return (told.added >= half) & (half > 0) if spec.algorithm == "grad_cam" else sure


def _top(segments: np.ndarray, told: Pixels, sure: np.ndarray, *, signed: bool) -> list[dict[str, Any]]:
    """The superpixels that matter most, of those that surely do, and where they lie."""
    order = np.argsort(-np.abs(told.values), kind="stable")
    return [
        {
            "superpixel": int(one),
            "value": float(told.values[one]),
            "error": float(told.value_errors[one]),
            "speaks": ("for" if told.values[one] > 0 else "against") if signed else "either way",
            "where": _place(segments == one),
        }
        for one in order[sure[order]][:_NAMED]
    ]


def _place(where: np.ndarray) -> str:
    """The ninth of the image in which a part has its middle, in words."""
    down, across = (
        min(2, int(3 * axis.mean() / size)) for axis, size in zip(np.nonzero(where), where.shape, strict=True)
    )
    words = f"{('upper', 'middle', 'lower')[down]} {('left', 'middle', 'right')[across]}"
    return "middle" if words == "middle middle" else words
