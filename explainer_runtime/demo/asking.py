"""Asking a served explainer as any client would: one V2 request, over REST or over gRPC."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import orjson

from explainer_runtime.demo.servers import Server
from explainer_runtime.errors import ExplainerError
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.predictors.remote import oip

_SECONDS = 120.0
_DTYPES: Mapping[str, Any] = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}


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
    tensors = {
        output["name"]: _array(output["datatype"], output["shape"], output["data"])
        for output in orjson.loads(response.content)["outputs"]
    }
    return Answer(_explanation(tensors), seconds)


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
    tensors = {
        output.name: _array(output.datatype, output.shape, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return Answer(_explanation(tensors), seconds)


def differences(one: Explanation, other: Explanation) -> list[str]:
    """Names of the fields in which two answers differ, in any bit."""
    names = sorted({*one.arrays, *other.arrays})
    return [
        name
        for name in names
        if name not in one.arrays or name not in other.arrays or not np.array_equal(one[name], other[name])
    ]


def _array(datatype: str, shape: Any, data: Any) -> np.ndarray:
    """One tensor: `data` is a list (REST) or bytes (gRPC raw)."""
    if datatype == "BYTES":
        words = _words(data) if isinstance(data, bytes) else data
        return np.array(words).reshape(shape)
    dtype = _DTYPES[datatype]
    flat = np.frombuffer(data, dtype) if isinstance(data, bytes) else np.array(data, dtype)
    return flat.reshape(shape)


def _words(raw: bytes) -> list[str]:
    words, at = [], 0
    while at < len(raw):  # each with its length in front, four bytes, little end first
        size = int.from_bytes(raw[at : at + 4], "little")
        words.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return words


def _explanation(tensors: dict[str, np.ndarray]) -> Explanation:
    meta = orjson.loads(str(tensors.pop("explanation").item()))["meta"]
    cost = meta.pop("cost")
    return Explanation(meta["name"], tensors, meta=meta, cost=Cost(**cost))
