"""Settings of attributions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.methods.segmentation import Inpainted
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class

BY_GRADIENTS = ("integrated_gradients", "smooth_grad", "grad_cam")
"""Algorithms that need the model in this process."""


class Attribution(Inpainted):
    """How much each part of an image matters for a score: by hiding superpixels, or by gradients."""

    kind: Literal["attribution"] = "attribution"
    fitless = True
    algorithm: Literal["shap", "rise", "hsic", "integrated_gradients", "smooth_grad", "grad_cam"] = "shap"
    """From rows alone, of superpixels: Shapley values (`shap`, Lundberg, Lee, arXiv:1705.07874), mean scores
    under random masks (`rise`, arXiv:1806.07421), dependence on them (`hsic`, arXiv:2206.06219). With the
    model in this process, of pixels: `integrated_gradients` (arXiv:1703.01365), `smooth_grad`
    (arXiv:1706.03825), `grad_cam` (arXiv:1610.02391)."""
    target_class: Requestable[Literal["predicted"] | Class] = "predicted"
    """The class whose score is shared out: the one that the model gives, or a number or name."""
    output: Requestable[Literal["proba", "log_odds"]] = "proba"
    """What is shared out: the probability of the class, or its log-odds, which do not saturate."""
    n_samples: Requestable[Annotated[int, Field(ge=2, le=20_000)] | None] = None
    """Pictures that the model is asked about, besides the image itself and the one with everything hidden.
    None is 200 for `shap`, or 5 for each superpixel where that is more, and exact where there are no more
    sets; 400, or 10 for each, for `rise` and `hsic`; 50 noisy copies for `smooth_grad`."""
    n_steps: Requestable[Annotated[int, Field(ge=1, le=10_000)]] = 50
    """Gradients on the way from everything hidden to the image (`integrated_gradients`)."""
    stdev: Requestable[Annotated[float, Field(gt=0, le=1)]] = 0.15
    """Standard deviation of the noise, in ranges of a feature (`smooth_grad`)."""
    layer: str | None = None
    """The layer whose feature maps are looked at (`grad_cam`); None is the last convolution."""

    @property
    def slopes(self) -> str | None:
        """See `Spec`."""
        return "exact" if self.algorithm in BY_GRADIENTS else None


Settings = Attribution
