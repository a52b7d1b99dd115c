"""The one driver: runs a search against a predictor, under a budget.

A search only asks (`search/asks.py`). Everything that answering takes is here and nowhere else: calls and
rows are counted and never exceed the budget, the clock and the cancel flag are looked at between calls and
between chunks of compiled steps, progress is reported, lanes that have finished leave the batch.

There are two roads to the model. A predictor with a graph in this process has gradient and step compiled
together and run in chunks of steps inside one TensorFlow loop: no Python a step. Any other predictor sees
only rows: the gradient is estimated from them (`search/gradients.py`), all lanes of a step in one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from explainer_runtime.errors import Cancelled, InvalidOption, PredictorTimeout
from explainer_runtime.explanation import BUDGET_EXHAUSTED, Cost
from explainer_runtime.predictors import GradientPredictor, Predictor
from explainer_runtime.predictors.tally import tally
from explainer_runtime.search.asks import Aside, Ask, Descend, Penalty, Rows, Search, Stop
from explainer_runtime.search.gradients import Estimator

T = TypeVar("T")

SHARD = 32
"""Lanes that run as one compiled batch: convolutions of small images are cheapest at 8 to 32 rows."""
CHUNK = 20
"""Compiled steps between two looks at the clock; lanes that have finished leave the batch there."""
_FREE = 2**62
"""Rows and calls that a search on a model of our own may take: its time is limited, its questions are not."""


@dataclass(frozen=True)
class Budget:
    """What one explanation may take from the model."""

    rows: int = 200_000
    calls: int = 20_000
    seconds: float = 30.0


@dataclass(frozen=True)
class Progress:
    """How far an explanation is: `fraction` of the search, cost so far, distance of the best answers."""

    fraction: float
    rows: int
    calls: int
    best: float | None = None


def solve(
    search: Search[T],
    predictor: Predictor,
    budget: Budget | None = None,
    *,
    estimator: Estimator | None = None,
    cancel: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    watch: Callable[[Ask, Any], None] | None = None,
) -> tuple[T, Cost]:
    """Drive `search` to its end.

    Args:
        search: What to run; see `search/asks.py`.
        predictor: The model that answers.
        budget: Most rows, calls and seconds. When one is spent the search is told to stop and returns the
            best it has.
        estimator: Where gradients come from; None is the predictor's own graph.
        cancel: Asked between calls; true stops at once.
        progress: Told after each call or chunk.
        watch: Shown every ask with its answer, neither of which it may change.

    Returns:
        What the search returned, and what it cost.

    Raises:
        Cancelled: `cancel` said so.
        PredictorError: The predictor failed; what had been found is lost with it.
    """
    meter = _Meter(budget or Budget(), cancel, progress)
    try:
        ask = next(search)
        while True:
            try:
                answer = _answer(ask, predictor, estimator, meter)
            except Stop as stop:
                search.throw(stop)
                raise RuntimeError("a search that was told to stop has asked again") from None
            if watch is not None:
                watch(ask, answer)
            ask = search.send(answer)
    except StopIteration as end:
        return end.value, Cost(meter.calls, meter.rows, meter.waited, meter.steps)
    finally:
        search.close()


def _answer(ask: Ask, predictor: Predictor, estimator: Estimator | None, meter: _Meter) -> Any:
    match ask:
        case Rows():
            scores = _scores(ask.x, predictor, meter)
            meter.report(ask.done, ask.best)
            return scores
        case Descend():
            if ask.objective is None and ask.penalty is not None:
                return _descend_alone(ask, ask.penalty, meter)
            if estimator is None:
                if not isinstance(predictor, GradientPredictor):
                    raise InvalidOption("gradient='exact' needs the model in this process", "gradient")
                return _descend_compiled(ask, predictor, meter)
            return _descend_estimated(ask, predictor, estimator, meter)
        case Aside():
            # Time and cancellation are those of the whole explanation; rows of a model of ours are free.
            aside = Budget(_FREE, _FREE, max(0.0, meter.left()))
            answer, cost = solve(ask.search, ask.model, aside, cancel=meter.cancel)
            meter.steps += cost.steps
            return answer


class _Meter:
    """Counts what is spent, and stops the search before a limit is passed."""

    def __init__(
        self,
        budget: Budget,
        cancel: Callable[[], bool] | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.budget, self.cancel, self._progress = budget, cancel, progress
        self.rows = self.calls = self.steps = 0
        self.waited = 0.0
        self._best: float | None = None
        self._deadline = time.monotonic() + budget.seconds

    def allow(self, rows: int, calls: int = 1) -> None:
        """Pass if `rows` more, in `calls` calls, are within the budget."""
        self.look()
        if self.rows + rows > self.budget.rows or self.calls + calls > self.budget.calls:
            raise Stop(BUDGET_EXHAUSTED)

    def affordable(self, rows: int) -> int:
        """How many more calls of `rows` rows each are within the budget; 0 when the time is up."""
        self.check()
        if self.left() <= 0:
            return 0
        return min((self.budget.rows - self.rows) // rows, self.budget.calls - self.calls)

    def check(self) -> None:
        """Pass if nobody has cancelled."""
        if self.cancel is not None and self.cancel():
            raise Cancelled("the explanation was cancelled")

    def look(self) -> None:
        """Pass if nobody has cancelled and there is time left."""
        self.check()
        if self.left() <= 0:
            raise Stop(BUDGET_EXHAUSTED)

    def left(self) -> float:
        """Seconds left."""
        return self._deadline - time.monotonic()

    def spend(self, rows: int, calls: int, seconds: float) -> None:
        self.rows += rows
        self.calls += calls
        self.waited += seconds

    def report(self, done: float, best: float | None = None) -> None:
        """Tell how far the search is; the best that it has ever named is told until it names a better one."""
        self._best = self._best if best is None else best
        if self._progress is not None:
            self._progress(Progress(min(1.0, done), self.rows, self.calls, self._best))


def _scores(x: np.ndarray, predictor: Predictor, meter: _Meter) -> np.ndarray:
    """Scores of all rows, in as few calls as their messages allow."""
    size = predictor.rows_per_call(x.shape[1:])
    parts = [x[start : start + size] for start in range(0, len(x), size)]
    extra = getattr(predictor, "extra_rows", 0)  # a canary goes along with each call; see predictors/watched
    # All or nothing: half an answer is of no use to a search.
    meter.allow(len(x) + extra * len(parts), len(parts))
    answers = []
    for part in parts:
        meter.look()
        start, left = time.monotonic(), meter.left()
        # Counted before it is known to succeed: the model has the work either way.
        meter.spend(len(part) + extra, 1, 0.0)
        try:
            with tally() as more:
                answers.append(predictor(part, timeout=max(left, 1e-3)))
        except PredictorTimeout:
            if meter.left() <= 0:  # our own deadline, not a slow model: the best so far is an answer
                raise Stop(BUDGET_EXHAUSTED) from None
            raise
        finally:
            meter.spend(more.rows, more.calls, time.monotonic() - start)
    return np.concatenate(answers)


# --- gradients from the graph ---------------------------------------------------------------------------


def _descend_compiled(ask: Descend, predictor: GradientPredictor, meter: _Meter) -> Any:
    run = compiled(ask, predictor.loops, predictor.graph)
    state, left, begun = ask.state, ask.steps, False
    while left > 0 and state.active.any():
        steps = min(CHUNK, left)
        lanes = np.flatnonzero(state.active)
        for shard in _shards(lanes):
            affordable = meter.affordable(len(shard))
            if not affordable:
                if not begun:
                    raise Stop(BUDGET_EXHAUSTED)
                return state  # as far as the budget reached; the next ask is refused
            begun = True
            start = time.monotonic()
            part = _lanes(state, shard)
            after, rows, taken = run(part, np.int32(min(steps, affordable)))
            state = _merged(state, shard, after)
            meter.spend(int(rows), int(taken), time.monotonic() - start)
            meter.steps += int(rows)
        left -= steps
        meter.report(ask.done[0] + (ask.done[1] - ask.done[0]) * (1 - left / ask.steps))
    return state


def _descend_alone(ask: Descend, penalty: Penalty, meter: _Meter) -> Any:
    """Descend the penalty, without the model."""
    run = compiled(ask, penalty.loops)
    state, left = ask.state, ask.steps
    while left > 0 and state.active.any():
        steps = min(CHUNK, left)
        for shard in _shards(np.flatnonzero(state.active)):
            meter.look()
            after, taken, _ = run(_lanes(state, shard), np.int32(steps))
            state = _merged(state, shard, after)
            meter.steps += int(taken)
        left -= steps
    meter.report(ask.done[1])
    return state


def compiled(
    ask: Descend,
    loops: dict[Any, Callable[..., Any]],
    graph: Callable[[Any], Any] | None = None,
) -> Callable[..., Any]:
    """The loop of gradient and step as one graph, made once for each model, objective, penalty and step.

    It is a plain TensorFlow loop: XLA's max-pooling gradient is several times slower on CPU.
    """
    import tensorflow as tf

    signature = tf.nest.map_structure(_any_lanes, ask.state)
    # Not the ask itself: it holds arrays, and what is compiled must not keep them.
    objective, penalty, step = ask.objective, ask.penalty, ask.step
    key = (objective, penalty, step, tuple(tf.nest.flatten(signature)))
    if key in loops:
        return loops[key]

    def advance(state: Any) -> Any:
        scores = None
        with tf.GradientTape() as tape:
            tape.watch(state.x)
            value = 0.0 if penalty is None else penalty.value(state)
            if graph is not None and objective is not None:
                scores = graph(state.x)
                value += objective(state.aim, scores)
        return _where(tf, state.active, step(state, scores, tape.gradient(value, state.x)), state)

    @tf.function(autograph=False, input_signature=[signature, tf.TensorSpec((), tf.int32)])
    def loop(state: Any, steps: Any) -> Any:
        def more(k: Any, state: Any, rows: Any) -> Any:
            return (k < steps) & tf.reduce_any(state.active)

        def body(k: Any, state: Any, rows: Any) -> Any:
            return k + 1, advance(state), rows + tf.reduce_sum(tf.cast(state.active, tf.int32))

        start = (tf.constant(0), state, tf.constant(0))
        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, start)
        taken, state, rows = tf.while_loop(more, body, start, shape_invariants=shapes)
        return state, rows, taken

    return loops.setdefault(key, loop)


def _any_lanes(array: np.ndarray) -> Any:
    """What arrays of this form, with any number of lanes, look like to a compiled loop."""
    import tensorflow as tf

    return tf.TensorSpec((None, *array.shape[1:]), array.dtype)


def _where(tf: Any, active: Any, new: Any, old: Any) -> Any:
    def choose(a: Any, b: Any) -> Any:
        return tf.where(tf.reshape(active, [-1] + [1] * (len(b.shape) - 1)), a, b)

    return tf.nest.map_structure(choose, new, old)


def _shards(lanes: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(lanes), SHARD):
        yield lanes[start : start + SHARD]


def _lanes(state: Any, lanes: np.ndarray) -> Any:
    """These lanes of `state`."""
    return _map(lambda array: array[lanes], state)


def _merged(state: Any, lanes: np.ndarray, part: Any) -> Any:
    """`state` with these lanes replaced by those of `part`."""

    def replace(old: np.ndarray, new: Any) -> np.ndarray:
        whole = np.array(old)
        whole[lanes] = new
        return whole

    return _map(replace, state, part)


def _map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` over the arrays of NamedTuples of the same form."""
    if hasattr(tree, "_fields"):
        return type(tree)(*(_map(function, *parts) for parts in zip(tree, *others, strict=True)))
    return function(tree, *others)


# --- gradients from answers alone -----------------------------------------------------------------------


def _descend_estimated(ask: Descend, predictor: Predictor, estimator: Estimator, meter: _Meter) -> Any:
    state, remembered = ask.state, np.zeros_like(ask.state.x)
    for k in range(ask.steps):
        lanes = np.flatnonzero(state.active)
        if not len(lanes):
            break
        part = _lanes(state, lanes)
        meter.steps += len(lanes)
        offsets = estimator.offsets(part.x.shape[1:], k)
        # The point itself goes first: its scores are what the step is told.
        probes = np.concatenate([np.zeros_like(offsets[:1]), offsets])
        rows = (part.x[:, None] + probes[None]).reshape(-1, *part.x.shape[1:])
        scores = _scores(rows, predictor, meter).reshape(len(lanes), len(probes), -1)
        values = np.stack([_values(ask, part.aim, lane, told) for lane, told in enumerate(scores)])
        gradient = estimator.gradient(values[:, 1:], offsets).astype(np.float32)
        gradient = remembered[lanes] = gradient + np.float32(estimator.memory) * remembered[lanes]
        if ask.penalty is not None:
            gradient += _slope(ask.penalty, part)
        state = _merged(state, lanes, ask.step(part, scores[:, 0], gradient))
        meter.report(ask.done[0] + (ask.done[1] - ask.done[0]) * (k + 1) / ask.steps)
    return state


def _slope(penalty: Penalty, state: Any) -> np.ndarray:
    """The exact gradient of the penalty at each lane's point `(L, *S)`."""
    import tensorflow as tf

    signature = tf.nest.map_structure(_any_lanes, state)
    key = ("slope", *tf.nest.flatten(signature))
    if key not in penalty.loops:

        @tf.function(autograph=False, input_signature=[signature])
        def slope(state: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(state.x)
                value = penalty.value(state)
            return tape.gradient(value, state.x)

        penalty.loops.setdefault(key, slope)
    return np.asarray(penalty.loops[key](state))


def _values(ask: Descend, aim: Any, lane: int, scores: np.ndarray) -> np.ndarray:
    """The objective at every probe of one lane `(P, K)` -> `(P,)`.

    Lane by lane, because the last bits of a vectorised logarithm depend on how many there are.
    """
    assert ask.objective is not None
    own = _map(lambda array: np.repeat(array[lane : lane + 1], len(scores), axis=0), aim)
    return np.asarray(ask.objective(own, scores), dtype=np.float64)
