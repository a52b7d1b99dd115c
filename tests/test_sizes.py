"""What an answer takes on the wire: each thing once, and no digit that float32 does not have."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from mlserver.types import InferenceRequest
from toys import Linear, weights

from explainer_runtime import wire
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.mlserver import infer, v2types
from explainer_runtime.methods import METHODS, parse_spec
from explainer_runtime.spec import Inputs, Limits

MOST = 30_000
"""Bytes of the answer about one image of 28x28, whatever the method."""
KINDS = [kind for kind, place in METHODS.items() if place.startswith("explainer_runtime.")]
MORE = {"cem": {"no_info_val": 0.0}}


@cache
def answer(kind: str, side: int) -> Explanation:
    """About noise, whose numbers have all the digits there are."""
    shape, names = (side, side, 1), tuple(f"class {number}" for number in range(10))
    inputs = Inputs(shape=shape, low=-0.5, high=0.5, classes=10, class_names=names)
    model = Linear(weights(classes=10, features=side * side) / side * 4, most=64)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (40, *shape)).astype(np.float32)
    spec = parse_spec({"kind": kind, **MORE.get(kind, {})})
    fitted = fit(spec, x, predictor=model, inputs=inputs)
    return prepare(fitted, model)(x[:1], limits=Limits(max_seconds=3600))


def body(explanation: Explanation, wanted=()) -> bytes:
    """As REST sends it."""
    server = SimpleNamespace(name="explainer", version=None)
    request = InferenceRequest(id="1", inputs=[])
    return infer.encoded(v2types.respond(server, request, wire.encode(explanation, wanted)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_about_a_small_image_is_small(kind):
    assert len(body(answer(kind, 28))) <= MOST


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_beside_tensors_does_not_grow_with_the_image(kind):
    small, large = (len(answer(kind, side).to_json(short=True)) for side in (14, 28))
    assert large < 1.3 * small  # what is left are numbers of other lengths, and more superpixels


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_by_name_is_sent_once_and_read_back_to_the_last_bit(kind):
    sent = answer(kind, 14)
    outputs = orjson.loads(body(sent))["outputs"]
    assert [one["name"] for one in outputs] == ["explanation", *sent.arrays]
    got = wire.decode(
        wire.Tensor(*(one[key] for key in ("name", "datatype", "shape", "data"))) for one in outputs
    )
    (alone,) = orjson.loads(body(sent, ["explanation"]))["outputs"]
    whole = Explanation.from_json(alone["data"][0])
    for name, array in sent.arrays.items():
        for read in (got, whole):
            assert read[name].dtype.kind == array.dtype.kind, name
            np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_numbers_have_the_digits_of_float32():
    numbers = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    sent = Explanation("any", {"found": np.ones(1, bool), "numbers": numbers[None]})
    text = body(sent, ["numbers"])
    assert max(len(one) for one in text.partition(b'"data":[')[2].split(b"]")[0].split(b",")) <= 16
    (output,) = orjson.loads(text)["outputs"]
    assert np.array(output["data"], np.float32).tobytes() == numbers.tobytes()
