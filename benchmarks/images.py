"""Photographs of 224x224x3: regions, attributions and anchors, what they cost and whether they hold.

The photographs come with scikit-image, and with `EXPLAINER_RUNTIME_PHOTOGRAPHS`, a directory of more. The
network is the `.keras` file that `EXPLAINER_RUNTIME_NETWORK` names, an ImageNet classifier of rows in
[-1, 1]; without one a MobileNetV2 with random weights stands in, of which only the costs mean anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, row, timed
from explainer_runtime import AnchorImage, Inputs, Limits, fit, prepare
from explainer_runtime.explainers import Prepared
from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.attribution.settings import BY_GRADIENTS
from explainer_runtime.predictors import CallablePredictor, Predictor
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.spec import parse_spec

SIZE = 224
NAMES = ("chelsea", "coffee", "rocket", "camera")
LIMITS = Limits(max_rows=10**6, max_calls=10**6, max_seconds=3600)


def run() -> Iterator[Row]:
    """Rows for each fill of regions, and for attributions and anchors with the same superpixels."""
    photographs = np.stack([_square(image) for image in _photographs()])
    model, label = _network()
    inputs = Inputs(shape=(SIZE, SIZE, 3), low=-1, high=1, classes=model(photographs[:1]).shape[1])
    for fill in ("inpaint", "blur", "mean"):
        yield from _regions(fill, model, inputs, photographs, label)
    for algorithm in ("shap", "rise", "hsic", "integrated_gradients", "smooth_grad", "grad_cam"):
        yield from _attributions(algorithm, model, inputs, photographs, label)
    yield from _anchors(model, inputs, photographs, label)


def _regions(fill: str, model: Predictor, inputs: Inputs, x: np.ndarray, label: str) -> Iterator[Row]:
    explain = prepare(
        fit(parse_spec({"kind": "region", "fill": fill}), inputs=inputs), _Whole(model), warm=False
    )
    answers, times = [], []
    for one in x:
        with timed() as clock:
            answers.append(explain(one[None], limits=LIMITS))
        times.append(clock.cpu)
    found = [answer for answer in answers if answer["found"][0]]

    def said(metric: str, value: float, unit: str) -> Row:
        return row("images", f"region, {fill}, {len(x)} photographs, {label}", metric, value, unit)

    yield said("found", len(found) / len(answers), "share")
    yield said("superpixels, median", np.median([len(np.unique(one["segments"])) for one in answers]), "")
    yield said("hidden, median", np.median([one["size"][0] for one in found]), "superpixels")
    yield said("hidden, most", max((one["size"][0] for one in found), default=0), "superpixels")
    yield said("area, median", float(np.median([one["area"][0] for one in found])), "share")
    yield said("irreducible", float(np.mean([one["irreducible"][0] for one in found])), "share")
    yield said("rows, median", np.median([one.cost.rows for one in answers]), "")
    yield said("rows, most", max(one.cost.rows for one in answers), "")
    yield said("calls, median", np.median([one.cost.calls for one in answers]), "")
    yield said("calls, most", max(one.cost.calls for one in answers), "")
    yield said("cpu, median", float(np.median(times)), "s")
    yield said("deletion, better than random", _better([_measured(explain, one) for one in x]), "share")


def _attributions(
    algorithm: str, model: Predictor, inputs: Inputs, x: np.ndarray, label: str
) -> Iterator[Row]:
    whole = model if algorithm in BY_GRADIENTS else _Whole(model)
    spec = parse_spec({"kind": "attribution", "algorithm": algorithm})
    explain = prepare(fit(spec, inputs=inputs), whole, warm=False)
    answers = [explain(one[None], limits=LIMITS) for one in x]
    measured = [_measured(explain, one) for one in x]

    def said(metric: str, value: float, unit: str) -> Row:
        return row("images", f"attribution, {algorithm}, {len(x)} photographs, {label}", metric, value, unit)

    yield said("rows, median", np.median([one.cost.rows for one in answers]), "")
    yield said("named, least", min(len(one.raw[0]["top"]) for one in answers), "superpixels")
    yield said("deletion, better than random", _better(measured), "share")
    yield said("deletion, better than random, other fill", _better(measured, 1), "share")
    yield said("deletion, median", np.median([one[0]["deletion"] for one in measured]), "")
    yield said("random orders, median", np.median([one[0]["random"] for one in measured]), "")


def _measured(explain: Prepared, x: np.ndarray) -> list[dict[str, Any]]:
    """Its curves, with each fill."""
    answer = explain(x[None], {"quality": True}, limits=LIMITS)
    return list(answer.raw[0]["quality"]["curves"])


def _better(measured: list[list[dict[str, Any]]], fill: int = 0) -> float:
    """The share of photographs whose class falls sooner than in random orders."""
    return float(np.mean([one[fill]["deletion"] < one[fill]["random"] for one in measured]))


def _anchors(model: Predictor, inputs: Inputs, x: np.ndarray, label: str) -> Iterator[Row]:
    explain = prepare(fit(AnchorImage(), inputs=inputs), _Whole(model), warm=False)
    answers = [explain(one[None], limits=LIMITS) for one in x]

    def said(metric: str, value: float, unit: str) -> Row:
        return row("images", f"anchor, {len(x)} photographs, {label}", metric, value, unit)

    yield said("found", np.mean([one["found"][0] for one in answers]), "share")
    yield said("size, median", np.median([one["size"][0] for one in answers]), "superpixels")
    yield said("rows, median", np.median([one.cost.rows for one in answers]), "")
    yield said("rows, most", max(one.cost.rows for one in answers), "")
    yield said("calls, median", np.median([one.cost.calls for one in answers]), "")
    yield said("calls, most", max(one.cost.calls for one in answers), "")
    again = [_rechecked(model, *one) for one in zip(answers, x, strict=True)]
    yield said("precision in fresh draws, least", min(again), "share")
    yield said("precision in fresh draws, mean", float(np.mean(again)), "share")


class _Whole(CallablePredictor):
    """The model as an endpoint would be counted: a call is a call, whatever it carries."""

    def __init__(self, model: Predictor) -> None:
        super().__init__(model)

    def rows_per_call(self, shape: tuple[int, ...]) -> int:
        return 10**6


def _rechecked(model: Predictor, answer: Explanation, x: np.ndarray) -> float:
    """How often the class stays with an anchor shown and half of the rest masked, in 300 fresh draws."""
    segments, held = answer["segments"][0], answer["anchor_mask"][0]
    shown = np.random.default_rng(99).random((300, segments.max() + 1)) < 0.5
    seen = np.take(shown, segments, axis=1) | held
    rows = np.where(seen[..., None], x, x.mean(axis=(0, 1)))
    return float((model(rows).argmax(axis=1) == answer["prediction"][0]).mean())


def _network() -> tuple[Predictor, str]:
    import keras

    if path := os.environ.get("EXPLAINER_RUNTIME_NETWORK"):
        return KerasPredictor.load(path), Path(path).stem
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(SIZE, SIZE, 3))
    return KerasPredictor.of(model), "random weights"


def _photographs() -> Iterator[np.ndarray]:
    from PIL import Image
    from skimage import data

    for name in NAMES:
        yield np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
    if folder := os.environ.get("EXPLAINER_RUNTIME_PHOTOGRAPHS"):
        for path in sorted(Path(folder).iterdir()):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                yield np.asarray(Image.open(path).convert("RGB"))


def _square(image: np.ndarray) -> np.ndarray:
    """The middle of a photograph `(SIZE, SIZE, 3)`, float32 in [-1, 1]."""
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(image[top : top + side, left : left + side])
    small = np.asarray(middle.resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float32)
    return small / np.float32(127.5) - 1
