from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from explainer_runtime.errors import InvalidInput, InvalidOption
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import options
from explainer_runtime.spec import AnchorImage, Inputs
from explainer_runtime.tensors import NUMBERS, Tensor, unpack
from explainer_runtime.wire import (
    _decoded,
    check_outputs,
    decode,
    decode_body,
    decode_options,
    decode_rows,
    describe_outputs,
    encode,
)

FLOATS = ("FP16", "FP32", "FP64")
INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
NAMES = options("anchor_image").model_fields


def tensor(data, shape=(2, 3), datatype="FP32"):
    return Tensor("rows", datatype, shape, data)


def small_batches():
    shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
    return arrays.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))


@given(small_batches())
def test_flat_nested_and_array_data_are_the_same_rows(batch):
    forms = [batch.ravel().tolist(), batch.tolist(), batch, batch.ravel()]
    for form in forms:
        np.testing.assert_array_equal(decode_rows([tensor(form, batch.shape)]), batch)


@pytest.mark.parametrize("datatype", FLOATS + INTEGERS)
def test_every_datatype_of_numbers_becomes_float32(datatype):
    rows = decode_rows([tensor([0, 1, 2, 3, 4, 5], datatype=datatype)])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0, 1, 2], [3, 4, 5]])


def test_declared_precision_is_kept():
    (row,) = decode_rows([tensor([0.1], (1, 1), "FP16")])
    assert row == np.float16(0.1)


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "FP8", ""])
def test_datatypes_that_are_not_numbers_are_refused(datatype):
    with pytest.raises(InvalidInput, match="FP16, FP32, FP64") as refusal:
        decode_rows([tensor([1] * 6, datatype=datatype)])
    assert refusal.value.field == "inputs[0].datatype"


@pytest.mark.parametrize("shape", [(), (-1, 6), (2, -3), (0, 3), (True, 6), (2.0, 3)])
def test_shapes_without_a_row_or_with_a_negative_size_are_refused(shape):
    with pytest.raises(InvalidInput) as refusal:
        decode_rows([tensor([1] * 6, shape)])
    assert refusal.value.field == "inputs[0].shape"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1, 2, 3, 4, 5], "expected 6 numbers for shape .2, 3., got 5"),
        (np.ones(5), "expected 6 numbers for shape .2, 3., got 5"),
        ([[1, 2, 3]], "lists of 2 at depth 0"),
        ([[1, 2, 3], [4, 5]], "lists of 3 at depth 1"),
        ([[1, 2, 3], 4], "lists of 3 at depth 1"),
        ([1, [2], 3, 4, 5, 6], "got a list at 1"),
        ([[[1], [2], [3]], [[4], [5], [6]]], "got a list at 0"),
        ([1, None, 3, 4, 5, 6], "got null at 1"),
        ([1, 2, "3", 4, 5, 6], "got a string at 2"),
        ([1, 2, 3, True, 5, 6], "got a truth value at 3"),
        ([b"1", b"2", b"3", b"4", b"5", b"6"], "got a bytes at 0"),
        ([1, 2, 3, 4, 5, float("nan")], "got nan at .1, 2."),
        ([1, 2, 3, 4, 5, 1e300], "got inf"),
        ([1, 2, 3, 4, 5, 10**400], "that FP32 can hold"),
        (np.array(["a"] * 6), "expected FP32 numbers"),
        ("123456", "a list of numbers, got a string"),
        (None, "a list of numbers, got null"),
        ({"a": 1}, "a list of numbers, got an object"),
    ],
)
def test_data_that_is_not_the_declared_numbers_is_refused(data, said):
    with pytest.raises(InvalidInput, match=said) as refusal:
        decode_rows([tensor(data)])
    assert refusal.value.field == "inputs[0].data"


@pytest.mark.parametrize("data", [[256], [-1], [0.5], [1.0]])
def test_integers_out_of_their_datatype_are_refused(data):
    with pytest.raises(InvalidInput, match="data"):
        decode_rows([tensor(data, (1, 1), "UINT8")])


def test_deep_nesting_is_refused_without_recursion():
    deep = 1.0
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidInput):
        decode_rows([tensor(deep, (1, 1))])


@pytest.mark.parametrize("count", [0, 2])
def test_any_other_number_of_inputs_than_one_is_refused(count):
    with pytest.raises(InvalidInput, match="exactly one tensor") as refusal:
        decode_rows([tensor([1] * 6)] * count)
    assert refusal.value.field == "inputs"


def test_what_was_sent_is_not_changed():
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    decode_rows([tensor(sent)])
    np.testing.assert_array_equal(sent, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("datatype", FLOATS + INTEGERS)
def test_raw_numbers_are_read_in_place(datatype):
    sent = np.array([0, 1, 100], NUMBERS[datatype])
    np.testing.assert_array_equal(unpack(datatype, sent.tobytes()), sent)


def test_raw_bytes_that_are_no_whole_number_of_elements_are_refused():
    with pytest.raises(InvalidInput, match="raw_input_contents: FP32 takes 4 bytes a number, got 7"):
        unpack("FP32", b"1234567")
    with pytest.raises(InvalidInput, match="raw_input_contents: BYTES are at most"):
        unpack("BYTES", b"1234567")
    assert unpack("BYTES", b"\3\0\0\0abc\0\0\0\0") == [b"abc", b""]
    assert unpack("BOOL", b"1") is None


def test_options_are_the_same_as_object_string_and_scalars():
    options = {"threshold": 0.9, "seed": 7}
    for parameters in ({"explain_parameters": options}, {"explain_parameters": json.dumps(options)}, options):
        assert decode_options(parameters, NAMES) == options


def test_parameters_that_are_no_options_are_left_alone():
    foreign = {"content_type": "np", "headers": {"a": "b"}, "Seldon-Something": 1, "seed": None}
    assert decode_options(foreign, NAMES) == {}
    assert decode_options(None, NAMES) == {}


def test_unknown_options_are_kept_for_the_spec_to_refuse():
    assert decode_options({"explain_parameters": {"treshold": 1}}, NAMES) == {"treshold": 1}


@pytest.mark.parametrize("value", ["not json", "[1]", "3", [1], 3, True, '{"seed": NaN}'])
def test_explain_parameters_that_are_no_object_are_refused(value):
    with pytest.raises(InvalidOption, match="object") as refusal:
        decode_options({"explain_parameters": value}, NAMES)
    assert refusal.value.field == "explain_parameters"


def test_an_option_set_in_both_places_is_refused():
    with pytest.raises(InvalidOption, match="both") as refusal:
        decode_options({"seed": 1, "explain_parameters": {"seed": 1}}, NAMES)
    assert refusal.value.field == "seed"


@pytest.fixture
def explanation():
    return Explanation(
        "anchor_image",
        {
            "found": np.array([True, False]),
            "status": np.array(["ok", "not_found"]),
            "precision": np.array([1, 0.5], np.float32),
            "size": np.array([2, 0]),
        },
    )


def test_answers_are_the_document_first_then_one_tensor_a_field(explanation):
    document, *fields = encode(explanation)
    assert (document.name, document.datatype, document.shape) == ("explanation", "BYTES", (1, 1))
    assert document.data == [explanation.to_json(short=True)]
    assert [(one.name, one.datatype, one.shape) for one in fields] == [
        ("found", "BOOL", (2,)),
        ("status", "BYTES", (2,)),
        ("precision", "FP32", (2,)),
        ("size", "INT64", (2,)),
    ]
    assert fields[1].data == [b"ok", b"not_found"]


def test_only_outputs_that_were_asked_for_are_answered(explanation):
    assert [one.name for one in encode(explanation, ["size", "found"])] == ["found", "size"]


def test_a_document_that_is_asked_for_alone_is_whole(explanation):
    for wanted in (["explanation"], ["explanation", "picture"]):
        assert encode(explanation, wanted)[0].data == [explanation.to_json()]
    for wanted in ([], ["explanation", "size"]):
        assert encode(explanation, wanted)[0].data == [explanation.to_json(short=True)]


def labelled(shape):
    return arrays.arrays(np.int64, (2, *shape), elements=st.integers(0, 3))


@given(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(labelled))
def test_a_whole_document_holds_every_field_to_the_last_bit(segments):
    rng = np.random.default_rng(0)
    sent = Explanation(
        "anchor_image",
        {
            "found": np.array([True, False]),
            "status": np.array(["ok", "ä"]),
            "segments": segments,
            "mask": segments > 1,
            "image": rng.normal(size=(*segments.shape, 1)).astype(np.float32),
            "original_proba": rng.uniform(size=(2, 3)).astype(np.float32),
        },
        ({"note": "a"}, {"feature": [1]}),
        {"spec": {"seed": 0}, "class_names": ["a", "b", "c"]},
        Cost(2, 30, 0.0, 4),
    )
    got = Explanation.from_json(sent.to_json())
    for name, array in sent.arrays.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array)
    assert (got.raw, got.meta, got.cost) == (sent.raw, sent.meta, sent.cost)
    for row, one in enumerate(json.loads(sent.to_json())["data"]["segments"]):  # as anyone would read it
        np.testing.assert_array_equal(
            np.repeat(one["values"], one["runs"]).reshape(one["shape"]), segments[row]
        )


def test_a_short_document_names_what_stands_beside_it():
    many = np.arange(40, dtype=np.float32)[None] / 100
    fields = {"found": np.array([True]), "original_class": np.array([39]), "original_proba": many}
    names = [f"class {number}" for number in range(40)]
    meta = {"spec": {"seed": 0, "segments": np.eye(8).tolist()}, "class_names": names}
    sent = Explanation("region", fields, meta=meta)
    document = json.loads(sent.to_json(short=True))
    assert document["data"] == {"found": [True], "original_class": [39]}
    assert document["meta"]["tensors"] == ["original_proba"]
    assert document["meta"]["names"] == {str(number): names[number] for number in range(35, 40)}
    assert document["meta"]["spec"] == {"seed": 0}
    assert "class_names" not in document["meta"]
    with pytest.raises(ValueError, match="original_proba"):
        Explanation.from_json(sent.to_json(short=True))


@pytest.mark.parametrize(
    ("datatype", "values", "raw"),
    [
        ("FP32", [0.1, -0.0, 3e38, 1e-45], np.array([0.1, -0.0, 3e38, 1e-45], np.float32).tobytes()),
        ("INT64", [-(2**62), 0, 1, 7], np.array([-(2**62), 0, 1, 7]).tobytes()),
        ("BOOL", [True, False, False, True], b"\1\0\0\1"),
        ("BYTES", ["ok", "", "é"], b"\2\0\0\0ok" + b"\0\0\0\0" + b"\2\0\0\0" + "é".encode()),
    ],
)
def test_a_tensor_is_the_same_as_a_list_and_as_raw_bytes(datatype, values, raw):
    shape = [len(values)]
    from_list, from_raw = (_decoded(Tensor("rows", datatype, shape, form)) for form in (values, raw))
    assert from_list.dtype == from_raw.dtype
    np.testing.assert_array_equal(from_list, from_raw)


def carried_by_rest(tensor):
    data = (
        tensor.data.ravel() if isinstance(tensor.data, np.ndarray) else [one.decode() for one in tensor.data]
    )
    return Tensor(tensor.name, tensor.datatype, list(tensor.shape), list(data))


def carried_by_grpc(tensor):
    if isinstance(tensor.data, np.ndarray):
        return Tensor(tensor.name, tensor.datatype, tensor.shape, tensor.data.tobytes())
    words = b"".join(len(one).to_bytes(4, "little") + one for one in tensor.data)
    return Tensor(tensor.name, tensor.datatype, tensor.shape, words)


@pytest.mark.parametrize("carried", [carried_by_rest, carried_by_grpc])
def test_an_answer_that_was_carried_is_the_one_that_was_sent(carried):
    arrays = {
        "found": np.array([True, False]),
        "status": np.array(["ok", "nicht gefunden: ä"]),
        "mask": np.arange(8, dtype=np.float32).reshape(2, 2, 2),
        "size": np.array([3, -1]),
    }
    sent = Explanation("anchor_image", arrays, ({"note": "a"}, {}), {"spec": {}}, Cost(2, 30, 0.0, 4))
    got = decode(map(carried, encode(sent)), seconds=1.5)
    assert got.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
    assert (got.kind, got.raw, got.meta) == (sent.kind, sent.raw, sent.meta)
    assert got.cost == Cost(2, 30, 1.5, 4)


def test_unknown_outputs_are_refused_with_the_names_there_are():
    fitted = Fitted(AnchorImage(), Inputs(shape=(8, 8, 1), low=0, high=1, classes=3))
    known = [one.name for one in describe_outputs(fitted)]
    check_outputs(known, known)
    with pytest.raises(
        InvalidOption, match=r"outputs\[1\].name: no output 'mask'; there are explanation, found"
    ):
        check_outputs(["anchor", "mask"], known)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("0.9", 0.9), ("3", 3), ("[1, 2]", [1, 2]), ("true", True), ("other", "other"), ('"other"', '"other"')],
)
def test_a_scalar_parameter_that_holds_json_is_what_it_says(given, meant):
    assert decode_options({"x": given}, ["x"]) == {"x": meant}


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2.5]], "parameters": {"seed": 1}},
        {"instances": [[1, 2.5]], "explain_parameters": {"seed": 1}},
        {"data": {"ndarray": [[1, 2.5]]}, "meta": {"tags": {"seed": 1}}},
        {"data": {"tensor": {"shape": [1, 2], "values": [1, 2.5]}}, "parameters": {"seed": "1"}},
        {"jsonData": {"instances": [[1, 2.5]]}, "meta": {"tags": {"seed": 1}}},
    ],
)
def test_bodies_of_every_protocol_say_the_same(body):
    rows, parameters = decode_body(body)
    np.testing.assert_array_equal(rows, np.array([[1, 2.5]], np.float32))
    assert decode_options(parameters, ["seed"]) == {"seed": 1}
