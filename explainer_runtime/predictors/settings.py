"""What an operator says of the model being explained: where it is, what it takes, what its numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.spec.values import Value, complaints

Scale = Annotated[float, Field(gt=0)]


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
    scale: Scale | Annotated[tuple[Scale, ...], Field(min_length=1)] = 1.0
    """The model is given `row * scale + offset`: 255 for a model of bytes explained in [0, 1]. Lists have a
    number for each channel: 1 / std and -mean / std for a network that was trained so. A model of whole
    numbers is given the nearest ones that it can take."""
    offset: float | Annotated[tuple[float, ...], Field(min_length=1)] = 0.0
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
    several calls. gRPC servers take 4 MiB by default; a server that takes less says so by refusing one."""
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
        raise InvalidSpec(complaints(error, "predictor")) from None


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
