"""Settings of anchors, and of the superpixels that an image is cut into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Level, Probability, Retired, Seed, Spec, Value


class Grid(Value):
    """Superpixels that are the cells of a rectangular grid."""

    kind: Literal["grid"] = "grid"
    rows: PositiveInt = 4
    columns: PositiveInt = 7


class Slic(Value):
    """Superpixels by k-means in colour and space (Achanta et al. 2012), as scikit-image does it."""

    kind: Literal["slic"] = "slic"
    n_segments: PositiveInt = 10
    compactness: PositiveFloat = 10.0
    sigma: Annotated[float, Field(ge=0)] = 0.5
    start_label: Literal[0, 1] = 0
    """Accepted for familiarity; segments are always numbered from 0."""


class Felzenszwalb(Value):
    """Superpixels by graph merging (Felzenszwalb, Huttenlocher 2004), as scikit-image does it."""

    kind: Literal["felzenszwalb"] = "felzenszwalb"
    scale: PositiveFloat = 1.0
    sigma: Annotated[float, Field(ge=0)] = 0.8
    min_size: PositiveInt = 20


class Quickshift(Value):
    """Superpixels by mode seeking (Vedaldi, Soatto 2008), as scikit-image does it."""

    kind: Literal["quickshift"] = "quickshift"
    kernel_size: PositiveFloat = 5.0
    max_dist: PositiveFloat = 10.0
    ratio: Probability = 1.0


Segmentation = Annotated[Grid | Slic | Felzenszwalb | Quickshift, Field(discriminator="kind")]


class AnchorImage(Spec):
    """The superpixels that hold the answer in place whatever the others show (Ribeiro et al., AAAI 2018)."""

    kind: Literal["anchor_image"] = "anchor_image"
    called = ("anchorimages",)
    fitless = True
    segmentation: Segmentation = Slic()
    """How an image is cut into superpixels; a name alone (`"slic"`) takes that one's defaults."""
    fill: Literal["mean", "image_mean", "constant", "blur", "background"] = "image_mean"
    """What a masked superpixel shows: its own mean, the image's mean, `fill_value`, a blurred copy, or
    the same pixels of a random image among those that `fit` was given (`background`, or its rows). A fill
    that still shows the class gives empty anchors; its own mean does so on most images of one object."""
    fill_value: float = 0.0
    """Value of masked pixels when `fill='constant'`, in input units."""
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
    n_covered_ex: Requestable[Annotated[int, Field(ge=0, le=1000)]] = 10
    """Most example images of each outcome kept in `raw`."""
    seed: Requestable[Seed] = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    retired: ClassVar[Mapping[str, Retired]] = {  # to be refused from 0.3.0
        "coverage_samples": Retired("coverage is exact", option=True),
        "tau": Retired(
            "how finely candidates are told apart follows from `threshold` and `delta`", option=True
        ),
    }

    @field_validator("segmentation", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


Settings = AnchorImage
