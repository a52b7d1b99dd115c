"""How a remote model is treated: asked again when that may help, left alone when it cannot, never pressed."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oip_servers import GrpcServer, Model, Refusal, RestServer, echo

from explainer_runtime.errors import PredictorError, PredictorTimeout, PredictorUnavailable
from explainer_runtime.predictors.remote.breaker import Breaker
from explainer_runtime.predictors.remote.client import RemotePredictor
from explainer_runtime.predictors.remote.context import carrying, outgoing
from explainer_runtime.predictors.remote.http import retry_after
from explainer_runtime.predictors.remote.pace import NoTurn, Pace
from explainer_runtime.predictors.remote.retry import persistently
from explainer_runtime.spec import Endpoint

SERVERS = {"rest": RestServer, "grpc": GrpcServer}


@pytest.fixture(params=SERVERS)
def server(request):
    with SERVERS[request.param]() as running:
        yield running


@pytest.fixture
def rows():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (7, 12)).astype(np.float32)


@contextlib.contextmanager
def asking(server, **settings):
    predictor = RemotePredictor(Endpoint(url=server.url, model="m", output="scores", **settings))
    try:
        yield predictor
    finally:
        predictor.close()


def failing(*statuses):
    """Answers with these statuses, one a call, then as it should."""
    left = list(statuses)

    def respond(x):
        if left:
            raise Refusal(left.pop(0), "not now")
        return echo(x)

    return respond


# --- again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statuses", [(503,), (429,), (503, 429)])
def test_a_model_that_is_overloaded_is_asked_again(server, rows, statuses):
    server.model.respond = failing(*statuses)
    with asking(server) as predictor:
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
    assert len(server.model.seen) == len(statuses) + 1


@pytest.mark.parametrize("status", [400, 404, 500, 504])
def test_any_other_error_is_final(server, rows, status):
    server.model.respond = failing(status)
    with asking(server) as predictor, pytest.raises(PredictorError):
        predictor(rows)
    assert len(server.model.seen) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_as_many_as_configured(server, rows, attempts):
    server.model.respond = failing(*[503] * 9)
    with asking(server, attempts=attempts) as predictor, pytest.raises(PredictorUnavailable, match="not now"):
        predictor(rows)
    assert len(server.model.seen) == attempts


def test_a_connection_that_breaks_is_made_again(rows):
    broken = []

    def drop(handler):
        broken.append(handler.body())
        handler.close_connection = True
        handler.server.model.fault = None

    with RestServer(Model(fault=drop)) as server, asking(server) as predictor:
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
    assert len(broken) == 1


def test_a_pause_that_ends_too_late_is_not_begun(server, rows):
    server.model.respond = failing(503)
    server.model.trailing = (("retry-after", "3600"),)
    with asking(server) as predictor, pytest.raises(PredictorUnavailable) as caught:
        predictor(rows)
    assert caught.value.retry_after == 3600
    assert len(server.model.seen) == 1


def test_who_waits_is_told_which_model_is_asked_again(caplog):
    def call():
        raise PredictorUnavailable("not now", retry_after=0.0)

    with pytest.raises(PredictorUnavailable):
        persistently(call, attempts=2, until=time.monotonic() + 3600, name="model 'm' at h:1")
    assert caplog.messages == ["model 'm' at h:1 does not answer; trying again"]


def test_a_pause_that_ends_in_time_is_kept():
    asked = []

    def call():
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise PredictorUnavailable("not now", retry_after=0.3)
        return "now"

    assert persistently(call, attempts=2, until=time.monotonic() + 3600) == "now"
    assert asked[1] - asked[0] >= 0.3


def test_grpc_says_its_pause_in_milliseconds(rows):
    model = Model(respond=failing(503), trailing=(("grpc-retry-pushback-ms", "3600000"),))
    with (
        GrpcServer(model) as server,
        asking(server) as predictor,
        pytest.raises(PredictorUnavailable) as caught,
    ):
        predictor(rows)
    assert caught.value.retry_after == 3600


def test_retry_after_is_a_number_or_a_date():
    assert retry_after("120") == 120.0
    assert retry_after(formatdate(0)) == 0.0
    assert retry_after(formatdate(4e9)) == retry_after("9" * 400) == retry_after("99999999999") == 3600.0
    assert retry_after("") is retry_after("soon") is retry_after("-1") is None


# --- left alone -------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def use(breaker, error=None, patient=True):
    """One guarded call that ends so; whether it was let through."""
    reached = False
    with contextlib.suppress(PredictorError, ValueError), breaker.guard(patient):
        reached = True
        if error is not None:
            raise error
    return reached


def test_a_breaker_opens_after_failures_in_a_row_and_closes_after_a_probe_that_succeeds():
    clock = Clock()
    breaker = Breaker("m", failures=3, rest=1, clock=clock)
    assert all(use(breaker, PredictorUnavailable("gone")) for _ in range(3))
    assert not use(breaker)
    clock.now = 1.0
    assert use(breaker)
    assert all(use(breaker) for _ in range(5))


def test_a_breaker_rests_longer_after_each_probe_that_fails():
    clock = Clock()
    breaker = Breaker("m", failures=1, rest=1, clock=clock)
    use(breaker, PredictorUnavailable("gone"))
    for rest in (1, 2, 4, 8, 16, 30, 30):
        clock.now += rest - 0.01
        assert not use(breaker)
        clock.now += 0.02
        assert use(breaker, PredictorUnavailable("gone"))


def test_a_half_open_breaker_lets_one_through():
    clock = Clock()
    breaker = Breaker("m", failures=1, rest=1, clock=clock)
    use(breaker, PredictorUnavailable("gone"))
    clock.now = 1.0
    with breaker.guard():
        assert not use(breaker)
    assert use(breaker)


def test_an_open_breaker_says_for_how_long():
    clock = Clock()
    breaker = Breaker("m", failures=1, rest=8, clock=clock)
    use(breaker, PredictorUnavailable("gone"))
    with pytest.raises(PredictorUnavailable, match="failed 1 times in a row") as caught, breaker.guard():
        pass
    assert caught.value.retry_after == 8


@given(st.lists(st.sampled_from(["ok", "error", "bug", "hurry", "waited", "gone", "late"]), max_size=40))
def test_a_breaker_counts_only_what_says_that_the_model_is_not_there(story):
    breaker = Breaker("m", failures=3, rest=1, clock=Clock())
    ends = {
        "ok": (None, True, 0),
        "error": (PredictorError("500"), True, 0),
        "bug": (ValueError(), True, None),
        "hurry": (PredictorTimeout("late"), False, None),
        "waited": (NoTurn("our own limits"), True, None),
        "gone": (PredictorUnavailable("gone"), True, 1),
        "late": (PredictorTimeout("late"), True, 1),
    }
    failed = 0
    for word in story:
        error, patient, weight = ends[word]
        assert use(breaker, error, patient) == (failed < 3)
        if failed < 3 and weight is not None:
            failed = failed + 1 if weight else 0


def test_a_model_that_is_gone_is_not_asked_any_more(server, rows):
    server.model.respond = failing(*[503] * 99)
    with asking(server, attempts=1) as predictor:
        for _ in range(5):
            with pytest.raises(PredictorUnavailable, match="not now"):
                predictor(rows)
        with pytest.raises(PredictorUnavailable, match="left alone"):
            predictor(rows)
    assert len(server.model.seen) == 5


# --- not pressed ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_rows_go_out_no_faster_than_configured(sizes):
    clock = Clock()
    pace = Pace(1, rows_per_second=100, clock=clock, sleep=clock.sleep)
    for before, size in zip(itertools.accumulate([0, *sizes]), sizes, strict=False):
        with pace.turn(size, until=1e9, source="m"):
            # All rows before are paid for, at 100 a second; 1e-6 for the sum of rounded floats.
            assert clock.now >= before / 100 - 1e-6


def test_a_turn_that_comes_too_late_is_not_taken_from_others():
    clock = Clock()
    pace = Pace(1, rows_per_second=10, clock=clock, sleep=clock.sleep)
    with pace.turn(100, until=1e9, source="m"):
        pass
    with pytest.raises(PredictorTimeout, match="rows_per_second"), pace.turn(100, until=5.0, source="m"):
        pass
    assert clock.now == 5.0
    with pace.turn(1, until=1e9, source="m"):
        assert clock.now == 10.0


def test_calls_at_once_are_as_many_as_configured(server, rows):
    running, most, lock, second = set(), [0], threading.Lock(), threading.Event()

    def respond(x):
        with lock:
            running.add(threading.get_ident())
            most[0] = max(most[0], len(running))
            if len(running) == 2:
                second.set()
        second.wait(5)
        with lock:
            running.discard(threading.get_ident())
        return echo(x)

    server.model.respond = respond
    with asking(server, calls_at_once=2) as predictor, ThreadPoolExecutor(8) as pool:
        list(pool.map(predictor, [rows] * 16))
    assert most == [2]


def test_a_place_that_does_not_come_free_is_a_time_out(server, rows):
    begun = threading.Event()

    def respond(x):
        begun.set()
        return server.model.hang()

    server.model.respond = respond
    with asking(server, calls_at_once=1, timeout=2) as predictor, ThreadPoolExecutor(1) as pool:
        first = pool.submit(predictor, rows)
        assert begun.wait(5)
        with pytest.raises(PredictorTimeout, match="calls_at_once"):
            predictor(rows, timeout=0.2)
        assert isinstance(first.exception(), PredictorTimeout)


# --- traces -----------------------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_trace_of_whoever_asked_goes_along(server, rows):
    with asking(server) as predictor:
        with carrying({"Traceparent": TRACE, "tracestate": "a=1", "cookie": "secret"}):
            predictor(rows)
        predictor(rows)
    within, after = (seen.headers for seen in server.model.seen)
    assert (within["traceparent"], within["tracestate"]) == (TRACE, "a=1")
    assert "cookie" not in within
    assert "traceparent" not in after


@pytest.mark.parametrize("value", ["a\r\nb: c", "é", "", "x" * 10_000])
def test_a_trace_that_cannot_be_sent_is_left_out(value):
    with carrying({"traceparent": value}):
        assert outgoing() == {}


def test_the_current_span_goes_before_the_trace_of_whoever_asked():
    trace = pytest.importorskip("opentelemetry.trace")
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
    with carrying({"traceparent": TRACE}), trace.use_span(span):
        assert outgoing()["traceparent"] == f"00-{1:032x}-{2:016x}-01"


def hurried(predictor):
    """The same predictor with less time for a call, and the pace of before."""
    predictor.settings = predictor.settings.model_copy(update={"timeout": 0.05})


def test_time_that_our_own_limits_took_is_no_failure_of_the_model(server, rows):
    """Ten calls that find no turn leave a model that answers where it was: asked once, and asked again."""
    with asking(server, rows_per_second=1e-3) as predictor:
        predictor(rows)  # paid for in hours
        usual = predictor.settings
        hurried(predictor)
        for _ in range(10):
            with pytest.raises(NoTurn, match="rows_per_second leaves no room"):
                predictor(rows)
        predictor.settings, predictor._pace = usual, Pace(16)
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
    assert len(server.model.seen) == 2


def test_a_model_that_our_own_limits_have_hurried_has_not_failed(server, rows):
    with asking(server, attempts=1) as predictor:
        predictor(rows)
        usual, server.model.fault = predictor.settings, server.model.hang
        hurried(predictor)
        for _ in range(10):
            predictor._pace = Pace(1, rows_per_second=1)
            predictor._pace._paid += 0.02  # of 0.05
            with pytest.raises(NoTurn):
                predictor(rows)
        predictor.settings, predictor._pace, server.model.fault = usual, Pace(16), None
        np.testing.assert_array_equal(predictor(rows), echo(rows)[0].data)
