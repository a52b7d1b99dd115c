"""For every number, text and list anywhere in a request, any value is an answer or a typed refusal.

The law is asked of the functions that a request goes through before anything is computed, for REST and gRPC,
with documents that are right but for a place or two.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferRequestConverter

from explainer_runtime import wire
from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.hosts.door import documents, messages
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.mlserver import infer, v2types
from explainer_runtime.hosts.mlserver.reading import reading
from explainer_runtime.methods import options
from explainer_runtime.spec import AnchorImage, Counterfactual, parse_options

BOUNDS = Guard().bounds
DEEP = '{"a":' * 900 + "1" + "}" * 900
EXTREMES = st.sampled_from(
    [
        *(0, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 1e308, -0.0, 5e-324, True, None),
        *("", "9" * 5000, "NaN", "Infinity", "[" * 1000 + "]" * 1000, DEEP, "a\r\nb: c", "\x00", "../.."),
        *("x" * 100_000, [1, 0, 2**63], [1] * 100, [2**40, 2**40], [[]], [[], {}], {"a": {}}, [0] * 2000),
    ]
)
ANYTHING = EXTREMES | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def right():
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2, 2, 1], "data": [0.5, 0.25, 0.0, 1.0]}
    options = {"seed": 1, "threshold": 0.9, "max_seconds": 5.0, "beam_size": 2}
    return {
        "id": "one",
        "inputs": [tensor],
        "outputs": [{"name": "found"}],
        "parameters": {"explain_parameters": options, "max_calls": 3},
    }


def places(document, path=()):
    yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from places(document[key], (*path, key))


PLACES = list(places(right()))[1:]


@st.composite
def nearly_right(draw):
    document = right()
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=2)):
        holder = document
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = copy.deepcopy(draw(ANYTHING))
        except (KeyError, IndexError, TypeError):
            continue  # the first change took this place away
    return document


def through(document, spec):
    """What a REST request goes through, from its bytes to its rows and options."""
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    try:
        parsed = documents.loads(body, documents.scan(body, BOUNDS))
    except ValueError as error:  # which the door answers with 422
        raise InvalidInput(str(error)) from None
    request = infer.request_of(parsed)
    rows = wire.decode_rows(v2types.tensors(request))
    given = wire.decode_options(v2types.parameters(request), options(spec.kind).model_fields)
    parse_options(spec, given)
    return rows


@given(nearly_right(), st.sampled_from([AnchorImage(), Counterfactual()]))
@settings(max_examples=400, deadline=None)
def test_any_value_in_a_rest_request_is_read_or_refused_by_type(document, spec):
    try:
        rows = through(document, spec)
    except (InvalidInput, InvalidOption):
        return
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


BODIES = st.dictionaries(st.sampled_from(["instances", "data", "meta", "parameters", "jsonData"]), ANYTHING)


@given(BODIES, ANYTHING)
@settings(max_examples=200, deadline=None)
def test_any_value_in_a_body_of_v1_or_seldon_is_read_or_refused_by_type(body, shape):
    for document in (body, {"data": {"tensor": {"shape": shape, "values": [0.5]}}}):
        try:
            rows, parameters = wire.decode_body(document)
            wire.decode_options(parameters, options("anchor_image").model_fields)
        except (InvalidInput, InvalidOption):
            continue
        assert np.isfinite(rows).all()


@st.composite
def grpc_requests(draw):
    """The bytes of a request whose values may be anything, and of which some bytes may be others."""
    request = pb.ModelInferRequest(model_name="m", id=draw(st.sampled_from(["one", "a\nb", "x" * 100_000])))
    datatypes = st.sampled_from(["FP32", "FP16", "INT64", "BYTES", "x"])
    tensor = request.inputs.add(name="x", datatype=draw(datatypes))
    sizes = st.sampled_from([0, -1, 1, 2, 2**31, 2**62, -(2**63), 2**63 - 1])
    tensor.shape.extend(draw(st.lists(sizes, max_size=40)))
    if draw(st.booleans()):
        request.raw_input_contents.append(draw(st.binary(max_size=40)))
    else:
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=9)))
    words = st.sampled_from(["0.9", DEEP, "[" * 99, "9" * 5000, "NaN"])
    request.parameters["threshold"].string_param = draw(words)
    request.parameters["seed"].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    message = bytearray(request.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message)


@given(grpc_requests())
@settings(max_examples=300, deadline=None)
def test_any_value_in_a_grpc_request_is_read_or_refused_by_type(message):
    read = reading(lambda message, context: ModelInferRequestConverter.to_types(message))
    try:
        messages.count(message, BOUNDS)
        parsed = pb.ModelInferRequest.FromString(message)
    except (ValueError, DecodeError):  # which the door answers with FAILED_PRECONDITION
        return
    try:
        payload = read(parsed, None)
        rows = wire.decode_rows(v2types.tensors(payload))
        given = wire.decode_options(v2types.parameters(payload), options("anchor_image").model_fields)
        parse_options(AnchorImage(), given)
    except (InvalidInput, InvalidOption, MLServerError):
        return
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("text", [DEEP, "[" * 1000 + "]" * 1000, '{"seed": "' + "x" * 70_000 + '"}'])
def test_options_in_a_text_are_short_and_shallow(text):
    with pytest.raises(InvalidOption, match="at most"):
        wire.decode_options({"explain_parameters": text}, ["seed"])
    with pytest.raises(InvalidOption, match="at most"):
        wire.decode_options({"seed": text}, ["seed"])
