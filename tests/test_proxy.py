"""The sidecar: what is not for an explainer passes to the model and back as it is, byte for byte.

The real thing is compared in front of two real servers, our Keras runtime and KServe's; how it streams, and
what it does when somebody hangs up, in front of a socket that does as it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import socket
import sys
import threading

import grpc
import httpcore
import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from servers import ask_grpc, ask_rest, free_ports, running, serving, start, v2_input
from test_kserve import HERE, PYTHON

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.door.gate import refuse
from explainer_runtime.hosts.platform.deployment import keras_settings
from explainer_runtime.hosts.sidecar.proxy import Proxy
from explainer_runtime.hosts.sidecar.proxy_grpc import GrpcProxy, model_name
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
IMAGES = np.random.default_rng(5).uniform(size=(2, 4, 4, 1)).astype(np.float32)


# --- what is whose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "here"),
    [
        ("/v2/models/cf/explain", "/v2/models/cf/explain"),
        ("/v2/models/anchor/versions/1/explain", "/v2/models/anchor/versions/1/explain"),
        ("/v1/models/cf:explain", "/v1/models/cf:explain"),
        ("/v1/models/cnn:explain", "/v1/models/cf:explain"),
        ("/v2/models/cnn/explain", "/v2/models/cf/explain"),
        ("/v2/models/cnn/versions/7/explain", "/v2/models/cf/explain"),
        ("/explain", "/explain"),
        ("/api/v1.0/explain", "/api/v1.0/explain"),
        ("/api/v0.1/explain", "/api/v0.1/explain"),
        ("/explain/ready", "/v2/health/ready"),
        ("/explain/live", "/v2/health/live"),
        ("/explain/models", "/v2/models"),
        ("/v2/models/cnn/explanations/1/result", "/v2/models/cf/explanations/1/result"),
        ("/v2/models/cf/explanations", "/v2/models/cf/explanations"),
        ("/v2/models/cf/infer", "/v2/models/cf/infer"),
        ("/v2/models/cf", "/v2/models/cf"),
        ("/v2/models/cf/infer_stream", "/v2/models/cf/infer_stream"),
        ("/v2/models/cnn/infer", None),
        ("/v1/models/cnn:predict", None),
        ("/v2/health/ready", None),
        ("/v2", None),
        ("/metrics", None),
        ("/v2/repository/index", None),
        ("/explain/other", None),
        ("//explain", None),
        ("/v2/models/cnn/explain/", None),
    ],
)
def test_explain_verbs_and_explainers_are_answered_here_and_nothing_else(path, here):
    assert Proxy(None, "http://localhost:1", ["cf", "anchor"]).ours(path) == here


def test_an_explainer_with_the_models_name_answers_to_its_verb_alone():
    proxy = Proxy(None, "http://localhost:1", ["cnn"], "cnn")
    assert proxy.ours("/v2/models/cnn/explanations/1") == "/v2/models/cnn/explanations/1"
    assert proxy.ours("/v2/models/cnn/explain") == "/v2/models/cnn/explain"
    assert proxy.ours("/v2/models/cnn/infer") is None


@pytest.mark.parametrize("address", ["localhost:1", "https://localhost", "http://", "http://localhost/v2"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InvalidSpec, match="upstream"):
        Proxy(None, address, ["cf"])


@given(st.text(max_size=300), st.text(max_size=20))
def test_a_models_name_is_read_from_the_first_bytes_of_a_message(name, other):
    for kind in ("ModelInferRequest", "ModelReadyRequest", "ModelMetadataRequest"):
        fields = {"model_name": name} if kind == "ModelInferRequest" else {"name": name}
        if kind == "ModelInferRequest":
            fields["id"] = other
        assert model_name(oip.MESSAGES[kind](**fields).SerializeToString()) == name.encode()


@given(st.binary(max_size=50))
def test_any_bytes_are_a_name_or_none(message):
    assert isinstance(model_name(message), bytes)


# --- the two real servers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def cnn_path(folder):
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).save(folder / "cnn.keras")
    return folder / "cnn.keras"


@pytest.fixture(scope="module")
def counterfactual_path(folder):
    spec = Counterfactual(gradient="exact", target_proba=0.6, tol=0.2)
    return artifact.save(fit(spec, inputs=CONTRACT), folder / "cf")


@pytest.fixture(scope="module")
def anchor_path(folder):
    spec = AnchorImage(segmentation=Grid(rows=4, columns=2), fill="constant", threshold=0.9)
    return artifact.save(fit(spec, inputs=CONTRACT), folder / "boots")


@contextlib.contextmanager
def sidecar(folder, upstream, *words):
    """`serve --sidecar` as the second container of a pod, beside `upstream`."""
    ports, log = free_ports(), folder / f"sidecar-{upstream.ports.http}.log"
    flags = [f"--predictor_host=localhost:{upstream.ports.http}", f"--http_port={ports.http}"]
    flags += [f"--grpc_port={ports.grpc}", f"--upstream-grpc=localhost:{upstream.ports.grpc}"]
    flags += [f"--metrics-port={ports.metrics}", "--sidecar", f"--jobs={folder}/jobs-{ports.http}"]
    command = [sys.executable, "-m", "explainer_runtime.cli", "serve", *(str(word) for word in words), *flags]
    with running(start(command, log), ports, log, "/explain/ready") as server:
        yield server


@pytest.fixture(scope="module")
def keras_pair(folder, cnn_path, counterfactual_path):
    """Our Keras runtime, and a sidecar that has the model's files mounted: its explainer needs the graph."""
    (folder / "keras").mkdir()
    with (
        serving([keras_settings(cnn_path, "cnn")], folder / "keras") as model,
        sidecar(folder, model, counterfactual_path, "--model", cnn_path, "--model_name=cnn") as beside,
    ):
        yield model, beside


@pytest.fixture(scope="module")
def kserve_pair(folder, anchor_path):
    """KServe's ModelServer, and a sidecar that asks the model as a black box."""
    if not PYTHON.exists():
        pytest.skip("no .venv-kserve; `make test` builds it")
    ports, log = free_ports(), folder / "linear.log"
    command = [str(word) for word in (PYTHON, HERE / "kserve_model.py", ports.http, ports.grpc)]
    with (
        running(start(command, log), ports, log) as model,
        sidecar(folder, model, anchor_path, "--model_name=linear") as beside,
    ):
        yield model, beside


@pytest.fixture(params=["keras", "kserve"])
def pair(request):
    return request.getfixturevalue(f"{request.param}_pair")


def requests(name):
    """A hundred requests that a model may get: good, bad, packed, in pieces, and strange."""
    body = {"id": "1", "inputs": [v2_input(IMAGES)]}
    infer = f"/v2/models/{name}/infer"
    as_json = {"content-type": "application/json"}
    kept = {"x-request-id": "r-1", "host": "model.example"}

    def post(path, content, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return "POST", path, {**as_json, **kept, **headers}, content

    for path in (
        "",
        "/",
        "/v2",
        "/v2/",
        "/v2/health/live",
        "/v2/health/ready",
        "/v1/models",
        "/v2/models",
        "/docs",
    ):
        yield "GET", path or "/?", kept, None
    for path in (
        f"/v2/models/{name}",
        f"/v2/models/{name}/ready",
        "/v2/models/none",
        "/none",
        "/v2/models/a%2Fb",
    ):
        for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT"):
            yield method, path, kept, None
    for path in (infer, infer + "?a=1&b=%20", "/v2/models/none/infer", f"/v1/models/{name}:predict"):
        yield post(path, json.dumps(body).encode())
    for text in ("", "{", "[]", "null", "[" * 100, "{}", '{"inputs": []}', '{"inputs": 3}', "\x00", '"é"'):
        yield post(infer, text.encode())
    for changes in (
        {"shape": [9]},
        {"datatype": "BOOL"},
        {"datatype": "X"},
        {"data": ["a"]},
        {"data": [None]},
    ):
        yield post(infer, json.dumps({"id": "2", "inputs": [v2_input(IMAGES, **changes)]}).encode())
    for encoding in ("gzip", "identity", "br", "gzip, br"):
        yield post(infer, json.dumps({**body, "id": "x" * 2000}).encode(), accept_encoding=encoding)
    yield post(infer, gzip.compress(json.dumps(body).encode(), mtime=0), content_encoding="gzip")
    yield post(infer, b"not gzip", content_encoding="gzip")
    yield post(infer, json.dumps(body).encode(), content_type="text/plain")
    yield post(infer, iter([b'{"id": "3", ', json.dumps(body).encode()[1:]]))
    yield post(infer, json.dumps({"id": "4", "inputs": [v2_input(IMAGES.repeat(2000, axis=0))]}).encode())
    yield post(f"/v1/models/{name}:predict", json.dumps({"instances": IMAGES.tolist()}).encode())
    for seed in range(40):
        rows = np.random.default_rng(seed).uniform(size=(1 + seed % 5, 4, 4, 1)).astype(np.float32)
        yield post(infer, json.dumps({"id": str(seed), "inputs": [v2_input(rows)]}).encode())


def exchange(pool, server, method, path, headers, content):
    """Status, headers and body as they are on the wire; the moment in `date` is any."""
    if not isinstance(content, bytes | None):
        content = list(content)
    url = httpcore.URL(scheme="http", host="127.0.0.1", port=server.ports.http, target=path.encode())
    answer = pool.request(method, url, headers=list(headers.items()), content=content)
    passed = [(key.lower(), value) for key, value in answer.headers if key.lower() != b"connection"]
    return answer.status, [(key, b"" if key == b"date" else value) for key, value in passed], answer.content


def test_a_hundred_answers_are_those_of_the_model_byte_for_byte(pair):
    model, beside = pair
    name = "linear" if "linear" in model.log.name else "cnn"
    statuses = set()
    with httpcore.ConnectionPool() as pool:
        for method, path, headers, content in requests(name):
            sent = list(content) if not isinstance(content, bytes | None) else content
            direct = exchange(pool, model, method, path, headers, sent)
            relayed = exchange(pool, beside, method, path, headers, sent)
            assert relayed == direct, (method, path)
            statuses.add(direct[0])
    assert {200, 404, 405, 422} <= statuses


def test_there_are_a_hundred_of_them_for_each_server():
    assert len(list(requests("cnn"))) >= 100


def calls(name):
    infer = oip.ModelInferRequest(model_name=name, id="7")
    infer.inputs.add(name="input", datatype="FP32", shape=IMAGES.shape)
    infer.raw_input_contents.append(IMAGES.tobytes())
    service = f"/{oip.SERVICE}"
    yield f"{service}/ModelInfer", infer.SerializeToString()
    yield f"{service}/ModelInfer", oip.ModelInferRequest(model_name="none").SerializeToString()
    yield f"{service}/ModelInfer", b""
    yield f"{service}/ModelInfer", b"\xff\xff"
    yield f"{service}/ModelMetadata", oip.MESSAGES["ModelMetadataRequest"](name=name).SerializeToString()
    yield f"{service}/ModelReady", oip.MESSAGES["ModelReadyRequest"](name=name).SerializeToString()
    yield f"{service}/ServerLive", b""
    yield f"{service}/ServerReady", b""
    yield f"{service}/ServerMetadata", b""
    yield f"{service}/Nonsense", b"1"
    yield "/inference.model_repository.ModelRepositoryService/RepositoryIndex", b""


def call(server, method, message):
    """Code, details, answer and trailing metadata of one gRPC call, in bytes."""
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
        try:
            answer, ended = channel.unary_unary(method).with_call(message, timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details(), None, dict(error.trailing_metadata() or ())
    return ended.code(), ended.details(), answer, dict(ended.trailing_metadata())


def test_grpc_answers_are_those_of_the_model_byte_for_byte(pair):
    model, beside = pair
    name = "linear" if "linear" in model.log.name else "cnn"
    codes = set()
    for method, message in calls(name):
        direct = call(model, method, message)
        assert call(beside, method, message) == direct, method
        codes.add(direct[0])
    assert {grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED} <= codes


def test_with_the_models_files_explanations_are_made_in_process(keras_pair):
    model, beside = keras_pair
    body = {"inputs": [v2_input(IMAGES)]}
    for path in ("/v2/models/cf/explain", "/v2/models/cnn/explain", "/v2/models/cf/infer", "/explain"):
        answer = httpx.post(beside.rest(path), json=body, timeout=60)
        assert answer.status_code == 200, answer.text
    found = ask_rest(beside, "cf", IMAGES, "explain").array("found")
    assert found.all()
    assert ask_grpc(beside, "cf", IMAGES).array("found").all()
    # Nothing but the relayed requests above has reached the model: no rows were made up for it.
    assert "/explain" not in model.log.read_text()


def test_without_them_the_model_is_asked_at_its_port(kserve_pair):
    _, beside = kserve_pair
    answer = ask_rest(beside, "linear", IMAGES, "explain")
    assert answer.body["model_name"] == "boots"
    assert answer.array("found").all()
    assert answer.tensors == ask_grpc(beside, "boots", IMAGES).tensors
    bare = httpx.post(
        beside.rest("/v1/models/linear:explain"), json={"instances": IMAGES.tolist()}, timeout=60
    )
    assert set(bare.json()) == {"meta", "data"}


def test_its_own_health_is_asked_beside_the_models(kserve_pair):
    _, beside = kserve_pair
    for path in ("/explain/live", "/explain/ready"):
        assert httpx.get(beside.rest(path)).status_code == 200


def test_pictures_are_explained_beside_the_model_and_what_is_explained_is_listed(kserve_pair):
    _, beside = kserve_pair
    assert httpx.get(beside.rest("/explain/models"), timeout=60).json()["models"] == ["boots"]
    pixels, file = np.round(255 * IMAGES[0, ..., 0]).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    url, png = beside.rest("/v1/models/linear:explain"), {"content-type": "image/png"}
    answer = httpx.post(url, content=file.getvalue(), headers=png, timeout=60).json()
    rows = {"instances": (pixels / np.float32(255)).reshape(1, 4, 4, 1).tolist()}
    assert answer["data"] == httpx.post(url, json=rows, timeout=60).json()["data"]


def test_streams_of_other_services_pass_in_both_directions():
    async def count(requests, context):
        await context.send_initial_metadata((("began", "yes"),))
        total = 0
        async for message in requests:
            total += len(message)
            yield b"%d" % total
        context.set_trailing_metadata((("ended", "yes"),))

    async def relayed():
        handlers = {"Count": grpc.stream_stream_rpc_method_handler(count)}
        model = grpc.aio.server()
        model.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("any.Service", handlers),))
        target = f"127.0.0.1:{model.add_insecure_port('127.0.0.1:0')}"
        proxy = grpc.aio.server(interceptors=[GrpcProxy(target, ["cf"])])
        port = proxy.add_insecure_port("127.0.0.1:0")
        await asyncio.gather(model.start(), proxy.start())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream("/any.Service/Count")(metadata=(("x-key", "1"),))
            answers = []
            for size in (1, 2, 3):  # each answer before the next question
                await call.write(b"x" * size)
                answers.append(await call.read())
            await call.done_writing()
            assert await call.read() == grpc.aio.EOF
            metadata = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
        await asyncio.gather(model.stop(None), proxy.stop(None))
        return answers, metadata

    answers, (began, ended) = asyncio.run(relayed())
    assert answers == [b"1", b"3", b"6"]
    assert began["began"] == ended["ended"] == "yes"


# --- streaming and hanging up -------------------------------------------------------------------------------


class Upstream:
    """A socket that takes one connection after another and hands it to a test's function."""

    def __init__(self, behave):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.behave = behave
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, connection.makefile("rb") as read:
                    self.behave(connection, read)


@contextlib.contextmanager
def relay(behave, counted=contextlib.nullcontext):
    """A proxy on a real server in front of a socket that behaves as told; its address."""

    async def none(scope, receive, send):
        await refuse(send, 404, "none")

    upstream = Upstream(behave)
    proxy = Proxy(none, upstream.address, ["cf"], counted=counted)
    config = uvicorn.Config(proxy, "127.0.0.1", 0, lifespan="off", log_level="critical", ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))

    async def serve():
        try:
            await server.serve([listener])
        finally:
            await proxy.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        upstream.listener.close()


def head(read):
    lines = []
    while (line := read.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join(lines)


def test_an_answer_comes_piece_by_piece_as_the_model_gives_it():
    seen = threading.Event()

    def drip(connection, read):
        head(read)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert seen.wait(timeout=10)
        connection.sendall(b"6\r\nsecond\r\n0\r\n\r\n")

    with relay(drip) as address, httpx.stream("GET", address) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        seen.set()
        assert next(pieces) == b"second"


def test_a_body_reaches_the_model_piece_by_piece_as_the_client_sends_it():
    arrived = threading.Event()

    def take(connection, read):
        head(read)
        assert read.read(10) == b"5\r\nfirst\r\n"
        arrived.set()
        assert read.read(16) == b"6\r\nsecond\r\n0\r\n\r\n"
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def body():
        yield b"first"
        assert arrived.wait(timeout=10)
        yield b"second"

    with relay(take) as address:
        assert httpx.post(address, content=body()).status_code == 204


@contextlib.contextmanager
def asking():
    """A client whose request has come to a model that says nothing. When it hangs up, the model sees it."""
    asked, gone = threading.Event(), threading.Event()

    def wait(connection, read):
        head(read)
        asked.set()
        if read.read(1) == b"":
            gone.set()

    with relay(wait) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert asked.wait(timeout=10)
            yield client
        assert gone.wait(timeout=10)


def test_when_the_client_hangs_up_the_model_sees_it():
    with asking():
        pass


def test_a_client_that_closes_its_side_has_hung_up():
    with asking() as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_request_counts_as_running_until_it_is_answered():
    seen, running = threading.Event(), []

    @contextlib.contextmanager
    def counted():
        running.append(1)
        yield
        running.pop()
        seen.set()

    def answer(connection, read):
        head(read)
        assert running
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with relay(answer, counted) as address:
        assert httpx.get(address).status_code == 200
        assert seen.wait(timeout=10)
    assert not running


def test_a_model_that_breaks_off_before_it_answers_is_502():
    with relay(lambda connection, read: head(read)) as address:
        answer = httpx.get(address)
    assert answer.status_code == 502
    assert answer.json()["error"].startswith("the model broke off")


def test_half_an_answer_is_not_taken_for_a_whole_one():
    def half(connection, read):
        head(read)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    with relay(half) as address, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(address)


def test_a_model_that_is_down_is_503():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()

    proxy = Proxy(None, f"http://127.0.0.1:{free}", ["cf"])
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(proxy(scope, receive, send))
    assert sent[0]["status"] == 503


def test_headers_of_one_connection_stay_on_it():
    seen = []

    def echo(connection, read):
        seen.append(head(read).lower())
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nx-end: 2\r\nx-end: 3\r\n"
            b"content-length: 0\r\n\r\n"
        )

    with relay(echo) as address:
        answer = httpx.get(address, headers={"connection": "x-mine", "x-mine": "1", "x-yours": "2"})
    assert b"x-mine" not in seen[0]
    assert b"x-yours: 2" in seen[0]
    assert answer.headers.get_list("x-end") == ["2", "3"]
    assert "x-hop" not in answer.headers


# --- what must not reach the next client --------------------------------------------------------------------


def answering(*answers):
    """A model that gives these answers, one for each request, and counts connections."""
    rest = list(answers)
    opened = []

    def behave(connection, read):
        opened.append(1)
        with contextlib.suppress(OSError):
            while rest and head(read):
                connection.sendall(rest.pop(0))

    return behave, opened


GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


@pytest.mark.parametrize(
    "surplus",
    [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", b"HTTP/1.1 200 OK\r\n", b"\r\n" * 40_000],
)
def test_what_comes_behind_an_answer_is_nobodys(surplus):
    behave, opened = answering(GOOD + surplus, GOOD)
    with relay(behave) as address:
        assert httpx.get(address).content == b"good"
        assert httpx.get(address).content == b"good"
    assert len(opened) == 2


def test_what_a_model_says_unasked_is_nobodys():
    asked, said = threading.Event(), threading.Event()

    def behave(connection, read):
        head(read)
        connection.sendall(GOOD)
        if not said.is_set():
            assert asked.wait(timeout=10)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
            said.set()
            read.read(1)

    with relay(behave) as address:
        assert httpx.get(address).content == b"good"
        asked.set()
        assert said.wait(timeout=10)
        assert [httpx.get(address).content for _ in range(3)] == [b"good"] * 3


def test_a_connection_with_nothing_left_over_is_used_again():
    behave, opened = answering(*[GOOD] * 5)
    with relay(behave) as address:
        assert [httpx.get(address).content for _ in range(5)] == [b"good"] * 5
    assert len(opened) == 1


STRANGE = {
    "two ends": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nhello",
    "a status that is none": b"HTTP/1.1 999 X\r\ncontent-length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello",
    "no HTTP": b"\x00\x01garbage\r\n\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
}


@pytest.mark.parametrize("strange", STRANGE)
def test_an_answer_that_cannot_be_passed_on_is_502_and_its_connection_is_not_used_again(strange):
    behave, opened = answering(STRANGE[strange], GOOD)
    with relay(behave) as address:
        answer = httpx.get(address)
        assert (answer.status_code, list(answer.json())) == (502, ["error"])
        assert "bytearray" not in answer.text
        assert httpx.get(address).content == b"good"
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, 200, b"good"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 100\r\n\r\n", 304, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n"
            b"4\r\ngood\r\n0\r\nx-t: 1\r\n\r\n",
            200,
            b"good",
        ),
    ],
)
def test_an_answer_of_another_form_passes_without_its_trailers(sent, status, body):
    def behave(connection, read):
        head(read)
        connection.sendall(sent)

    with relay(behave) as address:
        answer = httpx.get(address)
    assert (answer.status_code, answer.content) == (status, body)
    assert "trailer" not in answer.headers


def talk(address, data, end=True):
    """What comes back for these bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(data)
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
            if not end:
                break
    return b"".join(pieces)


def test_a_model_that_refuses_a_body_is_heard_while_the_body_is_coming():
    def early(connection, read):
        head(read)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        read.read(1)

    with relay(early) as address:
        answer = talk(address, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\naaa")
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"no")
    assert b"connection: close" in answer.lower()


def test_headers_that_end_a_message_are_not_taken_off_by_name():
    seen = []

    def echo(connection, read):
        seen.append(head(read).lower())
        seen.append(read.read(3))
        connection.sendall(GOOD)

    with relay(echo) as address:
        talk(
            address,
            b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close, content-length, host, x-hop\r\n"
            b"content-length: 3\r\nx-hop: 1\r\n\r\nabc",
        )
    assert b"content-length: 3" in seen[0]
    assert b"host: a" in seen[0]
    assert b"x-hop" not in seen[0]
    assert seen[1] == b"abc"


def test_connect_is_not_relayed():
    with relay(lambda connection, read: None) as address:
        assert b" 405 " in talk(
            address, b"CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\nconnection: close\r\n\r\n"
        )


def test_an_explanation_may_outlive_its_connection_here_too(keras_pair):
    _, beside = keras_pair
    path, body = beside.rest("/v2/models/cnn/explain"), {"id": "1", "inputs": [v2_input(IMAGES)]}
    job = httpx.post(path, json=body, headers={"prefer": "respond-async, wait=60"}, timeout=120)
    place = httpx.get(beside.rest("/v2/models/cnn/explanations"), timeout=60).json()["explanations"][0][
        "links"
    ]
    fetched = httpx.get(beside.rest(place["result"]), timeout=60)
    assert job.status_code == fetched.status_code == 200
    assert job.content == fetched.content
    # What is the model's is the model's, whatever is preferred.
    infer = httpx.post(beside.rest("/v2/models/cnn/infer"), json=body, headers={"prefer": "respond-async"})
    assert infer.status_code == 200
    assert "preference-applied" not in infer.headers
