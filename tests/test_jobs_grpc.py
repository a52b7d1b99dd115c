"""Explanations that outlive their connection, asked of a real server over gRPC."""

from __future__ import annotations

import json
import time

import grpc
import httpx
import numpy as np
import pytest
from servers import v2_input
from staged import IMAGE, Held, anchor, channel, explainer, model, serving

from explainer_runtime.hosts.door.jobs_grpc import ID
from explainer_runtime.predictors.remote import oip

ASYNC = [("prefer", "respond-async")]
PATIENCE = 120.0


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def server(held, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    with model(held) as predictor:
        models = [explainer(anchor(folder), "boots", predictor, threads=1)]
        with serving(models, folder / "server", jobs={"where": str(folder / "jobs")}, max_body=4000) as (
            server,
            _,
        ):
            yield server


@pytest.fixture(scope="module")
def infer(server):
    with channel(server) as opened:
        call = oip.method(opened, "ModelInfer")
        call(request(), timeout=PATIENCE)  # the model is met, which costs rows once
        yield call


def request(raw=True, rows=IMAGE, outputs=(), **parameters):
    message = oip.ModelInferRequest(model_name="boots", id="1")
    tensor = message.inputs.add(name="image", datatype="FP32", shape=rows.shape)
    if raw:
        message.raw_input_contents.append(rows.tobytes())
    else:
        tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    for name in outputs:
        message.outputs.add(name=name)
    message.parameters["explain_parameters"].string_param = json.dumps(parameters)
    return message


def asking(job):
    message = oip.ModelInferRequest(model_name="boots")
    message.parameters[ID].string_param = job
    return message


def submitted(infer, message, **metadata):
    answer = infer(message, metadata=[*ASYNC, *metadata.items()], timeout=PATIENCE)
    assert not answer.outputs
    assert answer.parameters["state"].string_param == "queued"
    return answer.parameters[ID].string_param


def ended(infer, job):
    until = time.monotonic() + PATIENCE
    while (answer := infer(asking(job), timeout=PATIENCE)).parameters["state"].string_param in (
        "queued",
        "running",
    ):
        assert time.monotonic() < until
        time.sleep(0.02)
    return answer


def told(answer):
    """What was answered, but for what a job's answer says of the job."""
    said = {name: str(value) for name, value in answer.parameters.items() if name not in (ID, "state")}
    outputs = [(one.name, one.datatype, tuple(one.shape), dict(one.parameters)) for one in answer.outputs]
    return answer.model_name, answer.id, said, str(outputs), list(answer.raw_output_contents)


@pytest.mark.parametrize("outputs", [(), ("anchor", "picture")])
def test_a_job_gives_what_waiting_gives(infer, outputs):
    message = request(outputs=outputs, seed=3)
    answer = ended(infer, submitted(infer, message))
    assert answer.parameters["state"].string_param == "done"
    assert told(answer) == told(infer(message, timeout=PATIENCE))


def test_who_waits_long_enough_gets_the_outputs(infer):
    message = request(raw=False)
    answer = infer(message, metadata=[("prefer", "respond-async, wait=60")], timeout=PATIENCE)
    raw = infer(request(), timeout=PATIENCE)
    assert told(answer) == told(raw)


def test_a_job_may_be_fetched_over_rest_and_the_other_way_round(infer, server):
    place, body = "/v2/models/boots/explanations", {"inputs": [v2_input(IMAGE)], "id": "1"}
    ended(infer, job := submitted(infer, request()))
    fetched = httpx.get(server.rest(f"{place}/{job}/result"), timeout=PATIENCE).json()
    made = httpx.post(
        server.rest("/v2/models/boots/explain"), json=body, headers=dict(ASYNC), timeout=PATIENCE
    ).json()["id"]
    over_grpc = ended(infer, made)
    by_name = dict(zip([one.name for one in over_grpc.outputs], over_grpc.raw_output_contents, strict=True))
    assert [one["name"] for one in fetched["outputs"]] == list(by_name)
    anchors = next(one for one in fetched["outputs"] if one["name"] == "anchor")
    assert np.asarray(anchors["data"], np.float32).tobytes() == by_name["anchor"]


@pytest.mark.parametrize("accept", ["*/*", "image/png"])
def test_an_answer_that_is_none_of_v2_is_fetched_over_rest(infer, server, accept):
    body = {"instances": IMAGE.tolist()}
    path, headers = server.rest("/v1/models/boots:explain"), {**dict(ASYNC), "accept": accept}
    job = httpx.post(path, json=body, headers=headers, timeout=PATIENCE).json()["id"]
    with pytest.raises(grpc.RpcError) as refusal:
        ended(infer, job)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "over REST" in refusal.value.details()


@pytest.mark.parametrize(
    "message",
    [
        request(rows=IMAGE + 1),
        request(sed=3),
        request(outputs=["nothing"]),
        oip.ModelInferRequest(model_name="boots"),
    ],
)
def test_bad_input_is_refused_at_once_by_the_words_of_the_synchronous_call(infer, message):
    said = []
    for metadata in ((), ASYNC):
        with pytest.raises(grpc.RpcError) as refusal:
            infer(message, metadata=metadata, timeout=PATIENCE)
        said.append((refusal.value.code(), refusal.value.details()))
    assert said[0] == said[1]


def test_what_would_be_too_long_as_json_is_refused_at_once(infer):
    message = request(rows=np.repeat(IMAGE, 8, axis=0))
    assert message.ByteSize() < 4000
    assert infer(message, timeout=PATIENCE).outputs
    with pytest.raises(grpc.RpcError) as refusal:
        infer(message, metadata=[*ASYNC], timeout=PATIENCE)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "at most 4000 bytes are taken" in refusal.value.details()


def test_one_key_is_one_job(infer):
    key = {"idempotency-key": "k"}
    first = submitted(infer, request(), **key)
    again = infer(request(), metadata=[*ASYNC, *key.items()], timeout=PATIENCE)
    assert again.parameters[ID].string_param == first
    with pytest.raises(grpc.RpcError) as refusal:
        infer(request(seed=5), metadata=[*ASYNC, *key.items()], timeout=PATIENCE)
    assert "idempotency-key" in refusal.value.details()


def test_a_job_that_is_not_there_is_not_found(infer):
    with pytest.raises(grpc.RpcError) as refusal:
        infer(asking("0" * 44), timeout=PATIENCE)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
