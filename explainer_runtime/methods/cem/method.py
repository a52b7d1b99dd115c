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

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import Explanation, Fields
from explainer_runtime.fitted import Fitted, check_arrays
from explainer_runtime.methods import teaching
from explainer_runtime.methods.cem.drawing import draw
from explainer_runtime.methods.cem.settings import CEM
from explainer_runtime.methods.common import Plan, changed, changed_fields, check_changed, explanation, run
from explainer_runtime.methods.elastic import NET_FIELDS, effort, net_fields, problem, schedule
from explainer_runtime.methods.ground import Given, Ground, broadcast
from explainer_runtime.search.asks import Search
from explainer_runtime.search.criterion import criterion, one_hot
from explainer_runtime.search.networks import curvature

_RHO = {
    ("PN", "absolute"): (0.04, 1.0),
    ("PN", "difference"): (0.04, 1.0),
    ("PP", "absolute"): (0.02, 3.0),
    ("PP", "difference"): (0.01, 2.0),
}
"""How much the autoencoder's error counts where the spec says nothing, and how many times more the L1
distance."""
_PROBES = 32
"""Training rows at which the curvature of the autoencoder is measured."""
_SURE = 0.5
"""Least probability of the class for a pertinent positive shown as an image of its own, where the row has as
much."""

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "search"]

NETWORKS = ("autoencoder", "encoder")


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    check_changed(fitted, asked)
    check_arrays(fitted, {"no_info": ("f", fitted.inputs.shape)})


def fit(given: Given) -> dict[str, np.ndarray]:
    """What an explainer keeps of its training rows `(M, *S)`.

    Returns:
        `no_info` `(*S)`, float32: `no_info_val`, or the median or mean of each feature; `bend` `(2,)`; and a
        surrogate, where the model is a black box.
    """
    spec, x = given.spec, given.rows()
    if spec.no_info_val is not None:
        no_info = broadcast(spec.no_info_val, given.inputs, "no_info_val")
    elif x is not None:
        no_info = (np.median if spec.no_info_type == "median" else np.mean)(x, axis=0)
    else:
        raise InvalidSpec("no_info_val: give it, or training rows `x` at fit to take it from")
    fitted = teaching.fit(given)
    fitted["no_info"] = np.ascontiguousarray(no_info, np.float32)
    if given.networks.autoencoder is not None:
        probes = fitted["no_info"][None] if x is None else x[:: max(1, len(x) // _PROBES)][:_PROBES]
        fitted["bend"] = curvature(given.networks, probes)
    return fitted


def search(x: np.ndarray, spec: CEM, ground: Ground) -> Search[Explanation]:
    """The search for a pertinent negative or positive of each row.

    See `Method`.

    Returns:
        An explanation with `pertinent` `(N, *S)`: the row with the addition (PN), or what was kept (PP), as
        the model was shown it. `found` is true where the model, asked last, gave it another class (PN) or the
        same (PP). Elsewhere it is the row itself. What is measured is the addition, or the part that was
        kept.
    """
    low, high = ground.bounds(spec, x)
    place = _place(x, spec, np.broadcast_to(ground.arrays["no_info"], x.shape), low, high)
    outcome = yield from run(x, ground, partial(_plan, spec, ground, place), keep=spec.keep_path)
    change = np.where(_per(outcome.found, x), outcome.x - place.origin, 0)
    fields = changed(outcome, outcome.x - change, ground, "pertinent")
    return explanation("cem", fields | net_fields(spec, outcome, change, ground), x, outcome, lambda mu: mu)


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    return changed_fields(fitted, "pertinent") | NET_FIELDS


class _Place(NamedTuple):
    """Where to search: from an origin, in a box, beginning at `start`."""

    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray
    start: np.ndarray


def _place(x: np.ndarray, spec: CEM, no_info: np.ndarray, low: np.ndarray, high: np.ndarray) -> _Place:
    inside = np.clip(x, low, high)
    if spec.mode == "PN":
        # Away from no_info: |v - no_info| >= |x - no_info|, on the side of x.
        least, most = np.where(x > no_info, inside, low), np.where(x < no_info, inside, high)
        return _Place(x, least, most, inside)
    if spec.pp_space == "absolute":
        # Between no_info and x. What lies outside the bounds cannot be shown: its nearest bound can.
        empty = np.clip(no_info, low, high)
        return _Place(empty, np.minimum(empty, inside), np.maximum(empty, inside), inside)
    # x - v is shown, for v no farther from no_info than x is, and inside the bounds.
    far = x - np.clip(2 * no_info - x, low, high)
    return _Place(np.zeros_like(x), np.minimum(far, 0), np.maximum(far, 0), far)


def _plan(spec: CEM, ground: Ground, place: _Place, scores: np.ndarray) -> Plan:
    own = one_hot(scores.argmax(axis=1), scores.shape[1])
    rho, sharp = _RHO[spec.mode, spec.pp_space]
    reference = spec.schedule == "reference"
    if spec.mode == "PN":
        asked = criterion(
            ~own, lead=1.0 if reference else spec.lead, kappa=spec.kappa, exclusive=ground.exclusive
        )
    else:
        sure = np.zeros(len(own))
        if spec.pp_space == "absolute":  # no more than the whole row has
            sure = np.minimum(_SURE, np.exp(scores.max(axis=1)) * (1 - 1e-3))
        asked = criterion(own, level=sure, least=sure, kappa=spec.kappa, exclusive=ground.exclusive)
    space, everyone = ground.space(spec, place.origin, place.low, place.high), np.arange(len(own))
    sought = problem(spec, ground, space, asked, space.toward(place.start, everyone), sharp=sharp)
    return Plan(sought, everyone, effort(spec, rho), schedule(spec, sought))


def _per(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (like.ndim - 1))
