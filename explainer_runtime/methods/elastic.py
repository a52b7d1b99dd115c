"""What prototype counterfactuals and contrastive explanations have in common: the elastic net and its
penalties.

    beta * ||change||_1 + ||change||^2 + rho * (gamma * ||AE error||^2 + theta * ||to prototype||^2)

`rho` says how much the penalties count; 1 is the loss as the papers write it, at whose weights an answer is
pulled far beyond the border.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from explainer_runtime.explanation import Fields
from explainer_runtime.methods.common import EFFORTS, Outcome
from explainer_runtime.methods.ground import Ground
from explainer_runtime.methods.settings import ElasticNet
from explainer_runtime.search import fista
from explainer_runtime.search.asks import Search
from explainer_runtime.search.criterion import Criterion
from explainer_runtime.search.lanes import Effort
from explainer_runtime.search.least_change import Problem, Space
from explainer_runtime.search.networks import Penalty

NET_FIELDS: Fields = {"elastic_net": ("FP32", ()), "c": ("FP32", ())}
"""What `net_fields` makes."""


def problem(
    spec: ElasticNet,
    ground: Ground,
    space: Space,
    asked: Criterion,
    start: np.ndarray | float = 0.0,
    *,
    sharp: float = 1.0,
    theta: np.ndarray | None = None,
    target: np.ndarray | None = None,
) -> Problem:
    """What is sought in `space`, with the weights of `spec`, from the point of it next to `start`; `sharp` is
    how many times more the L1 distance counts on the way."""
    low, high = space.bounds()
    count = len(low)
    networks = ground.plausible()
    if spec.schedule == "reference":
        networks, sharp = networks._replace(unit=1.0), 1.0
    penalty = Penalty(
        networks,
        np.full(count, spec.gamma if networks.autoencoder is not None else 0, np.float32),
        np.zeros(count, np.float32) if theta is None else theta,
        target,
    )
    return Problem(
        space, low, high, np.clip(np.full_like(low, start), low, high), asked,
        np.full(count, spec.beta * sharp, np.float32), np.ones(count, np.float32),
        None if penalty.empty else penalty, penalty.bend(_bend(ground)),
    )  # fmt: skip


def _bend(ground: Ground) -> np.ndarray:
    """What was measured at fit; 0.1.0 measured it for each input unit."""
    if "curvature" in ground.arrays:
        return np.asarray(ground.arrays["curvature"] * [1, ground.unit**2], np.float32)
    return np.asarray(ground.arrays.get("bend", np.ones(2)), np.float32)


def effort(spec: ElasticNet, rho: float) -> Effort:
    """How much is done; `rho` is the method's own where the spec says nothing."""
    chosen = EFFORTS[spec.effort]
    if spec.schedule == "reference":
        return chosen._replace(pace=chosen.pace._replace(rho=0.0))
    return chosen._replace(pace=chosen.pace._replace(rho=rho if spec.rho is None else spec.rho), race=())


def schedule(spec: ElasticNet, sought: Problem) -> partial[Search[None]] | None:
    """The schedule that people know, where it is asked for."""
    if spec.schedule != "reference":
        return None
    settings = fista.Fista(**{name: getattr(spec, name) for name in fista.Fista._fields})

    return partial(fista.bisect, sought, settings)


def net_fields(
    spec: ElasticNet, outcome: Outcome, change: np.ndarray, ground: Ground
) -> dict[str, np.ndarray]:
    """The elastic net of a change, in ranges of a feature, and the weight of the prediction loss that led
    there."""
    flat = (change / np.float32(ground.unit)).reshape(len(change), -1).astype(np.float64)
    net = spec.beta * np.abs(flat).sum(axis=1) + (flat**2).sum(axis=1)
    return {"elastic_net": net.astype(np.float32), "c": outcome.mu}
