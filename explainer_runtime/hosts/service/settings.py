"""What an operator configures for one served explainer, in whatever clothes a platform gives it: Seldon and
environment variables send every value as a string.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from explainer_runtime import artifact
from explainer_runtime.artifact.strict_json import short
from explainer_runtime.complaints import json_object
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.predictors.settings import (
    Endpoint,
    KerasModel,
    PredictorSettings,
    parse_predictor,
)
from explainer_runtime.spec import Limits, Value, parse

if TYPE_CHECKING:
    from explainer_runtime.artifact.signing import Trust

REQUIRED = "EXPLAINER_RUNTIME_REQUIRE_SIGNATURE"
"""A variable of the whole process, and of those that it starts: no settings beside an artifact reach it."""


class Settings(Value):
    """What an operator configures for one served explainer."""

    artifact: Path
    """The explainer's directory."""
    predictor: Annotated[PredictorSettings, Field(discriminator="kind")]
    """Where the model being explained is."""
    limits: Limits = Limits()
    """What one request may use."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Requests computed at the same time; more wait their turn."""
    queue: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Requests that may wait; one client takes at most half of the places."""
    queue_rows: PositiveInt = 1_000_000
    """Rows that the requests which run or wait are expected to ask the model about, together."""


def required() -> Trust | None:
    """By whom whatever is served has to be signed; None asks for no signature.

    Raises:
        InvalidSpec, MissingExtra: The operator's file cannot be used; see `artifact.trusted`.
    """
    path = os.environ.get(REQUIRED)
    return artifact.trusted(path, "require-signature") if path else None


_FOREIGN = {"explainer_type", "init_parameters", "ssl_verify_path"}
"""Written by Seldon beside `infer_uri`. The artifact says the first two; the last goes with an https URI."""


def parse_settings(path: str, extra: Mapping[str, Any] | None) -> Settings:
    """The settings of an explainer at `path` from a host's free-form parameters.

    Args:
        path: The explainer's directory.
        extra: `predictor` (a mapping or a string, see `spec.parse_predictor`), or instead of it
            `model_path` (a Keras model to load here) or Seldon's `infer_uri`; `limits`; `threads`. Any
            value may be a string holding JSON.

    Raises:
        InvalidSpec: No predictor, two of them, an unknown key, or a value out of range.
    """
    extra = extra or {}
    values = {name: _unquoted(name, value) for name, value in extra.items() if name not in _FOREIGN}
    predictor = _predictor(values, extra.get("ssl_verify_path"))
    return parse(Settings, {"artifact": path, **values, "predictor": predictor}, "parameters.extra")


def lowered(said: Mapping[str, Any], operator: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact's own settings ask for, where an operator's are the most that they may.

    Args:
        said: Settings beside the artifact.
        operator: The operator's; where they are silent, the defaults are the most.

    Returns:
        The operator's, or the artifact's where those are lower; of what has no order, the operator's first.

    Raises:
        InvalidSpec: A number is none.
    """
    chosen = {**said, **operator}
    most = {name: Settings.model_fields[name].default for name in _CEILINGS} | dict(operator)
    for name in _CEILINGS & set(said):
        chosen[name] = min(_number(name, said[name]), _number(name, most[name]))
    if "limits" in said:
        bound = parse(Limits, _unquoted("limits", operator.get("limits", {})), "limits")
        asked = parse(Limits, _unquoted("limits", said["limits"]), "limits")
        given = asked.model_dump(exclude_unset=True)
        chosen["limits"] = bound.model_dump() | {
            name: min(value, getattr(bound, name)) for name, value in given.items()
        }
    return chosen


_CEILINGS = {"threads", "queue", "queue_rows"}


def _number(name: str, value: Any) -> int:
    try:
        return TypeAdapter(PositiveInt if name != "queue" else NonNegativeInt).validate_python(value)
    except ValidationError:
        raise InvalidSpec(f"parameters.extra.{name}: expected a whole number, got {short(value)}") from None


def _predictor(values: dict[str, Any], ca_path: str | None) -> PredictorSettings:
    named, local, uri = (values.pop(name, None) for name in ("predictor", "model_path", "infer_uri"))
    if named is not None and local is not None:
        raise InvalidSpec("parameters.extra: give predictor or model_path, not both")
    if named is not None:
        return parse_predictor(named)
    if local is not None:
        return parse(KerasModel, {"path": local}, "model_path")
    if uri is None:
        raise InvalidSpec(
            "parameters.extra.predictor: missing; give the address of the model being explained, "
            "such as grpc://host:port/model, or model_path to load it here"
        )
    predictor = parse_predictor(uri)
    if isinstance(predictor, Endpoint) and predictor.url.startswith("https") and ca_path:
        return predictor.model_copy(update={"ca_path": ca_path})
    return predictor


def _unquoted(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return json_object(value, f"parameters.extra.{name}")
    return value
