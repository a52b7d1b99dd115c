"""V2 over REST: tensors as JSON, or as bytes behind a JSON header where the server can read them.

JSON keeps every bit: orjson writes a float32 in its shortest form, which reads back as the same float32. It
takes three to five times the bytes, and time on both sides. The binary tensor data extension (Triton, KServe)
puts the bytes of all tensors after the JSON, whose length a header says; a server that can do it announces
`binary_tensor_data` among its extensions. (KServe's does not, though it can: `binary: true` says so for it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from explainer_runtime.errors import InvalidPrediction, PredictorError
from explainer_runtime.predictors.remote.http import Http, Reply, path, read_json
from explainer_runtime.predictors.remote.tensors import (
    DTYPES,
    TEXT,
    Answer,
    Declared,
    Described,
    Tensor,
    decode,
    one_line,
    pick,
    unpacked,
)
from explainer_runtime.predictors.settings import Endpoint

_LENGTH = "inference-header-content-length"


class Rest:
    """V2's REST side of a `RemotePredictor`; see `Transport` there. Opens nothing until it is used."""

    def __init__(self, settings: Endpoint, http: Http, source: str) -> None:
        self._path = path(settings, "/infer")
        self._output = settings.output_name
        self._ask_binary = settings.binary is None
        self._binary = bool(settings.binary)
        self._source, self._http = source, http

    def infer(self, inputs: Sequence[Tensor], until: float) -> Answer:
        """Send the rows and what goes with them, and return the output that was asked for."""
        wanted = [] if self._output is None else [{"name": self._output}]
        body, headers = (_binary_request if self._binary else _json_request)(inputs, wanted)
        reply = self._http.post(self._path, body, until, headers)
        document, tail = _parts(reply, self._source)
        answer = read_json(document, self._source)
        try:
            outputs = answer["outputs"]
            index = pick([one["name"] for one in outputs], self._output, self._source)
            output = outputs[index]
            numbers = output["data"] if "data" in output else _bytes_of(outputs, index, tail, self._source)
            decoded = decode(numbers, output["datatype"], output["shape"], self._source)
            return Answer(decoded, one_line(f"{answer.get('model_name')}/{answer.get('model_version')}"))
        except (KeyError, TypeError, AttributeError):
            raise InvalidPrediction(f"{self._source} answered with JSON that is no V2 response") from None

    def bytes_of(self, datatype: str) -> int:
        """Most bytes that one number of this datatype takes: as text, that of the longest one, and a
        comma."""
        return DTYPES[datatype].itemsize if self._binary else TEXT[datatype]

    def describe(self, until: float) -> Described:
        """The inputs that the model's metadata declares; and learn what it can read."""
        answer = read_json(self._http.get(self._path.removesuffix("/infer"), until).content, self._source)
        try:
            inputs = {
                str(one["name"]): Declared(str(one["datatype"]), tuple(map(int, one.get("shape") or ())))
                for one in answer["inputs"]
            }
            platform = str(answer.get("platform") or "")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InvalidPrediction(f"{self._source} answered with JSON that is no V2 metadata") from None
        if self._ask_binary:
            self._binary = self._announced(until)
        return Described(inputs, platform)

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _announced(self, until: float) -> bool:
        try:
            return "binary_tensor_data" in read_json(self._http.get("/v2", until).content, "")["extensions"]
        except (PredictorError, KeyError, TypeError):
            return False


_Request = tuple[bytes, dict[str, str]]


def _json_request(inputs: Sequence[Tensor], wanted: list[dict[str, str]]) -> _Request:
    tensors = [{**_named(one), "data": one.data.reshape(-1)} for one in inputs]
    document = {"inputs": tensors, **({"outputs": wanted} if wanted else {})}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), {}


def _binary_request(inputs: Sequence[Tensor], wanted: list[dict[str, str]]) -> _Request:
    tensors = [{**_named(one), "parameters": {"binary_data_size": one.data.nbytes}} for one in inputs]
    head = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    document = orjson.dumps({**head, **({"outputs": wanted} if wanted else {})})
    headers = {_LENGTH: str(len(document)), "content-type": "application/octet-stream"}
    return document + b"".join(one.data.tobytes() for one in inputs), headers


def _named(one: Tensor) -> dict[str, Any]:
    return {"name": one.name, "shape": one.data.shape, "datatype": one.datatype}


def _parts(reply: Reply, source: str) -> tuple[memoryview, memoryview]:
    """The JSON of a reply, and the bytes behind it."""
    length, content = reply.headers.get(_LENGTH), memoryview(reply.content)
    if length is None:
        return content, content[len(content) :]
    if not length.isdecimal() or int(length) > len(content):
        raise InvalidPrediction(f"{source} answered with a JSON header longer than its answer")
    return content[: int(length)], content[int(length) :]


def _bytes_of(outputs: Any, index: int, tail: memoryview, source: str) -> Any:
    """The numbers of output `index`, whose bytes come after those of the outputs before it."""
    sizes = [one["parameters"]["binary_data_size"] if "data" not in one else 0 for one in outputs]
    start, size = sum(sizes[:index]), sizes[index]
    if any(type(one) is not int or one < 0 for one in sizes) or start + size > len(tail):
        raise InvalidPrediction(f"{source} answered with fewer bytes than it announced")
    return unpacked(tail[start : start + size], outputs[index]["datatype"], source)
