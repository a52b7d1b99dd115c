"""What the demo asks of each image, and the explainers that it fits to answer."""

from __future__ import annotations

from dataclasses import dataclass

from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.attribution.settings import Attribution
from explainer_runtime.methods.cem.settings import CEM
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.methods.neighbours.settings import Neighbours
from explainer_runtime.methods.prototype.settings import CounterfactualProto
from explainer_runtime.methods.region.settings import Region
from explainer_runtime.methods.segmentation import Grid
from explainer_runtime.spec import Spec

BLACK = -0.5
"""The value that shows nothing: the images stand on it."""
_TILES = Grid(rows=4, columns=7)
CF, ANCHOR = "fashion-cf", "fashion-anchor"
SPECS: dict[str, Spec] = {
    CF: Counterfactual(),
    "fashion-proto": CounterfactualProto(theta=10, k=5),
    "fashion-negative": CEM(no_info_val=BLACK),
    "fashion-positive": CEM(no_info_val=BLACK, mode="PP"),
    # Masked tiles show the mean grey of the image. Each with its own mean, most images would be recognised
    # with everything masked, and an empty anchor would be the answer.
    ANCHOR: AnchorImage(segmentation=_TILES, fill="image_mean", p_sample=0.8),
    "fashion-region": Region(segmentation=_TILES),
    "fashion-attribution": Attribution(segmentation=_TILES, n_samples=600),
    "fashion-neighbours": Neighbours(),
}
"""Explainers by the name under which they are saved and served."""


@dataclass(frozen=True)
class Question:
    """One thing to ask of an image.

    Attributes:
        name: What answers, and where its network is.
        asked: The question, as people would put it.
        explainer: Which of `SPECS` answers it.
        beside: Whether it runs in the network's own process and follows its gradients, or in one of its own
            and sees nothing but answers.
        least: How many answers of eight must be found, and hold.
    """

    name: str
    asked: str
    explainer: str
    beside: bool = False
    least: int = 8


NEAREST = Question(
    "counterfactual, network in process", "What would have to be different?", CF, beside=True, least=7
)
ENOUGH = Question("anchor, network behind gRPC", "Which part holds the answer in place?", ANCHOR)
QUESTIONS = (
    NEAREST,
    Question(
        "counterfactual, network behind gRPC", "The same, asked from outside: what is different?", CF, least=7
    ),
    Question(
        "counterfactual by prototypes",
        "And if it had to be like known images of that class?",
        "fashion-proto",
        beside=True,
        least=7,
    ),
    Question("pertinent negative", "What must stay absent?", "fashion-negative", beside=True, least=7),
    Question("pertinent positive", "Which part alone is enough?", "fashion-positive", beside=True, least=7),
    ENOUGH,
    Question("region", "Which parts must be hidden for another answer?", "fashion-region", least=6),
    Question("attribution", "How much does each part matter?", "fashion-attribution"),
    Question("neighbours", "Which known images are most like it?", "fashion-neighbours"),
)
