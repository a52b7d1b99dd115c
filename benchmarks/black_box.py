"""Counterfactuals of a model in another process, seen through its endpoint alone: surrogate, random, full.

The model is the reference's prototype network behind our Keras runtime, asked over gRPC and over REST. The
reference is its white-box record at p >= .99; ours is asked for the class boundary (p >= .5) and, beside it,
for the same p >= .99. What a distance does not tell stands next to it: the error of an autoencoder, and
whether a second network agrees with the new class.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import keras
import numpy as np

from benchmarks import reference
from benchmarks.counterfactual import CONTRACT, LIMITS
from benchmarks.table import Row, row, timed
from explainer_runtime import Counterfactual, CounterfactualProto, connect, data, fit, prepare
from explainer_runtime.demo.servers import free_ports, serving
from explainer_runtime.explainers import Prepared
from explainer_runtime.explanation import Explanation
from explainer_runtime.predictors import Predictor

_INDICES = range(0, 20, 2)
_CLIENTS = 32
_FULL = 23
"""The image that the reference explained with central differences."""


def run() -> Iterator[Row]:
    """Rows for each way to search, over each way to the model."""
    with tempfile.TemporaryDirectory() as folder:
        ports = free_ports(3)
        command = ["--model", str(reference.path("mnist_cnn_proto")), "--name", "cnn"]
        with serving([(Path(folder) / "cnn.log", command)], ports):
            roads = {"gRPC": f"grpc://127.0.0.1:{ports[1]}/cnn", "REST": f"http://127.0.0.1:{ports[0]}/cnn"}
            models = {road: connect(address) for road, address in roads.items()}
            yield from _surrogate(models)
            yield from _random(models["gRPC"])
            yield from _full(models["gRPC"])


def _surrogate(models: dict[str, Predictor]) -> Iterator[Row]:
    spec = Counterfactual(gradient="surrogate", tol=0.5)
    with timed() as clock:
        fitted = fit(spec, _train(), predictor=models["gRPC"], inputs=CONTRACT)
    yield row("black box", "surrogate, fit", "rows", fitted.arrays["surrogate_rows"][0], "rows", 10_000)
    yield row("black box", "surrogate, fit", "cpu", clock.cpu, "s")
    agreement = fitted.arrays["surrogate_agreement"][0]
    yield row("black box", "surrogate, fit", "agreement on held-out rows", agreement, "share")
    for road, model in models.items():
        explain = prepare(fitted, model)
        yield from _measure(f"surrogate, p >= .5, {road}", explain, 0.5)
        yield from _concurrent(f"surrogate, p >= .5, {road}", explain)
    yield from _measure("surrogate, p >= .99, gRPC", prepare(fitted, models["gRPC"]), 0.01)


def _random(model: Predictor) -> Iterator[Row]:
    explain = prepare(fit(Counterfactual(gradient="random"), inputs=CONTRACT), model)
    for tol in (0.5, 0.01):
        yield from _measure(f"random, p >= {1 - tol:.2g}, gRPC", explain, tol)


def _measure(case: str, explain: Prepared, tol: float) -> Iterator[Row]:
    images, recorded = reference.images("mnist"), reference.case("counterfactual_mnist/other")["median"]
    explain(images[100:101], {"tol": tol}, limits=LIMITS)
    answers, clocks = [], []
    for i in _INDICES:
        with timed() as clock:
            answers.append(explain(images[i : i + 1], {"tol": tol}, limits=LIMITS))
        clocks.append(clock)

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row("black box", case, metric, value, unit, known, better)  # type: ignore[arg-type]

    found_x, classes = _column(answers, "counterfactual"), _column(answers, "target_class")
    own = reference.model("mnist_cnn_proto")(found_x)
    valid = own[np.arange(len(own)), classes] >= 1 - tol - 1e-4  # on our own copy, in other batches
    error = (
        ((_autoencoder()(found_x, training=False).numpy() - found_x) ** 2).reshape(len(own), -1).sum(axis=1)
    )
    second = reference.model("mnist_cnn")(found_x).argmax(axis=1) == classes
    yield said("valid, asked again", (valid & _column(answers, "found")).mean(), "share", 1.0, "more")
    yield said("L1, median", np.median(_column(answers, "distance_l1")), "input units", recorded["l1"])
    yield said("pixels changed, median", np.median(_column(answers, "distance_l0")), "pixels")
    yield said("autoencoder error, median", np.median(error), "")
    yield said("agreement of a second network", second.mean(), "share")
    yield said("predictor calls, median", np.median([a.cost.calls for a in answers]), "calls")
    yield said("predictor calls, most", max(a.cost.calls for a in answers), "calls")
    yield said("predictor rows, median", np.median([a.cost.rows for a in answers]), "rows")
    yield said("predictor rows, most", max(a.cost.rows for a in answers), "rows")
    yield said("one explanation, median", np.median([clock.wall for clock in clocks]), "s wall")
    yield said("cpu beside the model's, median", np.median([clock.cpu for clock in clocks]), "s")
    waited = [answer.cost.seconds for answer in answers]
    yield said("of which waiting for the model", np.median(waited), "s wall")


def _concurrent(case: str, explain: Prepared) -> Iterator[Row]:
    """As many explanations as there are clients, all at once: how many calls do they need together?"""
    images, merging = reference.images("mnist"), explain.merging
    assert merging is not None
    asked, sent = merging.asked, merging.sent
    with ThreadPoolExecutor(_CLIENTS) as pool:
        answers = list(pool.map(lambda i: explain(images[i : i + 1], limits=LIMITS), range(_CLIENTS)))
    case = f"{case}, {_CLIENTS} at once"
    yield row("black box", case, "found", _column(answers, "found").mean(), "share", 1.0, "more")
    alone = (merging.asked - asked) / _CLIENTS
    together = (merging.sent - sent) / _CLIENTS
    yield row("black box", case, "calls an explanation", together, "calls", alone)


def _full(model: Predictor) -> Iterator[Row]:
    """Central differences on the reference's own task; both ends are measured with its elastic net."""
    (known,) = reference.case("proto_blackbox_pred_mnist")["images"]
    networks = {name: _keras(f"mnist_{short}") for name, short in (("autoencoder", "ae"), ("encoder", "enc"))}
    spec = CounterfactualProto(gradient="full", gamma=100, theta=100)
    fitted = fit(spec, _train(), predictor=reference.model("mnist_cnn_proto"), inputs=CONTRACT, **networks)
    white = prepare(dataclasses.replace(fitted, spec=spec.model_copy(update={"gradient": "exact"})),
                    reference.model("mnist_cnn_proto"))  # fmt: skip
    image = reference.images("mnist")[_FULL : _FULL + 1]
    with timed() as clock:
        answer = prepare(fitted, model)(image, limits=LIMITS)
    case = f"full, prototype of image {_FULL}, gRPC"
    theirs = 0.1 * known["l1"] + known["l2"] ** 2
    yield row("black box", case, "found", answer["found"][0], "share", 1.0, "more")
    yield row("black box", case, "elastic net", answer["elastic_net"][0], "", theirs)
    exact = white(image, limits=LIMITS)["elastic_net"][0]
    yield row("black box", case, "elastic net, exact gradients", exact, "", theirs)
    yield row("black box", case, "predictor calls", answer.cost.calls, "calls", known["predictor_calls"])
    yield row("black box", case, "predictor rows", answer.cost.rows, "rows", known["predictor_rows"])
    yield row("black box", case, "one explanation", clock.wall, "s wall", known["secs"])
    yield row("black box", case, "of which waiting for the model", answer.cost.seconds, "s wall")
    yield row("black box", case, "cpu beside the model's", clock.cpu, "s", known["cpu_secs"])


def _column(answers: list[Explanation], name: str) -> np.ndarray:
    return np.concatenate([answer[name] for answer in answers])


@cache
def _train() -> np.ndarray:
    return data.load("mnist", root=reference.MNIST).x_train[:20_000]


@cache
def _autoencoder() -> keras.Model:
    return _keras("mnist_ae")


def _keras(name: str) -> keras.Model:
    return keras.saving.load_model(reference.path(name), compile=False)
