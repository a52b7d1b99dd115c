"""Counterfactuals guided by prototypes: the least change, to something that looks like its new class.

Van Looveren, Klaise (arXiv:1907.02584) pull the counterfactual towards a prototype of the class that is
nearest in the space of an encoder, and keep it where an autoencoder can rebuild it. That shows the search
where to go, so it needs few steps, and can do without the gradient of the model altogether (`c_init=0`).

Fitting encodes training rows and keeps their codes by the class that the model gives them. Without an
encoder the codes are the rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from explainer_runtime.explanation import OK, Explanation
from explainer_runtime.methods.elastic_net import answered, opened, settled
from explainer_runtime.methods.elastic_task import Pace, Task, lead
from explainer_runtime.predictors import Predictor
from explainer_runtime.search import elastic
from explainer_runtime.search.asks import Search
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.penalties import Networks, networks
from explainer_runtime.search.prototypes import Codes, Prototypes, choose, collect, prototypes
from explainer_runtime.search.targets import one_hot
from explainer_runtime.spec import CounterfactualProto

_PACE = Pace(push=0.0467, sharp=25.0, patience=8, room=1.1)
_FIT_BATCH = 500
_PROBES = 32
"""Training rows at which the curvature of the networks is measured."""


def fit(
    x: np.ndarray,
    predictor: Predictor | None,
    models: Mapping[str, Any],
    classes: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, np.ndarray]:
    """What an explainer keeps of its training rows `(M, *S)`.

    Args:
        x: Training rows, float32.
        predictor: The model, which says what class each row has; None keeps no prototypes.
        models: `autoencoder` and `encoder`, where there are any.
        classes: How many classes the model scores.
        progress: Told the share that is done.

    Returns:
        `curvature` `(2,)`; with a predictor `codes` `(M, E)`, `classes` `(M,)` int64, ascending, `means`
        `(K, E)` and `norms` `(M,)`.
    """
    nets = networks(models.get("autoencoder"), models.get("encoder"))
    probes = x[np.linspace(0, len(x) - 1, min(len(x), _PROBES)).round().astype(int)]
    fitted = {"curvature": nets.curvature(probes)}
    if predictor is None:
        return fitted
    codes, given = [], []
    for start in range(0, len(x), _FIT_BATCH):
        part = x[start : start + _FIT_BATCH]
        given.append(predictor(part).argmax(axis=1))
        codes.append(nets.encode(part))
        if progress is not None:
            progress(min(1.0, (start + len(part)) / len(x)))
    return fitted | collect(np.concatenate(codes), np.concatenate(given), classes)._asdict()


def search(
    x: np.ndarray,
    spec: CounterfactualProto,
    low: np.ndarray,
    high: np.ndarray,
    *,
    classes: int,
    exact: bool,
    arrays: Mapping[str, np.ndarray],
    models: Mapping[str, Any],
) -> Search[Explanation]:
    """The search for a counterfactual of each row.

    Args:
        x: Rows `(N, *S)`, float32.
        spec: Settings, with the options of the request in force.
        low, high: Bounds, float32, `(1, ...)` or `(*S)`.
        classes: How many classes the model scores.
        exact: Whether gradients of the model are exact.
        arrays, models: What was fitted. Nothing of it is changed.

    Returns:
        An explanation with `counterfactual` `(N, *S)`, inside the bounds; `found` is true where the model,
        asked last, gave it a class that is allowed, with the lead that `kappa` asks for. Rows without one
        hold the input, moved inside the bounds.
    """
    nets = networks(models.get("autoencoder"), models.get("encoder"))
    scores, status = yield from opened(x, classes)
    held = Incumbents(x, np.clip(x, low, high), scores)
    original = scores.argmax(axis=1)
    allowed = _allowed(spec, original, classes)
    near = _near(spec, nets, arrays, x)
    chosen = np.full(len(x), -1) if near is None else choose(near.distances, allowed)
    task = _task(spec, nets, arrays, x, low, high, allowed, original, near, chosen)
    if status == OK:
        status = yield from settled(task, held, np.flatnonzero(allowed.any(axis=1)), exact)
    guide = {
        "id_proto": np.where(scores.any(axis=1), chosen, -1),
        "prototype_distance": task.attraction(held.x, np.arange(len(x))).astype(np.float32),
    }
    answer = answered("counterfactual", task, held, scores, status)
    return Explanation("counterfactual_proto", answer | guide)


def _allowed(spec: CounterfactualProto, original: np.ndarray, classes: int) -> np.ndarray:
    """The classes that the counterfactual of each row may have `(N, K)`, bool."""
    wanted = np.ones(classes, bool)
    if spec.target_class is not None:
        wanted = np.isin(np.arange(classes), spec.target_class)
    return np.asarray(wanted & (np.arange(classes) != original[:, None]))


def _near(
    spec: CounterfactualProto, nets: Networks, arrays: Mapping[str, np.ndarray], x: np.ndarray
) -> Prototypes | None:
    if "codes" not in arrays or not (spec.theta or spec.threshold):
        return None
    k = 1 if spec.k is None and nets.encoder is None else spec.k
    held = Codes(*(arrays[name] for name in Codes._fields))
    return prototypes(held, nets.encode(x), k, spec.k_type == "point")


def _task(
    spec: CounterfactualProto,
    nets: Networks,
    arrays: Mapping[str, np.ndarray],
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    allowed: np.ndarray,
    original: np.ndarray,
    near: Prototypes | None,
    chosen: np.ndarray,
) -> Task:
    rows = np.arange(len(x))
    trust = None
    if near is not None and spec.threshold:
        least = np.full(len(x), spec.threshold, np.float32)
        trust = elastic.Trust(near.codes, one_hot(original, allowed.shape[1]), least)
    return Task(
        spec,
        _PACE,
        origin=x,
        low=np.broadcast_to(low, x.shape),
        high=np.broadcast_to(high, x.shape),
        wanted=allowed.astype(np.float32),
        lead=lead(spec),
        level=0.0,
        networks=nets,
        curvature=arrays.get("curvature", np.ones(2, np.float32)),
        theta=np.where(chosen < 0, 0, spec.theta).astype(np.float32),
        target=None if near is None else near.codes[rows, chosen],
        trust=trust,
    )
