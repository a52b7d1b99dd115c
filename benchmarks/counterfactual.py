"""Counterfactuals on the reference's networks: validity, distance, plausibility, processor time.

The record has distances and processor time, but not its images: for autoencoder errors and second opinions
the `reference` schedule, which is the same loss, stands in for it. Ten images say little about a share, so
agreement is that of the batch.

How fast the machine is changes from minute to minute. What the model itself takes for the same rows, measured
right after each batch, tells that from what the search adds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import reference
from benchmarks.table import Row, row, timed
from explainer_runtime import Counterfactual, Explanation, Inputs, Limits, fit, prepare
from explainer_runtime.predictors.keras import KerasPredictor

CONTRACT = Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10)
LIMITS = Limits(max_batch=64, max_rows=10**8, max_calls=10**8, max_seconds=600)
BATCH = 32


HELD_OUT = {"mnist": slice(200, 264), "fashion": slice(-64, None)}
"""Images that no setting was chosen by."""
BEFORE = {  # what 0.1.0 reached on them: L1, autoencoder error
    ("mnist", "other"): (10.14, 3.32),
    ("mnist", 1): (32.2, 6.42),
    ("fashion", "other"): (10.72, 7.10),
    ("fashion", 1): (21.0, 7.97),
}


def run() -> Iterator[Row]:
    """Rows for MNIST and Fashion-MNIST, to any `other` class and to class 1, by both schedules."""
    for name in ("mnist", "fashion"):
        for target in ("other", 1):
            recorded = reference.case(f"counterfactual_{name}/{target}")
            images = [i for i in recorded["images"] if i["valid"] and not i["trivial"]]
            known: dict[str, float] = {}
            for schedule in ("reference", "fast"):
                yield from _measure(name, target, schedule, images, known)
            yield from held_out(name, target)


def held_out(name: str, target: str | int) -> Iterator[Row]:
    """Images that no setting was chosen by, for both objectives and the most thorough search."""
    model, x = reference.model(f"{name}_cnn"), reference.images(f"{name}")[HELD_OUT[name]]
    x = x[model(x).argmax(axis=1) != target]
    l1, error = BEFORE[name, target]
    for objective, effort in (("balanced", "standard"), ("smallest", "standard"), ("smallest", "thorough")):
        spec = Counterfactual.model_validate(
            {"target_class": target, "tol": 0.01, "objective": objective, "effort": effort}
        )
        explain = prepare(fit(spec, inputs=CONTRACT), model)
        explain(x[:BATCH], limits=LIMITS)
        with timed() as clock:
            answer = explain(x, limits=LIMITS)

        def said(
            metric: str, value: float, unit: str, known: float | None = None, better: str = "less"
        ) -> Row:
            case = f"{name} {target}, held out, {objective}, {effort}"  # noqa: B023
            return row("counterfactual", case, metric, value, unit, known, better)  # type: ignore[arg-type]

        yield said("valid", answer["found"].mean(), "share", 1.0, "more")
        yield said("L1, median", float(np.median(answer["distance_l1"])), "input units", l1)
        yield said("pixels changed, median", float(np.median(answer["distance_l0"])), "pixels")
        for metric, (value, unit, better) in _plausibility(name, answer).items():
            yield said(metric, value, unit, error if "error" in metric else None, better)
        yield said("gradients", answer.cost.steps / len(x), "an image")
        yield said("other rows", (answer.cost.rows - answer.cost.steps) / len(x), "an image")
        yield said(f"cpu, batch of {len(x)}", clock.cpu / len(x), "s an image")


def _measure(
    name: str, target: str | int, schedule: str, recorded: list[dict], known: dict[str, float]
) -> Iterator[Row]:
    """One schedule's rows; `known` is the plausibility of the schedule before, and then of this one."""
    case = f"{name} {target} ({schedule})"
    spec = Counterfactual.model_validate({"target_class": target, "tol": 0.01, "schedule": schedule})
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
    run(images[:BATCH], limits=LIMITS)
    classes = reference.model(f"{name}_cnn")(images[: 2 * BATCH]).argmax(axis=1)
    others = images[: 2 * BATCH][classes != target][:BATCH]
    with timed() as clock:
        batch = run(others, limits=LIMITS)

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row("counterfactual", case, metric, value, unit, known, better)  # type: ignore[arg-type]

    yield said("valid", found, "share", 1.0, "more")
    yield said(
        "L1, median", float(np.median([a["distance_l1"][0] for a in answers])), "input units", known_l1
    )
    yield said("pixels changed, median", float(np.median([a["distance_l0"][0] for a in answers])), "pixels")
    yield said("cpu, 1 image", float(np.median(alone)), "s", known_cpu)
    yield said(f"cpu, batch of {BATCH}", clock.cpu / BATCH, "s an image", known_cpu)
    gradient, forward = _model_seconds(reference.model(f"{name}_cnn"), others)
    steps, rows = batch.cost.steps / BATCH, batch.cost.rows / BATCH
    yield said(f"gradient steps, batch of {BATCH}", steps, "an image")
    yield said(f"other rows, batch of {BATCH}", rows - steps, "an image")
    yield said(
        f"the model's part of the cpu, batch of {BATCH}",
        (steps * gradient + (rows - steps) * forward) / (clock.cpu / BATCH),
        "share",
    )
    yield said(f"valid, batch of {BATCH}", batch["found"].mean(), "share", 1.0, "more")
    for metric, (value, unit, better) in _plausibility(name, batch).items():
        yield said(f"{metric}, batch of {BATCH}", value, unit, known.get(metric), better)
        known[metric] = value


def _model_seconds(model: KerasPredictor, x: np.ndarray) -> tuple[float, float]:
    """Processor seconds a row that a gradient takes and that scores take, in batches of `BATCH`."""

    def pull(log_scores: np.ndarray) -> np.ndarray:
        return np.eye(log_scores.shape[1], dtype=np.float32)[log_scores.argmax(axis=1)]

    seconds = []
    for call in (lambda: model.slope(x, pull), lambda: model.log_scores(x)):
        call()
        with timed() as clock:
            for _ in range(20):
                call()
        seconds.append(clock.cpu / 20 / len(x))
    return seconds[0], seconds[1]


def _plausibility(name: str, batch: Explanation) -> dict[str, tuple[float, str, str]]:
    x = batch["counterfactual"]
    rebuilt = np.asarray(reference.keras_model(f"{name}_ae")(x))
    error = float(np.median(((rebuilt - x) ** 2).reshape(len(x), -1).sum(axis=1)))
    measures = {"autoencoder error, median": (error, "squared units", "less")}
    if name == "mnist":
        second = reference.model("mnist_cnn_proto")(x).argmax(axis=1)
        agreed = float((second == batch["target_class"]).mean())
        measures["agreement of a second network"] = (agreed, "share", "more")
    return measures
