"""Contrastive explanations: what has to be absent, what suffices.

Dhurandhar et al. (arXiv:1802.07623) ask two questions of a class that a model gives. A *pertinent negative*
(PN) is the least addition that changes it: whatever is there stays or grows away from `no_info_val`, the
value of a feature that says nothing. A *pertinent positive* (PP) is the least part that keeps it: every
feature lies between `no_info_val` and its value in the row.

What is a part of an image, shown to a model? The classical answer is a difference: the row minus what was
taken away. It is zero, mid-grey, where nothing was kept, and a model that has never seen such an image gives
it some class for the least of reasons. `pp_space="absolute"` shows the background with the part kept, and
asks that the class is more likely than not; `"difference"` is the classical one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.explanation import OK, Explanation
from explainer_runtime.methods.elastic_net import answered, opened, settled
from explainer_runtime.methods.elastic_task import Pace, Task, lead
from explainer_runtime.search.asks import Search
from explainer_runtime.search.incumbents import Incumbents
from explainer_runtime.search.penalties import networks
from explainer_runtime.search.targets import one_hot
from explainer_runtime.spec import CEM

_PACE = {
    ("PN", "absolute"): Pace(push=0.5, sharp=25.0, patience=20),
    ("PN", "difference"): Pace(push=0.5, sharp=25.0, patience=20),
    ("PP", "absolute"): Pace(push=0.5, sharp=25.0, patience=20),
    ("PP", "difference"): Pace(push=10.0, sharp=300.0, patience=20),
}
_PROBES = 32
"""Training rows at which the curvature of the autoencoder is measured."""
_SURE = 0.5
"""Least probability of the class for a pertinent positive shown as an image of its own."""


def fit(x: np.ndarray | None, spec: CEM, models: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """What an explainer keeps of its training rows `(M, *S)`.

    Returns:
        `no_info` `(*S)`, float32: `no_info_val`, or the median or mean of each feature; `curvature` `(2,)`.
    """
    if spec.no_info_val is not None:
        no_info = np.broadcast_to(np.asarray(spec.no_info_val, np.float32), shape)
    else:
        assert x is not None, "checked by whoever fits"
        middle = np.median if spec.no_info_type == "median" else np.mean
        no_info = middle(x, axis=0)
    fitted = {"no_info": np.ascontiguousarray(no_info, np.float32)}
    if models.get("autoencoder") is not None:
        probes = (
            no_info[None] if x is None else x[np.linspace(0, len(x) - 1, min(len(x), _PROBES)).astype(int)]
        )
        fitted["curvature"] = networks(models["autoencoder"], None).curvature(probes)
    return fitted


def search(
    x: np.ndarray,
    spec: CEM,
    low: np.ndarray,
    high: np.ndarray,
    *,
    classes: int,
    exact: bool,
    arrays: Mapping[str, np.ndarray],
    models: Mapping[str, Any],
) -> Search[Explanation]:
    """The search for a pertinent negative or positive of each row.

    Args:
        x: Rows `(N, *S)`, float32.
        spec: Settings, with the options of the request in force.
        low, high: Bounds, float32, `(1, ...)` or `(*S)`.
        classes: How many classes the model scores.
        exact: Whether gradients of the model are exact.
        arrays, models: What was fitted.

    Returns:
        An explanation with `pertinent` `(N, *S)`: the row with the addition (PN), or what was kept (PP), as
        the model was shown it. `found` is true where the model, asked last, gave it another class (PN) or
        the same (PP). Rows without one hold the row itself, or zeros where differences are shown.
    """
    scores, status = yield from opened(x, classes)
    space = _space(x, spec, np.broadcast_to(arrays["no_info"], x.shape), low, high)
    task = _task(spec, arrays, models, space, one_hot(scores.argmax(axis=1), classes))
    held, everyone = Incumbents(space.origin, space.whole, scores), np.arange(len(x))
    if status == OK and spec.mode == "PP" and spec.pp_space == "absolute":
        seen = scores
        if (space.whole != x).any():
            seen, status = yield from opened(space.whole, classes)
        task.offer(held, everyone, space.whole, seen, 0.0)  # all of it keeps the class, of course
    if status == OK:
        status = yield from settled(task, held, everyone, exact)
    return Explanation("cem", answered("pertinent", task, held, scores, status))


class _Space(NamedTuple):
    """Where to search: from an origin, in a box; `whole` is what to hold where nothing is found."""

    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray


def _space(x: np.ndarray, spec: CEM, no_info: np.ndarray, low: np.ndarray, high: np.ndarray) -> _Space:
    inside = np.clip(x, low, high)
    if spec.mode == "PN":
        # Away from no_info: |v - no_info| >= |x - no_info|, on the side of x.
        least = np.where(x > no_info, inside, np.broadcast_to(low, x.shape))
        most = np.where(x < no_info, inside, np.broadcast_to(high, x.shape))
        return _Space(x, least, most, inside)
    if spec.pp_space == "absolute":
        # Between no_info and x. What lies outside the bounds cannot be shown: its nearest bound can.
        empty = np.clip(no_info, low, high)
        return _Space(empty, np.minimum(empty, inside), np.maximum(empty, inside), inside)
    # x - v is shown, for v no farther from no_info than x is, and inside the bounds.
    far = np.clip(2 * no_info - x, low, high)
    nothing = np.zeros_like(x)
    return _Space(nothing, np.minimum(x - far, 0), np.maximum(x - far, 0), nothing)


def _task(
    spec: CEM, arrays: Mapping[str, np.ndarray], models: Mapping[str, Any], space: _Space, own: np.ndarray
) -> Task:
    keep = spec.mode == "PP"
    return Task(
        spec,
        _PACE[spec.mode, spec.pp_space],
        origin=space.origin,
        low=space.low,
        high=space.high,
        wanted=own if keep else 1 - own,
        lead=1.0 if keep else lead(spec),
        level=_SURE if keep and spec.pp_space == "absolute" else 0.0,
        networks=networks(models.get("autoencoder"), None),
        curvature=arrays.get("curvature", np.zeros(2, np.float32)),
        theta=np.zeros(len(own), np.float32),
    )
