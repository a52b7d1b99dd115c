"""The server as clients and operators meet it: real processes, real sockets, one model that tests hold."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import json
import re
import signal
import socket
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode
from oip_servers import Refusal
from servers import ask_grpc, ask_rest, free_ports, v2_input
from staged import IMAGE, Held, anchor, bomb, channel, explainer, metrics, model, resident, serving

from explainer_runtime.cli import remote
from explainer_runtime.errors import InvalidInput, PredictorUnavailable
from explainer_runtime.predictors.remote import oip

TOKEN = {"authorization": "Bearer sesame"}
QUICK = {"explain_parameters": {"max_calls": 12, "seed": 1}}


# --- the stage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def artifact(folder):
    return anchor(folder)


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def predictor(held):
    with model(held) as settings:
        yield settings


def explainers(artifact, predictor):
    nobody = {"kind": "v2", "url": f"grpc://127.0.0.1:{free_ports().grpc}", "model": "cnn"}
    return [
        explainer(artifact, "anchor", predictor, threads=1, queue=4),
        explainer(artifact, "hasty", {**predictor, "timeout": 0.2}),
        explainer(artifact, "orphan", nobody),
        explainer(artifact, "old", predictor, "9"),
        explainer(artifact, "old", predictor, "10"),
    ]


@pytest.fixture(scope="module")
def served(folder, artifact, predictor):
    with serving(explainers(artifact, predictor), folder / "served") as (server, process):
        yield server, process


@pytest.fixture(scope="module")
def server(served):
    return served[0]


@pytest.fixture(scope="module")
def crew(folder, artifact, predictor):
    """The same with a worker process."""
    with serving(explainers(artifact, predictor), folder / "crew", workers=1) as (server, _):
        yield server


@pytest.fixture(scope="module")
def guarded(folder, artifact, predictor):
    """One explainer behind a token, on a server that may be managed."""
    (folder / "token").write_text("sesame\n")
    guard = {"token_file": str(folder / "token"), "management": True}
    with serving([explainer(artifact, "only", predictor)], folder / "guarded", **guard) as (server, _):
        yield server


def request(rows=IMAGE, **body):
    return {"inputs": [v2_input(rows)], **body}


# --- errors: one table, every transport, with and without workers ---------------------------------------


def mistakes():
    tensor = v2_input(IMAGE)
    # name: model, body, what the model does, REST status, gRPC code, what is said
    return {
        "out of range": (
            "anchor",
            request(IMAGE + 9),
            None,
            422,
            "FAILED_PRECONDITION",
            "inputs: expected values",
        ),
        "no inputs": (
            "anchor",
            {"inputs": []},
            None,
            422,
            "FAILED_PRECONDITION",
            "inputs: expected exactly one",
        ),
        "shape mismatch": (
            "anchor",
            {"inputs": [{**tensor, "shape": [2, 8, 8, 1]}]},
            None,
            422,
            "FAILED_PRECONDITION",
            "inputs[0].data: expected 128 numbers",
        ),
        "negative shape": (
            "anchor",
            {"inputs": [{**tensor, "shape": [-1, 8, 8, 1]}]},
            None,
            422,
            "FAILED_PRECONDITION",
            "inputs[0].shape: expected sizes",
        ),
        "unknown option": (
            "anchor",
            request(parameters={"explain_parameters": '{"sed": 1}'}),
            None,
            422,
            "FAILED_PRECONDITION",
            "sed: ",
        ),
        "unknown output": (
            "anchor",
            request(outputs=[{"name": "x"}]),
            None,
            422,
            "FAILED_PRECONDITION",
            "outputs[0].name: no output 'x'",
        ),
        "no such model": ("absent", request(), None, 404, "NOT_FOUND", "not found"),
        "model fails": ("anchor", request(), Refusal(500, "boom"), 502, "UNKNOWN", "boom"),
        "model is down": ("orphan", request(), None, 503, "UNAVAILABLE", "127.0.0.1"),
        "model hangs": ("hasty", request(), "hold", 504, "DEADLINE_EXCEEDED", "did not answer in time"),
    }


@contextlib.contextmanager
def model_doing(held, what):
    with contextlib.ExitStack() as stack:
        if what == "hold":
            stack.enter_context(held.hold())
        held.failing = what if isinstance(what, Refusal) else None
        try:
            yield
        finally:
            held.failing = None


@pytest.mark.parametrize("where", ["server", "crew"])
@pytest.mark.parametrize("mistake", mistakes())
def test_errors_are_told_alike_on_every_transport(where, mistake, held, request):
    server = request.getfixturevalue(where)
    name, body, does, status, code, said = mistakes()[mistake]
    with model_doing(held, does):
        by_rest = httpx.post(server.rest(f"/v2/models/{name}/infer"), json=body, timeout=60)
        told = infer(server, name, body)
        by_explain = httpx.post(server.rest(f"/v2/models/{name}/explain"), json=body, timeout=60)
    messages = [by_rest.json()["error"], told.details()]
    assert (by_rest.status_code, told.code()) == (status, StatusCode[code])
    if name != "absent":
        assert (by_explain.status_code, list(by_explain.json())) == (status, ["error"])
        messages.append(by_explain.json()["error"])
    for message in messages:
        assert said in message
        assert not re.search(r"Traceback|mlserver\.|explainer_runtime\.|MLServerError", message)
    assert list(by_rest.json()) == ["error"]
    assert ("retry-after" in by_rest.headers) == (status == 503)


def infer(server, name, body, **call):
    """ModelInfer of a V2 body; the error that it ends with."""
    with channel(server) as connection, pytest.raises(grpc.RpcError) as refusal:
        oip.method(connection, "ModelInfer")(message(name, body), timeout=60, **call)
    return refusal.value


def message(name, body):
    made = oip.ModelInferRequest(model_name=name)
    for tensor in body["inputs"]:
        made.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        made.raw_input_contents.append(np.array(tensor["data"], np.float32).tobytes())
    for output in body.get("outputs", ()):
        made.outputs.add(name=output["name"])
    for key, value in body.get("parameters", {}).items():
        made.parameters[key].string_param = value
    return made


# --- limits: said no to before anything is parsed ----------------------------------------------------------


@pytest.fixture
def connection(server):
    """One connection that does not open itself again: that it still works is seen by using it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=60)
    connection.connect()
    connection.auto_open = 0
    yield connection
    connection.close()


def send(connection, body, path="/v2/models/anchor/infer", method="POST", **headers):
    connection.request(method, path, body, {"content-type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, json.loads(response.read() or b"{}")


@pytest.fixture
def large():
    """Made before there is a connection: one that says nothing meanwhile is closed."""
    return bomb(2**29)


def test_what_is_too_large_or_too_deep_is_refused_and_the_connection_goes_on(large, connection, served):
    _, process = served
    assert send(connection, json.dumps(request(parameters=QUICK)))[0] == 200
    before = resident(process)
    status, told = send(connection, large, **{"content-encoding": "gzip"})
    assert (status, list(told)) == (413, ["error"])
    assert resident(process) - before < 20 * 2**20
    assert send(connection, bytes(17 * 2**20))[0] == 413
    assert send(connection, b"[" * 33)[0] == 422
    assert send(connection, b"{}", **{"content-encoding": "br"})[0] == 415
    assert send(connection, b"{}", path="/v2/repository/index")[0] == 403
    packed = gzip.compress(json.dumps(request(parameters=QUICK)).encode())
    assert send(connection, packed, **{"content-encoding": "gzip"})[0] == 200


def test_a_chunked_body_is_counted_as_it_comes(server):
    sent = []

    def endless():
        while len(sent) < 1000:
            sent.append(1)
            yield bytes(2**18)

    headers = {"content-type": "application/json"}
    answer = httpx.post(
        server.rest("/v2/models/anchor/infer"), content=endless(), headers=headers, timeout=60
    )
    assert answer.status_code == 413


def test_the_management_api_is_off_unless_switched_on(server, guarded):
    assert httpx.post(server.rest("/v2/repository/models/anchor/unload")).status_code == 403
    assert httpx.post(server.rest("//v2/repository/index"), json={}).status_code == 404
    assert httpx.post(guarded.rest("/v2/repository/index"), json={}, headers=TOKEN).status_code == 200
    unload = "/inference.GRPCInferenceService/RepositoryModelUnload"
    with channel(server) as connection, pytest.raises(grpc.RpcError) as refusal:
        connection.unary_unary(unload)(b"\n\x06anchor", timeout=60)
    assert refusal.value.code() == StatusCode.PERMISSION_DENIED
    assert ask_rest(server, "anchor", IMAGE, parameters=QUICK).status == 200


def test_a_token_is_asked_of_everyone_but_health(guarded):
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert httpx.get(guarded.rest(path)).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"host": "x/v2/health/live?"}):
        refused = httpx.post(guarded.rest("/v2/models/only/infer"), json=request(), headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    assert httpx.get(guarded.rest("/v2/models/only")).status_code == 401
    assert ask_rest(guarded, "only", IMAGE, headers=TOKEN, parameters=QUICK).status == 200


def test_a_token_is_asked_of_grpc_too(guarded):
    body = request()
    assert infer(guarded, "only", body).code() == StatusCode.UNAUTHENTICATED
    assert (
        infer(guarded, "only", body, metadata=[("authorization", "Bearer x")]).code().name
        == "UNAUTHENTICATED"
    )
    with channel(guarded) as connection:
        live = oip.MESSAGES["ServerLiveRequest"]()
        assert oip.method(connection, "ServerLive")(live, timeout=60).live
        answer = oip.method(connection, "ModelInfer")(
            message("only", {**body, "parameters": {"max_calls": "12"}}),
            timeout=60,
            metadata=[("authorization", "Bearer sesame")],
        )
    assert answer.model_name == "only"


# --- routes -------------------------------------------------------------------------------------------


def bodies():
    nested = IMAGE.tolist()
    return {
        "/v1/models/only:explain": {"instances": nested, "parameters": QUICK},
        "/explain": request(parameters=QUICK),
        "/api/v1.0/explain": {"data": {"ndarray": nested}, "meta": {"tags": QUICK["explain_parameters"]}},
        "/api/v0.1/explain": {
            "data": {"tensor": {"shape": [1, 8, 8, 1], "values": IMAGE.ravel().tolist()}},
            **QUICK,
        },
        "/api/v1.0/explain#json": {"jsonData": {"instances": nested, **QUICK}},
    }


@pytest.mark.parametrize("path", bodies())
def test_routes_without_tensors_answer_the_bare_document(guarded, path):
    whole = [{"name": "explanation"}]
    expected = ask_rest(guarded, "only", IMAGE, headers=TOKEN, parameters=QUICK, outputs=whole)
    path, body = path.partition("#")[0], bodies()[path]
    answer = httpx.post(guarded.rest(path), json=body, headers=TOKEN, timeout=60)
    assert answer.status_code == 200
    assert answer.text == expected.body["outputs"][0]["data"][0]
    assert list(answer.json()) == ["meta", "data"]
    assert answer.headers["x-seldon-alibi-method"] == "anchor_image"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "body: expected V2 `inputs`, V1 `instances`"),
        ({"instances": 3}, "instances: expected rows as nested lists"),
        ({"instances": [[1], [1, 2]]}, "instances: expected shape"),
        ({"instances": [["x"]]}, "instances: expected numbers, got a string"),
        ({"data": []}, "data: expected an object"),
        ({"data": {"tensor": {"shape": 3}}}, "data.tensor: expected rows"),
        ({"data": {"tensor": {"shape": [2], "values": [1.0]}}}, "data.tensor: expected 2 numbers"),
        ({"inputs": [{"name": 1}]}, "inputs[0].name: "),
        ([1], "body: expected"),
    ],
)
def test_bodies_that_are_of_no_protocol_are_refused_by_field(guarded, body, said):
    for path in ("/explain", "/v1/models/only:explain"):
        answer = httpx.post(guarded.rest(path), json=body, headers=TOKEN)
        assert answer.status_code == 422
        if path == "/explain" or "inputs" not in body:
            assert answer.json()["error"].startswith(said)


def test_paths_that_name_no_model_need_a_server_of_one(server):
    answer = httpx.post(server.rest("/explain"), json=request())
    assert answer.status_code == 422
    assert "/v2/models/anchor/explain" in answer.json()["error"]


def test_versions_share_a_path_as_mlserver_shares_theirs(server):
    for path, version in (("old", "10"), ("old/versions/9", "9"), ("old/versions/10", "10")):
        for route in ("infer", "explain"):
            assert ask_rest(server, path, IMAGE, route, parameters=QUICK).body["model_version"] == version


def test_options_may_be_scalars_in_any_form_that_a_transport_carries(server):
    options = {"threshold": 0.8, "seed": 7, "stop_on_first": True, "max_calls": 12}
    whole = ask_rest(server, "anchor", IMAGE, parameters={"explain_parameters": options})
    one_by_one = ask_rest(server, "anchor", IMAGE, parameters=options)
    as_words = ask_grpc(
        server, "anchor", IMAGE, **{name: json.dumps(value) for name, value in options.items()}
    )
    made = message("anchor", request())
    made.parameters["seed"].int64_param = 7
    made.parameters["stop_on_first"].bool_param = True
    made.parameters["max_calls"].int64_param = 12
    # double_param of newer protocols, which ours has not: field 4, eight bytes.
    made.parameters["threshold"].MergeFromString(b"\x21" + np.float64(0.8).tobytes())
    with channel(server) as connection:
        as_double = oip.method(connection, "ModelInfer")(made, timeout=60)
    document = whole.tensors["explanation"][2]
    assert one_by_one.tensors["explanation"][2] == as_words.tensors["explanation"][2] == document
    assert as_double.raw_output_contents[0] == document
    assert json.loads(document[4:])["meta"]["spec"]["threshold"] == 0.8


def test_a_picture_is_drawn_for_who_asks(server):
    from PIL import Image

    wanted = [{"name": "found"}, {"name": "picture"}]
    by_rest = ask_rest(server, "anchor", IMAGE, outputs=wanted, parameters=QUICK)
    by_grpc = ask_grpc(
        server, "anchor", IMAGE, outputs=["picture"], explain_parameters=json.dumps({"seed": 1})
    )
    assert list(by_rest.tensors) == ["found", "picture"]
    output = by_rest.body["outputs"][1]
    assert output["parameters"] == {"content_type": "base64"}
    for text in (output["data"][0], by_grpc.tensors["picture"][2][4:]):
        assert Image.open(io.BytesIO(base64.b64decode(text))).format == "PNG"


def test_metadata_holds_the_schema_of_the_options_and_the_settings_in_force(server, artifact):
    from explainer_runtime.artifact import load
    from explainer_runtime.methods import options

    by_rest = httpx.get(server.rest("/v2/models/anchor")).json()["parameters"]["explain_parameters"]
    with channel(server) as connection:
        asked = oip.MESSAGES["ModelMetadataRequest"](name="anchor")
        by_grpc = oip.method(connection, "ModelMetadata")(asked, timeout=60)
    own = load(artifact).spec.model_dump(mode="json")
    said, expected = json.loads(by_rest), options("anchor_image").model_json_schema()
    defaults = {name: one.pop("default") for name, one in said["properties"].items()}
    for name, one in expected["properties"].items():
        one.pop("default")
        assert defaults[name] == own.get(name)
    assert said == expected
    assert by_grpc.parameters["explain_parameters"].string_param == by_rest


def test_a_server_without_jobs_answers_at_once_whatever_is_preferred(server):
    answer = ask_rest(server, "anchor", IMAGE, "explain", {"prefer": "respond-async"})
    assert answer.status == 200
    assert "preference-applied" not in answer.headers
    assert httpx.get(server.rest("/v2/models/anchor/explanations")).status_code == 404


def test_the_openapi_document_knows_every_route(server):
    document = httpx.get(server.rest("/v2/docs/dataplane.json")).json()
    assert not any("explanations" in path for path in document["paths"])
    assert {
        "/v2/models/{model_name}/infer",
        "/v2/models/anchor/explain",
        "/v2/models/old/versions/9/explain",
        "/v1/models/anchor:explain",
        "/explain",
        "/api/v1.0/explain",
        "/api/v0.1/explain",
    } <= set(document["paths"])
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]


# --- streaming ----------------------------------------------------------------------------------------


def events(server, body, name="anchor"):
    with httpx.stream(
        "POST", server.rest(f"/v2/models/{name}/infer_stream"), json=body, timeout=60
    ) as answer:
        if answer.status_code != 200:
            answer.read()
            return answer, answer.json()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        return answer, [json.loads(line) for line in lines]


def values(event):
    return {output["name"]: output["data"] for output in event["outputs"]}


def test_streams_tell_progress_and_end_with_the_answer_of_infer(server):
    body = request(parameters={"explain_parameters": {"seed": 1}})
    answer, (*progress, last) = events(server, body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert last["outputs"] == ask_rest(server, "anchor", IMAGE, **body).body["outputs"]
    assert last["parameters"]["event"] == "explanation"
    told = [values(event) for event in progress]
    assert progress
    assert {event["parameters"]["event"] for event in progress} == {"progress"}
    for name in ("predictor_rows", "predictor_calls"):
        counts = [event[name][0] for event in told]
        assert counts == sorted(counts)
        assert counts[0] > 0
    assert all(0 <= event["progress"][0] <= 1 for event in told)
    assert not [key for event in [*progress, last] for key in event["parameters"] if key == "headers"]


def stream(connection):
    return connection.stream_stream(
        f"/{oip.SERVICE}/ModelStreamInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )


def test_streams_over_grpc_tell_the_same(server):
    made = message("anchor", request(parameters={"explain_parameters": '{"seed": 1}'}))
    with channel(server) as connection:
        *progress, last = list(stream(connection)(iter([made]), timeout=60))
    whole = ask_grpc(server, "anchor", IMAGE, explain_parameters='{"seed": 1}')
    assert list(last.raw_output_contents) == list(whole.body.raw_output_contents)
    assert {event.parameters["event"].string_param for event in progress} == {"progress"}


def test_a_stream_that_fails_at_once_has_a_status_and_later_an_event(server, held):
    answer, told = events(server, request(IMAGE + 9))
    assert answer.status_code == 422
    assert told["error"].startswith("inputs: expected values")
    held.good_calls = held.calls + 20
    with model_doing(held, Refusal(500, "boom")):
        answer, (first, *_, last) = events(server, request())
    held.good_calls = 0
    assert answer.status_code == 200
    assert first["parameters"]["event"] == "progress"
    assert list(last) == ["error"]
    assert "boom" in last["error"]


def test_the_command_line_hears_progress_and_gets_the_answer(server):
    heard = []
    explanation = remote.explain(server.rest("/anchor"), IMAGE, {"seed": 1}, heard.append)
    whole = ask_rest(server, "anchor", IMAGE, parameters={"seed": 1})
    assert explanation.to_json(short=True) == whole.tensors["explanation"][2][4:]
    assert heard
    assert explanation.cost.seconds > 0


@pytest.mark.parametrize(
    ("path", "options", "error", "said"),
    [
        ("/anchor", {"sed": 1}, InvalidInput, "^sed: "),
        ("/absent", {}, InvalidInput, "not found"),
        ("/orphan", {}, PredictorUnavailable, "127.0.0.1"),
        ("/", {}, InvalidInput, "http://host:port/name"),
    ],
)
def test_the_command_line_is_told_what_is_wrong(server, path, options, error, said):
    with pytest.raises(error, match=said):
        remote.explain(server.rest(path), IMAGE, options, lambda fraction: None)


# --- clients that go, servers that are full, servers that stop -------------------------------------------


def asking(server, path="/v2/models/anchor/infer", body=None):
    """A request on a socket of its own, sent but not answered."""
    content = json.dumps(body or request()).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    )
    connection = socket.create_connection(("127.0.0.1", server.ports.http), timeout=60)
    connection.sendall(head.encode() + b"\r\n\r\n" + content)
    return connection


def answered(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    status, headers, body = response.status, response.headers, json.loads(response.read())
    connection.close()
    return status, headers, body


def settle(server):
    """Some requests later, whatever reached the server before has been seen by it."""
    for _ in range(5):
        httpx.get(server.rest("/v2/health/live"))


@pytest.mark.parametrize("path", ["infer", "explain", "infer_stream"])
def test_an_explanation_stops_when_its_client_hangs_up(server, held, path):
    with held.hold():
        connection = asking(server, f"/v2/models/anchor/{path}")
        assert held.entered.acquire(timeout=60)
        connection.close()
        settle(server)
        calls = held.calls
    idle(server)
    assert held.calls <= calls + 1


def test_an_explanation_stops_when_its_call_is_cancelled(server, held):
    with held.hold(), channel(server) as connection:
        call = oip.method(connection, "ModelInfer").future(message("anchor", request()), timeout=60)
        assert held.entered.acquire(timeout=60)
        call.cancel()
        settle(server)
        calls = held.calls
    idle(server)
    assert held.calls <= calls + 1


def test_an_explanation_stops_when_its_stream_is_cancelled(server, held):
    with held.hold(), channel(server) as connection:
        call = stream(connection)(iter([message("anchor", request())]), timeout=60)
        assert held.entered.acquire(timeout=60)
        call.cancel()
        settle(server)
        calls = held.calls
    idle(server)
    assert held.calls <= calls + 1


def idle(server):
    """Wait until the explainer computes nothing."""
    while metrics(server)['explainer_running{model="anchor"}']:
        httpx.get(server.rest("/v2/health/live"))


def test_a_full_server_says_so_at_once_and_keeps_what_it_has_accepted(server, held):
    body = request(parameters={"max_calls": "12"})
    with held.hold(), channel(server) as by_grpc:
        running = [asking(server, body=body)]
        assert held.entered.acquire(timeout=60)
        # One thread, four places, of which one client takes two; gRPC and REST are two clients.
        waiting = [asking(server, body=body) for _ in range(2)]
        settle(server)
        status, headers, told = answered(asking(server))
        ask = oip.method(by_grpc, "ModelInfer")
        calls = [ask.future(message("anchor", body), timeout=60) for _ in range(3)]
        refused = next(call for call in futures(calls) if call.done())
        assert metrics(server)['explainer_waiting{model="anchor"}'] == 4
        held.release()
        assert sum(call.exception() is None for call in calls) == 2
        assert [answered(connection)[0] for connection in running + waiting] == [200] * 3
    assert status == 429
    assert list(told) == ["error"]
    assert int(headers["retry-after"]) >= 1
    assert refused.code() == StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.trailing_metadata())["retry-after"].isdigit()


def futures(calls):
    """The calls, again and again."""
    while True:
        yield from calls


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_loses_nothing_that_was_accepted(folder, artifact, predictor, held, workers):
    models = [explainer(artifact, "anchor", predictor, threads=2)]
    with serving(models, folder / f"stopped-{workers}", workers) as (server, process), held.hold():
        connections = [asking(server, body=request(parameters=QUICK)) for _ in range(4)]
        with channel(server) as by_grpc:
            body = request(parameters={"max_calls": "12"})
            call = oip.method(by_grpc, "ModelInfer").future(message("anchor", body), timeout=60)
            assert held.entered.acquire(timeout=60)
            settle(server)
            process.send_signal(signal.SIGTERM)
            while ready(server):
                pass
            held.release()
            assert [answered(connection)[0] for connection in connections] == [200] * 4
            assert call.result().model_name == "anchor"
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_server_cannot_wait_for_is_told_to_come_back(folder, artifact, predictor, held, workers):
    models = [explainer(artifact, "anchor", predictor, threads=1)]
    with (
        serving(models, folder / f"cut-{workers}", workers, grace=0.1) as (server, process),
        held.hold(),
        channel(server) as by_grpc,
    ):
        connections = [asking(server, body=request(parameters=QUICK)) for _ in range(2)]
        assert held.entered.acquire(timeout=60)
        if not workers:  # in a process of its own a worker hears nothing of those who wait
            ask = oip.method(by_grpc, "ModelInfer")
            call = ask.future(message("anchor", request(parameters={"max_calls": "12"})), timeout=60)
        settle(server)
        process.send_signal(signal.SIGTERM)
        for status, headers, told in map(answered, connections):
            assert status == 503
            assert int(headers["retry-after"]) >= 1
            assert "the server stops" in told["error"]
        if not workers:
            assert call.code() == StatusCode.UNAVAILABLE
            assert dict(call.trailing_metadata())["retry-after"].isdigit()


def ready(server):
    try:
        return httpx.get(server.rest("/v2/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


def test_private_names_of_mlserver_are_where_our_server_expects_them():
    """`hosts/mlserver/server.py` is the only file that uses them; when one has moved, look there."""
    import mlserver.grpc.server
    import mlserver.metrics.server
    import mlserver.rest.server
    import uvicorn
    from mlserver import MLServer
    from mlserver.grpc.servicers import InferenceServicer

    rest, by_grpc = mlserver.rest.server, mlserver.grpc.server
    for module in (rest, mlserver.metrics.server):
        assert issubclass(module._NoSignalServer, uvicorn.Server)
    assert {"_create_servers", "_configure_logger", "stop", "start"} <= set(vars(MLServer))
    assert {"_get_config", "start", "stop"} <= set(vars(rest.RESTServer))
    assert {"_create_server", "start", "stop"} <= set(vars(by_grpc.GRPCServer))
    assert by_grpc.aio is grpc.aio
    assert callable(InferenceServicer._InsertHeaders)
    assert callable(uvicorn.Server.capture_signals)


# --- what can be seen ---------------------------------------------------------------------------------


def test_every_metric_in_the_table_is_exposed_and_no_other(server, held):
    assert ask_rest(server, "anchor", IMAGE, parameters=QUICK).status == 200
    assert ask_rest(server, "orphan", IMAGE).status == 503
    docs = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    table = set(re.findall(r"`(explainer_\w+)`", docs.partition("## Metrics")[2].partition("\n## ")[0]))
    exposed = {re.split(r"[{ ]", name)[0] for name in metrics(server)}
    exposed = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed if not name.endswith("_created")}
    always = table - {"explainer_coalescing_factor", "explainer_student_agreement"}
    assert always <= exposed <= table


def test_requests_are_counted_by_status(server, held):
    def count(code):
        name = f'explainer_requests_total{{code="{code}",method="anchor_image",model="anchor"}}'
        return metrics(server).get(name, 0)

    before = count(200), count(422)
    assert ask_rest(server, "anchor", IMAGE, parameters=QUICK).status == 200
    assert ask_rest(server, "anchor", IMAGE + 9).status == 422
    assert ask_rest(server, "anchor", IMAGE, outputs=[{"name": "x"}]).status == 422
    assert (count(200), count(422)) == (before[0] + 1, before[1] + 2)


def test_a_trace_goes_on_to_the_model(server, held):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    before = len(held.seen)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert ask_rest(server, "anchor", IMAGE, headers=headers, parameters=QUICK).status == 200
    calls = held.seen[before:]
    assert calls
    assert {call.headers["traceparent"].split("-")[1] for call in calls} == {trace}


def test_nothing_of_all_this_left_a_traceback_in_the_log(server):
    assert "Traceback" not in server.log.read_text()
