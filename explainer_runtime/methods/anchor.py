"""Anchors: which part of the image holds the answer in place, whatever the rest shows?

Ribeiro, Singh, Guestrin (AAAI 2018) cut an image into superpixels and look for the fewest of them that, when
shown, keep the model's answer with high probability while all others are masked at random. The search among
sets of superpixels is `search/subsets.py`, the asking `search/subject.py`; this file says what an image is
cut into, what masked parts show, and how the answer is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, assert_never

import numpy as np

from explainer_runtime.artifact import Fitted
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Explanation, Fields
from explainer_runtime.search import masking, superpixels
from explainer_runtime.search.asks import Search, lockstep
from explainer_runtime.search.masking import Canvas
from explainer_runtime.search.subject import Subject
from explainer_runtime.search.subsets import Holding, Rules, hold
from explainer_runtime.spec import AnchorImage, Felzenszwalb, Grid, Quickshift, Slic

Segmenter = Callable[[np.ndarray], np.ndarray]
"""An image `(H, W, C)`, in input units -> a label for each pixel `(H, W)`, of any numbers."""


def search(
    x: np.ndarray,
    spec: AnchorImage,
    *,
    low: float,
    high: float,
    classes: int,
    segment: Segmenter | None = None,
    background: np.ndarray | None = None,
) -> Search[Explanation]:
    """The search for an anchor of each image. The waves of all images go out together.

    Args:
        x: Images `(N, H, W, C)`, float32, in input units. Not changed.
        spec: Settings, with the options of the request in force. Every image starts from `spec.seed`, so
            that it is explained in a batch as it is alone.
        low: Smallest value of a pixel; what the picture of the anchor shows elsewhere.
        high: Largest value of a pixel.
        classes: How many class scores the model gives.
        segment: Cuts an image into superpixels in place of `spec.segmentation`.
        background: Images `(B, H, W, C)`; with `fill='background'` masked pixels show a random one of them.

    Returns:
        An explanation with `anchor` (the image where the anchor is, `low` elsewhere), `anchor_mask`,
        `segments`, `precision` (share of draws that kept the class), `coverage` (share of random masks that
        show the whole anchor), `size` (superpixels in it), `prediction` and `original_proba`; see `_raw`
        for the rest. Where `found` is false they describe the best candidate. An image that the budget did
        not allow to be predicted has `prediction` -1, scores of zero and no anchor.

    Raises:
        InvalidInput: `x` is not a batch of images.
        InvalidSpec: `fill='background'` without images of the same shape, or labels of another shape.
        MissingExtra: The segmentation needs scikit-image.
    """
    if x.ndim != 4:
        raise InvalidInput(f"expected images of shape (N, height, width, channels), got {x.shape}")
    subjects = []
    for image in x:
        segments = _segments(image, spec, low, high, segment)
        canvas = Canvas(image, segments, _fills(image, segments, spec, background))
        subjects.append(Subject(canvas, classes, spec.seed))
    rules = Rules(*(getattr(spec, name) for name in Rules._fields))
    holdings = yield from lockstep([hold(each.superpixels, rules, spec.seed, each.ask) for each in subjects])
    answers = [_answer(each, holding, spec, low) for each, holding in zip(subjects, holdings, strict=True)]
    return Explanation(
        "anchor_image",
        {name: np.stack([getattr(answer, name) for answer in answers]) for name in _Answer._fields[:-1]},
        raw=tuple(answer.raw for answer in answers),
    )


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    inputs, number = fitted.inputs, ("FP32", ())
    image = inputs.shape[1:] if inputs.layout == "channels_first" else inputs.shape[:-1]
    return {
        **COMMON,
        "anchor": ("FP32", inputs.shape),
        "anchor_mask": ("BOOL", image),
        "segments": ("INT64", image),
        "precision": number,
        "coverage": number,
        "size": ("INT64", ()),
        "prediction": ("INT64", ()),
        "original_proba": ("FP32", (inputs.classes,)),
    }


# --- what is shown --------------------------------------------------------------------------------------


def _segments(
    image: np.ndarray, spec: AnchorImage, low: float, high: float, segment: Segmenter | None
) -> np.ndarray:
    if segment is not None:
        labels = np.asarray(segment(image.copy()))
        if labels.shape != image.shape[:2]:
            raise InvalidSpec(f"segment: expected labels of shape {image.shape[:2]}, got {labels.shape}")
        return superpixels.relabel(labels)
    # Segmenters weigh colour against space and so depend on the units; in [0, 1] they all mean the same.
    unit = (image.astype(np.float64) - low) / (high - low)
    match spec.segmentation:
        case Grid(rows=rows, columns=columns):
            return superpixels.grid(image.shape[0], image.shape[1], rows, columns)
        case Slic(n_segments=count, compactness=compactness, sigma=sigma):
            return superpixels.slic(unit, count, compactness, sigma)
        case Felzenszwalb(scale=scale, sigma=sigma, min_size=min_size):
            return superpixels.felzenszwalb(unit, scale, sigma, min_size)
        case Quickshift(kernel_size=kernel_size, max_dist=max_dist, ratio=ratio):
            return superpixels.quickshift(unit, kernel_size, max_dist, ratio)
        case _:
            assert_never(spec.segmentation)


def _fills(
    image: np.ndarray, segments: np.ndarray, spec: AnchorImage, background: np.ndarray | None
) -> np.ndarray:
    """What masked pixels may show, `(B, H, W, C)`, float32."""
    match spec.fill:
        case "mean":
            return masking.segment_mean(image, segments)[None]
        case "image_mean":
            return masking.image_mean(image)[None]
        case "constant":
            return np.full((1, *image.shape), spec.fill_value, np.float32)
        case "blur":
            return masking.blurred(image)[None]
        case "background":
            if background is None or not len(background) or background.shape[1:] != image.shape:
                got = "none" if background is None else f"shape {background.shape}"
                raise InvalidSpec(f"fill='background' needs images of shape (B, *{image.shape}), got {got}")
            return np.asarray(background, np.float32)
        case _:
            assert_never(spec.fill)


# --- the answer -----------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What is said of one image: the fields of an explanation, and `raw`."""

    found: np.bool_
    status: str
    anchor: np.ndarray
    anchor_mask: np.ndarray
    segments: np.ndarray
    precision: np.float32
    coverage: np.float32
    size: np.int64
    prediction: np.int64
    original_proba: np.ndarray
    raw: Mapping[str, Any]


def _answer(subject: Subject, holding: Holding, spec: AnchorImage, low: float) -> _Answer:
    canvas, order = subject.canvas, list(holding.features)
    mask = np.isin(canvas.segments, order)
    prefixes = np.zeros((len(order) + 1, subject.superpixels), dtype=bool)
    for size in range(1, len(order) + 1):
        prefixes[size, order[:size]] = True
    tally = holding.evidence.tally(prefixes)
    precision = tally.hits / np.maximum(tally.tries, 1)
    coverage = _coverage(len(order), spec)
    return _Answer(
        found=np.bool_(holding.found),
        status=holding.stopped or (OK if holding.found else NOT_FOUND),
        anchor=np.where(mask[..., None], canvas.image, np.float32(low)),
        anchor_mask=mask,
        segments=canvas.segments,
        precision=np.float32(precision[-1]),
        coverage=np.float32(coverage[-1]),
        size=np.int64(len(order)),
        prediction=np.int64(subject.prediction),
        original_proba=subject.scores,
        raw=_raw(subject, holding, prefixes, precision, coverage, spec.n_covered_ex),
    )


def _coverage(features: int, spec: AnchorImage) -> np.ndarray:
    """Share of random masks that show the first 0, 1, ... `features` of an anchor, `(features + 1,)`."""
    rng = np.random.default_rng([spec.seed, 2])
    shown = rng.random((spec.coverage_samples, features)) >= spec.p_sample
    return np.append(1.0, np.logical_and.accumulate(shown, axis=1).mean(axis=0))


def _raw(
    subject: Subject,
    holding: Holding,
    prefixes: np.ndarray,
    precision: np.ndarray,
    coverage: np.ndarray,
    examples: int,
) -> dict[str, Any]:
    """The rest, in the words that clients of anchors know; lists have one entry a feature, as it was added.

    `mean` and `precision` (the same) and `coverage` are those of the anchor's first features, `examples`
    pictures in input units that show them with the class kept (`covered_true`) and lost (`covered_false`).
    `all_precision` is the share of random masks that keep the class with nothing held; `num_preds` counts
    the pictures asked about. `vacuous`: the fully masked image has the class too, so part of what holds it
    is the fill, and another `fill` tells more.
    """
    evidence = holding.evidence
    about = evidence.about(prefixes)

    def pictures(draws: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero(draws)[:examples]
        return subject.canvas.draw(evidence.shown[chosen], subject.fills[chosen])

    return {
        "feature": list(holding.features),
        "mean": precision[1:].tolist(),
        "precision": precision[1:].tolist(),
        "coverage": coverage[1:].tolist(),
        "examples": [
            {
                "covered_true": pictures(draws & evidence.kept),
                "covered_false": pictures(draws & ~evidence.kept),
            }
            for draws in about.T[1:]
        ],
        "all_precision": float(precision[0]),
        "num_preds": subject.rows,
        "instance": subject.canvas.image,
        "prediction": subject.prediction,
        "vacuous": subject.holds_masked,
    }
