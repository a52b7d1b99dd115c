"""Counterfactuals on the reference's networks: validity, distance, processor time alone and in a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import reference
from benchmarks.table import Row, row, timed
from explainer_runtime import Counterfactual, Inputs, Limits, fit, prepare

CONTRACT = Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10)
LIMITS = Limits(max_batch=64, max_rows=10**8, max_calls=10**8, max_seconds=600)
BATCH = 32


def run() -> Iterator[Row]:
    """Rows for MNIST and Fashion-MNIST, to any `other` class and to class 1, by both schedules."""
    for name in ("mnist", "fashion"):
        for target in ("other", 1):
            recorded = reference.case(f"counterfactual_{name}/{target}")
            images = [i for i in recorded["images"] if i["valid"] and not i["trivial"]]
            for schedule in ("fast", "reference"):
                if schedule == "reference" and target == 1:
                    continue  # the same loop as `other`
                yield from _measure(f"{name} {target} ({schedule})", name, target, schedule, images)


def _measure(case: str, name: str, target: str | int, schedule: str, recorded: list[dict]) -> Iterator[Row]:
    spec = Counterfactual(target_class=target, tol=0.01, schedule=schedule)
    run = prepare(fit(spec, inputs=CONTRACT), reference.model(f"{name}_cnn"))
    images = reference.images(name)
    chosen = [image["i"] for image in recorded]
    known_l1 = float(np.median([image["l1"] for image in recorded]))
    known_cpu = float(np.median([image["cpu_secs"] for image in recorded]))

    alone, answers = [], []
    for index in chosen:
        with timed() as clock:
            answers.append(run(images[index : index + 1], limits=LIMITS))
        alone.append(clock.cpu)
    found = np.mean([answer["found"][0] for answer in answers])
    found_x = np.concatenate([answer["counterfactual"] for answer in answers])
    run(images[:BATCH], limits=LIMITS)
    with timed() as clock:
        batch = run(images[:BATCH], limits=LIMITS)

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row("counterfactual", case, metric, value, unit, known, better)  # type: ignore[arg-type]

    yield said("valid", found, "share", 1.0, "more")
    yield said(
        "L1, median", float(np.median([a["distance_l1"][0] for a in answers])), "input units", known_l1
    )
    yield said("pixels changed, median", float(np.median([a["distance_l0"][0] for a in answers])), "pixels")
    yield said("cpu, 1 image", float(np.median(alone)), "s", known_cpu)
    yield said(f"cpu, batch of {BATCH}", clock.cpu / BATCH, "s an image", known_cpu)
    yield said(f"valid, batch of {BATCH}", batch["found"].mean(), "share", 1.0, "more")
    if name == "mnist":
        second = reference.model("mnist_cnn_proto")(found_x).argmax(axis=1)
        agreed = np.mean(second == [answer["target_class"][0] for answer in answers])
        yield said("agreement of a second network", float(agreed), "share")
