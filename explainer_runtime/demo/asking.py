"""Asking a served explainer as any client would: one V2 request, over REST or over gRPC."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import orjson

from explainer_runtime.demo.servers import Server
from explainer_runtime.errors import ExplainerError
from explainer_runtime.explanation import Explanation
from explainer_runtime.predictors.remote import oip
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import decode

_SECONDS = 120.0
_KEYS = ("name", "datatype", "shape", "data")


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        explanation: The answer, put together again from its tensors.
        seconds: From sending the request until the last byte was read.
    """

    explanation: Explanation
    seconds: float


def request(x: np.ndarray) -> dict[str, Any]:
    """The V2 request for rows `x`, as JSON values."""
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return {"inputs": [tensor]}


def ask_rest(server: Server, model: str, x: np.ndarray) -> Answer:
    """Explain rows `x` by `POST /v2/models/<model>/explain`.

    Raises:
        ExplainerError: An answer that is not 200, with what it says.
    """
    start = time.monotonic()
    try:
        response = httpx.post(
            server.url(f"/v2/models/{model}/explain"),
            content=orjson.dumps(request(x)),
            headers={"content-type": "application/json"},
            timeout=_SECONDS,
        )
    except httpx.TransportError as error:
        raise ExplainerError(f"{model} over REST: {error or type(error).__name__}") from error
    seconds = time.monotonic() - start
    if response.status_code != 200:
        raise ExplainerError(f"{model} over REST: {response.status_code} {response.text[:500]}")
    outputs = orjson.loads(response.content)["outputs"]
    return Answer(decode(Tensor(*(one[key] for key in _KEYS)) for one in outputs), seconds)


def ask_grpc(server: Server, model: str, x: np.ndarray) -> Answer:
    """Explain rows `x` by `ModelInfer`, with raw contents.

    Raises:
        ExplainerError: A status that is not OK, with what it says.
    """
    message = oip.ModelInferRequest(model_name=model)
    message.inputs.add(name="input", datatype="FP32", shape=x.shape)
    message.raw_input_contents.append(np.ascontiguousarray(x, np.float32).tobytes())
    limits = [("grpc.max_receive_message_length", 64 * 2**20)]
    start = time.monotonic()
    with grpc.insecure_channel(server.target, limits) as channel:
        try:
            response = oip.method(channel, "ModelInfer")(message, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise ExplainerError(f"{model} over gRPC: {error.code().name} {error.details()}") from error
    seconds = time.monotonic() - start
    contents = zip(response.outputs, response.raw_output_contents, strict=True)
    return Answer(decode(Tensor(one.name, one.datatype, one.shape, raw) for one, raw in contents), seconds)


def differences(one: Explanation, other: Explanation) -> list[str]:
    """Names of the fields in which two answers differ, in any bit."""
    names = sorted({*one.arrays, *other.arrays})
    return [
        name
        for name in names
        if name not in one.arrays or name not in other.arrays or not np.array_equal(one[name], other[name])
    ]
