"""What is configured, and by whom: frozen values that know their own limits.

Three places, three kinds of value. A **spec** shapes the mathematics and lives in the artifact; it is one
of a closed union told apart by `kind`. **Options** are what a request may change for its own rows; each
spec says which. A **predictor address** and the **limits** belong to whoever operates the server and are
never part of a request or an artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
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

from explainer_runtime.errors import InvalidOption, InvalidSpec

Probability = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Class = Annotated[StrictInt, Field(ge=0)]
TargetClass = Literal["other", "same"] | Class
Bound = float | tuple[Any, ...]
"""One number for all features, or nested lists that broadcast to the shape of one row."""


class Value(BaseModel):
    """A frozen value without unknown fields, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


# --- specs: one a paper -------------------------------------------------------------------------------


class Counterfactual(Value):
    """The nearest input that the model gives another answer to (Wachter et al., arXiv:1711.00399)."""

    kind: Literal["counterfactual"] = "counterfactual"
    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: Adam on the paper's loss with a bisection on lambda. `fast`: sparse steepest descent
    (grow, prune, refine), which reaches smaller changes in far fewer steps. Without a gradient of the
    model itself the reference schedule's loss is minimised with estimated gradients."""
    gradient: Literal["auto", "exact", "student", "random", "full"] = "auto"
    """Where gradients come from: the model's own graph (`exact`), a small network taught from the model's
    answers at fit (`student`), random directions in a low-resolution basis (`random`), central differences
    over every feature (`full`: two rows a feature and step). `auto` is `exact` where the model is in
    process, else `student` where one was fitted, else `random`."""
    target_class: TargetClass = "other"
    """The class to reach: any `other`, a number, or `same`, which changes the probability of the class
    the input already has."""
    target_proba: Probability = 1.0
    """Probability that the class sought should have at the counterfactual."""
    tol: Annotated[float, Field(gt=0, le=1)] = 0.05
    """A counterfactual is valid when its probability is within `tol` of `target_proba`."""
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
    """Adam's step size, in input units (reference schedule, and estimated gradients)."""
    decay: bool = True
    """Whether the step size decays linearly to zero over `max_iter`."""
    eps: PositiveFloat = 0.01
    """Step of finite differences, in input units (`gradient='full'` and `'random'`)."""

    lanes: Annotated[int, Field(ge=1, le=32)] = 3
    """How many of the likeliest other classes to try side by side when `target_class='other'` (fast)."""
    grow_features: PositiveInt = 4
    """Features moved at each growing step (fast schedule)."""
    grow_steps: Annotated[int, Field(ge=1, le=10_000)] = 30
    """Growing steps at that width before it doubles (fast schedule)."""
    refine_steps: Annotated[int, Field(ge=0, le=10_000)] = 50
    """Proximal steps that refine the best lanes; 0 leaves refinement out (fast schedule)."""

    @model_validator(mode="after")
    def _schedules(self) -> Self:
        if self.gradient == "student" and self.schedule == "reference":
            raise ValueError("gradient 'student' goes with schedule 'fast'")
        return self


class ElasticNet(Value):
    """What `CounterfactualProto` and `CEM` share: an elastic net, a prediction loss, FISTA steps."""

    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: the settings people know, with an unscaled threshold and a bisection on c. `fast`: steps
    as long as the fitted networks' curvature allows, a log-probability hinge, early stopping, pruning."""
    gradient: Literal["auto", "exact", "random", "full"] = "auto"
    """Where gradients of the prediction come from; see `Counterfactual.gradient`. Those of the fitted
    networks are always exact."""
    kappa: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Least lead, as a probability, of the class sought over the others."""
    beta: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the L1 distance against the squared L2 distance."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared error of the autoencoder."""
    c_init: Annotated[float, Field(ge=0)] = 1.0
    """First weight of the prediction loss."""
    c_steps: Annotated[int, Field(ge=1, le=100)] = 2
    """Values of c that are tried."""
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Gradient steps for one value of c (reference schedule)."""
    learning_rate_init: PositiveFloat = 0.01
    """First step size; it falls with the square root of the steps left (reference schedule)."""
    momentum: bool = False
    """Whether steps carry on part of the last one (FISTA), as the papers write; the implementation that
    people know ran without, unless its threads happened to fall otherwise."""
    clip: tuple[float, float] = (-1000.0, 1000.0)
    """Lowest and highest value of any element of a gradient."""
    feature_range: tuple[Bound, Bound] | None = None
    """Lowest and highest allowed values, each one number or nested lists that broadcast to a row;
    None takes the range of the input contract."""
    lead: Annotated[float, Field(ge=1, le=1e6)] = 6.0
    """How many times as likely as any other class the new one should be (fast schedule). 1 stops at the
    border, where a second model often disagrees; where it cannot be reached the border will do. A pertinent
    positive is asked for its probability instead."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 120
    """Most gradient steps for one value of c (fast schedule)."""
    eps: PositiveFloat = 0.01
    """Step of finite differences, in input units (`gradient='full'` and `'random'`)."""
    seed: Seed = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

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
    """Values of c that are tried."""
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


class AnchorImage(Value):
    """The superpixels that hold the answer in place whatever the others show (Ribeiro et al., AAAI 2018)."""

    kind: Literal["anchor_image"] = "anchor_image"
    segmentation: Segmentation = Slic()
    """How an image is cut into superpixels; a name alone (`"slic"`) takes that one's defaults."""
    fill: Literal["mean", "image_mean", "constant", "blur", "background"] = "mean"
    """What a masked superpixel shows: its own mean, the image's mean, `fill_value`, a blurred copy, or
    the same pixels of a random background image (needs `images_background` at `fit`)."""
    fill_value: float = 0.0
    """Value of masked pixels when `fill='constant'`, in input units."""
    p_sample: Level = 0.5
    """Probability that a superpixel outside the anchor is masked."""
    threshold: Level = 0.95
    """Least precision of an anchor: how often the class stays when everything else may be masked."""
    delta: Level = 0.1
    """Probability that a bound may fail: 1 - delta is the confidence of the search."""
    tau: Level = 0.15
    """Width of the confidence interval at which the best candidates are told apart."""
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Least samples of one candidate each time more are drawn."""
    coverage_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Masks drawn to estimate coverage; they cost no predictions."""
    beam_size: Annotated[int, Field(ge=1, le=100)] = 1
    """Candidates kept from one anchor size to the next."""
    stop_on_first: bool = False
    """Stop at the first anchor that is verified instead of settling the whole beam."""
    max_anchor_size: PositiveInt | None = None
    """Most superpixels in an anchor; None is no limit."""
    min_samples_start: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Samples that start the search."""
    n_covered_ex: Annotated[int, Field(ge=0, le=1000)] = 10
    """Most example images of each outcome kept in `raw`."""
    seed: Seed = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

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
    seed: Seed | None = None


class AnchorOptions(BudgetOptions):
    """Options of one anchor request; what is left out keeps the spec's value."""

    threshold: Level | None = None
    p_sample: Level | None = None
    delta: Level | None = None
    tau: Level | None = None
    beam_size: Annotated[int, Field(ge=1, le=100)] | None = None
    max_anchor_size: PositiveInt | None = None
    stop_on_first: bool | None = None
    n_covered_ex: Annotated[int, Field(ge=0, le=1000)] | None = None
    seed: Seed | None = None


class CounterfactualProtoOptions(BudgetOptions):
    """Options of one request for prototype counterfactuals; what is left out keeps the spec's value."""

    target_class: Annotated[tuple[Class, ...], Field(min_length=1)] | None = None
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    k_type: Literal["mean", "point"] | None = None
    threshold: Annotated[float, Field(ge=0)] | None = None
    kappa: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Seed | None = None


class CEMOptions(BudgetOptions):
    """Options of one request for contrastive explanations; what is left out keeps the spec's value."""

    mode: Literal["PN", "PP"] | None = None
    kappa: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Seed | None = None


Options = CounterfactualOptions | CounterfactualProtoOptions | CEMOptions | AnchorOptions
OPTIONS: Mapping[str, type[Options]] = {
    "counterfactual": CounterfactualOptions,
    "counterfactual_proto": CounterfactualProtoOptions,
    "cem": CEMOptions,
    "anchor_image": AnchorOptions,
}


# --- the input contract, the limits, the predictor ------------------------------------------------------


class Inputs(Value):
    """What rows an explainer accepts: fixed when it was fitted, checked at every request."""

    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=4)]
    """Shape of one row, without the batch: `(height, width, channels)` for an image."""
    low: float
    """Smallest value a feature may have, in input units."""
    high: float
    """Largest value a feature may have, in input units."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """How many class scores the model answers with."""
    class_names: tuple[str, ...] | None = None
    """A name for each class, for people."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class_names for {self.classes} classes")
        return self


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


class KerasModel(Value):
    """A Keras model in this process: a `.keras` file or a SavedModel directory."""

    kind: Literal["keras"] = "keras"
    path: str
    """Where the model's file or directory is."""
    logits: bool = False
    """Whether the model answers with logits, to be put through a softmax."""


class Colocated(Value):
    """A model that this package's Keras runtime serves in the same process."""

    kind: Literal["colocated"] = "colocated"
    model: str
    """Name under which it is served."""


class Endpoint(Value):
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
    """Bytes of one message; larger batches are sent as several calls. gRPC servers take 4 MiB by default."""
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

    input_name: str | None = None
    """Name of the input tensor; None takes it from the model's metadata."""
    datatype: Literal["FP16", "FP32", "FP64", "UINT8"] | None = None
    """Datatype that rows are sent as; None takes it from the model's metadata."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """The model is sent `row * scale + offset`: 255 for a model of bytes explained in [0, 1]. UINT8 is then
    rounded, so the model answers for the nearest row of whole numbers."""
    offset: float = 0.0
    """See `scale`."""
    output_name: str | None = None
    """Output tensor with the class scores; None takes the first."""
    output: Literal["probabilities", "logits", "labels", "scores"] = "probabilities"
    """What that output holds. `probabilities` are refused where they are negative or do not sum to 1;
    `logits` are put through a softmax; `labels` are class numbers, good for anchors only; `scores` are
    taken as they are, whatever they mean (sigmoids, votes)."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """How many classes there are; needed for `labels`."""
    canary: Annotated[float, Field(gt=0, le=1)] | None = 1e-3
    """The first row that an explanation asks about goes along with each later call, and its scores may move
    by at most this much: so rows in another order and exchanged models are found. None leaves it out."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often one message is sent before its call fails; again only after a broken connection, a 429, a 503
    or their like in gRPC."""
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
        if self.output == "labels" and self.classes is None:
            raise ValueError("output 'labels' needs `classes`, the number of classes")
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
    try:
        return OPTIONS[spec.kind].model_validate(dict(value or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "parameters"
        known = ", ".join(OPTIONS[spec.kind].model_fields)
        hint = f"; the options are {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidOption(_say(error) + hint, field) from None


def parse_predictor(value: Any) -> PredictorSettings:
    """Predictor settings from a mapping with a `kind`, or from one string.

    Strings: `grpc://host:port/model`, `http://host:port/model`,
    `http://host/v2/models/model[/versions/v]/infer` (or a pipeline's infer URL),
    `v1+http://host:port/model` or `http://host/v1/models/model:predict`, `colocated:model`, or the path of a
    `.keras` file or SavedModel directory.

    Raises:
        InvalidSpec: Anything else.
    """
    if isinstance(value, str):
        value = _address(value)
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
        raise InvalidSpec(_say(error, name)) from None


def with_options(spec: Spec, options: BaseModel) -> Spec:
    """`spec` with the options that a request has set."""
    changes = {
        name: value for name, value in options if value is not None and name in type(spec).model_fields
    }
    return spec.model_copy(update=changes)


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


def _say(error: ValidationError, prefix: str = "") -> str:
    lines = []
    for one in error.errors():
        loc = [str(part) for part in one["loc"]]
        path = ".".join(([prefix] if prefix else []) + loc) or "value"
        silent = one["type"] in ("missing", "extra_forbidden") or "headers" in loc  # they may be secret
        got = "" if silent else f", got {_short(one['input'])}"
        lines.append(f"{path}: {one['msg']}{got}")
    return "; ".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
