"""Arrays <-> MLServer's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi.responses import Response
from mlserver import MLModel, ModelSettings
from mlserver.codecs.json import encode_to_json_bytes
from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    ResponseOutput,
    TensorData,
)

from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.service.names import check_id
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import PICTURE, listed


def settings_of(settings: ModelSettings) -> Mapping[str, Any]:
    """The free-form settings of a model."""
    return (settings.parameters.extra if settings.parameters else None) or {}


def refusal(error: InvalidInput) -> MLServerError:
    """A caller's mistake as MLServer's error."""
    told = fault(error)
    return MLServerError(told.message, told.status)


def tensors(payload: InferenceRequest) -> list[Tensor]:
    """The inputs of a request, as they came.

    Raises:
        InvalidInput: Its id, see `check_id`.
    """
    check_id(payload.id)
    return [
        Tensor(tensor.name, str(tensor.datatype), tuple(tensor.shape), tensor.data.root)
        for tensor in payload.inputs
    ]


def parameters(payload: InferenceRequest) -> Mapping[str, Any] | None:
    """The parameters of a request that are neither headers nor content types."""
    return payload.parameters.model_extra if payload.parameters else None


def described(tensor: Tensor) -> MetadataTensor:
    """A tensor's description, for a model's metadata."""
    return MetadataTensor(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def respond(
    model: MLModel, payload: InferenceRequest, answer: Sequence[Tensor], **more: Any
) -> InferenceResponse:
    """A V2 answer to `payload`: these tensors, and `more` as its parameters."""
    return InferenceResponse(
        model_name=model.name,
        model_version=model.version,
        id=payload.id,
        parameters=Parameters(**more),
        outputs=[_output(tensor) for tensor in answer],
    )


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A REST answer; content that is bytes is JSON already."""
    body = content if isinstance(content, bytes) else encode_to_json_bytes(content)
    return Response(body, status, headers, media_type="application/json")


def _output(tensor: Tensor) -> ResponseOutput:
    data = tensor.data
    if isinstance(data, np.ndarray):
        data = listed(data)
    said = {"parameters": Parameters(content_type="base64")} if tensor.name == PICTURE else {}
    return ResponseOutput(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=list(tensor.shape),
        data=TensorData.model_construct(root=data),  # not looked at number by number
        **said,
    )
