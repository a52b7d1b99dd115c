"""Drive a search to its end: answer what it asks, as far as the budget reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from explainer_runtime.driver.estimated import Estimator, estimate
from explainer_runtime.driver.meter import Budget, Meter, Progress
from explainer_runtime.errors import InvalidOption, PredictorTimeout
from explainer_runtime.explanation import BUDGET_EXHAUSTED, Cost
from explainer_runtime.predictors import meaning
from explainer_runtime.predictors.base import Layered, Predictor, WhiteBox, named
from explainer_runtime.predictors.tally import tally
from explainer_runtime.search.asks import Aside, Ask, Drawn, Maps, Rows, Search, Slopes, Stop

T = TypeVar("T")

SHARD = 32
"""Rows whose slopes are asked for together at most: convolutions of small images are cheapest at 8 to 32."""
LOOK = 0.25
"""Seconds between two looks at the clock, where one row does not take longer."""
_NUMBERS = 2**18
"""In the rows of one shard, of a model of which nothing is known."""
_FORWARD = 2
"""Rows that are scored in one go, for each whose slope is."""
TINY = float(np.finfo(np.float32).tiny)
"""Where probabilities end: what an endpoint answers with less counts as this much."""
_FREE = 2**62
"""Rows and calls that a search on a model of our own may take: its time is limited, its questions are not."""


def solve(
    search: Search[T],
    predictor: Predictor,
    budget: Budget | None = None,
    *,
    estimator: Estimator | None = None,
    cancel: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    watch: Callable[[Ask, Any], None] | None = None,
    shard: int | None = None,
) -> tuple[T, Cost]:
    """Drive `search` to its end.

    Args:
        search: What to run; see `search/asks.py`.
        predictor: The model that answers.
        budget: Most rows, calls and seconds. When one is spent the search is told to stop and returns the
            best it has.
        estimator: Where slopes come from; None is the model itself.
        cancel: Asked several times a second; true stops at once.
        progress: Told after each answer.
        watch: Shown every ask with its answer, neither of which it may change.
        shard: Rows whose slopes a model in this process is asked for between two looks at the clock; see
            `shard_of`.

    Returns:
        What the search returned, and what it cost.

    Raises:
        Cancelled: `cancel` said so.
        PredictorError: The predictor failed; what had been found is lost with it.
    """
    meter = Meter(budget or Budget(), cancel, progress, shard)
    try:
        ask = next(search)
        while True:
            try:
                answer = _answer(ask, predictor, estimator, meter)
            except Stop as stop:
                meter.cut = True
                search.throw(stop)
                raise RuntimeError("a search that was told to stop has asked again") from None
            if watch is not None:
                watch(ask, answer)
            ask = search.send(answer)
    except StopIteration as end:
        return end.value, meter.cost()
    finally:
        search.close()


def shard_of(model: WhiteBox, row: np.ndarray) -> int:
    """How many rows like `row` `(1, *S)` this model can be asked the slopes of in `LOOK` seconds.

    One of few numbers, found once for as long as the model is here: what a model says of a row depends on the
    rows beside it in the last bits, so explanations that were cut by the clock of the moment would never be
    the same twice. A model on an accelerator says how many rows it is best asked together, its `abreast`.
    """
    most = getattr(model, "abreast", SHARD)
    if most > SHARD and _seconds(model, np.repeat(row, most, axis=0), time.perf_counter) <= LOOK:
        return int(most)
    one = _seconds(model, row, time.process_time)
    return next((size for size in (SHARD, 8, 2) if size * one <= LOOK), 1)


def _seconds(model: WhiteBox, rows: np.ndarray, clock: Callable[[], float]) -> float:
    """What a slope of these rows takes at least."""
    took = []
    for _ in range(3):  # the first compiles
        begun = clock()
        model.slope(rows, np.ones_like)
        took.append(clock() - begun)
    return min(took)


def _shard(meter: Meter, x: np.ndarray | Drawn) -> int:
    return meter.shard or max(1, min(SHARD, _NUMBERS // max(1, int(np.prod(x.shape[1:])))))


def _answer(ask: Ask, predictor: Predictor, estimator: Estimator | None, meter: Meter) -> Any:
    match ask:
        case Rows():
            log_scores = _log_scores(ask.x, predictor, meter)
            meter.report(ask.done, ask.best)
            return log_scores
        case Slopes():
            if estimator is not None:
                told = estimate(ask, estimator, partial(_log_scores, predictor=predictor, meter=meter), meter)
            elif isinstance(predictor, WhiteBox):
                told = _slopes(ask, predictor, meter)
            else:
                raise InvalidOption("gradient='exact' needs the model in this process", "gradient")
            meter.steps += len(ask.x)
            found = () if ask.best is None else ask.best[np.isfinite(ask.best)]
            meter.report(ask.done, float(np.median(found)) if len(found) else None)
            return told
        case Maps():
            if not isinstance(predictor, Layered):
                raise InvalidOption("grad_cam needs a Keras model in this process", "algorithm")
            meter.allow(len(ask.x))
            features, head = predictor.halves(ask.layer)
            maps = features(ask.x)
            log_scores, slope = _slopes(Slopes(maps, ask.pull), head, meter)
            meter.steps += len(maps)
            return log_scores, maps, slope
        case Aside():
            # Time and cancellation are those of the whole explanation; rows of a model of ours are free.
            aside = Budget(_FREE, _FREE, max(0.0, meter.left()))
            answer, cost = solve(ask.search, ask.model, aside, cancel=meter.cancel)
            meter.steps += cost.steps
            meter.cut |= cost.cut
            return answer


def _log_scores(x: np.ndarray | Drawn, predictor: Predictor, meter: Meter) -> np.ndarray:
    """Log-scores of all rows, in as few calls as their messages, and looks at the clock, allow."""
    size = predictor.rows_per_call(x.shape[1:])
    extra = getattr(predictor, "extra_rows", 0)  # a canary goes along with each call; see predictors/canary
    # All or nothing: half an answer is of no use to a search.
    meter.allow(len(x) + extra * -(-len(x) // size), -(-len(x) // size))
    white = predictor if isinstance(predictor, WhiteBox) else None
    answers, start = [], 0
    while start < len(x):
        meter.look()
        end = size * (
            start // size + 1
        )  # of this call; one to a model in this process is cut for the clock's sake
        part = x[start : min(end, start + _FORWARD * _shard(meter, x)) if white else end]
        begun, left = time.monotonic(), meter.left()
        meter.spend(len(part) + extra, int(start % size == 0))
        start += len(part)
        try:
            with tally() as more:
                answers.append(white.log_scores(part) if white else _logs(predictor, part, left))
        except PredictorTimeout:
            if meter.left() <= 0:  # our own deadline, not a slow model: the best so far is an answer
                raise Stop(BUDGET_EXHAUSTED) from None
            raise
        finally:
            meter.spend(more.rows, more.calls)
        meter.waited += time.monotonic() - begun
    return np.concatenate(answers)


def _logs(predictor: Predictor, x: np.ndarray, left: float) -> np.ndarray:
    scores = predictor(x, timeout=max(left, 1e-3))
    meaning.check_logarithms(scores, named(predictor))
    return np.log(np.maximum(scores, TINY))


def _slopes(ask: Slopes, model: WhiteBox, meter: Meter) -> tuple[np.ndarray, np.ndarray]:
    """Log-scores and slopes from the model itself, shard by shard."""
    meter.allow(len(ask.x), 1)
    said, slopes, start = [], [], 0
    while start < len(ask.x):
        meter.look()
        size = 1 if ask.alone else _shard(meter, ask.x)
        which = np.arange(start, min(len(ask.x), start + size))
        start, begun = start + len(which), time.monotonic()
        meter.spend(len(which), int(which[0] == 0))  # one call, however it is cut
        with tally() as more:
            log_scores, slope = model.slope(ask.x[which], partial(_pulled, ask, which))
        meter.spend(more.rows, more.calls)
        said.append(log_scores)
        slopes.append(slope)
        meter.waited += time.monotonic() - begun
    return np.concatenate(said), np.concatenate(slopes)


def _pulled(ask: Slopes, which: np.ndarray, log_scores: np.ndarray) -> np.ndarray:
    return ask.pull(log_scores, which)
