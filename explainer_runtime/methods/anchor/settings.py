"""Settings of anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from explainer_runtime.methods.segmentation import Superpixels
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Level, Retired


class AnchorImage(Superpixels):
    """The superpixels that hold the answer in place whatever the others show (Ribeiro et al., AAAI 2018)."""

    kind: Literal["anchor_image"] = "anchor_image"
    called = ("anchorimages",)
    fitless = True
    fill: Literal["mean", "image_mean", "constant", "blur", "background", "inpaint"] = "image_mean"
    """What a masked superpixel shows: its own mean, the image's mean, `fill_value`, a blurred copy, the same
    pixels of a random image among those that `fit` was given (`background`, or its rows), or what is around
    it (`inpaint`). A fill that still shows the class gives empty anchors; its own mean does so on most images
    of one object."""
    p_sample: Requestable[Level] = 0.5
    """Probability that a superpixel outside the anchor is masked."""
    threshold: Requestable[Level] = 0.95
    """Least precision of an anchor: how often the class stays when everything else may be masked."""
    delta: Requestable[Level] = 0.1
    """Probability that a set is taken for an anchor whose precision is below `threshold` less 0.01."""
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Least samples of one candidate each time more are drawn; 1 leaves it to what its proof takes."""
    beam_size: Requestable[Annotated[int, Field(ge=1, le=100)]] = 1
    """Candidates kept from one anchor size to the next."""
    stop_on_first: Requestable[bool] = False
    """Stop at the first anchor that is proven instead of settling whether a smaller one is."""
    max_anchor_size: Requestable[PositiveInt | None] = None
    """Most superpixels in an anchor; None is no limit."""
    min_samples_start: Annotated[int, Field(ge=1, le=100_000)] = 62
    """Least samples that start the search; two a superpixel are drawn in any case, up to 190."""
    n_covered_ex: Requestable[Annotated[int, Field(ge=0, le=1000)]] = 0
    """Most example images of each outcome shown in `raw`; they are much of an answer's size."""

    retired: ClassVar[Mapping[str, Retired]] = {  # to be refused from 0.3.0
        "coverage_samples": Retired("coverage is exact", option=True),
        "tau": Retired(
            "how finely candidates are told apart follows from `threshold` and `delta`", option=True
        ),
    }


Settings = AnchorImage
