from __future__ import annotations

import contextvars
import subprocess
import sys
import threading

import numpy as np
import pytest
from grpc import StatusCode

from explainer_runtime import errors
from explainer_runtime.artifact import save
from explainer_runtime.errors import Cancelled, InvalidPrediction, InvalidSpec, PredictorUnavailable
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.service.asked import asked as asked_of
from explainer_runtime.hosts.service.service import Service, _less
from explainer_runtime.hosts.service.settings import parse_settings
from explainer_runtime.hosts.service.status import RULES, STATUS, fault, retry_after
from explainer_runtime.methods import teaching
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.predictors.colocated import announce, withdraw
from explainer_runtime.spec import (
    AnchorImage,
    Colocated,
    Counterfactual,
    Endpoint,
    Grid,
    Inputs,
    KerasModel,
    Limits,
    ModelContract,
)
from explainer_runtime.tensors import Tensor


def brightness(x):
    left = x.reshape(len(x), 2, -1).mean(axis=2)
    return np.exp(9 * left) / np.exp(9 * left).sum(axis=1, keepdims=True)


@pytest.fixture
def rows():
    image = np.zeros((1, 4, 4, 1), np.float32)
    image[:, :2] = 1
    return image


@pytest.fixture
def directory(tmp_path):
    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant")
    return save(fit(spec, inputs=Inputs(shape=(4, 4, 1), low=0, high=1, classes=2)), tmp_path / "anchor")


@pytest.fixture
def beside():
    predictor = CallablePredictor(brightness)
    announce("beside", predictor)
    yield predictor
    withdraw("beside", predictor)


@pytest.fixture
def service(directory):
    service = Service(parse_settings(str(directory), {"predictor": "colocated:beside", "threads": 1}))
    service.load()
    yield service
    service.close()


# --- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "predictor"),
    [
        ({"predictor": "grpc://cnn:8081/cnn"}, Endpoint(url="grpc://cnn:8081", model="cnn")),
        ({"predictor": {"kind": "colocated", "model": "cnn"}}, Colocated(model="cnn")),
        ({"predictor": '{"kind": "colocated", "model": "cnn"}'}, Colocated(model="cnn")),
        ({"infer_uri": "http://cnn/v2/models/cnn/infer"}, Endpoint(url="http://cnn", model="cnn")),
        ({"model_path": "/mnt/cnn.keras"}, KerasModel(path="/mnt/cnn.keras")),
        (
            {"infer_uri": "http://cnn/v2/models/cnn/infer", "predictor": "colocated:cnn"},
            Colocated(model="cnn"),
        ),
        (
            {"infer_uri": "https://cnn/v2/models/cnn/infer", "ssl_verify_path": "/mnt/certs/ca.crt"},
            Endpoint(url="https://cnn", model="cnn", ca_path="/mnt/certs/ca.crt"),
        ),
        (
            {"infer_uri": "http://cnn/v2/models/cnn/infer", "ssl_verify_path": "/mnt/certs/ca.crt"},
            Endpoint(url="http://cnn", model="cnn"),
        ),
    ],
)
def test_settings_find_the_predictor_however_a_platform_writes_it(extra, predictor):
    assert parse_settings("/mnt/models", extra).predictor == predictor


def test_settings_take_strings_for_numbers_and_objects():
    extra = {"predictor": "colocated:cnn", "limits": '{"max_batch": "4", "max_seconds": 2.5}', "threads": "3"}
    settings = parse_settings("/mnt/models", extra)
    assert settings.limits == Limits(max_batch=4, max_seconds=2.5)
    assert settings.threads == 3


def test_settings_ignore_what_seldon_adds_beside_the_address():
    extra = {"infer_uri": "http://cnn/v2/models/cnn/infer", "explainer_type": "anchor_image"}
    assert parse_settings("/mnt/models", {**extra, "init_parameters": "{broken"})


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (None, "predictor: missing"),
        ({"predictor": "colocated:a", "model_path": "b.keras"}, "not both"),
        ({"predictor": "ftp://cnn"}, "predictor"),
        ({"predictor": "colocated:a", "thread": 2}, "thread"),
        ({"predictor": "colocated:a", "threads": 0}, "threads"),
        ({"predictor": "colocated:a", "limits": {"max_batch": "many"}}, "limits.max_batch"),
        ({"predictor": "colocated:a", "limits": "{broken"}, "limits: expected a JSON object"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(extra, said):
    with pytest.raises(InvalidSpec, match=said):
        parse_settings("/mnt/models", extra)


# --- the service --------------------------------------------------------------------------------------


def explained(service, rows):
    return service.submit(rows, None, lambda: False).result()


def test_service_loads_without_its_model_and_explains_once_it_is_there(directory, rows):
    service = Service(parse_settings(str(directory), {"predictor": "colocated:late"}))
    service.load()
    with pytest.raises(PredictorUnavailable):
        explained(service, rows)
    predictor = CallablePredictor(brightness)
    announce("late", predictor)
    try:
        assert explained(service, rows)["found"].all()
    finally:
        withdraw("late", predictor)
        service.close()


@pytest.mark.parametrize("taught", [True, False])
def test_a_service_says_when_it_takes_the_dear_road_for_want_of_a_surrogate(tmp_path, taught, caplog):
    x = np.random.default_rng(0).random((60, 4, 4, 1), np.float32)
    made = fit(Counterfactual(), x, predictor=CallablePredictor(brightness), surrogate=taught)
    path = save(made, tmp_path / "cf")
    Service(parse_settings(str(path), {"predictor": "grpc://127.0.0.1:1/m"}), "cf").load()
    assert [line for line in caplog.messages if "no surrogate was fitted" in line] == (
        [] if taught else [f"cf: {teaching.missed(made.spec)}"]
    )


def test_service_asks_the_colocated_model_that_is_served_now(beside, service, rows):
    before = explained(service, rows)
    turned = CallablePredictor(lambda x: brightness(x)[:, ::-1])
    announce("beside", turned)
    after = explained(service, rows)
    withdraw("beside", turned)
    assert (before["prediction"], after["prediction"]) == (0, 1)


def test_service_keeps_to_the_operators_limits(beside, directory, rows):
    limits = {"predictor": "colocated:beside", "limits": {"max_batch": 2}}
    service = Service(parse_settings(str(directory), limits))
    service.load()
    with pytest.raises(errors.InvalidInput, match="1 to 2 rows, got 3"):
        explained(service, np.repeat(rows, 3, axis=0))
    service.close()


def test_submitted_explanations_see_the_callers_context(beside, service, rows):
    label = contextvars.ContextVar("label", default="nobody")
    label.set("a request")
    seen = []
    spy = CallablePredictor(lambda x: seen.append(label.get()) or brightness(x))
    announce("beside", spy)
    service.submit(rows, None, lambda: False).result()
    withdraw("beside", spy)
    assert set(seen) == {"a request"}


def test_submitted_explanations_stop_when_they_are_cancelled(beside, service, rows):
    with pytest.raises(Cancelled):
        service.submit(rows, None, lambda: True).result()


def test_sixteen_threads_are_told_what_one_is(beside, directory, rows):
    service = Service(parse_settings(str(directory), {"predictor": "colocated:beside", "threads": 16}))
    service.load()
    alone = explained(service, rows).to_json()
    told = []
    threads = [
        threading.Thread(target=lambda: told.append(explained(service, rows).to_json())) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.close()
    assert told == [alone] * 16


def test_an_output_of_a_method_beside_can_be_asked_for_by_name(service, rows):
    tensor = [Tensor("input", "FP32", rows.shape, rows)]
    wanted = ["region_found", "anchor_mask", "picture"]
    also = {"explain_parameters": {"also": ["region"]}}
    assert asked_of(service, tensor, also, wanted).outputs == tuple(wanted)
    with pytest.raises(errors.InvalidOption, match=r"outputs\[0\].name: no output 'region_found'; there are"):
        asked_of(service, tensor, {}, wanted)


@pytest.mark.parametrize(("asked", "waited", "left"), [(None, 1, 9), (4, 1, 3), (99, 1, 9), (4, 5, 1e-3)])
def test_what_a_request_has_waited_is_taken_off_its_time(asked, waited, left):
    options = None if asked is None else {"max_seconds": asked}
    assert _less(Limits(max_seconds=10), options, waited) == Limits(max_seconds=left)


def test_a_service_that_is_full_refuses_and_goes_on(beside, directory, rows):
    settings = parse_settings(str(directory), {"predictor": "colocated:beside", "threads": 1, "queue": "0"})
    service = Service(settings, "full")
    service.load()
    free, started = threading.Event(), threading.Event()
    slow = CallablePredictor(lambda x: started.set() or (free.wait(timeout=60) and brightness(x)))
    announce("beside", slow)
    running = service.submit(rows, None, lambda: False)
    assert started.wait(timeout=60)
    with pytest.raises(errors.Overloaded) as refusal:
        service.submit(rows, None, lambda: False)
    free.set()
    assert running.result(timeout=60)["found"].all()
    assert service.submit(rows, None, lambda: False).result(timeout=60)["found"].all()
    withdraw("beside", slow)
    service.close()
    assert refusal.value.retry_after >= 1


def test_every_call_of_a_model_behind_an_endpoint_has_a_span_below_the_explanation(directory, rows):
    from oip_servers import GrpcServer, Model, Output
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    def respond(x):
        scores = brightness(x).astype(np.float32)
        return [Output("scores", "FP32", scores.shape, scores)]

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    with GrpcServer(Model(respond=respond)) as server:
        extra = {"predictor": {"kind": "v2", "url": server.url, "model": "cnn"}}
        service = Service(parse_settings(str(directory), extra), "traced")
        service.load()
        with trace.get_tracer("a host").start_as_current_span("request") as request:
            explanation = service.submit(rows, None, lambda: False).result(timeout=60)
        service.close()
    spans = kept.get_finished_spans()
    (explain,) = [span for span in spans if span.name == "explain"]
    calls = [span for span in spans if span.name == "predict"]
    assert explain.parent.span_id == request.get_span_context().span_id
    assert {call.parent.span_id for call in calls} == {explain.context.span_id}
    assert len(calls) == explanation.cost.calls


# --- status codes -------------------------------------------------------------------------------------


def our_errors(parent=errors.ExplainerError):
    return [parent, *(error for child in parent.__subclasses__() for error in our_errors(child))]


def example(kind):
    fielded = issubclass(kind, (errors.InvalidInput, errors.InvalidOption))
    return kind("say what to change", "seed") if fielded else kind("say what to change")


@pytest.mark.parametrize("kind", our_errors())
def test_every_error_of_ours_has_a_status_and_speaks_for_itself(kind):
    status, message = fault(example(kind))
    assert status in {404, 422, 429, 499, 500, 502, 503, 504}
    assert message.endswith("say what to change")
    assert kind.__name__ not in message


def test_a_callers_mistake_is_never_400_or_404():
    # Seldon's agent answers those by loading the model again and repeating the request. A job that is not
    # there is asked for at a place of its own, by no agent.
    assert not {400, 404} & {status for kind, status in STATUS.items() if kind is not errors.NotFound}
    assert fault(errors.InvalidInput("expected", "inputs")) == (422, "inputs: expected")
    assert fault(errors.InvalidOption("seed: expected", "seed")) == (422, "seed: expected")


def test_rules_name_codes_that_grpc_has_and_those_that_may_pass_say_when():
    for rule in RULES.values():
        assert rule.grpc in StatusCode.__members__
        assert (retry_after(rule.status) is not None) == rule.retryable


def test_messages_that_quote_a_long_request_are_cut():
    assert len(fault(errors.InvalidInput("x" * 10_000)).message) <= 1000


def test_a_bug_tells_the_caller_nothing():
    assert fault(ZeroDivisionError("division by zero in secret.py")) == (500, "internal error")


# --- is it the model that it was fitted to ----------------------------------------------------------------


def test_another_model_is_a_metric_and_a_warning_and_strict_refuses_it(tmp_path, rows):
    from prometheus_client import REGISTRY

    spec = AnchorImage(segmentation=Grid(rows=2, columns=2), fill="constant")
    inputs = Inputs(shape=(4, 4, 1), low=0, high=1, classes=2)
    path = save(fit(spec, inputs=inputs, predictor=brightness), tmp_path / "anchor")
    own, turned = CallablePredictor(brightness), CallablePredictor(lambda x: brightness(x)[:, ::-1])
    strict = CallablePredictor(turned.function, ModelContract(strict=True))
    service = Service(parse_settings(str(path), {"predictor": "colocated:stranger"}), "an anchor")

    def other():
        return REGISTRY.get_sample_value("explainer_other_model", {"model": "an anchor"})

    service.load()
    try:
        for model, known in ((own, 0), (turned, 1)):
            announce("stranger", model)
            answer = service.submit(rows, None, lambda: False).result()
            assert other() == known
            assert len(answer.meta.get("warnings", ())) == known
        announce("stranger", strict)
        with pytest.raises(InvalidPrediction, match="`strict`"):
            service.submit(rows, None, lambda: False).result()
    finally:
        service.close()
        withdraw("stranger", strict)


def test_counters_are_made_once_however_many_explainers_are_the_first():
    """A server loads its explainers at the same time, in threads; a counter made twice is an error."""
    code = """
import sys, threading
from explainer_runtime.hosts.service import metrics
sys.setswitchinterval(1e-6)
start, failed = threading.Barrier(16), []
def first(index):
    start.wait()
    try:
        metrics.Meter(str(index), "anchor_image").now(running=0)
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=first, args=(index,)) for index in range(16)]
[one.start() for one in threads]
[one.join() for one in threads]
sys.exit(len(failed))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
