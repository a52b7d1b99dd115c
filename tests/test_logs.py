"""What a server writes: one form for every line, the reason of a failure last, and nothing of a caller's."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys

import grpc
import httpx
import numpy as np
import pytest
from oip_servers import Model, Refusal, RestServer
from servers import free_ports, running, start
from staged import CONTRACT, Held, anchor
from test_attacks import head, raw

from explainer_runtime.hosts.service import logs
from explainer_runtime.predictors.remote import oip

SERVE = [sys.executable, "-m", "explainer_runtime.cli", "serve"]
CANARY = 0.12345678
WORD = "sesamecanary"


def serve(words, folder, wait=True, **variables):
    folder.mkdir(exist_ok=True)
    ports = free_ports()
    flags = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    process = start([*SERVE, *map(str, [*words, *flags])], folder / "log", **variables)
    return process, ports, folder / "log"


def echoing(x):
    """A model that repeats what it was sent, as many do."""
    raise Refusal(500, f"cannot read {WORD} {x.ravel()[:40].tolist()}")


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_of_a_caller_reaches_the_log_and_every_line_has_one_form(tmp_path, form):
    image = np.full((1, *CONTRACT.shape), CANARY, np.float32)
    tensor = {"name": WORD, "datatype": "FP32", "shape": list(image.shape), "data": image.ravel().tolist()}
    right = {"inputs": [tensor], "parameters": {"max_calls": 1}}
    wrong = [
        {"inputs": [{**tensor, "datatype": WORD}]},
        {"inputs": [{**tensor, "data": [WORD]}]},
        {"inputs": [tensor], "parameters": {"explain_parameters": {WORD: 1}}},
        {"inputs": [tensor], "parameters": {"threshold": WORD}},
        {"inputs": [tensor], "outputs": [{"name": WORD}]},
        {"inputs": WORD, "id": WORD + "\n"},
    ]
    headers = {
        "authorization": f"Bearer {WORD}",
        "cookie": WORD,
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "baggage": WORD * 1000,
    }
    with RestServer(Model(respond=echoing)) as model:
        words = [anchor(tmp_path), "--name", "m", "--log-format", form]
        words += ["--predictor", f"http://127.0.0.1:{model.port}/cnn"]
        with running(*serve(words, tmp_path / "server")) as server:
            for body in (right, *wrong):
                for route in ("infer", "explain", "infer_stream"):
                    path = server.rest(f"/v2/models/m/{route}?{WORD}")
                    answer = httpx.post(path, json=body, headers=headers, timeout=30)
                    assert answer.status_code in (422, 502)
                    assert body is not right or WORD in answer.text  # its own words are told to the caller
            request = oip.ModelInferRequest(model_name="m", id=WORD)
            request.inputs.add(name=WORD, datatype="FP32", shape=image.shape)
            request.raw_input_contents.append(image.tobytes())
            request.parameters["threshold"].string_param = WORD
            with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
                for name in ("m", WORD):
                    request.model_name = name
                    with pytest.raises(grpc.RpcError):
                        oip.method(channel, "ModelInfer")(
                            request, timeout=30, metadata=[("baggage", WORD * 900)]
                        )
            forged = "/x%0a2026-11-26%2000:00:00,000%20INFO%20forged:%20yes%1b%5b31m"
            raw(server, head(forged, method="GET", connection="close"))
            raw(server, b"nonsense " + WORD.encode() + b"\r\n\r\n")
        text = server.log.read_text()
    assert WORD not in text
    assert "0.1234" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) > 20
    for line in lines:
        if form == "json":
            assert {"time", "level", "logger", "message"} <= set(json.loads(line)), line
        else:
            assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+00:00 [A-Z]+ [\w.]+: ", line), line


def test_ready_is_said_when_it_is_and_not_before(tmp_path):
    held = Held()
    with RestServer(Model(respond=held)) as model:
        words = [anchor(tmp_path), "--name", "m", "--predictor", f"http://127.0.0.1:{model.port}/cnn"]
        with running(*serve(words, tmp_path / "server")) as server:
            said = server.log.read_text().splitlines()
    assert '"message":"loading: m, to be served at http://127.0.0.1:' in said[0]
    ready = [index for index, line in enumerate(said) if '"message":"ready: m"' in line]
    listening = [index for index, line in enumerate(said) if "Uvicorn running" in line]
    assert len(ready) == 1
    assert max(listening) < ready[0]


def test_a_server_whose_model_cannot_be_loaded_is_never_ready_and_says_why_last(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04junk")
    process, ports, log = serve(["--model", tmp_path / "bad.keras", "--name", "bad"], tmp_path / "server")
    seen = set()
    while process.poll() is None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{ports.http}/v2/health/ready", timeout=5)
            seen.add(answer.status_code)
        except httpx.TransportError:
            continue
    assert process.wait(timeout=60) == 2
    assert 200 not in seen
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    assert last["message"].startswith("cannot serve: ")
    assert "bad.keras" in last["message"]
    assert "\n" not in last["message"]


def test_a_port_that_is_taken_is_the_last_line_too(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [anchor(tmp_path), "--name", "m", "--predictor", "http://127.0.0.1:1/m"]
        folder = tmp_path / "server"
        folder.mkdir()
        ports = free_ports()
        flags = ["--http-port", port, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        process = start([*SERVE, *map(str, [*words, *flags])], folder / "log")
        assert process.wait(timeout=60) == 1
    last = json.loads((folder / "log").read_text().splitlines()[-1])
    assert last["message"] == "cannot serve: a port cannot be listened on; it may be taken"


# --- formatting ---------------------------------------------------------------------------------------------


def record(name, message, *args, error=None):
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.WARNING, "x.py", 1, message, args, exc_info)


def test_what_strangers_put_into_a_line_is_left_out():
    for formatter in (logs.JsonLines(), logs.TextLines()):
        assert "secret" not in formatter.format(
            record("opentelemetry.baggage", "header `%s` is long", "secret")
        )
        assert "known" in formatter.format(record("explainer_runtime.x", "%s", "known"))


def test_a_traceback_says_where_and_what_kind_but_not_what():
    try:
        try:
            float("0.98765 row of numbers")
        except ValueError as error:
            raise RuntimeError("more of the row 0.98765") from error
    except RuntimeError as error:
        kept = error
    text = logs.JsonLines().format(record("mlserver", "unexpected error", error=kept))
    assert "0.98765 row" not in text.replace('float(\\"0.98765 row of numbers\\")', "")
    assert "ValueError" in text
    assert "RuntimeError" in text
    assert "test_logs.py" in text


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "a\r\nb", "\u2028", "\x00"])
def test_text_lines_are_one_line_each(text):
    line = logs.TextLines().format(record("explainer_runtime.x", "%s", text))
    assert len(line.splitlines()) == 1
    assert all(one.isprintable() for one in line)


PRINTING = """
import logging.config, os, warnings
from explainer_runtime.hosts.service import logs, output
with output.one_voice():
    logging.config.dictConfig(logs.settings(True))
    os.write(1, b"from below\\n")
    os.write(2, b"\\xff\\xfe no text\\n")
    print("printed")
    warnings.warn("warned")
    logging.getLogger("a.stranger").warning("of %s", "a secret")
    logging.getLogger("explainer_runtime.x").warning("logged")
print("as before")
"""


def test_whatever_a_process_prints_becomes_a_line():
    run = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert run.stdout == "as before\n"
    said = {json.loads(line)["message"].split(": ")[-1].split("\n")[0] for line in run.stderr.splitlines()}
    assert said == {"from below", "\\xff\\xfe no text", "printed", "warned", "of %s", "logged"}
