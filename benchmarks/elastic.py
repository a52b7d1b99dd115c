"""Prototype counterfactuals and contrastive explanations on the reference's networks.

The reference recorded distances and processor time. Its autoencoder errors, prototype distances and second
opinions were not recorded; `PROXY` holds those of our own re-implementation of its steady state (ISTA
without momentum), which gives its elastic nets to within a few per cent, row by row, and its prototypes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np

from benchmarks import reference
from benchmarks.counterfactual import BATCH, CONTRACT, LIMITS
from benchmarks.table import Row, row, timed
from explainer_runtime import CEM, CallablePredictor, CounterfactualProto, data, fit, prepare
from explainer_runtime.artifact import Fitted
from explainer_runtime.explainers import Prepared

PROXY = {  # case: autoencoder error, prototype distance, agreement of a second network
    "ae_enc": (3.83, 5.35, 0.40),
    "k1": (0.837, 1.88, 0.22),
    "k20": (0.990, 1.65, 0.30),
    "noae_k1": (4.53, 1.66, 0.38),
}


def run() -> Iterator[Row]:
    """The cases of the reference, at its own weights of the loss."""
    proto = reference.model("mnist_cnn_proto")
    for name, k, gamma in (
        ("ae_enc", None, 100.0),
        ("k1", 1, 100.0),
        ("k20", 20, 100.0),
        ("noae_k1", 1, 0.0),
    ):
        spec = CounterfactualProto(gamma=gamma, theta=100, k=k)
        explain = prepare(dataclasses.replace(_fitted(), spec=spec), proto)
        yield from _measure("prototype", name, f"proto_white_mnist/{name}", explain, PROXY[name])
    alone = CounterfactualProto(gamma=100, theta=100, k=1, c_init=0, c_steps=1)
    explain = prepare(dataclasses.replace(_fitted(), spec=alone), CallablePredictor(lambda x: proto(x)))
    yield from _measure("prototype", "callable", "proto_blackbox_nopred_mnist/all", explain, PROXY["k1"])
    for mode, space in (("PN", "absolute"), ("PP", "absolute"), ("PP", "difference")):
        contrast = CEM(mode=mode, pp_space=space, gamma=100, no_info_val=-1.0)
        fitted = fit(contrast, _train()[:1000], inputs=CONTRACT, autoencoder=_keras("mnist_ae_cem"))
        explain = prepare(fitted, reference.model("mnist_cnn_cem"))
        case = mode if mode == "PN" else f"PP {space}"
        yield from _measure("cem", case, f"cem_mnist/{mode}", explain)


@cache
def _fitted() -> Fitted:
    spec = CounterfactualProto(gamma=100, theta=100)
    networks = {"autoencoder": _keras("mnist_ae"), "encoder": _keras("mnist_enc")}
    return fit(spec, _train(), predictor=reference.model("mnist_cnn_proto"), inputs=CONTRACT, **networks)


@cache
def _train() -> np.ndarray:
    return data.load("mnist", root=reference.MNIST).x_train


@cache
def _keras(name: str) -> Any:
    return keras.saving.load_model(reference.path(name), compile=False)


def _measure(
    suite: str, case: str, known: str, explain: Prepared, proxy: tuple[float, float, float] | None = None
) -> Iterator[Row]:
    images, recorded = reference.images("mnist"), reference.case(known)["images"]
    cpu, answers = [], []
    for image in recorded:
        with timed() as clock:
            answers.append(explain(images[image["i"]][None], limits=LIMITS))
        cpu.append(clock.cpu)
    explain(images[:BATCH], limits=LIMITS)
    with timed() as clock:
        batch = explain(images[:BATCH], limits=LIMITS)

    def column(name: str) -> np.ndarray:
        return np.concatenate([answer[name] for answer in answers])

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row(suite, case, metric, value, unit, known, better)  # type: ignore[arg-type]

    found = column("found")
    theirs = [0.1 * image["l1"] + image["l2"] ** 2 for image in recorded if image["valid"]]
    kind = "pertinent" if suite == "cem" else "counterfactual"
    second = reference.model("mnist_cnn")(column(kind)).argmax(axis=1) == column(f"{kind}_class")
    error, attraction, agreement = proxy or (None, None, None)

    yield said("valid", found.mean(), "share", np.mean([image["valid"] for image in recorded]), "more")
    yield said("elastic net, median", np.median(column("elastic_net")[found]), "", float(np.median(theirs)))
    yield said("autoencoder error, median", np.median(column("autoencoder_error")[found]), "", error)
    if suite == "prototype":
        yield said(
            "prototype distance, median", np.median(column("prototype_distance")[found]), "", attraction
        )
    else:
        own = np.take_along_axis(column("pertinent_proba"), column("pertinent_class")[:, None], axis=1)
        yield said("probability of its class, least", own[found].min(), "share")
    yield said("agreement of a second network", second[found].mean(), "share", agreement, "more")
    yield said("cpu, 1 image", np.median(cpu), "s", float(np.median([i["cpu_secs"] for i in recorded])))
    yield said(
        f"cpu, batch of {BATCH}",
        clock.cpu / BATCH,
        "s an image",
        float(np.median([i["cpu_secs"] for i in recorded])),
    )
    yield said(f"valid, batch of {BATCH}", batch["found"].mean(), "share", 1.0, "more")
