"""Whatever a model answers over gRPC, it is its scores or a typed error, in bounded time and memory.

The server is a real one on loopback and answers bytes of our choosing: messages that are right but for a
place or two, any messages that the protocol's schema allows, and such with a few bytes changed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_servers import CONTENTS, GrpcServer

from explainer_runtime.errors import InvalidPrediction, PredictorError
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.predictors.remote import oip
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Endpoint

ROWS = np.random.default_rng(0).uniform(size=(3, 2, 2, 1)).astype(np.float32)
SCORES = np.float32([[0.25, 0.75], [0.5, 0.5], [1, 0]])
DATATYPES = [
    "FP32",
    "FP64",
    "FP16",
    "BOOL",
    "INT8",
    "INT64",
    "UINT8",
    "UINT64",
    "BYTES",
    "",
    "fp32",
    "x" * 9999,
]


@pytest.fixture(scope="module")
def asked():
    """What a predictor makes of these bytes."""
    with GrpcServer() as server:
        made = Endpoint(url=server.url, model="m", output="scores", timeout=10)
        with contextlib.closing(RemotePredictor(made)) as predictor:

            def asking(answer):
                server.model.fault = lambda context: answer
                predictor._breaker.__init__(predictor.name)  # each answer meets one that is closed
                return predictor(ROWS)

            yield asking


def right(typed=False):
    message = oip.ModelInferResponse(model_name="m", model_version="1", id="one")
    tensor = message.outputs.add(name="scores", datatype="FP32", shape=SCORES.shape)
    if typed:
        tensor.contents.fp32_contents.extend(SCORES.ravel().tolist())
    else:
        message.raw_output_contents.append(SCORES.tobytes())
    return message


# --- any message of the schema ------------------------------------------------------------------------------

WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2, 3, 2**31, 2**62, 2**63 - 1])
NUMBERS = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: WHOLE,
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
}


def value_of(field):
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=30) | st.just(SCORES.tobytes())
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.sampled_from(["scores", "a\r\nb", "\0", "☃" * 5000, *DATATYPES]) | st.text(max_size=5)
    return NUMBERS[field.cpp_type]


def change(draw, message, depth=0):
    """Set some fields of a message to anything."""
    fields = [one for one in message.DESCRIPTOR.fields if one.message_type is None or depth < 3]
    for field in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3)):
        many = field.default_value == [] and not (
            field.message_type and field.message_type.GetOptions().map_entry
        )
        if field.message_type and field.message_type.GetOptions().map_entry:
            change(draw, getattr(message, field.name)[draw(st.text(max_size=3))], depth + 1)
        elif field.message_type and many:
            held = getattr(message, field.name)
            if held and draw(st.booleans()):
                change(draw, held[0], depth + 1)
            elif held and draw(st.booleans()):
                del held[0]
            else:
                change(draw, held.add(), depth + 1)
        elif field.message_type:
            change(draw, getattr(message, field.name), depth + 1)
        elif many:
            getattr(message, field.name)[:] = draw(st.lists(value_of(field), max_size=40))
        else:
            setattr(message, field.name, draw(value_of(field)))


@st.composite
def answers(draw):
    message = draw(st.sampled_from([right(), right(typed=True), oip.ModelInferResponse()]))
    message = type(message).FromString(message.SerializeToString())
    if draw(st.booleans()):
        change(draw, message)
    if message.outputs and draw(st.booleans()):
        message.outputs[0].datatype = draw(st.sampled_from(DATATYPES))
    if message.outputs and draw(st.booleans()):
        sizes = st.sampled_from([0, -1, 1, 2, 3, 6, 2**31, 2**62, -(2**63), 2**63 - 1])
        message.outputs[0].shape[:] = draw(st.lists(sizes, max_size=40))
    encoded = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):
        if encoded:
            encoded[draw(st.integers(0, len(encoded) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(encoded))) if draw(st.integers(0, 9)) == 0 else len(encoded)
    return bytes(encoded[:cut])


def read(answer):
    """The scores of an answer, by another road."""
    message = oip.ModelInferResponse.FromString(answer)
    tensor = message.outputs[0]
    numbers = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    if message.raw_output_contents:
        flat = np.frombuffer(message.raw_output_contents[0], numbers[tensor.datatype])
    else:
        flat = np.array(getattr(tensor.contents, CONTENTS.get(tensor.datatype, "fp32_contents")))
    return flat.reshape(tuple(tensor.shape)).astype(np.float32)


@given(answers() | st.binary(max_size=99))
@settings(max_examples=400, deadline=None)
def test_whatever_a_model_answers_over_grpc_is_its_scores_or_502(asked, answer):
    refusal, scores = None, None
    try:
        scores = asked(answer)
    except PredictorError as error:
        refusal = fault(error)
    if refusal is not None:
        assert refusal.status == 502, refusal
        assert len(refusal.message) <= 1000
        assert "\n" not in refusal.message
        return
    assert np.isfinite(scores).all()
    expected = read(answer).reshape(len(ROWS), -1)
    if expected.shape[1] > 1:
        np.testing.assert_array_equal(scores, expected)


def test_the_right_answer_passes_either_way(asked):
    for typed in (False, True):
        np.testing.assert_array_equal(asked(right(typed).SerializeToString()), SCORES)


def named(name):
    encoded = right().SerializeToString()
    assert encoded.count(b"\x06scores") == 1
    return encoded.replace(b"\x06scores", b"\x06" + name)


WRONG = {
    "a name that is no text": named(b"\xff\xfe\xc3\x28\xa0\xa1"),
    "the shape of more numbers than there are": right().SerializeToString().replace(b"\x03\x02", b"\x03\x03"),
    "an output without contents": oip.ModelInferResponse(
        outputs=[{"name": "scores", "datatype": "FP32", "shape": [3, 2]}]
    ).SerializeToString(),
    "a length that is not there": right().SerializeToString() + b"\x2a\xff\xff\xff\x7f",
    "a group": right().SerializeToString() + b"\x2b\x2c",
    "half a number": right().SerializeToString() + b"\x80",
    "nothing": b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_that_is_wrong_is_502(asked, wrong):
    if wrong == "a group":  # which parsers skip, and nobody sends
        assert oip.ModelInferResponse.FromString(WRONG[wrong]).outputs
    with pytest.raises(InvalidPrediction) as refusal:
        asked(WRONG[wrong])
    assert fault(refusal.value).status == 502


# --- large ones ---------------------------------------------------------------------------------------------

ASKING = """
import re, sys
import numpy as np
from pathlib import Path
from explainer_runtime.errors import InvalidPrediction
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Endpoint

def held(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

predictor = RemotePredictor(Endpoint(url=sys.argv[1], model="m", output="scores", timeout=100))
rows = np.zeros((3, 2, 2, 1), np.float32)
try:
    predictor(rows)  # a small wrong one: everything that is needed is there
except InvalidPrediction:
    pass
before = held("VmRSS")
try:
    predictor(rows)
except InvalidPrediction as error:
    print(fault(error).status, round(held("VmHWM") - before), str(error)[-200:])
"""
MIB = 2**20
NAME = b"\x0a\x01m"
LARGE = {
    "32 Mi of empty outputs": (b"\x2a\x00" * (31 * MIB), "10000 fields"),
    "a shape of 60 Mi axes": (
        b"\x2a\x86\x80\x80\x1e\x1a\x80\x80\x80\x1e" + b"\x01" * (60 * MIB) + b"\x0a",
        "values",
    ),
    "60 Mi of parameters": (b"\x22\x00" * (30 * MIB), "10000 fields"),
    "60 Mi of raw contents": (b"\x32\x00" * (30 * MIB), "10000 fields"),
    "a name of 60 Mi words": (
        b"\x0a\x80\x80\x80\x1e" + b"a " * (30 * MIB) + right().SerializeToString()[:-1],
        "",
    ),
    "200 MiB that are packed to 200 kB": (bytes(200 * MIB), "more than is taken"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("large", LARGE)
def test_a_large_answer_takes_little_more_than_its_bytes(large, packed):
    answer, said = LARGE[large]

    def told(context):
        if packed:
            context.set_compression(grpc.Compression.Gzip)
        told.count += 1
        return answer if told.count > 1 else b""

    told.count = 0
    with GrpcServer() as server:
        server.model.fault = told
        command = [sys.executable, "-c", ASKING, server.url]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, cwd=Path.cwd()
        )
    assert done.returncode == 0, done.stderr
    status, memory, message = done.stdout.split(maxsplit=2)
    assert status == "502"
    assert int(memory) < 3 * 64 + 64, message  # as it came, unpacked, and as bytes of ours
    assert said in message
