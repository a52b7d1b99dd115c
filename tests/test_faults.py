"""Whatever a model's server does, each method ends in a typed error or a verified answer, never a wrong one.

The servers and sockets are real. A fault begins after some calls, often in the middle of an explanation; when
it is over, the same explainer works as before. The model is linear and answers rows one by one, so an answer
can be verified to the last bit.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import tracemalloc

import numpy as np
import pytest
from oip_servers import GrpcServer, Model, Output, Refusal, RestServer
from toys import CLASSES, rowwise, weights
from verified import CONTRACT, IMAGE, METHODS, verify

from explainer_runtime import fit, prepare
from explainer_runtime.errors import (
    InvalidPrediction,
    PredictorChanged,
    PredictorError,
    PredictorTimeout,
    PredictorUnavailable,
)
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.spec import Endpoint, Limits

pytest.importorskip("tensorflow")

EXACT = rowwise(weights() / 3)
OTHER = rowwise(weights(seed=1) / 3)
LIMITS = Limits(max_rows=3000, max_calls=60, max_seconds=20)
HURRY = Limits(max_rows=3000, max_calls=60, max_seconds=0.6)
LATENCY = 2.0  # seconds: well beyond what a hurried explanation may take

WIRES = {"rest": RestServer, "grpc": GrpcServer}


def scores(function):
    """A model's way to answer with the scores of `function`."""

    def respond(x):
        found = np.asarray(function(x))
        return [Output("scores", "FP32", found.shape, found)]

    return respond


class Stage:
    """One method and one server, whose model can be made to misbehave from some call on."""

    def __init__(self, method, wire):
        self.server = WIRES[wire](Model(respond=scores(EXACT)))
        self.server.start()
        self.predictor = RemotePredictor(Endpoint(url=self.server.url, model="m", timeout=20))
        self.explain = prepare(fit(METHODS[method], inputs=CONTRACT), self.predictor)
        self.kind = method
        self.well = self.server.model

    def outcome(self, limits):
        """The error's type, or None for an answer, which is verified."""
        try:
            answer = self.explain(IMAGE, limits=limits)
        except PredictorError as error:
            return type(error)
        verify(self.kind, answer, EXACT)
        return None

    def misbehave(self, respond, after):
        """Answer as it should this many times, and then so; returns what counts the calls."""
        calls = itertools.count()
        self.well.respond = lambda x: (scores(EXACT) if next(calls) < after else respond)(x)
        return calls

    def kill(self):
        """Stop in the middle of a call."""
        if isinstance(self.server, GrpcServer):
            self.server.server.stop(0)
        else:
            self.server.server.shutdown()
            self.server.server.socket.close()
            self.server.server.hang_up()

    def revive(self):
        """Start again on the same port."""
        self.server.stop()
        self.server.start()

    def heal(self):
        self.well.fault, self.well.respond = None, scores(EXACT)
        self.well.version, self.well.trailing = "", ()

    def close(self):
        self.predictor.close()
        self.server.stop()


def on(*wires):
    """Every method, on these wires."""
    return pytest.mark.parametrize(
        "stage", list(itertools.product(METHODS, wires)), ids="-".join, indirect=True, scope="module"
    )


@pytest.fixture(scope="module", params=list(itertools.product(METHODS, WIRES)), ids="-".join)
def stage(request):
    made = Stage(*request.param)
    yield made
    made.close()


# --- what any server may answer -----------------------------------------------------------------------------


def nan(x):
    found = EXACT(x)
    found[-1, 0] = np.nan
    return found


def refused(status):
    def respond(x):
        raise Refusal(status, "not today")

    return respond


def typed(datatype, data):
    return lambda x: [Output("scores", datatype, (len(x), CLASSES), data(x))]


ANSWERS = {
    "429": (refused(429), PredictorUnavailable),
    "500": (refused(500), PredictorError),
    "503": (refused(503), PredictorUnavailable),
    "a row too few": (scores(lambda x: EXACT(x)[:-1]), InvalidPrediction),
    "a row too many": (scores(lambda x: EXACT(np.concatenate([x, x[:1]]))), InvalidPrediction),
    "a class too many": (scores(lambda x: rowwise(weights(classes=4))(x)), InvalidPrediction),
    "a shape that is not the data's": (
        lambda x: [Output("scores", "FP32", (len(x), CLASSES + 1), EXACT(x))],
        InvalidPrediction,
    ),
    "another datatype": (typed("INT64", lambda x: EXACT(x).round().astype(np.int64)), InvalidPrediction),
    "no numbers": (typed("BYTES", lambda x: np.zeros((len(x), 0), np.float32)), InvalidPrediction),
    "NaN": (scores(nan), InvalidPrediction),
    "negative": (scores(lambda x: 2 * EXACT(x) - 1 / CLASSES), InvalidPrediction),
    "logits": (scores(lambda x: np.log(EXACT(x))), InvalidPrediction),
}


@pytest.mark.parametrize("fault", ANSWERS)
def test_a_wrong_answer_is_a_typed_error_and_forgotten_when_it_is_over(stage, fault):
    faulty, expected = ANSWERS[fault]
    calls = stage.misbehave(faulty, after=1)
    outcome = stage.outcome(LIMITS)
    assert outcome is (expected if next(calls) > 1 else None)
    stage.heal()
    assert stage.outcome(LIMITS) is None


SUBTLE = {
    "rows in reverse": lambda x: EXACT(x)[::-1],
    "rows rolled by one": lambda x: np.roll(EXACT(x), 1, axis=0),
    "rows shuffled": lambda x: EXACT(x)[np.random.default_rng(len(x)).permutation(len(x))],
    "another model": OTHER,
}


@pytest.mark.parametrize("fault", SUBTLE)
@pytest.mark.parametrize("after", [1, 2])
def test_what_no_single_answer_shows_never_becomes_a_wrong_explanation(stage, fault, after):
    calls = stage.misbehave(scores(SUBTLE[fault]), after)
    outcome = stage.outcome(LIMITS)
    assert outcome in (None, InvalidPrediction, PredictorChanged)
    # A permutation may happen to leave all that matters in its place; another model never does.
    assert fault != "another model" or (outcome is None) == (next(calls) <= after)


def test_a_version_that_changes_midway_ends_the_explanation(stage):
    calls = itertools.count()

    def respond(x):
        stage.well.version = "1" if next(calls) < 1 else "2"
        return scores(EXACT)(x)

    stage.well.respond = respond
    outcome = stage.outcome(LIMITS)
    assert outcome is (PredictorChanged if next(calls) > 1 else None)
    assert stage.outcome(LIMITS) is None  # all by the second version


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1])
def test_two_seconds_of_latency_end_in_time_and_with_what_is_verified(stage, after):
    calls, late = itertools.count(), []

    def respond(x):
        if next(calls) >= after:
            stage.well.over.wait(LATENCY)
            late.append(len(x))
        return scores(EXACT)(x)

    stage.well.respond = respond
    assert stage.outcome(HURRY) in (None, PredictorTimeout)
    assert late == []  # whoever waited for that answer has not waited for it
    stage.heal()
    assert stage.outcome(LIMITS) is None


# --- connections --------------------------------------------------------------------------------------------


def test_a_server_killed_midway_is_unavailable_and_fine_when_it_is_back(stage):
    calls = itertools.count()

    def respond(x):
        if next(calls) == 1:
            stage.kill()
            stage.well.over.wait()  # until it is started again: this answer does not slip out
        return scores(EXACT)(x)

    stage.well.respond = respond
    outcome = stage.outcome(LIMITS)
    reached = next(calls) > 1
    stage.revive()
    assert outcome is (PredictorUnavailable if reached else None)
    stage.heal()
    assert stage.outcome(LIMITS) is None


def page(status, body, **headers):
    def fault(handler):
        handler.body()
        handler.say(status, body, "text/html", **headers)

    return fault


def drip(handler):
    """An answer that comes byte by byte, each soon enough for a time-out on reads."""
    handler.body()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    with contextlib.suppress(OSError):
        while not handler.server.model.over.wait(0.05):
            handler.wfile.write(b" ")


GIGABYTE = 2**30


def huge(announced):
    def fault(handler):
        handler.body()
        length = f"content-length: {GIGABYTE}\r\n" if announced else ""
        handler.wfile.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(GIGABYTE // 2**20):
                handler.wfile.write(MEGABYTE)

    return fault


MEGABYTE = b" " * 2**20
PAGES = {
    "a page": (page(200, b"<html>Sign in</html>"), InvalidPrediction),
    "a redirect": (page(302, b"", Location="http://127.0.0.1:1/"), PredictorError),
    "a gigabyte, announced": (huge(announced=True), InvalidPrediction),
    "a gigabyte, in pieces": (huge(announced=False), InvalidPrediction),
    "bytes that drip": (drip, PredictorTimeout),
}


@pytest.mark.parametrize("fault", PAGES)
@on("rest")
def test_what_only_http_can_say_is_a_typed_error(stage, fault):
    stage.well.fault, expected = PAGES[fault]
    assert stage.outcome(HURRY if fault == "bytes that drip" else LIMITS) in (
        expected,
        None if expected is PredictorTimeout else expected,  # out of time is an answer: nothing found yet
    )
    stage.heal()
    assert stage.outcome(LIMITS) is None


@on("grpc")
def test_a_message_larger_than_agreed_is_refused(stage):
    stage.well.fault = lambda context: b"\0" * (65 * 2**20)
    assert stage.outcome(LIMITS) is InvalidPrediction
    stage.heal()
    assert stage.outcome(LIMITS) is None


@pytest.mark.parametrize("announced", [True, False])
def test_a_gigabyte_is_never_held(announced):
    with RestServer(Model(fault=huge(announced))) as server:
        predictor = RemotePredictor(Endpoint(url=server.url, model="m"))
        tracemalloc.start()
        with pytest.raises(InvalidPrediction, match="more than"):
            predictor(IMAGE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        predictor.close()
    # The limit is 64 MiB; a growing buffer is copied now and then, and the server writes its own pieces.
    assert peak < (2**22 if announced else 2.5 * 2**26)


def test_a_peer_that_drips_http2_is_a_typed_error_in_time():
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"\0\0\0\4\0\0\0\0\0")  # empty settings: the least HTTP/2 there is
                    connection.sendall(b"\0\xff\xff\x20\0\0\0\0\0")  # a frame of a kind nobody knows, ...
                    while not over.wait(0.05):
                        connection.sendall(b"\0")  # ... byte by byte

        thread = threading.Thread(target=dribble)
        thread.start()
        url = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        predictor = RemotePredictor(Endpoint(url=url, model="m", timeout=0.6))
        with pytest.raises((PredictorTimeout, PredictorUnavailable)):  # which comes first, the call or HTTP/2
            predictor(IMAGE)
        predictor.close()
        over.set()
        thread.join()
