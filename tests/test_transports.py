"""Every way to a model says the same: bytes or text, V2 or V1, in any datatype, with any meaning."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from oip_servers import GrpcServer, Model, Output, Refusal, RestServer, echo

from explainer_runtime.errors import InvalidPrediction, InvalidSpec, PredictorError
from explainer_runtime.predictors.meaning import softmax
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Endpoint, parse_predictor

SERVERS = {"rest": RestServer, "grpc": GrpcServer}
BINARY = ("classification", "binary_tensor_data")
ROADS = {
    "gRPC": (GrpcServer, {}),
    "gRPC, compressed": (GrpcServer, {"compression": "gzip"}),
    "REST": (RestServer, {}),
    "REST, compressed": (RestServer, {"compression": "gzip"}),
    "REST, bytes": (RestServer, {"binary": True}),
    "REST, bytes, compressed": (RestServer, {"binary": True, "compression": "gzip"}),
    "V1": (RestServer, {"kind": "v1"}),
}


@pytest.fixture
def rows():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (7, 6, 3)).astype(np.float32)


@contextlib.contextmanager
def asking(server, **settings):
    """A predictor of the server, whose own model answers with features, and not with probabilities."""
    predictor = RemotePredictor(Endpoint(url=server.url, model="m", **{"output": "scores", **settings}))
    try:
        yield predictor
    finally:
        predictor.close()


def answers(*outputs):
    return lambda x: [Output(*output) for output in outputs]


# --- roads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "settings"), ROADS.values(), ids=ROADS)
def test_every_road_carries_every_bit(kind, settings):
    bits = np.random.default_rng(1).integers(0, 2**32, (500, 10), dtype=np.uint32)
    x = bits.view(np.float32)
    x = np.where(np.isfinite(x), x, np.float32(1))
    with kind() as server, asking(server, **settings) as predictor:
        assert predictor(x).tobytes() == x.tobytes()


def test_bytes_go_where_the_server_announces_that_it_reads_them(rows):
    for extensions in (BINARY, ()):
        with RestServer(Model(extensions=extensions)) as server, asking(server) as predictor:
            np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
        kind = server.model.seen[0].headers["content-type"]
        assert kind == ("application/octet-stream" if extensions else "application/json")


def test_what_the_operator_says_about_bytes_goes_before_what_is_announced(rows):
    for binary in (True, False):
        extensions = () if binary else BINARY
        with RestServer(Model(extensions=extensions)) as server, asking(server, binary=binary) as predictor:
            predictor(rows)
        assert ("inference-header-content-length" in server.model.seen[0].headers) == binary


def test_bytes_of_the_output_that_is_named_are_found_behind_those_of_others(rows):
    def respond(x):
        return [Output("other", "FP64", (len(x), 3), np.full((len(x), 3), 0.5)), *echo(x)]

    with (
        RestServer(Model(respond=respond)) as server,
        asking(server, binary=True, output_name="scores") as predictor,
    ):
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)


def says(body, **headers):
    def fault(handler):
        handler.body()
        handler.say(200, body, "application/octet-stream", **headers)

    return fault


HEADER = b'{"outputs":[{"name":"s","datatype":"FP32","shape":[7,2],"parameters":{"binary_data_size":%d}}]}'
LENGTH = "inference-header-content-length"
BROKEN = {
    "fewer bytes than announced": says(HEADER % 56 + b"\0" * 55, **{LENGTH: str(len(HEADER % 56))}),
    "a size that is not the shape's": says(HEADER % 52 + b"\0" * 52, **{LENGTH: str(len(HEADER % 52))}),
    "half a float": says(HEADER % 55 + b"\0" * 55, **{LENGTH: str(len(HEADER % 55))}),
    "a header longer than all": says(HEADER % 56, **{LENGTH: "9999"}),
    "a length that is no number": says(HEADER % 56, **{LENGTH: "-1"}),
    "a negative size": says(HEADER.replace(b"%d", b"-4"), **{LENGTH: str(len(HEADER) - 1)}),
    "no size": says(b'{"outputs":[{"name":"s","datatype":"FP32","shape":[7,2]}]}'),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
def test_bytes_that_do_not_add_up_are_refused(rows, fault):
    with (
        RestServer(Model(fault=fault)) as server,
        asking(server, binary=True) as predictor,
        pytest.raises(InvalidPrediction),
    ):
        predictor(rows)


# --- V1 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("v1+http://127.0.0.1:{port}/m", "/v1/models/m:predict"),
        ("http://127.0.0.1:{port}/v1/models/m:predict", "/v1/models/m:predict"),
        ("http://127.0.0.1:{port}/v1/models/m/versions/2:predict", "/v1/models/m/versions/2:predict"),
    ],
)
def test_an_address_of_v1_names_its_predict_path(rows, address, path):
    with RestServer() as server:
        settings = parse_predictor(address.format(port=server.port))
        predictor = RemotePredictor(settings.model_copy(update={"output": "scores"}))
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
        predictor.close()
    assert server.model.seen[0].path == path
    assert server.model.seen[0].shape == rows.shape


@pytest.mark.parametrize("address", ["v1+grpc://host:1/m", "v1+http://host:1/a/b", "v3+http://host:1/m"])
def test_an_address_that_v1_does_not_have_is_refused(address):
    with pytest.raises(InvalidSpec, match="predictor"):
        parse_predictor(address)


def test_v1_takes_the_output_and_the_input_by_name(rows):
    def respond(x):
        return [Output("other", "FP32", (len(x), 2), np.zeros((len(x), 2), np.float32)), *echo(x)]

    with RestServer(Model(respond=respond)) as server:
        with asking(server, kind="v1", input_name="pixels", output_name="scores") as predictor:
            np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
        assert server.model.seen[0].name == "pixels"
        with (
            asking(server, kind="v1", output_name="nothing") as predictor,
            pytest.raises(InvalidPrediction, match="'other', 'scores'"),
        ):
            predictor(rows)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"predictions": 1}',
        b'{"predictions": [[1, 2], [3]]}',
        b'{"predictions": [[1, null]]}',
        b'{"predictions": [["a", "b"]]}',
        b'{"predictions": []}',
    ],
)
def test_what_is_no_v1_answer_is_refused(rows, body):
    with (
        RestServer(Model(fault=says(body))) as server,
        asking(server, kind="v1") as predictor,
        pytest.raises(InvalidPrediction),
    ):
        predictor(rows)


# --- datatypes --------------------------------------------------------------------------------------------


def test_a_configured_datatype_goes_before_the_declared_one(rows):
    for kind in SERVERS.values():
        with kind() as server, asking(server, datatype="FP64") as predictor:
            predictor(rows)
        assert server.model.seen[0].datatype == "FP64"


@pytest.mark.parametrize(("kind", "settings"), ROADS.values(), ids=ROADS)
def test_rows_are_scaled_to_the_bytes_that_the_model_takes(kind, settings):
    x = (np.arange(256, dtype=np.float32) / 255).reshape(8, 32)
    with kind() as server, asking(server, datatype="UINT8", scale=255, **settings) as predictor:
        np.testing.assert_array_equal(predictor(x), np.arange(256).reshape(8, 32)[:, :10])


def test_scaling_rounds_to_the_nearest_byte_and_moves_by_the_offset():
    x = np.float32([[-0.5, 0.5, 0.0, 0.4999]])
    with GrpcServer() as server, asking(server, datatype="UINT8", scale=255, offset=127.5) as predictor:
        np.testing.assert_array_equal(predictor(x), [[0, 255, 128, 255]])


def test_floats_are_scaled_without_rounding(rows):
    with RestServer() as server, asking(server, scale=2, offset=1) as predictor:
        np.testing.assert_array_equal(predictor(rows), 2 * echo(rows)[0].data + 1)


@pytest.mark.parametrize(("value", "sent"), [(-0.01, 0), (1.01, 255)])
def test_what_is_outside_the_datatype_is_sent_as_its_nearest_end(rows, value, sent):
    with RestServer() as server, asking(server, datatype="UINT8", scale=255) as predictor:
        np.testing.assert_array_equal(predictor(np.full_like(rows, value)), sent)


# --- meaning ----------------------------------------------------------------------------------------------

PROBABLE = np.float32([[0.25, 0.75], [1, 0], [0.5, 0.5]])


def told(data, datatype="FP32", **settings):
    """What a predictor makes of three rows answered with `data`, on every road."""
    found = []
    for kind, road in ROADS.values():
        array = np.asarray(data, {"FP32": np.float32, "INT64": np.int64, "FP64": np.float64}[datatype])
        model = Model(respond=answers(("o", datatype, array.shape, array)))
        with kind(model) as server, asking(server, **road, **settings) as predictor:
            found.append(predictor(np.zeros((3, 4), np.float32)))
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
    return found[0]


def test_probabilities_are_taken_as_they_are():
    np.testing.assert_array_equal(told(PROBABLE, output="probabilities"), PROBABLE)


@pytest.mark.parametrize("wrong", [[-0.1, 1.1], [0.5, 0.6], [0, 0], [3, -2], [0.2, 0.2]])
def test_what_is_no_distribution_is_refused_where_one_is_promised(wrong):
    data = PROBABLE.copy()
    data[1] = wrong
    with pytest.raises(InvalidPrediction, match="probabilities"):
        told(data, output="probabilities")


def test_half_precision_probabilities_of_a_thousand_classes_pass():
    wide = softmax(np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32))
    told(wide.astype(np.float16), output="probabilities")


def test_logits_go_through_a_softmax():
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(told(logits, output="logits"), softmax(logits))


@pytest.mark.parametrize("datatype", ["INT64", "FP64"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_labels_become_one_hot_rows(datatype, shape):
    labels = np.reshape([2, 0, 3], shape)
    np.testing.assert_array_equal(told(labels, datatype, output="labels", classes=4), np.eye(4)[[2, 0, 3]])


@pytest.mark.parametrize("wrong", [[0, 1, 4], [0, -1, 1], [0, 1], [[0, 1], [1, 0], [1, 1]], [0, 0.5, 1]])
def test_what_is_no_class_number_is_refused(wrong):
    with pytest.raises(InvalidPrediction, match="class numbers"):
        told(wrong, "FP64", output="labels", classes=4)


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32", "UINT64"])
@pytest.mark.parametrize("typed", [False, True])
def test_labels_of_any_whole_type_are_read(datatype, typed):
    labels = np.array([2, 0, 3], datatype.lower())
    model = Model(respond=answers(("o", datatype, (3,), labels)), typed=typed)
    with GrpcServer(model) as server, asking(server, output="labels", classes=4) as predictor:
        np.testing.assert_array_equal(predictor(np.zeros((3, 4), np.float32)), np.eye(4)[[2, 0, 3]])


def test_whole_numbers_are_no_scores():
    for kind in SERVERS.values():
        model = Model(respond=answers(("o", "INT64", (3, 2), np.ones((3, 2), np.int64))))
        with (
            kind(model) as server,
            asking(server) as predictor,
            pytest.raises(InvalidPrediction, match="labels"),
        ):
            predictor(np.zeros((3, 4), np.float32))


def test_another_width_than_configured_is_refused():
    with pytest.raises(InvalidPrediction, match="expected 3"):
        told(PROBABLE, output="probabilities", classes=3)


def test_labels_need_to_know_how_many_classes_there_are():
    with pytest.raises(InvalidSpec, match="classes"):
        parse_predictor({"kind": "v2", "url": "http://h", "model": "m", "output": "labels"})


def test_header_values_are_not_written_anywhere(rows):
    secret = {"authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(Endpoint(url="http://h", model="m", headers=secret))
    with pytest.raises(InvalidSpec) as caught:
        parse_predictor({"kind": "v2", "url": "http://h", "model": "m", "headers": {"a": ["s3cret"]}})
    assert "s3cret" not in str(caught.value)

    def respond(x):
        raise Refusal(500, "no")

    for kind in SERVERS.values():
        with (
            kind(Model(respond=respond)) as server,
            asking(server, headers=secret) as predictor,
            pytest.raises(PredictorError) as caught,
        ):
            predictor(rows)
        assert "s3cret" not in str(caught.value)
