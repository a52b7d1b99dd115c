"""The audit record: what it holds lets an explanation be made again, byte for byte, and holds no row."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from rich.console import Console
from servers import free_ports, running, start, v2_input
from toys import CLASSES, SHAPE, rowwise, weights
from typer.testing import CliRunner
from verified import CONTRACT, METHODS

from explainer_runtime import artifact
from explainer_runtime.cli import answers, app, replaying
from explainer_runtime.errors import ExplainerError, InvalidInput, InvalidSpec, PredictorError
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.hosts.service import audit
from explainer_runtime.hosts.service.service import Service
from explainer_runtime.hosts.service.settings import parse_settings
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.predictors.colocated import announce, withdraw
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import Attribution, Grid, Neighbours

MODEL = rowwise(weights())
CANARY = 0.12345678
X = np.random.default_rng(0).uniform(-1, 1, (60, *SHAPE)).astype(np.float32)
SPECS = {
    **METHODS,
    "neighbours": Neighbours(),
    "attribution": Attribution(segmentation=Grid(rows=2, columns=2)),
}


def options_of(kind: str, turn: int) -> dict:
    """Options that differ from turn to turn, and one that is as large as a row."""
    if kind == "anchor_image" and turn % 2:
        return {"seed": turn, "segments": np.arange(16).reshape(4, 4).tolist()}
    return {"seed": turn} if kind != "counterfactual_proto" else {"seed": turn, "keep_path": bool(turn % 2)}


def scores(answer: np.ndarray) -> list[Output]:
    return [Output("scores", "FP32", answer.shape, answer)]


@pytest.fixture
def sink(tmp_path, monkeypatch):
    monkeypatch.setenv(audit.SINK, str(tmp_path / "audit.jsonl"))
    return tmp_path / "audit.jsonl"


@pytest.fixture
def service_of(tmp_path):
    """Makes a loaded service of a spec, beside `MODEL` unless another predictor is told."""
    made = []
    announce("toy", CallablePredictor(MODEL))

    def make(spec, **extra):
        model = MODEL if spec.kind == "neighbours" else None  # without one no surrogate is taught
        path = artifact.save(fit(spec, X, predictor=model, inputs=CONTRACT), tmp_path / spec.kind)
        service = Service(parse_settings(str(path), {"predictor": "colocated:toy", **extra}), spec.kind)
        service.load()
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()
    withdraw("toy", artifact)


def read(sink) -> list[dict]:
    return [json.loads(line) for line in sink.read_text().splitlines()]


def test_fifty_recorded_explanations_are_made_again_byte_for_byte(sink, service_of, tmp_path):
    asked = []
    for kind, spec in SPECS.items():
        service = service_of(spec)
        slow = "gradient" in type(spec).model_fields
        for turn in range(3 if slow else 14):
            rows, options = X[turn : turn + 1 + turn % 3], options_of(kind, turn)
            service.submit(rows, options, lambda: False).result()
            asked.append((kind, rows, options))
    lines = read(sink)
    assert len(lines) == len(asked) >= 50
    prepared = {kind: prepare(artifact.load(tmp_path / kind), MODEL) for kind in SPECS}
    for line, (kind, rows, options) in zip(lines, asked, strict=True):
        assert line["explainer"] == kind
        assert replaying.again(line, prepared[kind], rows, options)["same"], line
    results = {line["result"] for line in lines}
    assert len(results) > len(lines) / 2  # a digest of nothing would be one


def test_another_model_is_another_answer_and_other_rows_or_options_are_refused(sink, service_of, tmp_path):
    service_of(METHODS["anchor_image"]).submit(X[:1], options_of("anchor_image", 1), lambda: False).result()
    (line,) = read(sink)
    fitted = artifact.load(tmp_path / "anchor_image")
    other = replaying.again(line, prepare(fitted, rowwise(weights(7))), X[:1], options_of("anchor_image", 1))
    assert not other["same"]
    prepared = prepare(fitted, MODEL)
    with pytest.raises(InvalidInput, match="not what the record tells of"):
        replaying.again(line, prepared, X[1:2], options_of("anchor_image", 1))
    for options in ({}, {"segments": np.zeros((4, 4), int).tolist()}):
        with pytest.raises(InvalidInput) as refused:
            replaying.again(line, prepared, X[:1], options)
        assert refused.value.field == "segments"


def test_no_row_is_in_a_record_however_the_request_ends(sink, service_of):
    service = service_of(METHODS["anchor_image"])
    rows = np.full((3, *SHAPE), CANARY, np.float32)
    service.submit(rows, {"segments": np.arange(16).reshape(4, 4).tolist()}, lambda: False).result()

    def failing(x, timeout=None):
        raise PredictorError(f"cannot read {x.ravel().tolist()}").quoting(str(x.ravel().tolist()))

    withdraw("toy", artifact)
    announce("toy", CallablePredictor(failing))
    for options in ({}, {"threshold": "sesame"}, {"sesame": rows.tolist()}):
        with pytest.raises(ExplainerError):
            service.submit(rows, options, lambda: False).result()
    text = sink.read_text()
    assert "0.1234" not in text
    assert "sesame" not in text
    first, *others = read(sink)
    assert (first["status"], first["rows"]) == (200, {"ok": 3})
    assert all(line["result"] is None and line["status"] >= 400 for line in others)


def test_a_record_says_what_was_asked_of_what_and_by_whom(sink, service_of, tmp_path):
    service = service_of(METHODS["counterfactual"])
    explanation = service.submit(X[:2], {"seed": 3}, lambda: False).result()
    (line,) = read(sink)
    assert line["artifact"] == artifact.verify(tmp_path / "counterfactual").digest
    assert line["signature"] == "unsigned"
    assert line["options"] == {"seed": 3}
    assert line["seed"] == 3
    head = f"float32 {list(X[:2].shape)}\n".encode()
    assert line["input"]["sha256"] == hashlib.sha256(head + X[:2].tobytes()).hexdigest()
    assert line["cost"]["rows"] == explanation.cost.rows
    document = json.loads(explanation.to_json())
    document["meta"]["cost"] = dict.fromkeys(document["meta"]["cost"], 0)
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    same = hashlib.sha256(text.encode()).hexdigest() == line["result"]
    assert same or "e" in text  # numbers that the two writers spell differently have an exponent


def test_what_cannot_be_recorded_is_not_answered(tmp_path, monkeypatch, service_of):
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv(audit.SINK, str(folder / "audit.jsonl"))
    service = service_of(METHODS["anchor_image"])
    (folder / "audit.jsonl").unlink()
    folder.rmdir()
    with pytest.raises(ExplainerError, match="nothing is answered without it"):
        service.submit(X[:1], {}, lambda: False).result()
    with pytest.raises(InvalidSpec, match=r"audit: .*audit\.jsonl: No such file"):
        audit.check()


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv(audit.SINK, str(tmp_path / "pipe"))
    with pytest.raises(InvalidSpec, match=r"audit: .*pipe: No such device"):
        audit.check()
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert audit.check()
        audit.write({"record": 1})
        assert os.read(reader, 100) == b'{"record":1}\n'
    finally:
        os.close(reader)


def test_processes_that_write_at_once_leave_one_record_a_line(sink):
    code = "from explainer_runtime.hosts.service import audit\n"
    code += "for n in range(200): audit.write({'n': n, 'x': 'y' * 1500})"
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert sorted(line["n"] for line in read(sink)) == sorted([*range(200)] * 3)


def test_a_record_that_a_full_disk_cut_short_takes_no_other_with_it(sink, service_of, tmp_path):
    service_of(METHODS["anchor_image"]).submit(X[:1], {}, lambda: False).result()
    whole = sink.read_text()
    sink.write_text(whole + whole[:100])
    audit.write({**json.loads(whole), "id": "next"})
    assert sink.read_text().split("\n")[1] == whole[:100]
    assert replaying.read(sink, "next")["id"] == "next"
    with pytest.raises(InvalidInput, match="got 0 with id none; line 2 is no JSON"):
        replaying.read(sink, "none")


def test_what_others_say_breaks_no_line_of_a_record_and_no_terminal(sink, service_of, tmp_path):
    """A model's endpoint says its own name; JSON in Unicode lets through what ends a line elsewhere."""
    service_of(METHODS["anchor_image"]).submit(X[:1], {}, lambda: False).result()
    (line,) = read(sink)
    sink.unlink()
    audit.write({**line, "id": "\x1b[2J", "model": {"asked": {"name": "a\n{}\u2028{}\x85{}\x0c"}}})
    audit.write({**line, "status": "\x1b[2J", "result": None, "id": "two"})
    assert replaying.read(sink, "\x1b[2J")["result"] == line["result"]
    with pytest.raises(InvalidInput) as refused:
        replaying.read(sink, "two")
    assert str(refused.value).isprintable()
    shown = io.StringIO()
    report = {name: {"recorded": "\x1b[2J", "now": ""} for name in ("result", "release", "model")}
    Console(file=shown).print(answers.replayed({"id": "\x1b[2J", "same": True, **report}))
    assert "\x1b" not in shown.getvalue()


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' + "1" * 6000 + "}", "\x00", "[]", '"a"'])
def test_what_is_no_record_is_refused_as_such(tmp_path, text):
    (tmp_path / "odd").write_text(text)
    with pytest.raises(InvalidInput, match="expected one record, got 0"):
        replaying.read(tmp_path / "odd", None)


def test_an_empty_name_of_a_sink_is_no_way_to_record_nothing(tmp_path):
    done = CliRunner().invoke(app, ["serve", str(tmp_path), "--audit", "", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["field"] == "audit"


def test_otel_is_refused_where_logs_go_nowhere_and_taken_where_they_go_somewhere():
    code = """
import os
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.service import audit
os.environ[audit.SINK] = "otel"
try:
    audit.check()
except InvalidSpec as error:
    print(error)
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
provider, exporter = LoggerProvider(), InMemoryLogRecordExporter()
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
_logs.set_logger_provider(provider)
audit.check()
audit.write({"record": 1})
(one,) = exporter.get_finished_logs()
print(one.log_record.body, one.log_record.event_name)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    refused, body = done.stdout.splitlines()
    assert "audit: otel: this process has no OpenTelemetry logger provider" in refused
    assert body == '{"record":1} explainer_runtime.audit'


def test_worker_processes_have_no_stdout_to_record_on(tmp_path, service_of):
    service_of(METHODS["anchor_image"])
    line = [sys.executable, "-m", "explainer_runtime.cli", "serve", str(tmp_path / "anchor_image")]
    line += ["--predictor", "grpc://127.0.0.1:1/x", "--audit", "-"]
    env = {**os.environ, "MLSERVER_PARALLEL_WORKERS": "2"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 2
    assert "audit: worker processes have no stdout of their own; name a file" in done.stderr


@pytest.mark.parametrize("to", ["file", "stdout"])
def test_a_server_records_each_explanation_and_the_command_makes_it_again(tmp_path, to):
    """A real server, its model behind an endpoint, nine callers at a time over REST and one over gRPC."""
    path = artifact.save(fit(METHODS["anchor_image"], X, inputs=CONTRACT, classes=CLASSES), tmp_path / "one")
    sink = tmp_path / ("audit.jsonl" if to == "file" else "server.log")
    (tmp_path / "tokens").write_text("a-secret\nanother\n")
    (tmp_path / "tokens").chmod(0o600)
    answering = Model(respond=lambda x: scores(MODEL(x)))
    with RestServer(answering) as model:
        url, ports = f"http://127.0.0.1:{model.port}/cnn", free_ports()
        words = [path, "--name", "m", "--predictor", url, "--audit", sink if to == "file" else "-"]
        words += ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        words += ["--guard", json.dumps({"token_file": str(tmp_path / "tokens")})]
        command = [sys.executable, "-m", "explainer_runtime.cli", "serve", *map(str, words)]
        with running(start(command, tmp_path / "server.log"), ports, tmp_path / "server.log") as server:

            def ask(turn: int) -> None:
                token = ("a-secret", "another")[turn % 2]
                answer = httpx.post(
                    server.rest(f"/v2/models/m/{('infer', 'explain')[turn % 2]}"),
                    json={"inputs": [v2_input(X[turn : turn + 1])], "parameters": {"seed": turn}},
                    headers={"authorization": f"Bearer {token}", "x-request-id": f"turn-{turn}"},
                    timeout=60,
                )
                assert answer.status_code == 200, answer.text

            with ThreadPoolExecutor(10) as pool:
                list(pool.map(ask, range(9)))
            request = oip.ModelInferRequest(model_name="m")
            request.inputs.add(name="image", datatype="FP32", shape=X[9:10].shape)
            request.raw_input_contents.append(X[9:10].tobytes())
            request.parameters["seed"].int64_param = 9
            who = [("authorization", "Bearer another"), ("x-request-id", "turn-9")]
            with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
                oip.method(channel, "ModelInfer")(request, timeout=60, metadata=who)
        text = sink.read_text()
        lines = {one["id"]: one for one in map(json.loads, text.splitlines()) if "record" in one}
        assert set(lines) == {f"turn-{turn}" for turn in range(10)}
        assert "secret" not in text
        expected = hashlib.sha256(b"a-secret").hexdigest()[:16]
        assert lines["turn-0"]["caller"] == f"token {expected}" != lines["turn-1"]["caller"]
        assert lines["turn-9"]["caller"] == lines["turn-1"]["caller"]
        assert lines["turn-0"]["model"]["asked"]["name"]
        records = tmp_path / "records.jsonl"
        records.write_text("\n".join(json.dumps(one) for one in lines.values()))
        np.save(tmp_path / "x.npy", X[:10])

        def replay(turn: int, row: int):
            words = [records, path, "--input", tmp_path / "x.npy", "--rows", row, "--predictor", url]
            return CliRunner().invoke(app, ["replay", *map(str, words), "--id", f"turn-{turn}", "--json"])

        for turn in range(10):
            done = replay(turn, turn)
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["same"]
        assert replay(9, 0).exit_code == 2
        answering.respond = lambda x: scores(rowwise(weights(7))(x))
        done = replay(9, 9)
        assert (done.exit_code, json.loads(done.stdout)["same"]) == (1, False)
    if to == "file":
        assert os.stat(sink).st_mode & 0o777 == 0o600
