"""What a stranger can cost a server: each line of the table in docs/serving.md, against a real one.

Processor time is what the kernel has counted for the server's threads, memory what it holds at most while it
is asked; neither depends on what else the machine does. The bounds are those of the table, or wider.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import socket
import struct
from pathlib import Path
from typing import NamedTuple

import grpc
import http2
import httpx
import numpy as np
import pytest
from staged import CONTRACT, IMAGE, Held, anchor, bomb, explainer, model, serving

from explainer_runtime.predictors.remote import oip

MIB = 2**20
TOKEN = {"authorization": "Bearer sesame"}
PATH = "/v2/models/m/infer"
EMPTY_INPUT = b"\x2a\x00"
CONNECTIONS = 45


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "tokens").write_text("sesame\n")
    guard = {
        "token_file": str(folder / "tokens"),
        "max_connections": CONNECTIONS,
        "max_in_flight": 48 * MIB,
        "header_seconds": 2,
        "body_seconds": 3,
    }
    with (
        model(Held()) as predictor,
        serving([explainer(anchor(folder), "m", predictor)], folder, **guard) as served,
    ):
        for _ in range(3):  # what is made on first use has been made
            assert post(served[0], valid(), TOKEN).status_code == 200
        yield served


class Cost(NamedTuple):
    """Processor milliseconds and MB that one act has cost."""

    cpu: float
    memory: float


def spent(process) -> float:
    """Seconds of processor time of all threads that live."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def held(process, name="VmRSS") -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def costing(process, act, times=1):
    """What `act` returns, and what it has cost, on average of so many times."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts from here
    cpu, memory = spent(process), held(process)
    for _ in range(times):
        result = act()
    return result, Cost(1000 * (spent(process) - cpu) / times, held(process, "VmHWM") - memory)


def post(server, body, headers=None, path=PATH):
    headers = {"content-type": "application/json", **(headers or {})}
    return httpx.post(server.rest(path), content=body, headers=headers, timeout=30)


def valid() -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *CONTRACT.shape], "data": IMAGE.ravel().tolist()}
    return json.dumps({"inputs": [tensor], "parameters": {"max_calls": 1}}).encode()


def call(server, message, method="ModelInfer", token=False, compression=None):
    """The status and details of a gRPC call with these bytes."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    metadata = tuple(TOKEN.items()) if token else ()
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}", options) as channel:
        try:
            made = channel.unary_unary(f"/{oip.SERVICE}/{method}")
            made(message, timeout=30, metadata=metadata, compression=compression)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", ""


def raw(server, data, port=None):
    """What comes back for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port or server.ports.http), timeout=20) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def head(path=PATH, length=0, method="POST", **headers):
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        "content-type: application/json",
        f"content-length: {length}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


GZIP = grpc.Compression.Gzip
MANY = b'{"inputs":[' + b"{}," * 430_000 + b"{}]}"
NAMED = oip.ModelInferRequest(model_name="m").SerializeToString()

BOMB = gzip.compress(EMPTY_INPUT * (24 * MIB))


def stranger(server, sent, method="ModelInfer", **more):
    """The number of the status that a call gets whose client has sent these frames, and waits."""
    with http2.connected(server.ports.grpc) as connection:
        connection.sendall(http2.asking(f"/{oip.SERVICE}/{method}", 1, **more) + sent)
        return http2.status(connection, 1)


# Without a token: what is done, and what the client gets. The bytes are ready before, so that nothing but the
# server's work is counted; of a long message it takes one window, 64 KiB.
STRANGERS = {
    "48 MiB of empty gRPC inputs as 48 kB of gzip, no token": (
        lambda server, sent=http2.message(BOMB, 1, packed=True): stranger(server, sent, grpc_encoding="gzip"),
        "16",
    ),
    "16 MiB of empty gRPC inputs, no token": (
        lambda server, sent=http2.message(EMPTY_INPUT * (8 * MIB), 1)[:65_000]: stranger(server, sent),
        "16",
    ),
    "`ServerLive` with 16 MiB behind it, no token": (
        lambda server, sent=http2.message(bytes(16 * MIB), 1)[:65_000]: stranger(server, sent, "ServerLive"),
        "0",
    ),
    "a REST body of 1 GB, no token": (
        lambda server, sent=head(length=10**9) + bytes(4 * MIB): raw(server, sent)[9:12],
        b"401",
    ),
    "`/v2/health/live` with a body of 1 GB": (
        lambda server, sent=head("/v2/health/live", 10**9, "GET") + bytes(4 * MIB): raw(server, sent)[9:12],
        b"200",
    ),
}


@pytest.mark.parametrize("attack", STRANGERS)
def test_a_stranger_costs_two_milliseconds_and_a_megabyte_at_most(attack, served):
    server, process = served
    act, expected = STRANGERS[attack]
    assert act(server) == expected
    measured = [costing(process, lambda: act(server), times=10) for _ in range(3)]
    assert {answer for answer, _ in measured} == {expected}
    # What the kernel counts is never less than the work: other processes only add to it.
    assert min(cost.cpu for _, cost in measured) < 2
    assert min(cost.memory for _, cost in measured) < 1
    assert httpx.get(server.rest("/v2/health/live")).status_code == 200


# With one: what is done; what the client gets; processor ms and MB that it may cost.
ATTACKS = {
    '1.3 kB of gzip that is `{"inputs":[{},{},...]}`': (
        lambda server: post(server, gzip.compress(MANY), {**TOKEN, "content-encoding": "gzip"}).status_code,
        422,
        Cost(100, 12),
    ),
    "a megabyte of empty gRPC inputs": (
        lambda server: call(server, NAMED + EMPTY_INPUT * (MIB // 2), token=True)[0],
        "FAILED_PRECONDITION",
        Cost(100, 12),
    ),
    "half a megabyte of gzip that is 512 MiB": (
        lambda server: post(server, bomb(2**29), {**TOKEN, "content-encoding": "gzip"}).status_code,
        413,
        Cost(200, 12),
    ),
    "200 MiB of zeros as gRPC gzip": (
        lambda server: call(server, bytes(200 * MIB), token=True, compression=GZIP)[0],
        "RESOURCE_EXHAUSTED",
        Cost(500, 12),
    ),
    "half a million lists": (
        lambda server: (
            post(
                server,
                b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":['
                + b"[]," * 500_000
                + b"[]]}]}",
                TOKEN,
            ).status_code
        ),
        422,
        Cost(3000, 160),
    ),
    "40 levels of nesting": (
        lambda server: post(server, b"[" * 40 + b"]" * 40, TOKEN).status_code,
        422,
        Cost(50, 4),
    ),
    "a shape of `[1, 0, 2**63]`": (
        lambda server: (
            post(
                server,
                b'{"inputs":[{"name":"x","shape":[1,0,9223372036854775808],"datatype":"FP32","data":[]}]}',
                TOKEN,
            ).status_code
        ),
        422,
        Cost(50, 4),
    ),
    "an id of 100,000 characters": (
        lambda server: post(server, valid()[:-1] + b',"id":"' + b"a" * 100_000 + b'"}', TOKEN).status_code,
        422,
        Cost(50, 4),
    ),
    "`content-length` and `transfer-encoding` in one request": (
        lambda server: raw(server, head(length=6, transfer_encoding="chunked") + b"0\r\n\r\nG")[9:12],
        b"400",
        Cost(20, 4),
    ),
    "a method nobody knows": (
        lambda server: httpx.request("XQJRA", server.rest(PATH), headers=TOKEN).status_code,
        405,
        Cost(20, 4),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_and_gets_a_refusal(attack, served):
    server, process = served
    act, expected, most = ATTACKS[attack]
    answer, cost = costing(process, lambda: act(server))
    assert answer == expected
    assert cost.cpu < most.cpu
    assert cost.memory < most.memory
    assert httpx.get(server.rest("/v2/health/live")).status_code == 200


def test_the_table_in_the_docs_has_these_attacks_and_no_other():
    text = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
    table = text.partition("## What a stranger can cost")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows[2:] == [*STRANGERS, *ATTACKS, *CROWDS]


def test_without_a_token_a_request_costs_two_milliseconds_at_most(served):
    server, process = served
    small = head(length=2) + b"{}"
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.ports.http)) as connection:

        def refused():
            connection.request("POST", PATH, b"{}", {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status

        status, cost = costing(process, refused, times=100)
    assert (status, cost.cpu < 2, cost.memory < 1) == (401, True, True), cost
    status, cost = costing(process, lambda: call(server, EMPTY_INPUT * 1000)[0], times=20)
    assert (status, cost.cpu < 2, cost.memory < 1) == ("UNAUTHENTICATED", True, True), cost
    assert raw(server, small + head(length=2, connection="close") + b"{}").count(b"401") == 2


def test_a_message_that_is_refused_leaves_nothing_behind(served):
    server, process = served
    request = oip.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[80_000, *CONTRACT.shape])
    request.raw_input_contents.append(bytes(4 * 64 * 80_000))
    message = request.SerializeToString()

    def refused():
        return call(server, message, token=True)

    for _ in range(3):
        assert refused() == ("FAILED_PRECONDITION", "inputs: expected 1 to 16 rows, got 80000")
    _, cost = costing(process, refused, times=20)
    assert cost.memory < 8 * len(message) / MIB  # each alone has a few copies; all twenty have 20


@pytest.mark.parametrize("path", ["/v2/models/n/infer", "/v2/models/n/explain", "/v1/models/n:explain", "/n"])
def test_who_asks_for_what_is_not_there_hears_what_is_and_a_stranger_does_not(served, path):
    server, _ = served
    told = post(server, valid(), TOKEN, path)
    assert told.status_code == 404
    assert told.json()["error"].endswith("served here: m")
    assert post(server, valid(), path=path).status_code == 401


def test_over_grpc_who_asks_for_what_is_not_there_hears_what_is(served):
    message = oip.ModelInferRequest(model_name="n").SerializeToString()
    assert call(served[0], message, token=True) == ("NOT_FOUND", "Model n not found; served here: m")
    assert call(served[0], message) == ("UNAUTHENTICATED", "expected metadata authorization: Bearer <token>")


# --- many at once -------------------------------------------------------------------------------------------


def files(process):
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


CROWDS = (
    "1,000 connections that say nothing",
    "40 bodies of 13 MB that never end",
    "60 names of models that are not there",
    "2,000 calls of one connection, each reset at once",
    "8 MB of gRPC header fields that never end, no token",
)


def test_silent_connections_make_place_for_others(served):
    server, process = served
    before = files(process)
    with contextlib.ExitStack() as stack:
        ports = (server.ports.http, 1000), (server.ports.metrics, 200), (server.ports.grpc, 200)
        for port, count in ports:
            for _ in range(count):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert httpx.get(server.rest("/v2/health/live")).status_code == 200
        assert post(server, valid(), TOKEN).status_code == 200
        # Ours, the metrics port's 64, gRPC's, and what has been accepted and not yet closed.
        assert files(process) - before < 2 * CONNECTIONS + 64 + 32


def test_where_all_connections_are_busy_health_is_answered_and_nothing_else(served):
    server, _ = served
    with contextlib.ExitStack() as stack:
        busy = []
        for _ in range(CONNECTIONS):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.ports.http)))
            one.sendall(head(length=1000, authorization="Bearer sesame") + b"{")
            busy.append(one)
        for _ in range(200):  # until all of them are being read
            answer = raw(server, head("/v2", method="GET", authorization="Bearer sesame", connection="close"))
            if answer[9:12] == b"503":
                break
        assert answer[9:12] == b"503"
        assert b"too many connections" in answer
        assert httpx.get(server.rest("/v2/health/live")).status_code == 200
        for one in busy:  # their time passes
            assert b"408" in one.recv(100)
    assert post(server, valid(), TOKEN).status_code == 200


def test_bodies_hold_no_more_than_there_is_room_for(served):
    server, process = served
    piece = b"1," * (MIB // 2)

    def crowd():
        refused = 0
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS - 5):
                one = stack.enter_context(
                    socket.create_connection(("127.0.0.1", server.ports.http), timeout=10)
                )
                with contextlib.suppress(OSError):
                    one.sendall(head(length=15 * MIB, authorization="Bearer sesame"))
                    for _ in range(13):
                        one.sendall(piece)
                one.settimeout(0.2)
                with contextlib.suppress(OSError):
                    refused += b"503" in one.recv(12)
        return refused

    refused, cost = costing(process, crowd)
    assert refused > CONNECTIONS / 2
    assert cost.memory < 48 + 30


def test_calls_that_are_reset_cost_little_and_only_so_many_are_open(served):
    server, process = served
    method = f"/{oip.SERVICE}/ModelInfer"

    def resetting():
        with http2.connected(server.ports.grpc) as connection:
            settings = next(http2.frames(connection))[3]
            for stream in range(1, 4001, 2):
                cancel = http2.frame(http2.RESET, 0, stream, (8).to_bytes(4, "big"))
                connection.sendall(http2.asking(method, stream) + cancel)
            return settings, call(server, b"")[0]

    (settings, status), cost = costing(process, resetting)
    assert (3).to_bytes(2, "big") + (256).to_bytes(4, "big") in settings
    assert status == "UNAUTHENTICATED"  # somebody else is answered meanwhile
    assert cost.cpu < 2000
    assert cost.memory < 30
    assert httpx.get(server.rest("/v2/health/live")).status_code == 200


def test_a_header_that_never_ends_costs_no_more_than_its_bytes(served):
    """gRPC reads it to keep its tables, which HTTP/2 asks for; what it says is dropped."""
    server, process = served

    def endless():
        head = http2.asking(f"/{oip.SERVICE}/ModelInfer", 1)
        piece = http2.frame(http2.CONTINUATION, 0, 1, b"\x82" * 2**14)  # each byte is a field: `:method: GET`
        with http2.connected(server.ports.grpc) as connection:
            connection.sendall(head[:4] + b"\x00" + head[5:])  # END_HEADERS is not set
            for _ in range(512):
                connection.sendall(piece)
            connection.sendall(http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1))
            return http2.status(connection, 1)  # which is said when all of it has been read

    status, cost = costing(process, endless)
    assert status == "8"  # RESOURCE_EXHAUSTED
    assert cost.cpu < 1500
    assert cost.memory < 40
    assert httpx.get(server.rest("/v2/health/live")).status_code == 200


def test_metrics_name_what_is_served_and_nothing_else(served):
    server, _ = served

    def series():
        text = httpx.get(f"http://127.0.0.1:{server.ports.metrics}/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    def absent(name):
        assert post(server, valid(), TOKEN, f"/v2/models/{name}/infer").status_code == 404
        message = oip.ModelInferRequest(model_name=name).SerializeToString()
        assert call(server, message, token=True)[0] == "NOT_FOUND"

    absent("first")
    httpx.request("XFIRST", server.rest(PATH), headers=TOKEN)
    call(server, b"", "First", token=True)
    before = series()
    for index in range(30):
        absent(f"absent-{index}")
        httpx.request(f"X{chr(65 + index % 26)}", server.rest(PATH), headers=TOKEN)
        httpx.get(server.rest(f"/absent/{index}"), headers=TOKEN)
        call(server, b"", f"Absent{index}", token=True)
    assert not [one for one in series() - before if "bsent" in one or 'method="X' in one]
    assert len(series() - before) < 10


def test_a_packed_request_is_read_like_a_plain_one(served):
    server, _ = served
    request = oip.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=IMAGE.shape)
    request.parameters["max_calls"].int64_param = 1
    request.raw_input_contents.append(np.ascontiguousarray(IMAGE, "<f4").tobytes())
    message = request.SerializeToString()
    assert call(server, message, token=True) == ("OK", "")
    assert call(server, message, token=True, compression=GZIP) == ("OK", "")
    typed = oip.ModelInferRequest(model_name="m")
    tensor = typed.inputs.add(name="x", datatype="FP32", shape=IMAGE.shape)
    tensor.contents.fp32_contents.extend(IMAGE.ravel().tolist())
    typed.parameters["max_calls"].int64_param = 1
    assert call(server, typed.SerializeToString(), token=True) == ("OK", "")
    assert struct.unpack("<f", request.raw_input_contents[0][4:8])[0] == IMAGE.ravel()[1]
