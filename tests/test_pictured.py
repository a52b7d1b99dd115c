"""A picture is a request and may be the answer, on both hosts: by every road the same, whatever is sent."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from servers import free_ports, running, start
from staged import Held, explainer, metrics, model, serving

from explainer_runtime import artifact, pictures, render
from explainer_runtime.cli import app as command
from explainer_runtime.explainers import fit
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.door.pictured import accepted
from explainer_runtime.predictors.remote import oip
from explainer_runtime.spec import AnchorImage, Grid, Inputs
from explainer_runtime.tensors import Tensor
from explainer_runtime.wire import decode

PYTHON = Path(__file__).parent.parent / ".venv-kserve" / "bin" / "python"
HOSTS = [
    "mlserver",
    pytest.param(
        "kserve",
        marks=pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-kserve; `make test` builds it"),
    ),
]
EVIL = "<script>alert(1)</script>"
CONTRACT = Inputs(shape=(8, 8, 1), low=-1, high=1, classes=2, class_names=(EVIL, f"{EVIL}2"), resize="fit")
PIXELS = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
OPTIONS = {"seed": 3, "max_calls": 60}
ROOM = 64 * 2**20
WAIT = 120
TOKEN = {"authorization": "Bearer sesame"}
PNG = {"content-type": "image/png"}


def file(pixels: Any = PIXELS, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictured")
    spec = AnchorImage(segmentation=Grid(rows=4, columns=4), fill="constant", delta=0.01)
    path = artifact.save(fit(spec, inputs=CONTRACT), folder / "m")
    held = Held()
    with model(held) as predictor:
        yield folder, str(path), predictor, held


@pytest.fixture(scope="module")
def mlserver(stage):
    """With a token, jobs and an audit record."""
    folder, path, predictor, _ = stage
    (folder / "tokens").write_text("sesame\n")
    guard = {"max_in_flight": ROOM, "token_file": str(folder / "tokens")}
    jobs = {"where": str(folder / "jobs")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLAINER_RUNTIME_AUDIT", str(folder / "audit"))
        with serving([explainer(path, "m", predictor)], folder / "one", jobs=jobs, **guard) as served:
            yield served


@pytest.fixture(scope="module")
def kserve(stage):
    folder, path, predictor, _ = stage
    ports, log = free_ports(), folder / "kserve.log"
    words = ["-m", "explainer_runtime.cli", "serve", path, "--server", "kserve", "--name", "m"]
    words += ["--predictor", json.dumps(predictor), "--guard", json.dumps({"max_in_flight": ROOM})]
    words += ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    process = start([str(word) for word in [PYTHON, *words]], log, EXPLAINER_RUNTIME_HOST="127.0.0.1")
    with running(process, ports, log) as server:
        yield server, process


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    return request.getfixturevalue(request.param)[0]


@pytest.fixture(scope="module")
def client():
    with httpx.Client(timeout=WAIT, headers=TOKEN) as client:
        yield client


def tensors(answer: httpx.Response) -> Explanation:
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    return decode(Tensor(one["name"], one["datatype"], one["shape"], one["data"]) for one in outputs)


def equal(one: Explanation, other: Explanation) -> None:
    assert one.arrays.keys() == other.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one[name], other[name])
    assert one.raw == other.raw


def as_rows(rows: np.ndarray, **more: Any) -> dict[str, Any]:
    one = {"name": "x", "datatype": "FP32", "shape": rows.shape, "data": rows.ravel().tolist()}
    return {"inputs": [one], "parameters": {"explain_parameters": OPTIONS}, **more}


def binary(datatype: str, shape: list[int], content: bytes) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    head = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}],
        "parameters": {"explain_parameters": json.dumps(OPTIONS)},
    }
    said = json.dumps(head).encode()
    headers = {"inference-header-content-length": str(len(said)), "content-type": "application/octet-stream"}
    return {"content": said + content, "headers": headers}


def test_by_every_road_a_picture_is_answered_as_its_row_is(host, client):
    content = file()
    sent = pictures.read(io.BytesIO(content), CONTRACT, "it")
    rows, png = sent.row[None], {"content-type": "image/png"}
    v2, infer = host.rest("/v2/models/m/explain"), host.rest("/v2/models/m/infer")
    expected = tensors(client.post(infer, json=as_rows(rows)))
    files = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [b64(content)]}]}
    files["parameters"] = {"explain_parameters": OPTIONS}
    text = struct.pack("<I", len(content)) + content
    roads = {
        "rows": client.post(v2, json=as_rows(rows)),
        "image": client.post(v2, params=OPTIONS, content=content, headers=png),
        "form": client.post(
            v2, files={"image": ("x.png", content, "image/png")}, data={"options": json.dumps(OPTIONS)}
        ),
        "BYTES": client.post(v2, json=files),
        "BYTES, infer": client.post(infer, json=files),
        "binary": client.post(infer, **binary("FP32", [1, 8, 8, 1], rows.tobytes())),
        "binary, explain": client.post(v2, **binary("FP32", [1, 8, 8, 1], rows.tobytes())),
    }
    packed = client.post(v2, **binary("BYTES", [1], text))
    if "send base64" not in packed.text:  # KServe cannot
        roads["binary BYTES"] = packed
    for road, answer in roads.items():
        read = tensors(answer)
        equal(read, expected)
        drawn = {} if road in ("rows", "binary", "binary, explain") else {"pictures": [sent.said()]}
        assert read.meta == {**expected.meta, **drawn}, road
        assert answer.headers["x-seldon-alibi-method"] == "anchor_image"
    v1 = host.rest("/v1/models/m:explain")
    bare = client.post(v1, json={"instances": rows.tolist(), "parameters": OPTIONS}).json()
    said = {**bare["meta"], "pictures": [sent.said()]}
    for answer in (
        client.post(v1, params=OPTIONS, content=content, headers=png),
        client.post(v1, json={"instances": [{"b64": b64(content)}], "parameters": OPTIONS}),
        client.post(v1, files={"image": ("x", content)}, data={"options": json.dumps(OPTIONS)}),
    ):
        assert answer.json() == {"meta": said, "data": bare["data"]}


def test_paths_of_seldon_take_pictures_too(mlserver, client):
    server, _ = mlserver
    headers = {"content-type": "image/png"}
    answers = [
        client.post(server.rest(path), params=OPTIONS, content=file(), headers=headers)
        for path in ("/v1/models/m:explain", "/explain", "/api/v1.0/explain", "/api/v0.1/explain")
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.content for answer in answers}) == 1


def test_several_pictures_of_one_form_are_several_rows(host, client):
    each = [file(PIXELS), file(255 - PIXELS, "JPEG"), file(Image.new("RGB", (20, 10), "red"), "WEBP")]
    sent = [pictures.read(io.BytesIO(one), CONTRACT, "it") for one in each]
    url = host.rest("/v2/models/m/explain")
    answer = tensors(client.post(url, **form(*each, options=json.dumps(OPTIONS))))
    rows = np.stack([one.row for one in sent])
    equal(answer, tensors(client.post(url, json=as_rows(rows))))
    assert answer.meta["pictures"] == [one.said() for one in sent]
    assert [one["resize"] for one in answer.meta["pictures"]] == ["none", "none", "fit"]


def test_answers_may_be_pictures_and_pages_as_the_command_line_makes_them(
    host, client, stage, tmp_path, monkeypatch
):
    from typer.testing import CliRunner

    _, path, predictor, _ = stage
    content = file(np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8))
    source = tmp_path / "x.png"
    source.write_bytes(content)
    monkeypatch.setenv("EXPLAINER_RUNTIME_PREDICTOR", json.dumps(predictor))
    for kind, suffix in (("image/png", "png"), ("text/html", "html")):
        out = tmp_path / f"out.{suffix}"
        words = ["explain", path, "--input", source, "--out", out, "--option", "seed=3"]
        words += ["--predictor", predictor["url"].replace("grpc://", "grpc://") + "/cnn"]
        made = CliRunner().invoke(command, [str(word) for word in words])
        assert made.exit_code == 0, made.output
        for url in (host.rest("/v2/models/m/explain"), host.rest("/v1/models/m:explain")):
            headers = {**PNG, "accept": kind}
            answer = client.post(url, params={"seed": 3}, content=content, headers=headers)
            assert answer.headers["content-type"].startswith(kind), answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"
            if suffix == "png":
                assert answer.content == out.read_bytes()
                continue
            ours, theirs = (text.split("Where it comes from")[0] for text in (answer.text, out.read_text()))
            assert ours == theirs
            assert EVIL not in answer.text
            assert "&lt;script&gt;" in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_row_sent_as_json_may_be_answered_by_a_picture(host, client):
    rows = pictures.read(io.BytesIO(file()), CONTRACT, "it").row[None]
    url = host.rest("/v2/models/m/explain")
    answer = tensors(client.post(url, json=as_rows(rows)))
    drawn = client.post(url, json=as_rows(rows), headers={"accept": "image/png"}).content
    assert drawn == render.png(answer, rows, CONTRACT)
    packed = binary("FP32", [1, 8, 8, 1], rows.tobytes())
    packed["headers"]["accept"] = "image/*"
    assert client.post(url, **packed).content == drawn


def test_a_card_is_a_piece_of_html(host, client):
    asked = form(file(), options=json.dumps(OPTIONS), outputs='["card"]')
    (card,) = client.post(host.rest("/v2/models/m/explain"), **asked).json()["outputs"]
    assert (card["name"], card["datatype"], card["shape"]) == ("card", "BYTES", [1, 1])
    assert card["data"][0].startswith("<p>")
    assert EVIL not in card["data"][0]
    bare = client.post(host.rest("/v1/models/m:explain"), **asked).json()
    assert bare["outputs"] == {"card": card["data"][0]}


def test_events_say_how_far_it_is_and_end_with_the_answer(host, client):
    url = host.rest("/v2/models/m/explain")
    headers = {"content-type": "image/png"}
    whole = client.post(url, params=OPTIONS, content=file(), headers=headers)
    headers["accept"] = "text/event-stream"
    stream = client.post(url, params=OPTIONS, content=file(), headers=headers)
    assert stream.headers["content-type"] == "text/event-stream"
    events = [json.loads(event.removeprefix("data: ")) for event in stream.text.strip().split("\n\n")]
    kinds = [event["parameters"]["event"] for event in events]
    assert kinds == ["progress"] * (len(events) - 1) + ["explanation"]
    assert len(kinds) > 1
    assert {one["name"] for one in events[0]["outputs"]} >= {"progress", "predictor_rows", "predictor_calls"}
    assert events[-1]["outputs"] == whole.json()["outputs"]
    refused = client.post(url, params={"seed": "x"}, content=file(), headers=headers)
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("seed")


def test_over_grpc_files_are_texts_of_bytes(mlserver, client):
    server, _ = mlserver
    content = file()
    request = oip.ModelInferRequest(model_name="m")
    request.parameters["explain_parameters"].string_param = json.dumps(OPTIONS)
    request.inputs.add(name="x", datatype="BYTES", shape=[1])
    request.outputs.add(name="found")
    request.outputs.add(name="picture")
    filled = oip.ModelInferRequest()
    filled.CopyFrom(request)
    filled.inputs[0].contents.bytes_contents.append(content)
    request.raw_input_contents.append(struct.pack("<I", len(content)) + content)
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
        ask = oip.method(channel, "ModelInfer")
        answers = [ask(one, timeout=WAIT, metadata=list(TOKEN.items())) for one in (request, filled)]
    drawn = client.post(
        server.rest("/v2/models/m/explain"),
        params=OPTIONS,
        content=content,
        headers={**PNG, "accept": "image/png"},
    )
    for answer in answers:  # raw, as it was asked, or not
        (text,) = answer.outputs[1].contents.bytes_contents or [answer.raw_output_contents[1][4:]]
        assert base64.b64decode(text) == drawn.content


# --- what stands around every request -------------------------------------------------------------------


def test_a_picture_needs_a_token_and_has_its_bytes_counted(mlserver):
    server, _ = mlserver
    url, headers = server.rest("/v2/models/m/explain"), {**PNG, **TOKEN}
    assert httpx.post(url, content=file(), headers=PNG, timeout=WAIT).status_code == 401
    assert httpx.post(url, content=bytes(2**24 + 1), headers=headers, timeout=WAIT).status_code == 413
    sent = {"params": OPTIONS, "headers": {**headers, "content-encoding": "gzip"}, "timeout": WAIT}
    assert httpx.post(url, content=gzip.compress(file()), **sent).status_code == 200
    assert httpx.post(url, content=gzip.compress(bytes(2**24 + 1)), **sent).status_code == 413


def test_a_picture_may_be_a_job_and_its_answer_is_the_one_that_is_waited_for(mlserver, client):
    server, _ = mlserver
    url = server.rest("/v2/models/m/explain")
    for headers in (PNG, {**PNG, "accept": "image/png"}, {**PNG, "accept": "text/html"}):
        sent = {"params": OPTIONS, "content": file()}
        waited = client.post(url, headers=headers, **sent)
        job = client.post(url, headers={**headers, "prefer": "respond-async"}, **sent)
        assert job.status_code == 202
        place = server.rest(job.headers["location"] + "/result")
        while (job := client.get(place)).status_code == 404:  # not yet
            pass
        assert job.headers["content-type"] == waited.headers["content-type"]
        if headers == PNG:
            equal(tensors(job), tensors(waited))
            continue
        ours, theirs = (one.content.split(b"Where it comes from")[0] for one in (job, waited))
        assert ours == theirs  # what follows says how long it took


def test_the_record_has_the_digest_of_the_rows(mlserver, client, stage):
    server, _ = mlserver
    url = server.rest("/v2/models/m/explain")
    row = pictures.read(io.BytesIO(file()), CONTRACT, "it").row[None]
    client.post(url, params=OPTIONS, content=file(), headers=PNG)
    client.post(url, json=as_rows(row))
    records = [json.loads(line) for line in (stage[0] / "audit").read_text().splitlines()[-2:]]
    assert records[0]["input"] == records[1]["input"]
    assert records[0]["result"] == records[1]["result"]


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/event-stream"])
def test_an_explanation_of_a_picture_stops_when_its_client_hangs_up(mlserver, stage, accept):
    server, _ = mlserver
    held = stage[-1]
    with held.hold():
        connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=WAIT)
        headers = {**PNG, **TOKEN, "accept": accept}
        connection.request("POST", "/v2/models/m/explain", file(), headers)
        assert held.entered.acquire(timeout=WAIT)
        connection.close()
        for _ in range(5):  # some requests later the server has seen it
            httpx.get(server.rest("/v2/health/live"), timeout=WAIT)
        calls = held.calls
    while metrics(server)['explainer_running{model="m"}']:
        httpx.get(server.rest("/v2/health/live"), timeout=WAIT)
    assert held.calls <= calls + 1


def test_what_is_served_is_listed(host, client):
    for path in ("/v1/models", "/v2/models"):
        said = client.get(host.rest(path)).json()
        assert said["models"] == ["m"]
        (one,) = said["explainers"]
        expected = {"name": "m", "versions": [], "state": "ready", "method": "anchor_image"}
        assert expected.items() <= one.items()
        assert one["takes_pictures"] is one["draws_pictures"] is True


def test_where_no_page_is_served_nothing_leads_to_one(host, client):
    for path in ("/", "/page", "/page/"):
        answer = client.get(host.rest(path), headers={"accept": "text/html"})
        assert (path, answer.is_redirect) == (path, False)


def typed(kind: str, content: bytes = b"x") -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": kind}}


def form(*files: bytes, **data: str) -> dict[str, Any]:
    return {"files": [("image", ("x", one)) for one in files], "data": data}


def texts(*shape: int, data: list[str]) -> dict[str, Any]:
    return {"json": {"inputs": [{"name": "x", "datatype": "BYTES", "shape": shape, "data": data}]}}


KINDS = "content-type: expected one of image/png, image/jpeg"
TWICE = {"params": [("seed", 1), ("seed", 2)]}


@pytest.mark.parametrize(
    ("status", "said", "asked"),
    [
        (406, "accept: expected one of application/json, image/", {"json": {}, "headers": {"accept": "a/b"}}),
        (415, KINDS, typed("image/svg+xml")),
        (415, KINDS, typed("application/pdf")),
        (415, f"image: {KINDS}", {"files": {"image": ("x", b"<p>", "text/html")}}),
        (422, "image: expected a part of this name", {"files": {"options": ("x", b"{}")}}),
        (422, "body: expected parts named image, options, outputs", {"files": {"file": ("x", b"")}}),
        (422, "body: expected multipart/form-data, complete", typed("multipart/form-data")),
        (422, "body: expected multipart/form-data", typed("multipart/form-data; boundary=x", b"--x\r\n")),
        (422, "body: expected at most 66 parts", form(*[b""] * 67)),
        (422, "image: expected 1 to 16 rows, got 17", form(*[file()] * 17)),
        (422, "options: expected an object", form(file(), options="[1]")),
        (422, "options: expected a JSON object", form(file(), options="{")),
        (422, "options: expected one part", {"files": [("options", ("o", b"{}"))] * 2}),
        (422, "options: expected them as a part", {"params": OPTIONS, **form(b"", options="{}")}),
        (422, "outputs: expected a JSON list", form(file(), outputs="{}")),
        (422, "outputs[0].name: no output 'x'", form(file(), outputs='["x"]')),
        (422, "nope", {"params": {"nope": 1}, **typed("image/png", file())}),
        (422, "query: expected each option once", {**TWICE, **typed("image/png", file())}),
        (422, "image[0]: cannot be read as an image", typed("image/png", b"")),
        (422, "inputs[0].data[0]: expected a picture's file in base64", texts(1, data=["?"])),
        (422, "inputs[0].datatype: expected one of FP16", texts(1, 2, data=["", ""])),
    ],
)
def test_what_is_wrong_is_named(host, client, status, said, asked):
    answer = client.post(host.rest("/v2/models/m/explain"), **asked)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert answer.json()["error"].startswith(said)


def test_v1_names_what_is_wrong_with_its_pictures(host, client):
    url = host.rest("/v1/models/m:explain")
    for rows, said in (
        ([{"b64": "?"}], "instances[0]: expected a picture's file in base64"),
        ([{"b64": ""}, {}], "instances: expected rows, or for each row"),
        ([{"b64": b64(b"GIF")}], "instances[0]: cannot be read as an image"),
    ):
        answer = client.post(url, json={"instances": rows})
        assert (answer.status_code, answer.json()["error"][: len(said)]) == (422, said)


# --- hostile pictures -------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def black(wide: int, tall: int, *more: bytes) -> bytes:
    """A black PNG of any size, which is small: one bit a pixel, and packed."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (wide + 7) // 8)
    data = b"".join(packer.compress(line) for _ in range(tall)) + packer.flush()
    head = struct.pack(">IIBBBBB", wide, tall, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    )


def claimed(wide: int, tall: int) -> bytes:
    return black(1, 1).replace(struct.pack(">II", 1, 1), struct.pack(">II", wide, tall))


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8))
TEXT = chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")
BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50 * 2**20)))
PROFILE = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50 * 2**20)))
REFUSED = {
    "a bomb that says so": claimed(50_000, 50_000),
    "a bomb": black(6_000, 6_000),
    "more than all may hold": black(5_000, 1_000),
    "a text that unpacks to much": black(8, 8, BOMB),
    "a profile that unpacks to much": black(8, 8, PROFILE),
    "cut": file(NOISE)[:-40],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a page": b"<html><script>alert(1)</script></html>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "animated": file(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)] * 9),
    "16 bits": file(Image.fromarray(np.full((8, 8), 4000, np.uint16))),
    "transparent": file(Image.new("RGBA", (8, 8), (1, 2, 3, 4))),
    "nothing": b"",
    "zeros": bytes(1000),
}
READ = {
    "50,000 by 1": black(50_000, 1),
    "1 by 1": black(1, 1),
    "a GIF that is a script": file(NOISE, "GIF") + b"/*" + EVIL.encode() + b"*/=1;alert(1)",
    "a PNG with a page behind it": file(NOISE) + b"<html>" + EVIL.encode(),
    "text with a script": black(8, 8, TEXT),
    "CMYK": file(NOISE.convert("CMYK"), "JPEG"),
    "a profile": file(NOISE, "JPEG", icc_profile=b"<script>" * 50),
}


def peak(process: Any) -> int:
    """Bytes that a process has held at most."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_hostile_pictures_are_refused_or_read_and_take_no_room(mlserver, client):
    server, process = mlserver
    url, headers = server.rest("/v2/models/m/explain"), {"content-type": "image/png", "accept": "text/html"}
    client.post(url, params=OPTIONS, content=file(), headers=headers)
    before = peak(process)
    for name, content in REFUSED.items():
        answer = client.post(url, params=OPTIONS, content=content, headers=headers)
        assert (name, answer.status_code) == (name, 422)
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"].startswith(("image[0]: ", "body: ")), name
        assert EVIL not in answer.text
    for name, content in READ.items():
        row = pictures.read(io.BytesIO(content), CONTRACT, name).row[None]
        answer = client.post(url, params=OPTIONS, content=content, headers=headers)
        assert (name, answer.status_code) == (name, 200)
        assert EVIL not in answer.text
        assert EVIL not in str(answer.headers)
        json_headers = {"content-type": "image/png"}
        read = tensors(client.post(url, params=OPTIONS, content=content, headers=json_headers))
        equal(read, tensors(client.post(url, json=as_rows(row))))
    assert peak(process) - before < 2 * ROOM, (peak(process) - before) / 2**20
    assert "Traceback" not in server.log.read_text()


def test_pictures_together_have_no_more_room_than_there_is(mlserver, client):
    server, _ = mlserver
    one = black(1_200, 1_200)  # 23 MB while it is read, 1.4 after it
    url = server.rest("/v2/models/m/explain")
    several = [("image", ("x", one))] * 16
    options = {"options": json.dumps(OPTIONS), "outputs": '["found"]'}
    assert client.post(url, files=several, data=options).status_code == 200
    large = [("image", ("x", black(1_900, 1_900)))] * 16  # 58 MB, and 3.6
    answer = client.post(url, files=large, data=options)
    assert (answer.status_code, answer.json()["error"][:5]) == (422, "body:")
    assert client.post(url, files=several, data=options).status_code == 200  # all of it was given back


def test_names_of_files_are_never_read(host, client):
    name = '"><script>alert(1)</script>.png'
    headers = {"accept": "text/html"}
    answer = client.post(
        host.rest("/v2/models/m/explain"), files={"image": (name, file(), "image/png")}, headers=headers
    )
    assert answer.status_code == 200
    assert EVIL not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        ("application/json, text/plain, */*", "application/json"),
        ("image/png, */*", "image/png"),
        ("image/*;q=0.5, text/html;q=0.4", "image/png"),
        ("text/*", "text/html"),
        ("image/png;q=0, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("text/event-stream", "text/event-stream"),
        ("application/xml", None),
        ("image/png;q=x", None),
        ("", None),
    ],
)
def test_what_is_accepted_best_is_answered(header, chosen):
    assert accepted(header) == chosen
