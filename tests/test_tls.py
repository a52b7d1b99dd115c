"""Certificates for REST and gRPC: asked for, shown, renewed. Real servers, with openssl's certificates."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from oip_servers import Model, RestServer
from servers import free_ports, start
from staged import Held, anchor, model
from test_attacks import valid

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.tls import Tls
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import parse

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
PYTHON = {
    "mlserver": sys.executable,
    "kserve": Path(__file__).parent.parent / ".venv-kserve" / "bin" / "python",
}
CONNECTIONS = 40
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


def openssl(folder, words):
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)


def issue(folder, name, subject):
    """A certificate of the authority in the folder, made on its first use."""
    if not (folder / "ca.crt").exists():
        openssl(folder, f"req -x509 {KEY} -subj /CN=ca -keyout ca.key -out ca.crt")
    openssl(folder, f"req {KEY} -subj /CN={subject} -keyout {name}.key -out {name}.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signed = f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2"
    openssl(folder, f"{signed} -extfile names -out {name}.crt")


@pytest.fixture(scope="module", params=PYTHON)
def host(request):
    if not Path(PYTHON[request.param]).exists():
        pytest.skip("no .venv-kserve; `make test` builds it")
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, host):
    folder = tmp_path_factory.mktemp("tls")
    issue(folder, "server", "first")
    issue(folder, "client", "client")
    return folder


class Started(NamedTuple):
    ports: Any
    log: Path
    process: Any

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def guard(folder, **more):
    files = {"tls_cert": str(folder / "server.crt"), "tls_key": str(folder / "server.key")}
    return Guard(**files, **more)


@pytest.fixture(scope="module")
def server(folder, host):
    """A server that takes a certificate or a token."""
    (folder / "tokens").write_text("sesame\n")
    flags = ["--tls-cert", folder / "server.crt", "--tls-key", folder / "server.key"]
    limits = {"token_file": str(folder / "tokens"), "max_connections": CONNECTIONS}
    flags += ["--tls-client-ca", folder / "ca.crt", "--guard", json.dumps(limits)]
    ports = free_ports()
    with model(Held()) as predictor:
        url = predictor["url"] + "/cnn"
        words = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        command = [PYTHON[host], "-m", "explainer_runtime.cli", "serve", anchor(folder), "--name", "m"]
        command += ["--server", host]
        command += ["--predictor", url, *flags, *words]
        process = start([str(word) for word in command], folder / "server.log")
        server = Started(ports, folder / "server.log", process)
        try:
            ready(server, folder, "/v2/health/ready")
            yield server
        finally:
            process.terminate()
            process.wait(timeout=40)


def ready(server, folder, path):
    """Wait until a server says that it is."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if ask(server, folder, path, "GET").status_code == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.1)
            raise AssertionError(server.log.read_text())


def ask(server, folder, path, method="POST", shown=False, token=None, body=b""):
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if shown:
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    url = f"https://127.0.0.1:{server.ports.http}{path}"
    with httpx.Client(verify=context, timeout=30) as client:
        return client.request(method, url, content=body, headers=headers)


INFER = "/v2/models/m/infer"


def test_health_needs_neither_certificate_nor_token(server, folder):
    assert ask(server, folder, "/v2/health/live", "GET").status_code == 200


CASES = [(False, None, 401), (True, None, 200), (False, "sesame", 200)]


@pytest.mark.parametrize(("shown", "token", "status"), CASES)
def test_a_certificate_is_as_good_as_a_token(server, folder, shown, token, status):
    answer = ask(server, folder, INFER, shown=shown, token=token, body=valid())
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"error": "expected authorization: Bearer <token> or a client certificate"}


def test_a_certificate_of_a_stranger_is_none(server, folder, tmp_path):
    issue(tmp_path, "client", "stranger")
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    with httpx.Client(verify=context) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://127.0.0.1:{server.ports.http}/v2/health/live")


def test_who_does_not_shake_hands_counts_and_makes_place_for_others(server, folder):
    with contextlib.ExitStack() as stack:
        before = server.files()
        half = b"\x16\x03\x01\x02\x00"  # a record that promises a greeting
        for index in range(CONNECTIONS + 200):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.ports.http), timeout=30))
            one.sendall(half[: index % 6])
        assert ask(server, folder, INFER, token="sesame", body=valid()).status_code == 200
        assert server.files() - before < CONNECTIONS + 32


def test_plain_http_is_not_answered(server):
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.ports.http}/v2/health/live")


@pytest.mark.parametrize("shown", [True, False])
def test_grpc_takes_a_connection_with_a_certificate_only(server, folder, shown):
    read = lambda name: (folder / name).read_bytes()  # noqa: E731
    mine = (read("client.key"), read("client.crt")) if shown else ()
    credentials = grpc.ssl_channel_credentials(read("ca.crt"), *mine)
    message = oip.ModelInferRequest(model_name="absent")
    channel = grpc.secure_channel(f"127.0.0.1:{server.ports.grpc}", credentials)
    with channel, pytest.raises(grpc.RpcError) as refusal:
        oip.method(channel, "ModelInfer")(message, timeout=20)
    assert refusal.value.code().name == ("NOT_FOUND" if shown else "UNAVAILABLE")


def test_a_sidecar_has_certificates_too(folder, host, tmp_path):
    if host != "mlserver":
        pytest.skip("a sidecar is MLServer's, whatever the model's server is")
    with model(Held()) as predictor, RestServer(Model(respond=Held())) as upstream:
        ports, address = free_ports(), upstream.url.removeprefix("http://")
        command = [sys.executable, "-m", "explainer_runtime.cli", "serve", anchor(tmp_path), "--sidecar"]
        command += ["--model_name=cnn", f"--predictor_host={address}"]
        command += ["--upstream-grpc", predictor["url"].removeprefix("grpc://")]
        command += ["--tls-cert", folder / "server.crt", "--tls-key", folder / "server.key"]
        command += ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        process = start([str(word) for word in command], tmp_path / "server.log")
        server = Started(ports, tmp_path / "server.log", process)
        try:
            ready(server, folder, "/explain/ready")
            answer = ask(server, folder, "/v2/models/anchor/explain", body=valid())
            assert answer.status_code == 200, answer.text
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{ports.http}/explain/ready")
            channel = grpc.secure_channel(
                f"localhost:{ports.grpc}", grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes())
            )
            with channel, pytest.raises(grpc.RpcError) as refusal:
                oip.method(channel, "ModelInfer")(oip.ModelInferRequest(model_name="anchor"), timeout=20)
            assert refusal.value.code().name == "FAILED_PRECONDITION"
        finally:
            process.terminate()
            process.wait(timeout=40)


def subject(server, folder):
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", server.ports.http))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        return dict(part[0] for part in secure.getpeercert()["subject"])["commonName"]


def test_a_renewed_certificate_is_used_and_connections_go_on(server, folder):
    assert subject(server, folder) == "first"
    issue(folder, "next", "second")
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    with httpx.Client(verify=context, timeout=30) as client:
        live = f"https://127.0.0.1:{server.ports.http}/v2/health/live"
        assert client.get(live).status_code == 200
        for kind in ("key", "crt"):  # not at the same moment: for a while they do not fit each other
            os.replace(folder / f"next.{kind}", folder / f"server.{kind}")
        for _ in range(100):
            assert client.get(live).status_code == 200
            if subject(server, folder) == "second":
                break
            threading.Event().wait(0.2)
        assert subject(server, folder) == "second"
    files = [(folder / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")]
    credentials = grpc.ssl_channel_credentials(*files)
    with grpc.secure_channel(f"127.0.0.1:{server.ports.grpc}", credentials) as channel:
        assert oip.method(channel, "ServerLive")(oip.MESSAGES["ServerLiveRequest"](), timeout=20).live


# --- files that cannot be used ----------------------------------------------------------------------------


def test_a_pair_that_does_not_fit_is_refused_at_start_and_not_used_later(tmp_path):
    issue(tmp_path, "server", "first")
    issue(tmp_path, "other", "other")
    tls, told = Tls(guard(tmp_path)), []
    shutil.copy(tmp_path / "other.key", tmp_path / "server.key")
    given = tls._given
    tls.renew(told.append)
    assert "not replaced" in told[0]
    assert tls._given is given
    with pytest.raises(InvalidSpec, match="tls_cert, tls_key"):
        Tls(guard(tmp_path))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_cert": "a"}, "tls_cert and tls_key together"),
        ({"tls_key": "a"}, "tls_cert and tls_key together"),
        ({"tls_client_ca": "a"}, "tls_client_ca: expected tls_cert"),
    ],
)
def test_half_of_the_settings_is_none(given, said):
    with pytest.raises(InvalidSpec, match=said):
        parse(Guard, given, "guard")


def test_a_certificate_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match="cannot be used: No such file"):
        Tls(Guard(tls_cert=tmp_path / "a", tls_key=tmp_path / "b"))
