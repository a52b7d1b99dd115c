"""`/infer` over REST, and what all routes with a V2 body share: from a document to a request, and back.

MLServer parses, validates and encodes on the event loop, lists every complaint about a body in order to tell
one, and copies each number several times. Here what is long is bounded and taken aside before the validator
sees it, large work leaves the event loop (`door/aside.py`), and the first complaint is the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from mlserver.codecs.json import encode_to_json_bytes
from mlserver.rest.app import APIRoute as MLServerRoute
from mlserver.types import InferenceRequest, InferenceResponse, TensorData
from mlserver.utils import extract_headers, generate_uuid, insert_headers
from pydantic import ValidationError

from explainer_runtime.complaints import expected
from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.door.aside import SMALL, aside
from explainer_runtime.hosts.door.gate import DOCUMENT, HEAD
from explainer_runtime.hosts.mlserver import v2types
from explainer_runtime.hosts.mlserver.refusals import answer, where
from explainer_runtime.hosts.service.names import check_id

_MOST = {"inputs": 64, "outputs": 1000, "shape": 64}
"""Entries of the lists that a validator looks into."""
_PIECE = 16 * 1024
"""Numbers encoded without a break; the interpreter's lock is held meanwhile."""


_JSON = (b"content-type", b"application/json")


class Route(MLServerRoute):
    """A route whose request has been parsed at the door, if there is one."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """FastAPI's handler, given the document."""
        handle = super(MLServerRoute, self).get_route_handler()
        slow = MLServerRoute.get_route_handler(self)

        async def handler(request: Request) -> Any:
            if DOCUMENT not in request.scope:
                return await slow(request)
            if HEAD.decode() in request.headers:  # what is behind the JSON is in the document as well
                other = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
                request = Request({**request.scope, "headers": [*other, _JSON]}, request.receive)
            request._json = request.scope[DOCUMENT]
            return await handle(request)

        return handler


def install(app: FastAPI, data_plane: Any) -> None:
    """Put `/infer` before MLServer's own, and let what models add find the document."""

    async def infer(
        request: Request, payload: dict[str, Any], model_name: str, model_version: str | None = None
    ) -> Response:
        try:
            read = request_of(payload)
        except InvalidInput as error:
            return answer(v2types.refusal(error))
        insert_headers(read, dict(request.headers))
        said = await data_plane.infer(read, model_name, model_version)
        headers = extract_headers(said)
        return await as_json(said, headers)

    app.router.route_class = Route
    answer_first(app, infer)


def answer_first(app: FastAPI, handler: Callable[..., Any], suffix: str = "") -> None:
    """Answer V2's paths of a model that end in `suffix` with this handler, in place of MLServer's own.

    Args:
        app: MLServer's.
        handler: Takes `payload`, `model_name` and `model_version`, and the request if it says so.
        suffix: Behind `infer` and `generate`.
    """
    # Annotations are evaluated elsewhere, where these names mean nothing.
    known = {"request": Request, "payload": dict[str, Any], "model_version": str | None}
    handler.__annotations__.update({name: known[name] for name in handler.__annotations__ if name in known})
    app.router.routes[:0] = [
        Route(
            f"/v2/models/{{model_name}}{version}/{verb}{suffix}",
            handler,
            methods=["POST"],
            response_model=None,
            include_in_schema=False,
        )
        for verb in ("infer", "generate")
        for version in ("", "/versions/{model_version}")
    ]


def request_of(document: Mapping[str, Any]) -> InferenceRequest:
    """The V2 request in a parsed body, with an id; what it costs is bounded.

    Raises:
        InvalidInput: It is none; the message names the first field that is wrong.
    """
    document, data = _without_data(document)
    try:
        request = InferenceRequest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = where(first["loc"])
        raise InvalidInput(f"{field}: {expected(first)}", field) from None
    request.id = request.id or generate_uuid()
    check_id(request.id)
    for tensor, values in zip(request.inputs, data, strict=True):
        if values is not None:
            tensor.data = TensorData.model_construct(root=values)
    return request


async def as_json(response: InferenceResponse, headers: Mapping[str, str] | None = None) -> Response:
    """The REST answer that says it."""
    return Response(await in_json(response), 200, headers, media_type="application/json")


async def in_json(response: InferenceResponse) -> bytes:
    """A response as JSON, made aside if it is large."""
    large = sum(len(output.data.root) for output in response.outputs) > SMALL
    return await aside(encoded, response) if large else encoded(response)


def encoded(response: InferenceResponse) -> bytes:
    """A response as JSON; the same bytes as encoding it whole."""
    bare = response.model_copy(update={"outputs": []})
    return _with(bare, "outputs", b",".join(map(_encoded_output, response.outputs)))


def _encoded_output(output: Any) -> bytes:
    data = output.data.root
    if not isinstance(data, list):
        return encode_to_json_bytes(output.model_dump())
    bare = output.model_copy(update={"data": TensorData.model_construct(root=[])})
    return _with(bare, "data", b",".join(_pieces(data)))


def _with(bare: Any, name: str, entries: bytes) -> bytes:
    """A value as JSON, with these entries in its list `name`."""
    said = {key: encode_to_json_bytes(one) for key, one in bare.model_dump().items()}
    said[name] = b"[%b]" % entries
    parts = (b"%b:%b" % (encode_to_json_bytes(key), one) for key, one in said.items())
    return b"{%b}" % b",".join(parts)


def _pieces(data: Sequence[Any]) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield encode_to_json_bytes(data[start : start + _PIECE])[1:-1]


def _without_data(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A request without the data of its inputs, which is for `wire.py` to look at, and that data."""
    _check_length(document.get("outputs"), "outputs", "outputs")
    inputs = document.get("inputs")
    data: list[Any] = []
    _check_length(inputs, "inputs", "inputs")
    if not isinstance(inputs, list):
        return dict(document), data
    bare = []
    for index, tensor in enumerate(inputs):
        values = tensor.get("data") if isinstance(tensor, dict) else None
        if isinstance(tensor, dict):
            _check_length(tensor.get("shape"), "shape", f"inputs[{index}].shape")
        if isinstance(values, list | np.ndarray):
            tensor = {**tensor, "data": []}
        else:
            values = None
        bare.append(tensor)
        data.append(values)
    return {**document, "inputs": bare}, data


def _check_length(value: Any, name: str, field: str) -> None:
    if isinstance(value, list) and len(value) > _MOST[name]:
        raise InvalidInput(f"{field}: expected at most {_MOST[name]} entries, got {len(value)}", field)
