"""Settings of methods that cut an image into superpixels and hide some of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator

from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Probability, Seed, Spec, Value, plain


class Grid(Value):
    """Superpixels that are the cells of a rectangular grid."""

    kind: Literal["grid"] = "grid"
    rows: PositiveInt = 4
    columns: PositiveInt = 7


class Slic(Value):
    """Superpixels by k-means in colour and space (Achanta et al. 2012), as scikit-image does it."""

    kind: Literal["slic"] = "slic"
    n_segments: PositiveInt | None = None
    """About how many; None takes 10 of an image of 28x28 and 50 of one of 224x224."""
    compactness: PositiveFloat = 10.0
    sigma: Annotated[float, Field(ge=0)] = 0.5
    start_label: Literal[0, 1] = 0
    """Accepted for familiarity; segments are always numbered from 0."""


class Felzenszwalb(Value):
    """Superpixels by graph merging (Felzenszwalb, Huttenlocher 2004), as scikit-image does it."""

    kind: Literal["felzenszwalb"] = "felzenszwalb"
    scale: PositiveFloat | None = None
    """None is 1 for small images, 100 from 112x112 on."""
    sigma: Annotated[float, Field(ge=0)] | None = None
    """None is .8, or .5."""
    min_size: PositiveInt | None = None
    """None is 20, or 200."""


class Quickshift(Value):
    """Superpixels by mode seeking (Vedaldi, Soatto 2008), as scikit-image does it."""

    kind: Literal["quickshift"] = "quickshift"
    kernel_size: PositiveFloat | None = None
    """None is 5 for small images, 4 from 112x112 on."""
    max_dist: PositiveFloat | None = None
    """None is 10, or 200."""
    ratio: Probability | None = None
    """None is 1, or .2."""


Segmentation = Annotated[Grid | Slic | Felzenszwalb | Quickshift, Field(discriminator="kind")]
Labels = Annotated[tuple[tuple[int, ...], ...] | None, BeforeValidator(plain)]
Also = Annotated[
    tuple[Literal["anchor_image", "region", "attribution", "neighbours"], ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
]


class Superpixels(Spec):
    """What methods share that hide superpixels of an image."""

    segmentation: Segmentation = Slic()
    """How an image is cut into superpixels; a name alone (`"slic"`) takes that one's defaults, which suit the
    size of the image."""
    segments: Requestable[Labels] = None
    """A label for each pixel, lists `(H, W)` of whole numbers, in place of `segmentation`."""
    fill_value: float = 0.0
    """Value of hidden pixels when `fill='constant'`, in input units."""
    also: Requestable[Also] = ()
    """Other methods whose answers come with this one, on the same superpixels and from the same rows:
    `anchor_image`, `region`, `attribution`, in a list or alone. They have the settings here that they share,
    and their own defaults. `neighbours` goes with them where the spec says so: training rows are kept for
    that, and shown to whoever asks."""
    n_reference: Annotated[int, Field(ge=2, le=100_000)] = 200
    """Training rows at most that are kept, with the model's scores, where something needs them."""
    quality: Requestable[bool] = False
    """Whether the answer says how good it is, in `raw`, for up to 200 rows more."""
    seed: Requestable[Seed] = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    @field_validator("segmentation", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Inpainted(Superpixels):
    """The same, where what is hidden is to leave no trace."""

    fill: Literal["inpaint", "blur", "mean", "image_mean", "constant"] = "inpaint"
    """What a hidden superpixel shows: what is around it (`inpaint`), a blurred copy, its own mean, that of
    the image, or `fill_value` (`constant`)."""
