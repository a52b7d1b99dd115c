"""Prototype counterfactuals and contrastive explanations on the reference's networks.

The record has distances and processor time. Autoencoder errors, prototype distances and second opinions it
has not; those in `KNOWN` are of our own `reference` schedule, which is its steady state (ISTA without
momentum), gives its elastic nets row by row to within a few per cent, and its prototypes. Settings were
found on the images of the record and their neighbours. Twenty images on which nothing was compared are
measured as well.
`python -m benchmarks.elastic` measures `KNOWN` anew, in some minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks import reference
from benchmarks.counterfactual import BATCH, CONTRACT, LIMITS
from benchmarks.table import Row, row, timed
from explainer_runtime import (
    CEM,
    CallablePredictor,
    Counterfactual,
    CounterfactualProto,
    Explanation,
    data,
    fit,
    prepare,
)
from explainer_runtime.artifact import Fitted
from explainer_runtime.explainers import Prepared

OTHERS = np.arange(100, 120)
"""Test images on which the reference was measured as well."""
HELD_OUT = np.arange(120, 180)
"""Test images that no setting was chosen by."""


class Known(NamedTuple):
    """Medians over what was found: of the loss's terms; how often a second network agrees; what was missed.

    Answers to the images that the reference missed are left out of our medians, too: they are the hard ones.
    """

    valid: float
    net: float
    error: float
    attraction: float | None
    agreement: float
    missed: tuple[int, ...] = ()


KNOWN = {  # case: on the images of the record, on the others
    "ae_enc": (Known(1.0, 18.29, 4.47, 5.01, 0.30), Known(1.0, 17.16, 4.09, 4.11, 0.35)),
    "k1": (Known(0.9, 10.70, 0.81, 1.89, 0.22, (16,)), Known(0.85, 10.65, 0.93, 2.01, 0.35, (102, 104, 111))),
    "k20": (Known(1.0, 7.03, 1.27, 1.61, 0.30), Known(0.95, 10.56, 1.73, 1.46, 0.47, (104,))),
    "noae_k1": (
        Known(0.8, 10.17, 4.53, 1.74, 0.38, (2, 16)),
        Known(0.75, 9.92, 3.45, 1.66, 0.47, (100, 102, 104, 111, 114)),
    ),
    "callable": (
        Known(0.8, 13.40, 1.23, 1.79, 0.50, (2, 16)),
        Known(0.7, 11.86, 0.91, 2.19, 0.50, (102, 104, 107, 108, 111, 114)),
    ),
    "PN absolute": (Known(1.0, 8.01, 2.28, None, 0.30), Known(1.0, 15.92, 2.92, None, 0.35)),
    "PP difference": (Known(1.0, 0.202, 16.21, None, 0.80), Known(1.0, 0.5321, 16.3, None, 0.70)),
}
_RECORDED = {
    "callable": "proto_blackbox_nopred_mnist/all",
    "PN absolute": "cem_mnist/PN",
    "PP absolute": "cem_mnist/PP",
    "PP difference": "cem_mnist/PP",
}


def run() -> Iterator[Row]:
    """The cases of the reference, at its own weights of the loss."""
    for case, explain in _cases("fast"):
        yield from _measure(case, explain)


def fitted() -> Fitted:
    """The autoencoder, the encoder and the codes of all training rows."""
    return _fitted()


def contrast(mode: Any, space: Any, schedule: Any = "fast") -> Prepared:
    """A CEM of this mode, PP shown in this space."""
    spec = CEM(mode=mode, pp_space=space, gamma=100, no_info_val=-1.0, schedule=schedule)
    made = fit(spec, _train()[:1000], inputs=CONTRACT, autoencoder=_keras("mnist_ae_cem"))
    return prepare(made, reference.model("mnist_cnn_cem"))


def _cases(schedule: Any) -> Iterator[tuple[str, Prepared]]:
    proto = reference.model("mnist_cnn_proto")
    for name, k, gamma in (("ae_enc", None, 100), ("k1", 1, 100), ("k20", 20, 100), ("noae_k1", 1, 0)):
        spec = CounterfactualProto(gamma=gamma, theta=100, k=k, schedule=schedule)
        yield name, prepare(dataclasses.replace(_fitted(), spec=spec), proto)
    black = CallablePredictor(lambda x: proto(x))
    alone = CounterfactualProto(gamma=100, theta=100, k=1, c_init=0, c_steps=1, schedule=schedule)
    taught = fit(Counterfactual(gradient="surrogate"), _train()[:8500], predictor=black, inputs=CONTRACT)
    arrays = {**_fitted().arrays, **taught.arrays}
    yield "callable", prepare(dataclasses.replace(_fitted(), spec=alone, arrays=arrays), black)
    for mode, space in (("PN", "absolute"), ("PP", "absolute"), ("PP", "difference")):
        yield f"{mode} {space}", contrast(mode, space, schedule)


@cache
def _fitted() -> Fitted:
    spec = CounterfactualProto(gamma=100, theta=100, coreset=None)  # all rows, as the record's
    networks = {"autoencoder": _keras("mnist_ae"), "encoder": _keras("mnist_enc")}
    return fit(spec, _train(), predictor=reference.model("mnist_cnn_proto"), inputs=CONTRACT, **networks)


@cache
def _train() -> np.ndarray:
    return data.load("mnist", root=reference.MNIST).x_train


@cache
def _keras(name: str) -> Any:
    return keras.saving.load_model(reference.path(name), compile=False)


def _measure(case: str, explain: Prepared) -> Iterator[Row]:
    images = reference.images("mnist")
    recorded = reference.case(_RECORDED.get(case, f"proto_white_mnist/{case}"))["images"]
    chosen = [image["i"] for image in recorded]
    known, others = KNOWN.get(case, (None, None))
    theirs = [0.1 * image["l1"] + image["l2"] ** 2 for image in recorded if image["valid"]]
    their_cpu = float(np.median([image["cpu_secs"] for image in recorded]))
    suite = "cem" if explain.fitted.spec.kind == "cem" else "prototype"

    def said(metric: str, value: float, unit: str, known: float | None = None, better: str = "less") -> Row:
        return row(suite, case, metric, value, unit, known, better)  # type: ignore[arg-type]

    cpu, answers = [], []
    for index in chosen:
        with timed() as clock:
            answers.append(explain(images[index][None], limits=LIMITS))
        cpu.append(clock.cpu)
    joined = {name: np.concatenate([one[name] for one in answers]) for name in answers[0].arrays}
    explain(images[:BATCH], limits=LIMITS)
    with timed() as clock:
        batch = explain(images[:BATCH], limits=LIMITS)

    yield said("valid", joined["found"].mean(), "share", np.mean([i["valid"] for i in recorded]), "more")
    missed = [image["i"] for image in recorded if not image["valid"]]
    net = np.median(joined["elastic_net"][~np.isin(chosen, missed)])
    yield said("elastic net, median", net, "", float(np.median(theirs)))
    for metric, value, kept, better in _plausibility(_shared(joined, chosen, known), known):
        yield said(metric, value, "", kept, better)
    for name, value in _interpretability(images[chosen], joined).items():
        yield said(f"{name}, median", value, "")
    yield said("cpu, 1 image", np.median(cpu), "s", their_cpu)
    yield said(f"cpu, batch of {BATCH}", clock.cpu / BATCH, "s an image", their_cpu)
    yield said(f"valid, batch of {BATCH}", batch["found"].mean(), "share", 1.0, "more")
    yield said(f"model calls, batch of {BATCH}", batch.cost.calls, "calls")
    yield said(f"model rows, batch of {BATCH}", batch.cost.rows / BATCH, "rows an image")
    if case == "PP absolute":
        return
    same = explain(images[:4], limits=LIMITS).to_json() == explain(images[:4], limits=LIMITS).to_json()
    yield said("the same request gives the same bytes", float(same), "share", 1.0, "more")

    answer = explain(images[OTHERS], limits=LIMITS)
    assert others is not None
    yield said("other images: valid", answer["found"].mean(), "share", others.valid, "more")
    shared = _shared(answer.arrays, OTHERS, others)
    net = np.median(shared["elastic_net"][shared["found"]])
    yield said("other images: elastic net, median", net, "", others.net)
    for metric, value, kept, better in _plausibility(shared, others):
        yield said(f"other images: {metric}", value, "", kept, better)

    answer = explain(images[HELD_OUT], limits=LIMITS)
    yield said("held out: valid", answer["found"].mean(), "share", 1.0, "more")
    net = np.median(answer["elastic_net"][answer["found"]])
    yield said("held out: elastic net, median", net, "")
    for metric, value, _, _ in _plausibility(answer.arrays, None):
        yield said(f"held out: {metric}", value, "")


def _shared(answer: Any, images: Any, known: Known | None) -> dict[str, np.ndarray]:
    """The rows of an answer whose images the reference did not miss."""
    kept = ~np.isin(images, known.missed if known else ())
    return {name: rows[kept] for name, rows in answer.items()}


def _plausibility(answer: Any, known: Known | None) -> Iterator[tuple[str, float, float | None, str]]:
    """What says how convincing the answers are: name, value, the reference's value, what is better."""
    found = answer["found"]
    point = "pertinent" if "pertinent" in answer else "counterfactual"
    error, attraction, agreement = (
        (known.error, known.attraction, known.agreement) if known else (None, None, None)
    )
    yield "autoencoder error, median", np.median(answer["autoencoder_error"][found]), error, "less"
    if point == "counterfactual":
        yield "prototype distance, median", np.median(answer["prototype_distance"][found]), attraction, "less"
    else:
        own = np.take_along_axis(answer["pertinent_proba"], answer["pertinent_class"][:, None], axis=1)
        yield "probability of its class, least", own[found].min(), None, "more"
    yield "agreement of a second network", _agreement(answer, point), agreement, "more"


def _agreement(answer: Any, point: str) -> float:
    """How often a network that was trained on its own gives the new class as well."""
    said = reference.model("mnist_cnn")(answer[point]).argmax(axis=1)
    return float((said == answer[f"{point}_class"])[answer["found"]].mean())


def _interpretability(x: np.ndarray, answer: Any) -> dict[str, float]:
    """IM1 and IM2 of arXiv:1907.02584, section 4: how much nearer a flip is to its new class's data.

    None for a class that stays.
    """
    point = "pertinent" if "pertinent" in answer else "counterfactual"
    flipped = answer["found"] & (answer[f"{point}_class"] != answer["original_class"])
    im1, im2 = [], []
    for i in np.flatnonzero(flipped):
        changed = answer[point][i : i + 1]
        new, old = (
            np.asarray(_keras(f"mnist_ae_class{answer[field][i]}")(changed, training=False))
            for field in (f"{point}_class", "original_class")
        )
        both = np.asarray(_keras("mnist_ae")(changed, training=False))
        im1.append(((changed - new) ** 2).sum() / (((changed - old) ** 2).sum() + 1e-12))
        im2.append(((new - both) ** 2).sum() / (np.abs(changed).sum() + 1e-12))
    return {"IM1": float(np.median(im1)), "IM2": float(np.median(im2))} if im1 else {}


def _known_anew() -> None:
    """Print what `KNOWN` holds, measured now."""
    images = reference.images("mnist")
    for case, explain in _cases("reference"):
        for chosen in (np.arange(0, 20, 2), OTHERS):
            answer: Explanation = explain(images[chosen], limits=LIMITS)
            net = np.median(answer["elastic_net"][answer["found"]])
            rest = [f"{name} {value:.3g}" for name, value, _, _ in _plausibility(answer.arrays, None)]
            rest.append(f"missed {chosen[~answer['found']].tolist()}")
            print(case, f"valid {answer['found'].mean():.2f}", f"net {net:.4g}", *rest, sep=", ", flush=True)


if __name__ == "__main__":
    _known_anew()
