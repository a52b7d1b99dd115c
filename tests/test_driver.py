"""The driver keeps its promises: budgets, deadlines, cancellation, progress, and whose answers are whose."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.driver import Budget, meter, shard_of, solve
from explainer_runtime.driver.estimated import CentralDifferences
from explainer_runtime.driver.solve import LOOK
from explainer_runtime.errors import Cancelled, InvalidOption, PredictorError, PredictorTimeout
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.search.asks import Aside, Rows, Slopes, Stop, lockstep
from explainer_runtime.spec import CEM, Counterfactual, CounterfactualProto, Inputs, Limits

W = weights()
FOREVER = Budget(seconds=3600)


def half(x):
    """A model of two classes: the first feature is the log-odds of the second."""
    p = 1 / (1 + np.exp(-x.reshape(len(x), -1)[:, 0].astype("d")))
    return np.stack([1 - p, p], axis=1).astype("f")


def ask_for(*sizes):
    """A search that asks for so many rows, one after the other, and returns how often it was told."""
    told = 0
    try:
        for size in sizes:
            scores = yield Rows(np.arange(size, dtype="f")[:, None])
            assert scores.shape == (size, 2)
            told += 1
    except Stop as stop:
        return told, stop.status
    return told, "ok"


def slopes_for(*sizes, alone=False):
    """The same for slopes."""
    told = 0
    try:
        for size in sizes:
            yield Slopes(np.zeros((size, *SHAPE), "f"), lambda said, which: np.exp(said), alone=alone)
            told += 1
    except Stop as stop:
        return told, stop.status
    return told, "ok"


# --- budgets --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(0, 150),
    st.integers(0, 10),
    st.integers(1, 20),
)
def test_rows_and_calls_never_exceed_the_budget(sizes, rows, calls, most):
    predictor = Counting(half, most)
    (told, status), cost = solve(ask_for(*sizes), predictor, Budget(rows, calls, 3600))
    assert (predictor.rows, predictor.calls) == (cost.rows, cost.calls)
    assert predictor.rows <= rows
    assert predictor.calls <= calls
    assert (status == "ok") == (told == len(sizes))


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 150), st.integers(0, 10))
def test_slopes_are_counted_as_the_rows_they_ask_about(sizes, rows, calls):
    model = Linear(W)
    (told, status), cost = solve(slopes_for(*sizes), model, Budget(rows, calls, 3600))
    assert model.rows == cost.rows == cost.steps == sum(sizes[:told]) <= rows
    assert cost.calls == told <= calls
    assert (status == "ok") == (told == len(sizes))


def test_estimated_slopes_cost_what_the_model_was_asked():
    predictor = Counting(rowwise(W), 10)
    estimator = CentralDifferences(0.01, 0, 1)
    (told, _), cost = solve(slopes_for(2), predictor, FOREVER, estimator=estimator)
    assert told == 1
    assert predictor.rows == cost.rows == 2 * (1 + 2 * 16)
    assert predictor.calls == cost.calls == 7
    assert cost.steps == 2


@pytest.mark.parametrize(
    "spec", [Counterfactual(), CounterfactualProto(), CEM(no_info_val=0.0)], ids=lambda spec: spec.kind
)
@pytest.mark.parametrize("rows", [10**6, 200])
def test_what_is_counted_is_what_the_model_was_asked(spec, rows):
    model = Linear(W)
    inputs = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
    run = prepare(fit(spec, inputs=inputs), model)
    model.rows = 0
    x = np.random.default_rng(1).uniform(0, 1, (5, *SHAPE)).astype("f")
    answer = run(x, limits=Limits(max_rows=rows, max_seconds=3600))
    assert answer.cost.rows == model.rows <= rows


def test_what_fails_was_asked_nevertheless():
    def failing(x):
        raise PredictorError("no")

    counted = meter.Meter(FOREVER)
    counted.spend(3)
    assert (counted.rows, counted.calls) == (3, 1)
    with pytest.raises(PredictorError):
        solve(ask_for(3), Counting(failing), FOREVER)


def test_a_large_ask_is_split_into_calls_and_put_together_in_order():
    predictor = Counting(half, most=7)

    def search():
        return (yield Rows(np.linspace(-3, 3, 40, dtype="f")[:, None]))

    log_scores, cost = solve(search(), predictor, FOREVER)
    odds = log_scores[:, 1] - log_scores[:, 0]
    np.testing.assert_allclose(odds, np.linspace(-3, 3, 40), atol=1e-5)
    assert (cost.rows, cost.calls) == (40, 6)


def test_a_row_that_goes_along_with_each_call_is_counted_and_kept_within_the_budget():
    class Watched(Counting):
        extra_rows = 1

    told, cost = solve(ask_for(7, 7), Watched(half, 5), Budget(rows=17))
    assert (told, cost.rows, cost.calls) == ((1, "budget_exhausted"), 9, 2)


def test_no_time_left_stops_before_the_first_call():
    predictor = Counting(half)
    (told, status), cost = solve(ask_for(3), predictor, Budget(seconds=0))
    assert (told, status, cost.calls, predictor.calls) == (0, "budget_exhausted", 0, 0)


# --- the clock and the cancel flag ----------------------------------------------------------------------


def rows(size):
    for _ in range(4):
        yield Rows(np.zeros((size, *SHAPE), "f"))


def slopes(size):
    return slopes_for(*[size] * 4)


class Timed(Linear):
    """A white box on which each row takes so many seconds of a clock that only it moves."""

    def __init__(self, seconds: float) -> None:
        super().__init__(W)
        self.seconds, self.now = seconds, 100.0

    def log_scores(self, x):
        self.now += self.seconds * len(x)
        return super().log_scores(x)


def tell_time(monkeypatch, now) -> None:
    """Let the driver, and nobody else, read this clock."""
    for module in (meter, sys.modules[solve.__module__]):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now, process_time=now))


@pytest.fixture
def timed(monkeypatch):
    """Makes a model of so many seconds a row, whose clock the driver reads."""

    def make(seconds: float) -> Timed:
        model = Timed(seconds)
        tell_time(monkeypatch, lambda: model.now)
        return model

    return make


@pytest.mark.parametrize("seconds", [1e-6, 0.003, 0.02, 0.24, 7.0])
@pytest.mark.parametrize(("search", "share"), [(rows, 2), (slopes, 1)])
def test_the_cancel_flag_is_looked_at_every_quarter_of_a_second_or_every_row(seconds, search, share, timed):
    model, looks = timed(seconds), []
    shard = shard_of(model, np.zeros((1, *SHAPE), "f"))

    def look():
        looks.append(model.now)
        return False

    solve(search(200), model, Budget(seconds=1e9), cancel=look, shard=shard)
    # Going forward alone takes half as long as with the way back at most, but not on this model.
    assert np.diff(looks).max() <= share * max(LOOK, seconds) * 1.01


@pytest.mark.parametrize("seconds", [0.003, 0.02, 0.24])
def test_a_deadline_is_passed_by_a_quarter_of_a_second_or_one_row_at_most(seconds, timed):
    model = timed(seconds)
    shard = shard_of(model, np.zeros((1, *SHAPE), "f"))
    begun = model.now
    (_, status), _cost = solve(slopes_for(*[32] * 1000), model, Budget(rows=10**9, seconds=10), shard=shard)
    assert status == "budget_exhausted"
    assert model.now - begun <= 10 + max(LOOK, seconds) * 1.01


@pytest.mark.parametrize(
    ("seconds", "shard"), [(1e-6, 32), (0.0078, 32), (0.008, 8), (0.1, 2), (0.2, 1), (9.0, 1)]
)
def test_a_shard_takes_no_longer_than_a_look_where_one_row_does_not(seconds, shard, timed):
    assert shard_of(timed(seconds), np.zeros((1, *SHAPE), "f")) == shard


def test_cancelling_stops_before_the_next_call():
    predictor = Counting(half, most=10)
    with pytest.raises(Cancelled):
        solve(ask_for(10, 10, 10), predictor, FOREVER, cancel=lambda: predictor.calls >= 2)
    assert predictor.calls == 2


def test_a_search_aside_has_the_time_and_the_cancel_flag_of_the_whole(timed):
    model = timed(0.01)

    def outer():
        try:
            yield Aside(slopes_for(*[32] * 1000), model)
        except Stop as stop:
            return stop.status
        return "told"

    begun = model.now
    status, cost = solve(outer(), Counting(half), Budget(seconds=10))
    assert status in ("told", "budget_exhausted")
    assert model.now - begun <= 10.4
    assert (cost.rows, cost.calls) == (0, 0)
    with pytest.raises(Cancelled):
        solve(outer(), Counting(half), Budget(seconds=10**6), cancel=lambda: model.now > begun + 20)
    assert model.now - begun <= 20.5


@pytest.mark.parametrize("spec", [Counterfactual(), CEM(no_info_val=0.0)], ids=lambda spec: spec.kind)
def test_neither_answers_nor_cost_depend_on_how_long_things_take(spec, timed):
    x = np.random.default_rng(1).uniform(0, 1, (3, *SHAPE)).astype("f")
    fitted = fit(spec, inputs=Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES))
    limits = Limits(max_seconds=1e9)
    # As long as a shard is the same: it is one of four, found when the model is prepared.
    answers = {prepare(fitted, timed(s), warm=False)(x, limits=limits).to_json() for s in (0.0, 0.001, 0.007)}
    assert len(answers) == 1


def test_a_slow_model_is_an_error_but_a_spent_deadline_is_an_answer(monkeypatch):
    now = [0.0]
    tell_time(monkeypatch, lambda: now[0])

    def slow(x):
        now[0] += 5
        raise PredictorTimeout("too slow")

    with pytest.raises(PredictorTimeout):
        solve(ask_for(1), Counting(slow), Budget(seconds=60))
    told, _cost = solve(ask_for(1), Counting(slow), Budget(seconds=4))
    assert told == (0, "budget_exhausted")


# --- searches -------------------------------------------------------------------------------------------


def test_a_search_that_asks_after_a_stop_is_a_programming_error():
    def stubborn():
        while True:
            try:
                yield Rows(np.zeros((1, 1), "f"))
            except Stop:
                continue

    with pytest.raises(RuntimeError, match="asked again"):
        solve(stubborn(), Counting(half), Budget(rows=0))


def test_a_search_is_closed_whatever_happens():
    closed = []

    def search():
        try:
            yield Rows(np.zeros((1, 1), "f"))
        finally:
            closed.append(True)

    with pytest.raises(Cancelled):
        solve(search(), Counting(half), cancel=lambda: True)
    assert closed == [True]


def test_slopes_of_many_rows_are_those_of_each():
    x = np.random.default_rng(2).uniform(0, 1, (70, *SHAPE)).astype("f")
    model = Linear(W)
    factor = np.arange(70.0)

    def search(which, alone=False):
        pull = lambda said, part: (factor[which][part, None] * np.exp(said)).astype("f")  # noqa: E731
        return (yield Slopes(x[which], pull, alone=alone))

    together, _ = solve(search(np.arange(70)), model, FOREVER)
    for some in (np.array([64, 3, 40]), np.array([69])):
        for alone in (True, False):
            part, _ = solve(search(some, alone), model, FOREVER)
            for ours, theirs in zip(part, together, strict=True):
                np.testing.assert_array_equal(ours, theirs[some])


def test_rows_that_are_to_be_answered_as_if_alone_are_asked_alone():
    sizes = []

    class Watched(Linear):
        def slope(self, x, pull):
            sizes.append(len(x))
            return super().slope(x, pull)

    (_, _), cost = solve(slopes_for(5, 3, alone=True), Watched(W), FOREVER)
    assert sizes == [1] * 8
    assert (cost.rows, cost.calls) == (8, 2)


def test_exact_slopes_need_the_model_in_process():
    with pytest.raises(InvalidOption, match="in this process"):
        solve(slopes_for(1), Counting(half), FOREVER)


def test_probabilities_of_nothing_are_floored_where_float32_ends():
    def sure(x):
        return np.tile(np.array([[1.0, 0.0]], "f"), (len(x), 1))

    def search():
        return (yield Rows(np.zeros((2, 1), "f")))

    log_scores, _ = solve(search(), Counting(sure), FOREVER)
    np.testing.assert_allclose(log_scores, [[0, -87.3]] * 2, atol=0.05)
    assert log_scores.dtype == np.float32


# --- progress -------------------------------------------------------------------------------------------


def test_progress_never_falls_and_never_passes_one():
    seen = []

    def search():
        for done in (0.2, 0.7, 0.4, 1.4):
            yield Rows(np.zeros((3, 1), "f"), done)

    solve(search(), Counting(half), FOREVER, progress=seen.append)
    assert [p.fraction for p in seen] == [0.2, 0.7, 0.7, 1.0]
    assert [p.rows for p in seen] == [3, 6, 9, 12]
    assert [p.calls for p in seen] == [1, 2, 3, 4]


def test_the_best_so_far_is_told_until_another_is_named():
    seen = []

    def search():
        for best in (None, 5.0, None, 3.0):
            yield Rows(np.zeros((1, 1), "f"), best=best)
        pull = lambda said, which: said  # noqa: E731
        yield Slopes(np.zeros((2, *SHAPE), "f"), pull, best=np.array([np.inf, 2.0]))
        yield Slopes(np.zeros((2, *SHAPE), "f"), pull, best=np.array([np.inf, np.inf]))

    model = Linear(np.ones((CLASSES, 1)))
    model._logs = lambda x: np.zeros((len(x), CLASSES), "f")
    model.slope = lambda x, pull: (model._logs(x), np.zeros_like(x))
    solve(search(), model, FOREVER, progress=seen.append)
    assert [p.best for p in seen] == [None, 5.0, 5.0, 3.0, 2.0, 2.0]


def test_whoever_watches_sees_every_ask_with_its_answer():
    seen = []
    solve(ask_for(2, 5), Counting(half), FOREVER, watch=lambda ask, told: seen.append((ask, told)))
    assert [len(ask.x) for ask, _ in seen] == [len(told) for _, told in seen] == [2, 5]


# --- lockstep -------------------------------------------------------------------------------------------


def counting_down(start):
    told = []
    while start:
        told.append(float((yield Rows(np.full((start, 1), start, "f"))).sum()))
        start -= 1
    return told


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_lockstep_tells_each_search_what_it_would_be_told_alone(starts):
    predictor = Counting(half)
    together, cost = solve(lockstep([counting_down(n) for n in starts]), predictor, FOREVER)
    assert cost.calls == max(starts)
    assert together == [solve(counting_down(n), predictor, FOREVER)[0] for n in starts]


def test_a_stop_reaches_every_search_of_a_lockstep():
    def patient(name):
        try:
            yield Rows(np.zeros((1, 1), "f"))
        except Stop as stop:
            return f"{name} {stop.status}"

    told, _ = solve(lockstep([patient("a"), patient("b")]), Counting(half), Budget(rows=0))
    assert told == ["a budget_exhausted", "b budget_exhausted"]
