"""Explanations that outlive their connection, over gRPC, whose protocol has one call for it: `ModelInfer`.

Metadata `prefer: respond-async` gives an answer without outputs, whose parameters say `explanation_id` and
`state`. The same call with the parameter `explanation_id`, and without inputs, asks how far it is, and has
the outputs, raw, when it is done. There is one kind of job: what came over gRPC is written down as the V2
request that it is in JSON, so that it may be fetched over REST, and the other way round.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import orjson

from explainer_runtime.errors import ExplainerError, InvalidInput
from explainer_runtime.hosts.door import messages
from explainer_runtime.hosts.door.again import Request
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.door.desk import ANSWERED, Desk
from explainer_runtime.hosts.door.prefer import preferred
from explainer_runtime.hosts.service.caller import Checked, caller
from explainer_runtime.hosts.service.status import GRPC, fault
from explainer_runtime.jobs.store import Job
from explainer_runtime.predictors.remote import oip
from explainer_runtime.predictors.remote.tensors import FLOATS, WHOLE
from explainer_runtime.tensors import unpack

ID = "explanation_id"
"""The parameter that names a job."""


def deferring(handler: Any, desk: Desk, metadata: Sequence[tuple[str, Any]], most: int) -> Any:
    """A handler of `ModelInfer` that takes jobs, and tells of them; what is neither is left to `handler`.

    Args:
        handler: Answers.
        desk: Where jobs are taken.
        metadata: Of the call.
        most: Bytes of a body over REST, which a job is.
    """
    preference = preferred(str(value) for name, value in metadata if name == "prefer")
    key = next((str(value) for name, value in metadata if name == "idempotency-key"), None)

    async def answer(request: Any, context: Any) -> Any:
        try:
            if ID in request.parameters and not request.inputs:
                name = request.parameters[ID].string_param
                return await _told(desk, await desk.find(name, request.model_name, caller()))
            if not preference.asynchronous:
                return await handler.unary_unary(request, context)
            kept = type(request)()
            kept.CopyFrom(request)  # what answers may change it
            caller().checks = True
            try:
                return await handler.unary_unary(request, context)
            except Checked as checked:
                model = checked.model
            finally:
                caller().checks = False
            written = await aside(_written, kept)
            if len(written.body) > most:
                reason = f"a job is kept as JSON, of which at most {most} bytes are taken, got"
                raise InvalidInput(f"{reason} {len(written.body)}; ask for fewer rows at a time", "inputs")
            job = await desk.take(written, model, caller(), key)
            async for seen in desk.watch(job, preference.wait or 0):
                job = seen
            return await _told(desk, job)
        except ExplainerError as error:
            status, message = fault(error)
        except _Failed as failed:
            status, message = failed.args
        return await context.abort(grpc.StatusCode[GRPC.get(status, "UNKNOWN")], message)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _written(message: Any) -> Request:
    """A message as the V2 request that it is over REST."""
    raws = iter(message.raw_input_contents)
    body = {
        "inputs": [
            {**_named(one), "shape": [*one.shape], "data": _data(one, raws)} for one in message.inputs
        ],
        "outputs": [{"name": one.name, "parameters": messages.parameters(one)} for one in message.outputs],
        "parameters": messages.parameters(message),
        **({"id": message.id} if message.id else {}),
    }
    version = f"/versions/{message.model_version}" if message.model_version else ""
    path = f"/v2/models/{message.model_name}{version}/infer"
    written = orjson.dumps(
        {name: part for name, part in body.items() if part}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    return Request(path, "", [("content-type", "application/json")], written)


def _named(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "parameters": messages.parameters(tensor)}


def _data(tensor: Any, raws: Iterator[bytes]) -> Any:
    """The numbers of an input, or its texts in base64, as JSON has them."""
    given = tensor.contents.ListFields()
    data = given[0][1] if given else unpack(tensor.datatype, next(raws, b""))
    if tensor.datatype == "BYTES":
        return [base64.b64encode(text).decode() for text in data or ()]
    return np.asarray(data, np.float32) if tensor.datatype in ("FP16", "FP32") else np.asarray(data)


class _Failed(Exception):
    """A job has failed: its HTTP status, and why."""


async def _told(desk: Desk, job: Job) -> Any:
    """How far a job is; its outputs, or its error, when it has ended.

    Raises:
        _Failed: It has failed.
        InvalidInput: Its answer is none of V2.
    """
    message = oip.ModelInferResponse(model_name=job.model)
    if job.state in ANSWERED:
        answer = await desk.answer(job)
        if answer.status != 200:
            raise _Failed(answer.status, job.error or "it failed")
        await aside(_fill, message, answer.body, job)
    _add(message, {ID: job.id, "state": job.state})
    return message


def _fill(message: Any, body: bytes, job: Job) -> None:
    try:
        document = orjson.loads(body)
    except ValueError:  # a picture, a page
        document = {}
    if "outputs" not in document:
        raise InvalidInput(f"{job.id} was not asked for in V2's words; fetch it over REST", ID)
    message.model_version, message.id = document.get("model_version") or "", document.get("id") or ""
    _add(message, document.get("parameters") or {})
    for one in document["outputs"]:
        output = message.outputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        _add(output, one.get("parameters") or {})
        dtype = {**FLOATS, **WHOLE}.get(one["datatype"])
        if dtype is not None:
            message.raw_output_contents.append(np.asarray(one["data"], dtype).tobytes())
            continue
        words = [word.encode() for word in one["data"]]
        message.raw_output_contents.append(b"".join(struct.pack("<I", len(word)) + word for word in words))


def _add(message: Any, said: Mapping[str, Any]) -> None:
    """Parameters, but for fractions, which the protocol has no place for."""
    places = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for name, value in said.items():
        if type(value) in places:
            setattr(message.parameters[name], places[type(value)], value)
