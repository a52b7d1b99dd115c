"""The remote predictor keeps its promises over real sockets, whatever the server does."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oip_servers import GrpcServer, Model, Output, Refusal, RestServer, echo

from explainer_runtime.errors import (
    InvalidPrediction,
    InvalidSpec,
    MessageTooLarge,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors import Predictor, connect
from explainer_runtime.predictors.meaning import softmax
from explainer_runtime.predictors.remote import oip, v2_grpc
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.predictors.tally import tally
from explainer_runtime.spec import Endpoint, parse_predictor

SERVERS = {"rest": RestServer, "grpc": GrpcServer}
SOON = 0.3  # seconds that a call may take where the server will not answer


@pytest.fixture(params=SERVERS)
def server(request):
    with SERVERS[request.param]() as running:
        yield running


@pytest.fixture
def rest():
    with RestServer() as running:
        yield running


@pytest.fixture
def remote(request):
    """Makes predictors of a server, and closes them. The servers' own model answers with features."""
    made = []

    def make(server, **settings):
        predictor = RemotePredictor(Endpoint(url=server.url, model="m", **{"output": "scores", **settings}))
        made.append(predictor)
        return predictor

    yield make
    for predictor in made:
        predictor.close()


@pytest.fixture
def rows():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (7, 28, 28, 1)).astype(np.float32)


def first_ten(x):
    return x.reshape(len(x), -1)[:, :10]


def answers(*outputs):
    return lambda x: [Output(*output) for output in outputs]


# --- numbers ----------------------------------------------------------------------------------------------


def test_every_float32_arrives_and_returns_bit_for_bit(server, remote):
    # Random bit patterns have every exponent, subnormals included; a JSON number must not move one of them.
    bits = np.random.default_rng(1).integers(0, 2**32, (20_000, 10), dtype=np.uint32)
    x = bits.view(np.float32)
    x = np.where(np.isfinite(x), x, np.float32(1))
    assert remote(server)(x).tobytes() == x.tobytes()


def test_rows_arrive_in_their_shape_and_are_left_as_they_were(server, remote, rows):
    before = rows.copy()
    remote(server)(rows)
    assert server.model.seen[0].shape == rows.shape
    np.testing.assert_array_equal(rows, before)


def test_strided_float64_rows_are_answered_like_their_float32_copy(server, remote, rows):
    predictor = remote(server)
    strided = np.asfortranarray(rows.astype(np.float64))[::2]
    np.testing.assert_array_equal(predictor(strided), predictor(rows[::2].copy()))


def test_no_rows_are_answered_without_a_call(server, remote, rows):
    assert remote(server)(rows[:0]).shape[0] == 0
    assert server.model.seen == []


def test_logits_become_probabilities(server, remote, rows):
    scores = remote(server, output="logits")(rows)
    np.testing.assert_array_equal(scores, softmax(first_ten(rows)))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_scores_of_any_float_type_come_back_as_float32(server, remote, rows, datatype):
    dtype = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[datatype]
    data = first_ten(rows).astype(dtype)
    server.model.respond = answers(("scores", datatype, data.shape, data))
    scores = remote(server)(rows)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, data.astype(np.float32))


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_typed_grpc_contents_are_as_good_as_raw_ones(remote, rows, datatype):
    data = first_ten(rows).astype({"FP32": np.float32, "FP64": np.float64}[datatype])
    respond = answers(("scores", datatype, data.shape, data))
    with GrpcServer(Model(respond=respond, typed=True)) as server:
        np.testing.assert_array_equal(remote(server)(rows), first_ten(rows))


BYTES = {"http": 16, "grpc": 4}
"""Most bytes of a float32 on each wire."""

# --- messages ---------------------------------------------------------------------------------------------


def test_a_batch_beyond_one_message_is_answered_like_its_parts(server, remote, rows):
    x = np.concatenate([rows] * 5)
    predictor = remote(server, max_message=BYTES[server.scheme] * 784 * 10 + 4096)
    np.testing.assert_array_equal(predictor(x), remote(server)(x))
    assert [seen.shape[0] for seen in server.model.seen] == [10, 10, 10, 5, 35]


@pytest.mark.parametrize("limit", [8192, 50_000, 4 * 2**20])
@pytest.mark.parametrize("shape", [(784,), (28, 28, 1), (3,)])
def test_as_many_rows_as_promised_fit_a_server_of_that_limit(remote, shape, limit):
    with GrpcServer(max_message=limit) as server:
        predictor = remote(server, max_message=limit)
        count = predictor.rows_per_call(shape)
        predictor(np.zeros((count, *shape), np.float32))
    assert [seen.shape[0] for seen in server.model.seen] == [count]


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("numbers", ["long", "short"])
def test_a_message_of_text_is_no_larger_than_configured(remote, kind, numbers):
    limit = 50_000
    x = np.random.default_rng(0).normal(size=(90, 28, 28, 1)).astype(np.float32)
    x = -np.abs(x) * np.float32(1e-30) if numbers == "long" else np.rint(x)
    with RestServer() as server:
        remote(server, kind=kind, max_message=limit)(x)
        sizes = [int(seen.headers["content-length"]) for seen in server.model.seen]
    assert max(sizes) <= limit
    assert numbers == "short" or max(sizes) > limit / 2  # and not much smaller


def test_rows_of_a_million_features_go_one_by_one():
    for scheme in ("http", "grpc"):
        predictor = RemotePredictor(Endpoint(url=f"{scheme}://127.0.0.1:1", model="m"))
        assert predictor.rows_per_call((10**7,)) == 1


@pytest.mark.parametrize("limit", [8192, 40_000, 70_000])
def test_the_limit_of_a_grpc_server_is_learnt_from_its_first_refusal(remote, rows, limit):
    x = np.concatenate([rows] * 9)
    with GrpcServer(max_message=limit) as server:
        predictor = remote(server)
        with tally() as more:
            np.testing.assert_array_equal(predictor(x), first_ten(x))
        sizes = [seen.shape[0] for seen in server.model.seen]
        assert more.calls == len(sizes)  # those after the first, and the one that was refused
        assert max(sizes) == predictor.rows_per_call((28, 28, 1)) >= (limit - 8192) // (4 * 784)
        np.testing.assert_array_equal(predictor(x), first_ten(x))
        assert [seen.shape[0] for seen in server.model.seen] == 2 * sizes  # none was refused


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_the_limit_of_an_http_server_is_found_by_halving_and_kept(remote, rows, kind):
    x = np.random.default_rng(0).normal(size=(63, 28, 28, 1)).astype(np.float32)
    with RestServer(Model(most=100_000)) as server:
        predictor = remote(server, kind=kind)
        predictor(x)
        assert 1 <= server.model.refused <= 4  # of 0.8 MB by its longest, in halves: 0.4, 0.2, 0.1
        refused, sizes = (
            server.model.refused,
            [int(one.headers["content-length"]) for one in server.model.seen],
        )
        assert max(sizes) <= 100_000
        assert sorted(sizes)[1] > 25_000  # all but the last are no smaller than they have to be
        predictor(x)
        assert server.model.refused == refused


def test_a_batch_of_fixed_size_that_a_server_does_not_take_is_an_error(remote, rows):
    with RestServer(Model(most=30_000)) as server, pytest.raises(MessageTooLarge, match="the 7 rows"):
        remote(server, batch=7)(rows)
    assert server.model.refused == 1


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("SERVER: Received message larger than max (8388700 vs. 4194304)", 4194304),
        ("grpc: received message larger than max (8388700 vs. 4194304)", 4194304),
        ("gRPC message exceeds maximum size 4194304: 8388700", 4194304),
    ],
)
def test_every_grpc_server_says_in_its_words_what_it_takes(said, most):
    found = v2_grpc._TOO_LARGE.search(said)
    assert int(found[1] or found[2]) == most


def test_a_row_beyond_the_limit_is_an_error_that_names_the_setting(remote, rows):
    with GrpcServer() as server, pytest.raises(PredictorError, match="max_message"):
        remote(server, max_message=1024)(rows)


def test_classes_that_change_between_messages_are_refused(server, remote, rows):
    server.model.respond = lambda x: [
        Output("s", "FP32", (len(x), len(x) + 1), np.ones((len(x), len(x) + 1), np.float32))
    ]
    with pytest.raises(InvalidPrediction, match="classes"):
        remote(server, max_message=BYTES[server.scheme] * 784 * 4 + 4096)(rows)


# --- metadata ---------------------------------------------------------------------------------------------


def test_the_name_in_the_metadata_is_used_and_asked_for_once(server, remote, rows):
    predictor = remote(server)
    predictor(rows)
    predictor(rows)
    assert [seen.name for seen in server.model.seen] == ["image", "image"]
    assert server.model.described == 1


def test_a_configured_name_goes_before_the_metadata(server, remote, rows):
    remote(server, input_name="pixels")(rows)
    assert server.model.seen[0].name == "pixels"


@pytest.mark.parametrize("status", [400, 404, 500])
def test_metadata_that_is_refused_is_done_without_and_not_asked_again(server, remote, rows, status):
    server.model.describe = partial(refuse, status)
    predictor = remote(server)
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))
    predictor(rows)
    assert {(seen.name, seen.datatype) for seen in server.model.seen} == {("input-0", "FP32")}
    assert server.model.described == 1


def test_metadata_without_inputs_is_done_without(server, remote, rows):
    server.model.describe = list
    remote(server)(rows)
    assert server.model.seen[0].name == "input-0"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"inputs": [1]}', b'{"inputs": null}', b"{}"])
def test_metadata_that_is_garbage_is_done_without(rest, remote, rows, body, monkeypatch):
    monkeypatch.setattr("oip_servers._Handler.do_GET", lambda handler: handler.say(200, body))
    remote(rest)(rows)
    assert rest.model.seen[0].name == "input-0"


def test_metadata_that_never_comes_leaves_time_for_the_call(server, remote, rows):
    server.model.describe = server.model.hang
    np.testing.assert_array_equal(remote(server, timeout=3)(rows), first_ten(rows))


def test_metadata_that_was_unavailable_is_asked_for_again(server, remote, rows):
    server.model.describe = partial(refuse, 503)
    predictor = remote(server)
    predictor(rows)
    server.model.describe = lambda: [("late", "FP32")]
    predictor(rows)
    assert [seen.name for seen in server.model.seen] == ["input-0", "late"]


def test_a_replaced_model_is_described_anew_after_it_refused(server, remote, rows):
    def strict(x):
        if server.model.seen[-1].name != "other":
            raise Refusal(400, "no such input")
        return echo(x)

    predictor = remote(server)
    predictor(rows)
    server.model.describe, server.model.respond = lambda: [("other", "FP32")], strict
    with pytest.raises(PredictorError, match="no such input"):
        predictor(rows)
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))


@pytest.mark.parametrize("datatype", ["FP16", "FP64", "UINT8"])
def test_rows_are_sent_in_the_type_the_model_declares(server, remote, datatype):
    server.model.describe = lambda: [("image", datatype)]
    x = np.arange(256, dtype=np.float32).reshape(8, 32)
    np.testing.assert_array_equal(remote(server)(x), x[:, :10])
    assert server.model.seen[0].datatype == datatype


@pytest.mark.parametrize(
    ("datatype", "value"), [("UINT8", np.nan), ("UINT8", np.inf), ("FP16", 1e5), ("FP32", np.nan)]
)
def test_rows_that_the_declared_type_cannot_hold_are_refused(server, remote, rows, datatype, value):
    server.model.describe = lambda: [("image", datatype)]
    x = np.zeros_like(rows)
    x[3, 4] = value
    with pytest.raises(PredictorError, match=datatype):
        remote(server)(x)
    assert server.model.seen == []


def test_a_model_of_bytes_is_sent_the_nearest_ones_and_says_which(server, remote):
    server.model.describe = lambda: [("image", "UINT8")]
    x = np.float32([[-1, 0.4, 0.6, 1.5, 2.5, 254.6, 256, 3, 4, 5]])  # halves go to the even number
    predictor = remote(server)
    assert not predictor.integers  # nobody has said so yet
    answer = predictor(x)
    np.testing.assert_array_equal(answer, [[0, 0, 1, 2, 2, 255, 255, 3, 4, 5]])
    np.testing.assert_array_equal(predictor.snap(x), answer)
    assert predictor.integers


def test_a_declared_type_that_rows_never_have_falls_back_to_float32(server, remote, rows):
    server.model.describe = lambda: [("image", "BYTES")]
    remote(server)(rows)
    assert server.model.seen[0].datatype == "FP32"


def refuse(status):
    raise Refusal(status, "no metadata here")


# --- outputs ----------------------------------------------------------------------------------------------


def two_outputs(x):
    other = np.full((len(x), 3), 0.5, np.float32)
    return [*echo(x), Output("other", "FP32", other.shape, other)]


def test_the_first_output_is_taken_unless_one_is_named(server, remote, rows):
    server.model.respond = two_outputs
    np.testing.assert_array_equal(remote(server)(rows), first_ten(rows))
    assert (remote(server, output_name="other")(rows) == 0.5).all()


def test_an_output_that_is_not_there_is_refused_with_those_that_are(server, remote, rows):
    server.model.respond = two_outputs
    with pytest.raises(InvalidPrediction, match="'scores', 'other'"):
        remote(server, output_name="logits")(rows)


ONES = np.ones((7, 10), np.float32)
BAD = {
    "no outputs": answers(),
    "too few rows": answers(("s", "FP32", (6, 10), ONES[:6])),
    "too many rows": answers(("s", "FP32", (8, 10), np.ones((8, 10), np.float32))),
    "one class": answers(("s", "FP32", (7, 1), ONES[:, :1])),
    "one axis": answers(("s", "FP32", (70,), ONES)),
    "three axes": answers(("s", "FP32", (7, 10, 1), ONES)),
    "fewer numbers than claimed": answers(("s", "FP32", (7, 11), ONES)),
    "an unknown axis": answers(("s", "FP32", (-1, 10), ONES)),
    "NaN": answers(("s", "FP32", (7, 10), np.where(np.eye(7, 10), np.float32(np.nan), ONES))),
    "too large for float32": answers(("s", "FP64", (7, 10), np.full((7, 10), 1e300))),
    "labels": answers(("s", "INT64", (7, 1), np.ones((7, 1), np.int64))),
}


@pytest.mark.parametrize("respond", BAD.values(), ids=BAD)
def test_what_cannot_be_scores_is_refused(server, remote, rows, respond):
    server.model.respond = respond
    with pytest.raises(InvalidPrediction, match="model 'm' at"):
        remote(server)(rows)


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, PredictorError),
        (404, PredictorError),
        (429, PredictorUnavailable),
        (500, PredictorError),
        (503, PredictorUnavailable),
        (504, PredictorTimeout),
    ],
)
def test_an_error_status_becomes_the_typed_error(server, remote, rows, status, error):
    def respond(x):
        raise Refusal(status, "out of\nchairs " + "x" * 1000)

    server.model.respond = respond
    with pytest.raises(PredictorError) as caught:
        remote(server)(rows)
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 350
    assert error is PredictorTimeout or "out of chairs" in text


def test_a_server_that_does_not_answer_is_given_up_on_and_the_next_call_works(server, remote, rows):
    predictor = remote(server)
    predictor(rows)
    server.model.respond = server.model.hang
    with pytest.raises(PredictorTimeout):
        predictor(rows, timeout=SOON)
    server.model.respond = echo
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))


def test_the_shorter_time_out_holds(server, remote, rows):
    server.model.respond = server.model.hang
    with pytest.raises(PredictorTimeout):
        remote(server, timeout=SOON)(rows, timeout=3600)


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_left_means_no_call(server, remote, rows, timeout):
    with pytest.raises(PredictorTimeout):
        remote(server)(rows, timeout=timeout)
    assert server.model.seen == []


def test_one_time_out_bounds_all_messages_together(server, remote, rows):
    def respond(x):  # each message is in time, the ten together are not
        server.model.over.wait(SOON / 2)
        return echo(x)

    server.model.respond = respond
    with pytest.raises(PredictorTimeout):
        remote(server, timeout=2 * SOON, max_message=4 * 784 + 4096)(np.concatenate([rows] * 2))
    assert len(server.model.seen) <= 5


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_listening_is_unavailable(remote, rows, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        predictor = RemotePredictor(Endpoint(url=f"{scheme}://127.0.0.1:{port}", model="m"))
        with pytest.raises(PredictorUnavailable, match="cannot be reached"):
            predictor(rows)
        predictor.close()


def test_the_next_call_works_once_the_server_is_back(server, remote, rows):
    predictor = remote(server)
    predictor(rows)
    server.stop()
    with pytest.raises(PredictorUnavailable):
        predictor(rows)
    server.start()
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))


def drip(handler, start):
    """Byte after byte, each soon enough for a time-out on reads."""
    handler.body()
    handler.wfile.write(start)
    while not handler.server.model.over.wait(SOON / 10):
        handler.wfile.write(b" ")


def endless(handler):
    handler.body()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while not handler.server.model.over.is_set():
        handler.wfile.write(b" " * 2**20)


def drop(handler, start=b""):
    handler.body()
    handler.wfile.write(start)
    handler.close_connection = True


def says(status, body, **headers):
    def fault(handler):
        handler.body()
        handler.say(status, body, "text/html", **headers)

    return fault


def output_of(**output):
    document = {"outputs": [{"name": "s", "datatype": "FP32", **output}]}
    return says(200, json.dumps(document).encode())


REST_FAULTS = {
    "headers that drip": (partial(drip, start=b"HTTP/1.1 200 OK\r\nx: "), PredictorTimeout),
    "a body that drips": (
        partial(drip, start=b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"),
        PredictorTimeout,
    ),
    "a request that is never read": (lambda handler: handler.server.model.over.wait(), PredictorTimeout),
    "a connection dropped": (drop, PredictorUnavailable),
    "a connection dropped halfway": (
        partial(drop, start=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
        PredictorUnavailable,
    ),
    "no HTTP at all": (partial(drop, start=b"SSH-2.0-OpenSSH_9\r\n\r\n"), PredictorUnavailable),
    "a page": (says(200, b"<html>Sign in</html>"), InvalidPrediction),
    "an error page": (says(502, b"<html>Bad\ngateway</html>"), PredictorError),
    "an empty error": (says(500, b""), PredictorError),
    "an error that is not an object": (says(500, b'["error"]'), PredictorError),
    "nothing": (says(204, b""), PredictorError),
    "a redirect": (says(302, b"", Location="/elsewhere"), PredictorError),
    "a redirect to nowhere": (says(307, b""), PredictorError),
    "too large": (says(413, b""), MessageTooLarge),
    "a list": (says(200, b"[]"), InvalidPrediction),
    "null": (says(200, b"null"), InvalidPrediction),
    "no outputs": (says(200, b"{}"), InvalidPrediction),
    "outputs of the wrong kind": (says(200, b'{"outputs": [7]}'), InvalidPrediction),
    "an output without data": (says(200, b'{"outputs": [{"name": "s"}]}'), InvalidPrediction),
    "text": (
        says(200, b'{"outputs": [{"name": "s", "datatype": "FP32", "shape": [1, 2], "data": ["1", "2"]}]}'),
        InvalidPrediction,
    ),
    "ragged data": (
        says(
            200, b'{"outputs": [{"name": "s", "datatype": "FP32", "shape": [1, 2], "data": [[1], [2, 3]]}]}'
        ),
        InvalidPrediction,
    ),
    "a shape of the wrong kind": (
        says(200, b'{"outputs": [{"name": "s", "datatype": "FP32", "shape": "12", "data": [1, 2]}]}'),
        InvalidPrediction,
    ),
    "brackets without end": (says(200, b"[" * 100_000), InvalidPrediction),
    "more lists than rows": (says(200, b'{"outputs": [' + b"[]," * 300_000 + b"0]}"), InvalidPrediction),
    "a shape that holds nothing": (output_of(shape=[0, 2**63], data=[]), InvalidPrediction),
    "a shape of a hundred axes": (output_of(shape=[1] * 100 + [7, 10], data=[0.1] * 70), InvalidPrediction),
    "numbers that no type holds": (output_of(shape=[7, 1], data=[10**300] * 7), InvalidPrediction),
    "a pause of 400 digits": (says(503, b"{}", **{"Retry-After": "9" * 400}), PredictorUnavailable),
}


@pytest.mark.parametrize(("fault", "error"), REST_FAULTS.values(), ids=REST_FAULTS)
def test_a_rest_fault_becomes_the_typed_error_within_the_time_out(rest, remote, rows, fault, error):
    rest.model.fault = fault
    many = np.concatenate([rows] * 150)  # larger than what sockets buffer
    with pytest.raises(PredictorError) as caught:
        remote(rest, timeout=2 * SOON if error is PredictorTimeout else 10)(many)
    assert type(caught.value) is error, caught.value


def surplus(handler):
    """The right answer, and another one behind it."""
    wire, handler.wfile = handler.wfile, io.BytesIO()
    handler.server.model.fault = None
    handler.do_POST()
    handler.server.model.fault = surplus
    answer, handler.wfile = handler.wfile.getvalue(), wire
    wire.write(answer + answer.replace(b"0.", b"1."))


def test_what_comes_behind_an_answer_is_not_the_next_one(rest, remote, rows):
    rest.model.fault = surplus
    predictor = remote(rest, connections=1)
    for index in range(5):
        batch = rows + np.float32(index)
        np.testing.assert_array_equal(predictor(batch), first_ten(batch))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([2**63, -(2**63), 2**64, 10**300, "FP32", "9" * 400, [0, 2**63], [1] * 100]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_an_answer_it_is_scores_or_a_typed_error(rest, rows, data):
    output = {"name": "s", "datatype": "FP32", "shape": [len(rows), 10], "data": [0.1] * (10 * len(rows))}
    place = data.draw(st.sampled_from([*output, "outputs", "output", "element", "axis"]))
    wrong = data.draw(ANYTHING)
    document = {"model_name": "cnn", "outputs": [output]}
    if place == "outputs":
        document["outputs"] = wrong
    elif place == "output":
        document["outputs"][0] = wrong
    elif place == "element":
        output["data"][3] = wrong
    elif place == "axis":
        output["shape"][0] = wrong
    else:
        output[place] = wrong
    rest.model.fault = says(200, json.dumps(document).encode())
    with contextlib.closing(RemotePredictor(Endpoint(url=rest.url, model="m", output="scores"))) as predictor:
        try:
            scores = predictor(rows)
        except PredictorError:
            return
    assert scores.shape == (len(rows), 10)
    assert np.isfinite(scores).all()


def test_an_answer_without_end_is_cut_off(rest, remote, rows):
    rest.model.fault = endless
    with pytest.raises(InvalidPrediction, match="more than"):
        remote(rest)(rows)


def test_a_redirect_is_named_and_not_followed(rest, remote, rows):
    rest.model.fault = says(302, b"", Location=rest.url + "/v2/models/other/infer")
    with pytest.raises(PredictorError, match="/v2/models/other/infer, which is not followed"):
        remote(rest)(rows)
    assert rest.model.seen == []


GRPC_FAULTS = {
    "bytes that are no message": lambda context: b"\xff\xff\xff",
    "half a float": lambda context: raw_answer(b"\0" * 279),
    "raw contents of another output": lambda context: raw_answer(),
}


def raw_answer(*raw):
    outputs = [{"name": "s", "datatype": "FP32", "shape": (7, 10)}]
    return oip.ModelInferResponse(outputs=outputs, raw_output_contents=raw).SerializeToString()


@pytest.mark.parametrize("fault", GRPC_FAULTS.values(), ids=GRPC_FAULTS)
def test_a_grpc_answer_that_makes_no_sense_is_refused(remote, rows, fault):
    with GrpcServer(Model(fault=fault)) as server, pytest.raises(InvalidPrediction):
        remote(server)(rows)


# --- what is sent -----------------------------------------------------------------------------------------


def test_headers_arrive_and_made_up_rows_are_marked_as_such(server, remote, rows):
    remote(server, headers={"Authorization": "Bearer abc", "Host": "cnn.example"})(rows)
    headers = server.model.seen[0].headers
    assert headers["authorization"] == "Bearer abc"
    assert headers["seldon-skip-logging"] == headers["bias-ignore"] == "true"
    assert headers.get("host", "cnn.example") == "cnn.example"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"model": "a b/c"}, "/v2/models/a%20b%2Fc/infer"),
        ({"model": "m", "version": "2"}, "/v2/models/m/versions/2/infer"),
        ({"model": "m", "path": "/v2/pipelines/p/infer"}, "/v2/pipelines/p/infer"),
    ],
)
def test_the_path_names_the_model(rest, rows, settings, path):
    predictor = RemotePredictor(Endpoint(url=rest.url, output="scores", **settings))
    predictor(rows)
    predictor.close()
    assert rest.model.seen[0].path == path


def test_a_grpc_request_names_the_model_and_version(remote, rows):
    with GrpcServer() as server:
        remote(server, version="2")(rows)
    assert server.model.seen[0].path == "m/2"


def test_proxies_of_the_environment_are_not_used(server, remote, rows, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    np.testing.assert_array_equal(remote(server)(rows), first_ten(rows))


# --- sharing ----------------------------------------------------------------------------------------------


def test_threads_share_a_predictor_and_its_connections(server, remote, rows):
    predictor = remote(server, connections=3)
    batches = [rows + np.float32(i) for i in range(48)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(predictor, batches))
    for batch, scores in zip(batches, together, strict=True):
        np.testing.assert_array_equal(scores, first_ten(batch))
    assert len({seen.peer for seen in server.model.seen}) <= 3
    assert server.model.described == 1


def test_one_caller_after_another_uses_one_connection(server, remote, rows):
    predictor = remote(server)
    for _ in range(5):
        predictor(rows)
    assert len({seen.peer for seen in server.model.seen}) == 1


def test_closing_twice_is_closing_once_and_a_later_call_connects_again(server, remote, rows):
    predictor = remote(server)
    predictor.close()
    predictor(rows)
    predictor.close()
    predictor.close()
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))


def test_a_predictor_that_is_dropped_hangs_up(server, rows):
    RemotePredictor(Endpoint(url=server.url, model="m", output="scores"))(rows)
    gc.collect()  # a socket left open would warn here, and warnings are errors


def test_closing_under_a_call_ends_it_with_an_answer_or_a_typed_error(server, remote, rows):
    def respond(x):
        predictor.close()
        return echo(x)

    server.model.respond = respond
    predictor = remote(server)
    with contextlib.suppress(PredictorUnavailable):
        np.testing.assert_array_equal(predictor(rows), first_ten(rows))
    server.model.respond = echo
    np.testing.assert_array_equal(predictor(rows), first_ten(rows))


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_connecting_opens_nothing(scheme):
    # Port 1 has no listener and the name does not resolve: only a call would find out.
    predictor = connect(parse_predictor(f"{scheme}://nowhere.invalid:1/m"))
    assert isinstance(predictor, Predictor)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://host:80/base", "path"),
        ("http://host?x=1", "scheme://host:port"),
        ("grpc://host:99999", "port"),
        ("grpc://host:http", "port"),
        ("http://user:secret@host", "headers"),
        ("http://:80", "host"),
    ],
)
def test_an_address_that_says_more_than_host_and_port_is_refused(url, complaint):
    with pytest.raises(InvalidSpec, match=complaint) as caught:
        RemotePredictor(Endpoint(url=url, model="m"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"a": "é"}, {"": "b"}, {"a": ""}])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_headers_that_cannot_be_sent_are_refused(scheme, headers):
    with pytest.raises(InvalidSpec, match="headers"):
        RemotePredictor(Endpoint(url=f"{scheme}://host", model="m", headers=headers))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    where = tmp_path_factory.mktemp("tls")
    chain, key = str(where / "cert.pem"), str(where / "key.pem")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    )
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", chain],
        check=True,
        capture_output=True,
    )
    return chain, key


@pytest.mark.parametrize("kind", SERVERS.values(), ids=SERVERS)
def test_a_server_of_the_given_authority_is_trusted(remote, rows, kind, certificate):
    with kind(tls=certificate) as server:
        np.testing.assert_array_equal(remote(server, ca_path=certificate[0])(rows), first_ten(rows))


@pytest.mark.parametrize("kind", SERVERS.values(), ids=SERVERS)
def test_a_server_of_another_authority_is_not_talked_to(remote, rows, kind, certificate):
    with kind(tls=certificate) as server, pytest.raises(PredictorUnavailable):
        remote(server)(rows)
    assert server.model.seen == []


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_an_authority_file_that_is_not_there_is_refused_at_once(scheme, tmp_path):
    with pytest.raises(InvalidSpec, match="ca_path"):
        RemotePredictor(Endpoint(url=f"{scheme}://host", model="m", ca_path=str(tmp_path / "ca.pem")))


# --- messages of the protocol -----------------------------------------------------------------------------


def test_our_messages_are_those_of_mlserver_field_by_field_in_one_process():
    dataplane = pytest.importorskip("mlserver.grpc.dataplane_pb2")
    for name, ours in oip.MESSAGES.items():
        assert fields(ours.DESCRIPTOR) == fields(dataplane.DESCRIPTOR.message_types_by_name[name])
    methods = dataplane.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert methods.full_name == oip.SERVICE


def fields(message):
    """What decides the bytes of a message: numbers, names, types, and the same of what it holds."""
    return frozenset(
        (
            one.number,
            one.name,
            one.type,
            one.is_repeated,
            one.containing_oneof.name if one.containing_oneof else None,
            fields(one.message_type) if one.message_type else None,
        )
        for one in message.fields
    )
