"""Settings of attributions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.methods.segmentation import Inpainted
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class


class Attribution(Inpainted):
    """What each superpixel adds to a score: Shapley values (kernel SHAP, Lundberg, Lee, arXiv:1705.07874)."""

    kind: Literal["attribution"] = "attribution"
    fitless = True
    target_class: Requestable[Literal["predicted"] | Class] = "predicted"
    """The class whose score is shared out: the one that the model gives, or a number or name."""
    output: Requestable[Literal["proba", "log_odds"]] = "proba"
    """What is shared out: the probability of the class, or its log-odds, which do not saturate."""
    n_samples: Requestable[Annotated[int, Field(ge=2, le=20_000)] | None] = None
    """Pictures that the model is asked about, besides the image itself and the one with everything hidden.
    With as many as there are sets the values are exact; None is 200, or 5 for each superpixel where that is
    more."""


Settings = Attribution
