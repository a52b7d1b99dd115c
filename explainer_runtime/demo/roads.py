"""One served explainer, asked about all images over both transports, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from explainer_runtime.demo import checks
from explainer_runtime.demo.asking import ask_grpc, ask_rest, differences
from explainer_runtime.demo.questions import Question
from explainer_runtime.demo.servers import Server
from explainer_runtime.explanation import Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.attribution.settings import Attribution
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.predictors import Predictor

PRECISION = 0.94
"""Least precision of every anchor on fresh samples; 0.95 is what the search aims for."""


@dataclass(frozen=True)
class Jury:
    """Who is asked whether an answer holds.

    Attributes:
        served: The served network.
        model: The same network in this process, for what takes many rows.
        second: Another network, trained apart.
        fills: What to show in place of hidden parts, besides what the search has shown: images
            `(B, H, W, C)`, by what they are.
    """

    served: Predictor
    model: Predictor
    second: Predictor
    fills: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Road:
    """One served explainer and what it said.

    Attributes:
        question: What it was asked.
        explanation: Its answer over REST.
        seconds_rest: What the request took over REST.
        seconds_grpc: The same over gRPC.
        differing: Fields in which the two answers differ.
        valid: Whether each answer was found and holds `(N,)`.
        precision: Of anchors, the precision on fresh samples `(N,)`; else None.
        elsewhere: The same with other fills than the search's, by what they are.
        second: The class that the second network gives each image that was made `(N,)`; None where the
            method makes none.
    """

    question: Question
    explanation: Explanation
    seconds_rest: float
    seconds_grpc: float
    differing: tuple[str, ...]
    valid: np.ndarray
    precision: np.ndarray | None = None
    elsewhere: Mapping[str, np.ndarray] = field(default_factory=dict)
    second: np.ndarray | None = None

    @property
    def name(self) -> str:
        """What it is, and where its network is."""
        return self.question.name

    @property
    def found(self) -> np.ndarray:
        """Whether there is an answer for each image `(N,)`."""
        return self.explanation["found"]

    @property
    def l1(self) -> float | None:
        """Median L1 distance of what was found; None where none is measured, or if nothing was."""
        if "distance_l1" not in self.explanation.arrays or not self.found.any():
            return None
        return float(np.median(self.explanation["distance_l1"][self.found]))

    @property
    def followed(self) -> tuple[int, int] | None:
        """How many of the answers found the second network gives the same class, and of how many."""
        made = checks.made(self.explanation)
        if made is None or self.second is None:
            return None
        return int((self.found & (self.second == made[1])).sum()), int(self.found.sum())


def travel(question: Question, server: Server, fitted: Fitted, x: np.ndarray, jury: Jury) -> Road:
    """Ask a `question` of all rows of `x`, and check what is said.

    Args:
        question: What to ask.
        server: Where its explainer is served.
        fitted: What is served.
        x: The images.
        jury: Who is asked whether it holds.
    """
    rest, rpc = (ask(server, question.explainer, x) for ask in (ask_rest, ask_grpc))
    made = checks.made(rest.explanation)
    road = Road(
        question=question,
        explanation=rest.explanation,
        seconds_rest=rest.seconds,
        seconds_grpc=rpc.seconds,
        differing=tuple(differences(rest.explanation, rpc.explanation)),
        valid=rest.explanation["found"],
        second=None if made is None else jury.second(made[0]).argmax(axis=1),
    )
    return _checked(road, fitted, x, jury)


def failures(roads: Sequence[Road]) -> Iterator[str]:
    """What did not hold, one line each."""
    for road in roads:
        if road.differing:
            yield f"{road.name}: REST and gRPC differ in {', '.join(road.differing)}"
        broken = road.found & ~road.valid
        if broken.any():
            yield f"{road.name}: {broken.sum()} of {road.found.sum()} found do not hold when asked again"
        if road.valid.sum() < (least := road.question.least):
            yield f"{road.name}: {road.valid.sum()} of {len(road.valid)} hold, expected at least {least}"


def _checked(road: Road, fitted: Fitted, x: np.ndarray, jury: Jury) -> Road:
    """The same, with whether each answer holds, and the precision of anchors on fresh samples."""
    match fitted.spec:
        case Counterfactual():
            valid = checks.valid_counterfactuals(road.explanation, jury.served, fitted.spec, fitted.inputs)
        case Attribution():
            valid = checks.added_up(road.explanation, x, jury.served)
        case AnchorImage():
            # Tens of thousands of images: asked of the network's copy here, after a look that it is the same.
            same = np.abs(jury.served(x) - jury.model(x)).max(axis=1) < 1e-4  # float32, another batch size
            precision = checks.anchor_precision(road.explanation, x, jury.model, fitted.spec)
            elsewhere = {
                name: checks.anchor_precision(
                    road.explanation, x, jury.model, fitted.spec, samples=checks.FEWER, instead=images
                )
                for name, images in jury.fills.items()
            }
            valid = road.explanation["found"] & same & (precision >= PRECISION)
            return replace(road, valid=valid, precision=precision, elsewhere=elsewhere)
        case _:
            valid = checks.confirmed(road.explanation, jury.served, fitted.inputs)
    return replace(road, valid=valid)
