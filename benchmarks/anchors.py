"""Anchors on the reference's network in process: precision re-checked, length, calls, processor time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import reference
from benchmarks.table import Row, row, timed
from explainer_runtime import AnchorImage, Explanation, Inputs, Limits, fit, prepare
from explainer_runtime.spec import Grid

SPEC = AnchorImage(segmentation=Grid(rows=7, columns=4), fill="mean", threshold=0.95, p_sample=0.8)
CONTRACT = Inputs(shape=(28, 28, 1), low=0, high=1, classes=10)
INDICES = range(0, 20, 2)
BATCH = 32
FRESH = 10_000


def run() -> Iterator[Row]:
    """Rows for 10 images, three seeds each as in the record."""
    model = reference.model("fashion_cnn01")
    explain = prepare(fit(SPEC, inputs=CONTRACT), model)
    images = reference.images("fashion", "unit")
    recorded = reference.case("anchor_fashion")
    known = recorded["mean"]
    explain(images[:1])
    answers: list[Explanation] = []
    with timed() as clock:
        for seed in range(3):
            answers += [explain(images[i : i + 1], {"seed": seed}) for i in INDICES]
    with timed() as batch_clock:
        explain(
            images[np.resize(INDICES, BATCH)],
            limits=Limits(max_batch=BATCH, max_rows=10**7, max_seconds=600),
        )
    checked = [
        fresh_precision(answer, images[i : i + 1], model)
        for answer, i in zip(answers, 3 * list(INDICES), strict=True)
    ]
    runs = [one for image in recorded["images"] for one in image["runs"]]

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row("anchor_image", "fashion, 28 cells of 4x7 pixels", metric, value, unit, known, better)  # type: ignore[arg-type]

    yield said("found", np.mean([a["found"][0] for a in answers]), "share")
    yield said(
        "precision on fresh samples, least",
        min(checked),
        "share",
        min(r["precision_rechecked"] for r in runs),
        "more",
    )
    yield said(
        "superpixels in the anchor, mean",
        float(np.mean([a["size"][0] for a in answers])),
        "superpixels",
        float(np.mean([len(r["anchor"]) for r in runs])),
    )
    yield said(
        "coverage, mean",
        float(np.mean([a["coverage"][0] for a in answers])),
        "share",
        float(np.mean([r["coverage"] for r in runs])),
        "more",
    )
    yield said(
        "predictor calls, mean", float(np.mean([a.cost.calls for a in answers])), "calls", known["calls"]
    )
    yield said("predictor rows, mean", float(np.mean([a.cost.rows for a in answers])), "rows", known["rows"])
    yield said("cpu, 1 image, mean", clock.cpu / len(answers), "s", known["cpu_secs"])
    yield said(f"cpu, batch of {BATCH}", batch_clock.cpu / BATCH, "s an image", known["cpu_secs"])


def fresh_precision(answer: Explanation, image: np.ndarray, model) -> float:  # type: ignore[no-untyped-def]
    """How often the class stays when the superpixels outside the anchor are masked anew."""
    rng = np.random.default_rng(12345)
    segments, kept = answer["segments"][0], answer["anchor_mask"][0]
    count = segments.max() + 1
    inside = np.zeros(count, bool)
    inside[np.unique(segments[kept])] = True
    means = np.stack([image[0][segments == s].mean(axis=0) for s in range(count)])
    shown = (rng.random((FRESH, count)) >= SPEC.p_sample) | inside
    rows = np.where(shown[:, segments][..., None], image, means[segments][None]).astype(np.float32)
    return float((model(rows).argmax(axis=1) == answer["prediction"][0]).mean())
