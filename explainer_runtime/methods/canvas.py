"""What methods share that hide superpixels: how an image is cut, and what is seen where one is hidden."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np

from explainer_runtime.errors import InvalidInput, InvalidOption, InvalidSpec
from explainer_runtime.explanation import Explanation
from explainer_runtime.fitted import Fitted, check_arrays, check_rows
from explainer_runtime.methods.ground import Given, Ground, numbered
from explainer_runtime.methods.segmentation import Felzenszwalb, Grid, Quickshift, Slic
from explainer_runtime.search import masking, superpixels
from explainer_runtime.search.masking import Canvas
from explainer_runtime.search.subject import Subject

_BACKGROUNDS = 100
"""Background images kept in an artifact; they only have to be various."""
MOST = 400
"""Superpixels at most where what follows from them grows with their square."""
_LARGE = 112
"""From this many pixels on a side an image counts as large, where defaults go by its size."""


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """Refuse what is no image, and a fill that lacks its images; see `Method.check`."""
    numbered(fitted.spec, fitted.inputs)
    inputs, spec = fitted.inputs, cast(Any, fitted.spec)
    if inputs.layout is None:
        raise InvalidSpec(
            f"{spec.kind}: expected images (height, width, channels), got {inputs.shape}; if it "
            "is one, its `layout` has to be said: 'channels_last' or 'channels_first'"
        )
    if spec.fill == "background":
        check_arrays(fitted, {"background": ("f", ("M", *inputs.shape))})
    if spec.fill == "constant" and not inputs.low <= spec.fill_value <= inputs.high:
        raise InvalidSpec(
            f"fill_value: expected a value in [{inputs.low:g}, {inputs.high:g}], got {spec.fill_value:g}"
        )
    if spec.segments is not None:
        _labels(spec, size(fitted))


def explanation(kind: str, answers: Sequence[dict[str, Any]]) -> Explanation:
    """The answer for a batch: of each image a value for every field, and `raw`; fractions become float32."""
    raw = tuple(answer.pop("raw") for answer in answers)
    fields = {name: np.stack([one[name] for one in answers]) for name in answers[0]}
    kept = {"f": np.float32, "i": np.int64}
    arrays = {
        name: values.astype(kept.get(values.dtype.kind, values.dtype)) for name, values in fields.items()
    }
    return Explanation(kind, arrays, raw=raw)


def size(fitted: Fitted) -> tuple[int, ...]:
    """Height and width of an image."""
    shape = fitted.inputs.shape
    return shape[1:] if fitted.inputs.layout == "channels_first" else shape[:-1]


def fit(given: Given) -> dict[str, np.ndarray]:
    """Some of the background images, evenly spaced, where hidden pixels show them; else nothing has to be
    fitted."""
    images = given.x if given.background is None else given.background
    if given.spec.fill != "background":
        return {}
    if images is None:
        raise InvalidSpec("fill='background' needs `background` images, or `x`, at fit")
    chosen = np.linspace(0, len(images) - 1, min(len(images), _BACKGROUNDS)).round().astype(int)
    return {"background": check_rows(np.asarray(images)[chosen], given.inputs, _BACKGROUNDS)}


def subjects(x: np.ndarray, spec: Any, ground: Ground, *, most: int | None = None) -> list[Subject]:
    """Images `(N, ...)`, cut into `most` superpixels at most, and ready to be asked about. Every image starts
    from `spec.seed`, so that it is explained in a batch as it is alone.

    Raises:
        InvalidOption: They would be more.
        InvalidInput: `x` is not a batch of images, or nobody has said where they have their channels.
        InvalidSpec: `fill='background'` without images of the same shape, or labels of another shape.
        MissingExtra: The segmentation needs scikit-image.
    """
    layout, background = ground.inputs.layout, ground.arrays.get("background")
    if x.ndim != 4 or layout is None:
        raise InvalidInput(
            f"expected images of shape (N, height, width, channels), or channels first, got {x.shape} with "
            f"layout {layout}; the input contract's `layout` says 'channels_last' or 'channels_first'"
        )
    channels = -1 if layout == "channels_last" else 0
    made = []
    for index, image in enumerate(x):
        upright = np.moveaxis(image, channels, -1)
        segments = _segments(upright, spec, ground)
        if most is not None and (many := int(segments.max()) + 1) > most:
            raise InvalidOption(f"segments: expected at most {most} superpixels, got {many}", "segments")
        shown = Canvas(image, segments, None, channels, ground.snap)
        fills = _fills(shown, spec.fill, spec.fill_value, background)
        made.append(Subject(shown._replace(fills=fills), ground.inputs.classes, spec.seed, index))
    return made


def filled(subject: Subject, fill: str) -> Subject:
    """The same image, whose hidden superpixels show another fill."""
    return subject.filled(fill, _fills(subject.canvas, fill))


def _segments(image: np.ndarray, spec: Any, ground: Ground) -> np.ndarray:
    if spec.segments is not None:
        return superpixels.relabel(_labels(spec, image.shape[:2]))
    if ground.segment is not None:
        labels = np.asarray(ground.segment(image.copy()))
        if labels.shape != image.shape[:2]:
            raise InvalidSpec(f"segment: expected labels of shape {image.shape[:2]}, got {labels.shape}")
        return superpixels.relabel(labels)
    # Segmenters weigh colour against space and so depend on the units; in [0, 1] they all mean the same.
    low, high = ground.inputs.low, ground.inputs.high
    unit = (image.astype(np.float64) - low) / (high - low)
    side = float(np.sqrt(image.shape[0] * image.shape[1]))
    large = side >= _LARGE
    match spec.segmentation:
        case Grid(rows=rows, columns=columns):
            return superpixels.grid(image.shape[0], image.shape[1], rows, columns)
        case Slic(n_segments=count, compactness=compactness, sigma=sigma):
            many = round(10 + 40 * max(0.0, np.log2(side / 28)) / 3)
            return superpixels.slic(unit, count or many, compactness, sigma)
        case Felzenszwalb(scale=scale, sigma=blur, min_size=least):
            trees = (100.0, 0.5, 200) if large else (1.0, 0.8, 20)
            return superpixels.felzenszwalb(unit, *map(_or, (scale, blur, least), trees))
        case Quickshift(kernel_size=kernel, max_dist=far, ratio=ratio):
            modes = (4.0, 200.0, 0.2) if large else (5.0, 10.0, 1.0)
            return superpixels.quickshift(unit, *map(_or, (kernel, far, ratio), modes))
        case _:
            raise AssertionError(spec.segmentation)


def _or(said: Any, usual: Any) -> Any:
    return usual if said is None else said


def _labels(spec: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The labels that came with a request."""
    labels = spec.segments
    if len(labels) != shape[0] or any(len(row) != shape[1] for row in labels):
        raise InvalidOption(f"segments: expected whole numbers, lists of shape {tuple(shape)}", "segments")
    try:
        return np.asarray(labels, np.int64)
    except OverflowError:
        raise InvalidOption("segments: expected whole numbers of 64 bits", "segments") from None


def _fills(
    shown: Canvas, fill: str, value: float = 0.0, background: np.ndarray | None = None
) -> np.ndarray | None:
    """What hidden pixels may show, `(B, ...)` like the image, float32, or None for what is around them."""
    image, segments, channels = shown.image, shown.segments, shown.channels
    upright = np.moveaxis(image, channels, -1)
    match fill:
        case "inpaint":
            return None
        case "mean":
            colours = masking.segment_mean(upright, segments)
        case "image_mean":
            colours = masking.image_mean(upright)
        case "constant":
            colours = np.full(upright.shape, value, np.float32)
        case "blur":
            colours = masking.blurred(upright)
        case "background":
            if background is None or not len(background) or background.shape[1:] != image.shape:
                got = "none" if background is None else f"shape {background.shape}"
                raise InvalidSpec(f"fill='background' needs images of shape (B, *{image.shape}), got {got}")
            return np.asarray(background, np.float32)
        case _:
            raise AssertionError(fill)
    return np.moveaxis(colours, -1, channels)[None]
