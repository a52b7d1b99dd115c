"""One served explainer, asked about all images over both transports, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explainer_runtime.artifact import Fitted
from explainer_runtime.demo import checks
from explainer_runtime.demo.asking import ask_grpc, ask_rest, differences
from explainer_runtime.demo.servers import Server
from explainer_runtime.explanation import Explanation
from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.predictors import Predictor

COUNTERFACTUALS = 7
"""Least counterfactuals, of eight, that must be valid on the served network."""
PRECISION = 0.94
"""Least precision of every anchor on fresh samples; 0.95 is what the search aims for."""


@dataclass(frozen=True)
class Road:
    """One served explainer and what it said.

    Attributes:
        name: What it is, and where its network is.
        explanation: Its answer over REST.
        seconds_rest: What the request took over REST.
        seconds_grpc: The same over gRPC.
        differing: Fields in which the two answers differ.
        valid: Whether each answer was found and holds `(N,)`.
        precision: Of anchors, the precision on fresh samples `(N,)`; else None.
    """

    name: str
    explanation: Explanation
    seconds_rest: float
    seconds_grpc: float
    differing: tuple[str, ...]
    valid: np.ndarray
    precision: np.ndarray | None = None

    @property
    def found(self) -> np.ndarray:
        """Whether there is an answer for each image `(N,)`."""
        return self.explanation["found"]

    @property
    def l1(self) -> float | None:
        """Median L1 distance of what was found; None for anchors, or if nothing was."""
        if "distance_l1" not in self.explanation.arrays or not self.found.any():
            return None
        return float(np.median(self.explanation["distance_l1"][self.found]))


def travel(
    name: str,
    server: Server,
    explainer: str,
    fitted: Fitted,
    x: np.ndarray,
    served: Predictor,
    model: Predictor,
) -> Road:
    """Ask `explainer` on `server` about all rows of `x`, and check what it says.

    Args:
        name: What to call it.
        server: Where it is served.
        explainer: Under which name.
        fitted: What is served.
        x: The images.
        served: The served network.
        model: The same network in this process.
    """
    rest, rpc = ask_rest(server, explainer, x), ask_grpc(server, explainer, x)
    valid, precision = _check(rest.explanation, x, fitted, served, model)
    return Road(
        name=name,
        explanation=rest.explanation,
        seconds_rest=rest.seconds,
        seconds_grpc=rpc.seconds,
        differing=tuple(differences(rest.explanation, rpc.explanation)),
        valid=valid,
        precision=precision,
    )


def failures(roads: Sequence[Road]) -> Iterator[str]:
    """What did not hold, one line each."""
    for road in roads:
        if road.differing:
            yield f"{road.name}: REST and gRPC differ in {', '.join(road.differing)}"
        broken = road.found & ~road.valid
        if broken.any():
            yield f"{road.name}: {broken.sum()} of {road.found.sum()} found do not hold when asked again"
        least = COUNTERFACTUALS if road.precision is None else len(road.valid)
        if road.valid.sum() < least:
            yield f"{road.name}: {road.valid.sum()} of {len(road.valid)} hold, expected at least {least}"


def _check(
    explanation: Explanation, x: np.ndarray, fitted: Fitted, served: Predictor, model: Predictor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Whether each answer holds `(N,)`, and the precision of anchors on fresh samples `(N,)`."""
    match fitted.spec:
        case Counterfactual():
            return checks.valid_counterfactuals(explanation, served, fitted.spec, fitted.inputs), None
        case AnchorImage():
            # 80,000 images: asked of the same network in this process, after a look that it is the same.
            same = np.abs(served(x) - model(x)).max(axis=1) < 1e-4  # float32, another batch size
            precision = checks.anchor_precision(explanation, x, model, fitted.spec)
            return explanation["found"] & same & (precision >= PRECISION), precision
        case _:
            raise AssertionError(f"the demo does not know how to check {fitted.spec.kind}")
