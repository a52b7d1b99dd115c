"""The driver keeps its promises: budgets, cancellation, progress, and whose answers are whose."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from explainer_runtime.solve import SHARD, Budget, solve
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import SHAPE, graph, weights
from toys import Counting as CountingScores

from explainer_runtime.errors import Cancelled, InvalidOption, PredictorTimeout
from explainer_runtime.search.asks import Descend, Rows, Stop
from explainer_runtime.spec import ModelContract


class Counting(CountingScores):
    """One whose answers mean nothing."""

    def __init__(self, function, most=64):
        super().__init__(function, most, ModelContract(output="scores"))


def double(x):
    return np.concatenate([x, 2 * x], axis=1)


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


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(0, 150),
    st.integers(0, 10),
    st.integers(1, 20),
)
def test_rows_and_calls_never_exceed_the_budget(sizes, rows, calls, most):
    predictor = Counting(double, most)
    (told, status), cost = solve(ask_for(*sizes), predictor, Budget(rows, calls, 60))
    assert (predictor.rows, predictor.calls) == (cost.rows, cost.calls)
    assert predictor.rows <= rows
    assert predictor.calls <= calls
    assert (status == "ok") == (told == len(sizes))


def test_a_large_ask_is_split_into_calls_and_put_together_in_order():
    predictor = Counting(double, most=7)

    def search():
        return (yield Rows(np.arange(40, dtype="f")[:, None]))

    scores, cost = solve(search(), predictor)
    np.testing.assert_array_equal(scores[:, 1], 2 * np.arange(40))
    assert (cost.rows, cost.calls) == (40, 6)


def test_no_time_left_stops_before_the_first_call():
    predictor = Counting(double)
    (told, status), cost = solve(ask_for(3), predictor, Budget(seconds=0))
    assert (told, status, cost.calls, predictor.calls) == (0, "budget_exhausted", 0, 0)


def test_cancelling_stops_before_the_next_call():
    predictor = Counting(double, most=10)
    with pytest.raises(Cancelled):
        solve(ask_for(10, 10, 10), predictor, cancel=lambda: predictor.calls >= 2)
    assert predictor.calls == 2


def test_a_search_that_asks_after_a_stop_is_a_programming_error():
    def stubborn():
        while True:
            try:
                yield Rows(np.zeros((1, 1), "f"))
            except Stop:
                continue

    with pytest.raises(RuntimeError, match="asked again"):
        solve(stubborn(), Counting(double), Budget(rows=0))


def test_progress_is_told_after_each_call_and_never_beyond_one():
    seen = []

    def search():
        for done in (0.2, 0.7, 1.4):
            yield Rows(np.zeros((3, 1), "f"), done)

    solve(search(), Counting(double), progress=seen.append)
    assert [p.fraction for p in seen] == [0.2, 0.7, 1.0]
    assert [p.rows for p in seen] == [3, 6, 9]


def test_a_slow_model_is_an_error_but_a_spent_deadline_is_an_answer():
    def slow(x):
        raise PredictorTimeout("too slow")

    with pytest.raises(PredictorTimeout):
        solve(ask_for(1), Counting(slow), Budget(seconds=60))

    def just_too_late(x):
        late.budget_is_spent = True
        raise PredictorTimeout("too slow")

    late = Counting(just_too_late)
    (told, status), _ = solve(ask_for(1), late, Budget(seconds=1e-9))
    assert (told, status) == (0, "budget_exhausted")


def test_exact_gradients_need_the_model_in_process():
    def search():
        yield Descend(None, lambda aim, scores: scores, lambda state, scores, gradient: state, 1)

    with pytest.raises(InvalidOption, match="in this process"):
        solve(search(), Counting(double))


class Counter(NamedTuple):
    """A state that counts its steps."""

    x: Any
    active: Any
    aim: Any
    steps: Any


class Nothing(NamedTuple):
    lane: Any


def test_what_the_first_shard_found_is_kept_when_the_budget_ends_at_the_second():
    pytest.importorskip("tensorflow")
    lanes, steps = SHARD + 8, 3
    start = Counter(
        np.zeros((lanes, *SHAPE), "f"), np.ones(lanes, bool), Nothing(np.arange(lanes)), np.zeros(lanes, "i4")
    )

    def search():
        try:
            state = yield Descend(
                start,
                lambda aim, scores: scores[:, 0],
                lambda state, scores, gradient: state._replace(steps=state.steps + 1),
                steps=10,
            )
        except Stop:
            return None
        return state.steps

    taken, cost = solve(search(), graph(weights()), Budget(rows=SHARD * steps))
    assert taken.tolist() == [steps] * SHARD + [0] * 8
    assert cost.rows == SHARD * steps
    assert solve(search(), graph(weights()), Budget(rows=SHARD - 1))[0] is None  # nothing was begun


def test_the_best_so_far_is_told_until_a_better_one_is_named():
    seen = []

    def search():
        for best in (None, 5.0, None, 3.0):
            yield Rows(np.zeros((1, 1), "f"), best=best)

    solve(search(), Counting(double), progress=seen.append)
    assert [p.best for p in seen] == [None, 5.0, 5.0, 3.0]


def test_a_row_that_goes_along_with_each_call_is_counted_and_kept_within_the_budget():
    class Watched(Counting):
        extra_rows = 1

    told, cost = solve(ask_for(7, 7), Watched(double, 5), Budget(rows=17))
    assert (told, cost.rows, cost.calls) == ((1, "budget_exhausted"), 9, 2)
