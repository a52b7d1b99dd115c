"""What is configured, and by whom: frozen values that know their own limits.

Three places, three kinds of value. A **spec** shapes the mathematics and lives in the artifact; it is one
of a closed union told apart by `kind`. **Options** are what a request may change for its own rows; each
spec says which. A **predictor address** and the **limits** belong to whoever operates the server and are
never part of a request or an artifact.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    StrictInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from explainer_runtime.complaints import expected
from explainer_runtime.errors import InvalidOption, InvalidSpec

Probability = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Class = Annotated[StrictInt, Field(ge=0)]
TargetClass = Literal["other", "same"] | Class
Bound = float | tuple[Any, ...]
"""One number for all features, or nested lists that broadcast to the shape of one row."""


Gradient = Annotated[
    Literal["auto", "exact", "surrogate", "random", "full"],
    BeforeValidator(lambda name: "surrogate" if name == "student" else name),  # what 0.1.0 called it
]
Effort = Literal["quick", "standard", "thorough"]
Region = Annotated[bool | tuple[Any, ...] | None, BeforeValidator(lambda given: plain(given))]


def plain(value: Any) -> Any:
    """Arrays as nested lists, which JSON can hold; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def retire(value: Any, settings: Mapping[str, Any]) -> Any:
    """`value` without settings that are no more, by name and default: a spec that 0.1.0 has saved holds all
    of them.

    One that was set to something else is warned of, for it does nothing now.
    """
    if not isinstance(value, Mapping):
        return value
    for name, default in settings.items():
        if value.get(name, default) != default:
            warnings.warn(f"{name} has no effect any more; see `effort`", DeprecationWarning, stacklevel=2)
    return {name: one for name, one in value.items() if name not in settings}


class Value(BaseModel):
    """A frozen value without unknown fields, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


# --- specs: one a paper -------------------------------------------------------------------------------


class Counterfactual(Value):
    """The nearest input that the model gives another answer to (Wachter et al., arXiv:1711.00399)."""

    kind: Literal["counterfactual"] = "counterfactual"
    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: Adam on the paper's loss with a bisection on lambda. `fast`: the least change by
    sequential linear programmes, which reaches smaller changes in far fewer steps."""
    gradient: Gradient = "auto"
    """Where slopes come from: the model itself in this process (`exact`), a small network taught from the
    model's answers at fit (`surrogate`), random directions in a low-resolution basis (`random`), central
    differences over every feature (`full`: two rows a feature and step). `auto` is `exact` where the model is
    in process, else `surrogate` where one was fitted, else `random`."""
    effort: Effort = "standard"
    """How much is done: about 25, 80 or 300 slopes an explanation, and as many more rows for ever smaller
    changes."""
    objective: Literal["balanced", "smallest"] = "balanced"
    """`smallest` goes for the L1 distance. `balanced` gives up a little of it for changes that neighbours
    share: the answer looks less like dust, and other models agree with it more often."""
    target_class: TargetClass = "other"
    """The class to reach: any `other`, a number, or `same`, which changes the probability of the class
    the input already has."""
    target_proba: Probability = 1.0
    """Probability that the class sought should have at the counterfactual."""
    tol: Annotated[float, Field(gt=0, le=1)] = 0.05
    """A counterfactual is valid when its probability is within `tol` of `target_proba`; with `other` its
    class has to change as well."""
    distance: Literal["l1"] = "l1"
    """Distance that is minimised, summed over features in input units."""
    feature_range: tuple[Bound, Bound] | None = None
    """Lowest and highest allowed values, each one number or nested lists that broadcast to a row;
    None takes the range of the input contract."""
    init: Literal["identity"] = "identity"
    """Where the search starts: at the input."""
    seed: Seed = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    lam_init: PositiveFloat = 0.1
    """First weight of the distance against the prediction (reference schedule)."""
    max_lam_steps: Annotated[int, Field(ge=1, le=100)] = 10
    """Steps of the bisection on lambda (reference schedule)."""
    max_iter: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """Most gradient steps for one value of lambda (reference schedule)."""
    early_stop: PositiveInt = 50
    """Consecutive valid, or invalid, steps after which one value of lambda is settled (reference)."""
    learning_rate_init: PositiveFloat = 0.1
    """Adam's step size, in input units (reference schedule)."""
    decay: bool = True
    """Whether the step size decays linearly to zero over `max_iter`."""
    eps: PositiveFloat = 0.01
    """Step of finite differences (`gradient='full'` and `'random'`): a share of the range of a feature, or
    with the reference schedule in input units."""

    lanes: Annotated[int, Field(ge=1, le=32)] = 3
    """How many of the likeliest other classes to try side by side when `target_class='other'` (fast)."""
    answers: Annotated[int, Field(ge=1, le=10)] = 1
    """How many answers a row is to have, of as many classes, when `target_class='other'` (fast): the nearest
    is the answer, `raw` holds all that were confirmed, nearest first."""
    region: Region = None
    """Where the row may change: nested lists of truths that broadcast to its shape; None is everywhere."""
    keep_path: bool = False
    """Whether the answer shows the valid points on the way, under the lambda of each, in `raw`."""

    @model_validator(mode="before")
    @classmethod
    def _retired(cls, value: Any) -> Any:
        return retire(value, {"grow_features": 4, "grow_steps": 30, "refine_steps": 50})

    @model_validator(mode="after")
    def _schedules(self) -> Self:
        if self.gradient == "surrogate" and self.schedule == "reference":
            raise ValueError("gradient 'surrogate' goes with schedule 'fast'")
        return self


class ElasticNet(Value):
    """What `CounterfactualProto` and `CEM` share: an elastic net, penalties, a class that has to lead."""

    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: the settings people know, with an unscaled threshold and a bisection on c. `fast`: the
    least change by sequential convex programmes; c comes with it."""
    gradient: Gradient = "auto"
    """Where slopes of the prediction come from; see `Counterfactual.gradient`. Those of autoencoder and
    encoder are always exact."""
    effort: Effort = "standard"
    """How much is done: about 20, 35 or 100 slopes an explanation."""
    rho: Annotated[float, Field(ge=0, le=10)] | None = None
    """How much `gamma` and `theta` count (fast schedule): 1 is the loss as the papers write it, at which
    answers lie far beyond the border; None is what serves best, a few hundredths."""
    kappa: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Least lead, as a probability, of the class sought over the others."""
    beta: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the L1 distance against the squared L2 distance."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared error of the autoencoder."""
    c_init: Annotated[float, Field(ge=0)] = 1.0
    """First weight of the prediction loss (reference schedule)."""
    c_steps: Annotated[int, Field(ge=1, le=100)] = 2
    """Values of c that are tried (reference schedule)."""
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Gradient steps for one value of c (reference schedule)."""
    learning_rate_init: PositiveFloat = 0.01
    """First step size; it falls with the square root of the steps left (reference schedule)."""
    momentum: bool = False
    """Whether steps carry on part of the last one (FISTA), as the papers write; the implementation that
    people know ran without, unless its threads happened to fall otherwise (reference schedule)."""
    clip: tuple[float, float] = (-1000.0, 1000.0)
    """Lowest and highest value of any element of a gradient (reference schedule)."""
    feature_range: tuple[Bound, Bound] | None = None
    """Lowest and highest allowed values, each one number or nested lists that broadcast to a row;
    None takes the range of the input contract."""
    lead: Annotated[float, Field(ge=1, le=1e6)] = 12.0
    """How many times as likely as any other class the new one should be (fast schedule). 1 stops at the
    border, where a second model often disagrees; where it cannot be reached the border will do. A pertinent
    positive is asked for its probability instead."""
    region: Region = None
    """Where the row may change: nested lists of truths that broadcast to its shape; None is everywhere."""
    keep_path: bool = False
    """Whether the answer shows the valid points on the way, under the c of each, in `raw`."""
    eps: PositiveFloat = 0.01
    """Step of finite differences (`gradient='full'` and `'random'`): a share of the range of a feature, or
    with the reference schedule in input units."""
    seed: Seed = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    @model_validator(mode="before")
    @classmethod
    def _retired(cls, value: Any) -> Any:
        return retire(value, {"steps": 120})

    @model_validator(mode="after")
    def _clips(self) -> Self:
        if not self.clip[0] < 0 < self.clip[1]:
            raise ValueError("clip must be a negative and a positive number")
        return self


class CounterfactualProto(ElasticNet):
    """A counterfactual that looks like its class: pulled towards a prototype of it (arXiv:1907.02584)."""

    kind: Literal["counterfactual_proto"] = "counterfactual_proto"
    theta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the prototype, in the space of the encoder, or of the inputs
    where none was fitted."""
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Nearest training rows of a class that make its prototype; None is the mean of the class with an
    encoder, and the nearest row without."""
    k_type: Literal["mean", "point"] = "mean"
    """Whether the prototype is the `mean` of the k nearest, or the k-th itself (`point`)."""
    target_class: Annotated[tuple[Class, ...], Field(min_length=1)] | None = None
    """Classes the counterfactual may have; None allows all but the one the model gives the row."""
    threshold: Annotated[float, Field(ge=0)] = 0.0
    """Least trust score: distance to the prototype of the old class, in distances to that of the new one;
    0 does not ask."""


class CEM(ElasticNet):
    """What must be absent (PN), or suffices (PP), for the class the model gives (arXiv:1802.07623)."""

    kind: Literal["cem"] = "cem"
    mode: Literal["PN", "PP"] = "PN"
    """`PN`: the least addition that changes the class. `PP`: the least part that keeps it."""
    c_steps: Annotated[int, Field(ge=1, le=100)] = 10
    """Values of c that are tried (reference schedule)."""
    pp_space: Literal["absolute", "difference"] = "absolute"
    """What the model is shown for a PP: the background with the part kept (`absolute`), or the difference
    of the row and what was taken away, as is (`difference`, the classical one)."""
    no_info_val: Bound | None = None
    """The value of a feature that says nothing: one number, or nested lists that broadcast to a row; None
    takes it from the training rows at fit."""
    no_info_type: Literal["median", "mean"] = "median"
    """How it is taken from them, feature by feature."""


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


_RETIRED = {
    "coverage_samples": "coverage is exact",
    "tau": "how finely candidates are told apart follows from `threshold` and `delta`",
}
"""Settings of anchors in 0.1.0 without an effect; artifacts hold them. To be refused from 0.3.0."""


def _without_retired(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for name in (name for name in _RETIRED if name in value):
        warnings.warn(f"{name}: has no effect any more: {_RETIRED[name]}", DeprecationWarning, stacklevel=2)
    return {name: setting for name, setting in value.items() if name not in _RETIRED}


class AnchorImage(Value):
    """The superpixels that hold the answer in place whatever the others show (Ribeiro et al., AAAI 2018)."""

    kind: Literal["anchor_image"] = "anchor_image"
    segmentation: Segmentation = Slic()
    """How an image is cut into superpixels; a name alone (`"slic"`) takes that one's defaults."""
    fill: Literal["mean", "image_mean", "constant", "blur", "background"] = "image_mean"
    """What a masked superpixel shows: its own mean, the image's mean, `fill_value`, a blurred copy, or
    the same pixels of a random image among those that `fit` was given (`background`, or its rows). A fill
    that still shows the class gives empty anchors; its own mean does so on most images of one object."""
    fill_value: float = 0.0
    """Value of masked pixels when `fill='constant'`, in input units."""
    p_sample: Level = 0.5
    """Probability that a superpixel outside the anchor is masked."""
    threshold: Level = 0.95
    """Least precision of an anchor: how often the class stays when everything else may be masked."""
    delta: Level = 0.1
    """Probability that a set is taken for an anchor whose precision is below `threshold` less 0.01."""
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Least samples of one candidate each time more are drawn; 1 leaves it to what its proof takes."""
    beam_size: Annotated[int, Field(ge=1, le=100)] = 1
    """Candidates kept from one anchor size to the next."""
    stop_on_first: bool = False
    """Stop at the first anchor that is proven instead of settling whether a smaller one is."""
    max_anchor_size: PositiveInt | None = None
    """Most superpixels in an anchor; None is no limit."""
    min_samples_start: Annotated[int, Field(ge=1, le=100_000)] = 62
    """Least samples that start the search; two a superpixel are drawn in any case, up to 190."""
    n_covered_ex: Annotated[int, Field(ge=0, le=1000)] = 10
    """Most example images of each outcome kept in `raw`."""
    seed: Seed = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    @model_validator(mode="before")
    @classmethod
    def _retired(cls, value: Any) -> Any:
        return _without_retired(value)

    @field_validator("segmentation", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


Spec = Counterfactual | CounterfactualProto | CEM | AnchorImage
_SPEC: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="kind")])


# --- options: what a request may change ---------------------------------------------------------------


class BudgetOptions(Value):
    """What any request may ask of the budget: only ever less than the operator allows."""

    max_rows: PositiveInt | None = None
    """Most rows the predictor may be asked about for this request."""
    max_calls: PositiveInt | None = None
    """Most calls to the predictor for this request."""
    max_seconds: PositiveFloat | None = None
    """Seconds after which the best answer so far is returned."""


class CounterfactualOptions(BudgetOptions):
    """Options of one counterfactual request; what is left out keeps the spec's value."""

    target_class: TargetClass | None = None
    target_proba: Probability | None = None
    tol: Annotated[float, Field(gt=0, le=1)] | None = None
    effort: Effort | None = None
    objective: Literal["balanced", "smallest"] | None = None
    answers: Annotated[int, Field(ge=1, le=10)] | None = None
    region: Region = None
    keep_path: bool | None = None
    seed: Seed | None = None


class AnchorOptions(BudgetOptions):
    """Options of one anchor request; what is left out keeps the spec's value."""

    threshold: Level | None = None
    p_sample: Level | None = None
    delta: Level | None = None
    beam_size: Annotated[int, Field(ge=1, le=100)] | None = None
    max_anchor_size: PositiveInt | None = None
    stop_on_first: bool | None = None
    n_covered_ex: Annotated[int, Field(ge=0, le=1000)] | None = None
    seed: Seed | None = None

    @model_validator(mode="before")
    @classmethod
    def _retired(cls, value: Any) -> Any:
        return _without_retired(value)


class CounterfactualProtoOptions(BudgetOptions):
    """Options of one request for prototype counterfactuals; what is left out keeps the spec's value."""

    target_class: Annotated[tuple[Class, ...], Field(min_length=1)] | None = None
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    k_type: Literal["mean", "point"] | None = None
    threshold: Annotated[float, Field(ge=0)] | None = None
    kappa: Annotated[float, Field(ge=0, lt=1)] | None = None
    effort: Effort | None = None
    region: Region = None
    keep_path: bool | None = None
    seed: Seed | None = None


class CEMOptions(BudgetOptions):
    """Options of one request for contrastive explanations; what is left out keeps the spec's value."""

    mode: Literal["PN", "PP"] | None = None
    kappa: Annotated[float, Field(ge=0, lt=1)] | None = None
    effort: Effort | None = None
    region: Region = None
    keep_path: bool | None = None
    seed: Seed | None = None


Options = CounterfactualOptions | CounterfactualProtoOptions | CEMOptions | AnchorOptions
OPTIONS: Mapping[str, type[Options]] = {
    "counterfactual": CounterfactualOptions,
    "counterfactual_proto": CounterfactualProtoOptions,
    "cem": CEMOptions,
    "anchor_image": AnchorOptions,
}


# --- the input contract, the limits, the predictor ------------------------------------------------------


_FAR = 1e15
"""Largest value of a feature: squares of them are summed in float32."""
_APART = 2.0**-20
"""Least range of a feature, as a share of its largest value: float32 has eight values in it."""


class Inputs(Value):
    """What rows an explainer accepts: fixed when it was fitted, checked at every request."""

    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=4)]
    """Shape of one row, without the batch: `(height, width, channels)` for an image, or as `layout` says."""
    layout: Literal["channels_last", "channels_first"] | None = None
    """Where a row that is an image has its channels; None for rows that are no images. Left out, it is taken
    from `shape`, if that can be read in one way only; see `layout_of`."""
    low: float
    """Smallest value a feature may have, in input units."""
    high: float
    """Largest value a feature may have, in input units."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """How many class scores the model answers with."""
    class_names: tuple[str, ...] | None = None
    """A name for each class, for people."""

    @model_validator(mode="before")
    @classmethod
    def _guess(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "layout" in value:
            return value
        shape: Any = value.get("shape")
        whole = isinstance(shape, tuple | list) and all(type(size) is int for size in shape)
        return {**value, "layout": layout_of(shape) if whole else None}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.layout is not None and len(self.shape) != 3:
            raise ValueError(f"layout {self.layout!r} needs rows of three axes, got shape {self.shape}")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        largest = max(-self.low, self.high)
        if largest > _FAR:
            raise ValueError(
                f"low and high must lie within {_FAR:g} of 0, got {self.low:g} and {self.high:g}"
            )
        if self.high - self.low < largest * _APART:
            raise ValueError(
                f"low ({self.low:.9g}) and high ({self.high:.9g}) are too near each other for "
                "float32 to tell apart; subtract `low` from the rows"
            )
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class_names for {self.classes} classes")
        return self


def layout_of(shape: Sequence[int]) -> Literal["channels_last", "channels_first"] | None:
    """Where an image of this shape has its channels, if that is beyond doubt; else None.

    An axis is taken for channels where it has 1, 3 or 4 elements, or a quarter of the other two at most. If
    the first and the last both may be, one of them must be smaller than the two beside it: (4, 4, 1) is a
    grey image 4 pixels wide. (3, 3, 3) is anything.
    """
    if len(shape) != 3:
        return None
    first, middle, last = shape
    leads = first in (1, 3, 4) or 4 * first <= min(middle, last)
    trails = last in (1, 3, 4) or 4 * last <= min(first, middle)
    if leads and trails:
        leads, trails = first < min(middle, last), last < min(first, middle)
    if leads == trails:
        return None
    return "channels_first" if leads else "channels_last"


class Limits(Value):
    """What the operator allows one request to use."""

    max_batch: Annotated[int, Field(ge=1)] = 16
    """Rows explained in one request."""
    max_rows: PositiveInt = 200_000
    """Rows the predictor is asked about for one request."""
    max_calls: PositiveInt = 20_000
    """Calls to the predictor for one request."""
    max_seconds: PositiveFloat = 30.0
    """Seconds for one request, after which the best answer so far is returned."""


class ModelContract(Value):
    """What a model takes and what its numbers mean; the same words wherever a model is named."""

    output: Literal["probabilities", "logits", "labels", "scores"] = "probabilities"
    """What the output holds. `probabilities`: a distribution, or one sigmoid, taken as [1 - p, p]; refused
    where they are neither. `logits` are put through a softmax, one of them through a sigmoid. `labels` are
    class numbers, good for anchors only. `scores` are independent, none negative, and taken as they are
    (sigmoids; votes, which have no probability for a counterfactual to reach)."""
    label: Annotated[int, Field(ge=0)] | None = None
    """Explain this label of a multi-label model alone: its scores become [1 - p, p] of it. Of `logits` p is
    the sigmoid."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """How many classes there are; needed for `labels`."""
    output_name: str | None = None
    """Output with the class scores, where there are several; None takes the only one, or an endpoint's first
    one."""
    input_name: str | None = None
    """Input that takes the rows; None takes the only one, or the first in an endpoint's metadata."""
    hold: Mapping[str, Any] = Field(default_factory=dict)
    """Value of each further input, the same for all rows: a number or nested lists, without the batch."""
    signature: str | None = None
    """Signature of a SavedModel, here or behind V1; None is `serving_default`."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """The model is given `row * scale + offset`: 255 for a model of bytes explained in [0, 1]. A model of
    whole numbers is given the nearest ones that it can take."""
    offset: float = 0.0
    """See `scale`."""
    canary: Annotated[float, Field(gt=0, le=1)] | None = 1e-3
    """How far the scores of one row may move. A model in this process is asked it twice when it is loaded;
    otherwise the first row of an explanation goes along with each later call, so that rows in another order,
    exchanged models and answers that depend on chance are found. None asks nothing of the kind."""
    strict: bool = False
    """Whether a model other than the one that an explainer was fitted to is refused; else it is explained,
    with a warning in the log and in the answer."""

    @field_validator("hold", mode="before")
    @classmethod
    def _rectangular(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        plain = {name: one.tolist() if hasattr(one, "tolist") else one for name, one in value.items()}
        for name, one in plain.items():
            try:
                _shape(one)
            except ValueError:
                raise ValueError(
                    f"{name}: expected a number or nested lists of numbers, not ragged"
                ) from None
        return plain

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if self.output == "labels" and self.classes is None:
            raise ValueError("output 'labels' needs `classes`, the number of classes")
        if self.output == "labels" and self.label is not None:
            raise ValueError("`label` chooses a score, and output 'labels' has none")
        if self.label is not None and self.classes not in (None, 2):
            raise ValueError(f"`label` leaves 2 classes, not {self.classes}")
        return self


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists of numbers."""
    if isinstance(value, int | float):
        return ()
    shapes = {_shape(one) for one in value} if isinstance(value, list | tuple) else set()
    if len(shapes) != 1:
        raise ValueError
    return (len(value), *shapes.pop())


class KerasModel(ModelContract):
    """A model in this process: a `.keras` file, the directory of a SavedModel, or an `.onnx` file."""

    kind: Literal["keras"] = "keras"
    path: str
    """Where the model's file or directory is."""
    runtime: Literal["tensorflow", "onnx"] = "tensorflow"
    """What computes scores: TensorFlow, or ONNX Runtime where that says the same, which is several times
    faster for few rows. Slopes are TensorFlow's. An `.onnx` file is run by ONNX Runtime, without slopes."""

    @model_validator(mode="before")
    @classmethod
    def _logits(cls, value: Any) -> Any:
        """`logits: true` is short for `output: logits`."""
        if not isinstance(value, Mapping) or "logits" not in value:
            return value
        said, rest = str(value["logits"]).lower(), {k: v for k, v in value.items() if k != "logits"}
        if said not in ("true", "false"):
            raise ValueError("logits: expected true or false")
        return {"output": "logits", **rest} if said == "true" else rest


class Colocated(Value):
    """A model that this package's Keras runtime serves in the same process."""

    kind: Literal["colocated"] = "colocated"
    model: str
    """Name under which it is served."""


class Endpoint(ModelContract):
    """A served model, behind the Open Inference Protocol (`v2`) or TensorFlow Serving's `:predict` (`v1`)."""

    kind: Literal["v2", "v1"] = "v2"
    url: Annotated[str, Field(pattern=r"^(https?|grpcs?)://[^/]+")]
    """`grpc://host:port` or `http://host:port`; `grpcs` and `https` use TLS. `v1` is HTTP only."""
    model: Annotated[str, Field(min_length=1)]
    """Name under which it is served."""
    version: str | None = None
    """Version asked for; None lets the server choose."""
    path: str | None = None
    """REST path of the call where it is not the usual one, `/v2/models/<model>/infer` (a Seldon pipeline)."""
    timeout: PositiveFloat = 10.0
    """Seconds one call may take, with all its messages and attempts."""
    max_message: Annotated[int, Field(ge=1024)] = 4 * 2**20
    """Bytes of one message, as it is written (JSON takes up to 16 a number); larger batches are sent as
    several calls. gRPC servers take 4 MiB by default."""
    connections: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pooled connections."""
    ca_path: str | None = None
    """File of certificate authorities to trust, in PEM; None trusts the system's."""
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Headers (REST) or metadata (gRPC) sent with each call. Their values are never written anywhere."""
    compression: Literal["none", "gzip"] = "none"
    """Whether messages to the model are compressed: dearer than the network, except over a slow one."""
    binary: bool | None = None
    """Whether V2 REST carries tensors as bytes; None asks the server whether it can."""

    datatype: Literal["FP16", "FP32", "FP64", "UINT8"] | None = None
    """Datatype that rows are sent as; None takes it from the model's metadata."""
    batch: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """How many rows the model takes at a time; fewer are filled up with copies of the last. 0 is any number,
    None takes it from the model's metadata."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often one message is sent before its call fails; again only after a broken connection, a 429, a 503
    or their like in gRPC. Each attempt counts as rows that the model was asked about."""
    calls_at_once: Annotated[int, Field(ge=1, le=1024)] = 16
    """Calls under way at the same time; more wait for their turn."""
    coalesce: Annotated[int, Field(ge=0, le=1_000_000)] = 3000
    """Microseconds that rows wait for those of other explanations to share a call, for each explanation that
    runs beside; a tenth of a second in all. 0 waits for nobody."""
    rows_per_second: PositiveFloat | None = None
    """Rows a second that the model is asked about at most; None is no limit."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "v1" and not self.url.startswith("http"):
            raise ValueError("v1 is spoken over http or https only")
        return self


PredictorSettings = KerasModel | Colocated | Endpoint
_PREDICTOR: TypeAdapter[PredictorSettings] = TypeAdapter(
    Annotated[PredictorSettings, Field(discriminator="kind")]
)

# --- parsing: every way in ends in one of our errors, naming the field -----------------------------------

V = TypeVar("V", bound=BaseModel)


def parse_spec(value: Any) -> Spec:
    """The spec written in `value`, a mapping with a `kind`.

    Raises:
        InvalidSpec: An unknown kind or field, or a value out of range; every field is named.
    """
    try:
        return _SPEC.validate_python(value)
    except ValidationError as error:
        raise InvalidSpec(_say(error)) from None


def parse_options(spec: Spec, value: Mapping[str, Any] | None) -> Options:
    """The options of one request for an explainer of this spec.

    Raises:
        InvalidOption: An unknown option, or a value out of range; the first is named.
    """
    if not isinstance(value, Mapping | None):
        raise InvalidOption(f"options: expected a mapping, got {_short(value)}", "options")
    try:
        return OPTIONS[spec.kind].model_validate(dict(value or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "parameters"
        known = ", ".join(OPTIONS[spec.kind].model_fields)
        hint = f"; the options are {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidOption(_say(error) + hint, field) from None


def parse_predictor(value: Any, **more: Any) -> PredictorSettings:
    """Predictor settings from a mapping with a `kind`, or from one string; `more` is said besides.

    Strings: `grpc://host:port/model`, `http://host:port/model`,
    `http://host/v2/models/model[/versions/v]/infer` (or a pipeline's infer URL),
    `v1+http://host:port/model` or `http://host/v1/models/model:predict`, `colocated:model`, the path of a
    `.keras` file or SavedModel directory, or the mapping as JSON.

    Raises:
        InvalidSpec: Anything else.
    """
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("{") else _address(value)
    if isinstance(value, Mapping):
        value = {**value, **more}
    try:
        return _PREDICTOR.validate_python(value)
    except ValidationError as error:
        raise InvalidSpec(_say(error, "predictor")) from None


def parse(model: type[V], value: Any, name: str) -> V:
    """`value` as a `model`, for settings and contracts.

    Raises:
        InvalidSpec: With `name` and the field in front of each complaint.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidSpec(_say(error, name, model.model_fields)) from None


def with_options(spec: Spec, options: BaseModel) -> Spec:
    """`spec` with the options that a request has set."""
    changes = {
        name: value for name, value in options if value is not None and name in type(spec).model_fields
    }
    return spec.model_copy(update=changes)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidSpec(f"predictor: expected a JSON object, {error}") from None


def _address(text: str) -> dict[str, Any]:
    if text.startswith("colocated:"):
        return {"kind": "colocated", "model": text.removeprefix("colocated:")}
    scheme, mark, rest = text.partition("://")
    if not mark:
        return {"kind": "keras", "path": text}
    kind = "v1" if scheme.startswith("v1+") else "v2"
    scheme = scheme.removeprefix("v1+")
    host, _, path = rest.partition("/")
    endpoint = {"kind": kind, "url": f"{scheme}://{host}"}
    parts = path.strip("/").split("/")
    match parts:
        case ["v1", "models", *more] if scheme.startswith("http"):
            match "/".join(more).removesuffix(":predict").split("/"):
                case [model]:
                    return {**endpoint, "kind": "v1", "model": model}
                case [model, "versions", version]:
                    return {**endpoint, "kind": "v1", "model": model, "version": version}
        case [*_, "v1", "models", model] if model.endswith(":predict") and scheme.startswith("http"):
            behind = {"path": "/" + "/".join(parts), "model": model.removesuffix(":predict")}
            return {**endpoint, "kind": "v1", **behind}
        case ["v2", "models", model, *more] if scheme.startswith("http") and kind == "v2":
            match more:
                case [] | ["infer"]:
                    return {**endpoint, "model": model}
                case ["versions", version] | ["versions", version, "infer"]:
                    return {**endpoint, "model": model, "version": version}
        case [*_, model, "infer"] if scheme.startswith("http") and kind == "v2":
            return {**endpoint, "model": model, "path": "/" + "/".join(parts)}
        case [model] if model:
            return {**endpoint, "model": model}
        case _:
            pass
    raise InvalidSpec(
        "predictor: expected grpc://host:port/model, http://host:port/v2/models/model/infer or "
        f"v1+http://host:port/model, got {text!r}"
    )


def _say(error: ValidationError, prefix: str = "", known: Collection[str] = ()) -> str:
    lines = []
    for one in error.errors():
        loc = [str(part) for part in one["loc"]]
        path = ".".join(([prefix] if prefix else []) + loc) or "value"
        silent = one["type"] in ("missing", "extra_forbidden") or "headers" in loc  # they may be secret
        got = "" if silent else f", got {_short(one['input'])}"
        lines.append(f"{path}: {expected(one, known if len(loc) == 1 else ())}{got}")
    return "; ".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
