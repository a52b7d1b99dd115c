"""Elastic-net descent: one FISTA step for counterfactuals with prototypes and for contrastive explanations.

    c * hinge(x') + ||x' - o||^2 + beta * ||x' - o||_1 + penalties(x')

`o` is where nothing has been changed yet. The smooth part takes a gradient step, the L1 part the proximal
one: soft thresholding about `o`, then the box of values that are allowed, element by element. Each point
at which a gradient is taken is judged by the scores that come with it, and the valid one with the
smallest elastic net is kept: that is the answer, not where the steps end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from explainer_runtime.search.asks import Descend, Penalty
from explainer_runtime.search.proximal import per_row, project, rows_sum, shrink

_TINY = 1e-30
SLACK = 1e-5
"""Lead held back: a model's last bits depend on the batch, and `found` must hold when asked again."""
SHALLOW = 1e6
"""Added to the cost of a point that is valid, but has not the lead it should have."""
_EASE = 0.1
"""Log-probability by which the hinge aims beyond the border, so that steps do not end just short of it."""


class Contrast(NamedTuple):
    """Which classes are to lead, and how the model's scores count.

    Attributes:
        wanted: Classes of which one is to be on top `(L, K)`, float32, 1 or 0; all others are to be below.
        weight: c, the weight of the hinge `(L,)`.
        kappa: Least lead, as a probability `(L,)`.
        lead: How many times as likely as any class not wanted the best wanted one should be `(L,)`; at
            least 1. A point without that is valid, but only kept until there is one that has it.
        level: Least probability of the best wanted class `(L,)`.
    """

    wanted: Any
    weight: Any
    kappa: Any
    lead: Any
    level: Any


class Trust(NamedTuple):
    """How much nearer a point must be to its new class than to its old one.

    Attributes:
        prototypes: Of every class, in code space `(L, K, E)`.
        own: The old class `(L, K)`, float32, 1 or 0.
        least: Distance to the old prototype, in distances to the new one, that is asked for `(L,)`.
    """

    prototypes: Any
    own: Any
    least: Any


class Slope(NamedTuple):
    """How steps are taken, `(L,)` float32 each, but for the integers.

    Attributes:
        rate: First step size.
        decay: Whether it falls with the square root of the steps left, bool.
        fixed: Soft threshold whatever the step size.
        scaled: Soft threshold for each unit of step size.
        stride: Farthest that one step's gradient moves an element that the bounds let move, in input units;
            infinite is no limit.
        clip_low, clip_high: Bounds of each element of the gradient.
        momentum: Share of the last step that is carried on, 1 or 0.
        limit, patience: Most steps, and steps after the last better point, int32.
    """

    rate: Any
    decay: Any
    fixed: Any
    scaled: Any
    stride: Any
    clip_low: Any
    clip_high: Any
    momentum: Any
    limit: Any
    patience: Any


class Net(NamedTuple):
    """One descent a lane, and the best valid point it has passed.

    Attributes:
        x: Points `(L, *S)`.
        active: Lanes still descending `(L,)`.
        aim: What the scores should be.
        slope: How steps are taken.
        low, high: Bounds, broadcasting to `x` row by row.
        origin: Where nothing has been changed `(L, *S)`.
        previous: Points before momentum `(L, *S)`.
        beta: Weight of the L1 distance `(L,)`.
        gamma, theta: Weights of the penalties `(L,)`.
        target: Prototypes in code space `(L, E)`.
        trust: What else a valid point must be.
        steps, waited: Steps taken, and since the last better point `(L,)`, int32.
        best, best_scores, best_cost: The valid point of least elastic net, its scores, and that elastic
            net; plus `SHALLOW` without the lead; infinite if none.
    """

    x: Any
    active: Any
    aim: Contrast
    slope: Slope
    low: Any
    high: Any
    origin: Any
    previous: Any
    beta: Any
    gamma: Any
    theta: Any
    target: Any
    trust: Trust
    steps: Any
    waited: Any
    best: Any
    best_scores: Any
    best_cost: Any


def descend(
    state: Net,
    penalty: Penalty | None,
    *,
    log: bool,
    encode: Callable[[Any], Any] | None = None,
    steps: int | None = None,
    done: tuple[float, float],
) -> Descend:
    """The ask that runs a descent to its end, or for `steps` more steps without the model.

    Args:
        state: Where it stands; `begin` makes one.
        penalty: What is added to the loss.
        log: Whether the hinge is on log-probabilities, whose slope does not vanish where a softmax
            saturates, or on probabilities.
        encode: Points to codes; needed where points must be trusted, else None.
        steps: None runs it with the model. A number leaves the model out: nothing is judged.
        done: Progress before and after.
    """
    if steps is not None:
        return Descend(state, None, step, steps, done, penalty)
    most = int(state.slope.limit.max()) + 1
    taken = step if encode is None else trusting(encode)
    return Descend(state, log_hinge if log else hinge, taken, most, done, penalty)


def leads(aim: Contrast, scores: Any) -> tuple[Any, Any]:
    """Whether each point is valid, and whether it also has the lead it should have, `(L,)` bool each."""
    wanted, others = _sides(aim, scores)
    valid = (wanted - others >= aim.kappa + SLACK) & (wanted >= aim.level)
    return valid, valid & (wanted >= aim.lead * others)


def hinge(aim: Contrast, scores: Any) -> Any:
    """`c * max(0, best other + kappa - best wanted)`, or up to the least probability, `(L,)`.

    Source: the prediction loss of arXiv:1802.07623 and arXiv:1907.02584, on probabilities.
    """
    wanted, others = _sides(aim, scores)
    return aim.weight * tf.nn.relu(tf.maximum(others + aim.kappa, aim.level) - wanted)


def log_hinge(aim: Contrast, scores: Any) -> Any:
    """The same in log-probabilities, until the class leads as it should and has the least probability."""
    wanted, others = _sides(aim, scores)
    short = tf.maximum(
        tf.math.log(others + _TINY) + tf.math.log(aim.lead), tf.math.log(aim.level + aim.kappa + _TINY)
    )
    return aim.weight * tf.nn.relu(short - tf.math.log(wanted + _TINY) + _EASE)


def elastic(change: Any, beta: Any) -> Any:
    """`beta * ||change||_1 + ||change||^2` of each row `(L,)`."""
    return beta * rows_sum(tf.abs(change)) + rows_sum(change**2)


def step(state: Net, scores: Any, gradient: Any, trusted: Any = True) -> Net:
    """Judge the point, then take one proximal step from it.

    Every update reads the values before the step.

    Source: FISTA, Beck and Teboulle (2009), as arXiv:1802.07623 uses it. The
    implementation that people know shrinks by `beta` whatever the step size (`Slope.fixed`).
    """
    slope, k = state.slope, tf.cast(state.steps, tf.float32)
    change = state.x - state.origin
    state = _judged(state, scores, change, trusted)
    over = (state.steps >= slope.limit) | (state.waited >= slope.patience)

    left = tf.maximum(1.0 - k / tf.cast(slope.limit, tf.float32), 0.0)
    rate = slope.rate * tf.where(slope.decay, tf.sqrt(left), 1.0)
    pull = tf.clip_by_value(
        gradient + 2 * change, per_row(slope.clip_low, change), per_row(slope.clip_high, change)
    )
    free = tf.where(pull > 0, state.x > state.low, state.x < state.high)
    steepest = tf.reduce_max(tf.where(free, tf.abs(pull), 0.0), axis=list(range(1, len(pull.shape))))
    rate = tf.minimum(rate, tf.math.divide_no_nan(slope.stride, steepest) + _TINY)
    ahead = state.x - per_row(rate, change) * pull
    threshold = per_row(slope.fixed + slope.scaled * rate, change)
    shrunk = project(shrink(ahead, state.origin, threshold), state.low, state.high)
    carried = per_row(slope.momentum * (k + 1) / (k + 4), change)
    onward = project(shrunk + carried * (shrunk - state.previous), state.low, state.high)
    # Where nothing moves any more, nothing will: a smaller step leaves a fixed point no sooner.
    axes = list(range(1, len(change.shape)))
    over |= tf.reduce_all((onward == state.x) & (shrunk == state.previous), axis=axes)
    return state._replace(
        x=tf.where(per_row(over, change), state.x, onward),
        previous=shrunk,
        active=state.active & ~over,
        steps=state.steps + 1,
    )


@lru_cache(maxsize=64)
def trusting(encode: Callable[[Any], Any]) -> Callable[[Net, Any, Any], Net]:
    """`step`, where a point must also be trusted; `encode` maps points to codes `(L, E)`."""

    def trusting_step(state: Net, scores: Any, gradient: Any) -> Net:
        if scores is None:
            return step(state, scores, gradient)
        trust, code = state.trust, encode(state.x)
        far = tf.sqrt(tf.reduce_sum((code[:, None] - trust.prototypes) ** 2, axis=2))
        own = tf.reduce_sum(trust.own * far, axis=1)
        new = tf.gather(far, tf.argmax(scores, axis=1), batch_dims=1)
        return step(state, scores, gradient, own > trust.least * (new + 1e-10))

    return trusting_step


def _judged(state: Net, scores: Any, change: Any, trusted: Any) -> Net:
    """The state with its point taken, where it is valid and the best so far."""
    if scores is None:
        return state
    valid, deep = leads(state.aim, scores)
    cost = elastic(change, state.beta) + tf.where(deep, 0.0, SHALLOW)
    better = valid & trusted & (cost < state.best_cost)
    known = state.best_cost < SHALLOW
    return state._replace(
        waited=tf.where(better | ~known, 0, state.waited + 1),
        best=tf.where(per_row(better, change), state.x, state.best),
        best_scores=tf.where(better[:, None], scores, state.best_scores),
        best_cost=tf.where(better, cost, state.best_cost),
    )


def _sides(aim: Contrast, scores: Any) -> tuple[Any, Any]:
    """Probability of the best wanted class and of the best other one `(L,)` each."""
    wanted = tf.reduce_max(aim.wanted * scores, axis=1)
    return wanted, tf.reduce_max((1.0 - aim.wanted) * scores, axis=1)


def begin(
    origin: np.ndarray,
    aim: Contrast,
    slope: Slope,
    low: np.ndarray,
    high: np.ndarray,
    *,
    start: np.ndarray | None = None,
    beta: float,
    gamma: float,
    theta: float | np.ndarray,
    target: np.ndarray | None = None,
    trust: Trust | None = None,
) -> Net:
    """A descent from `start`, or from the origin, with a lane for each row.

    Args:
        origin, aim, slope, low, high, target, trust: As in `Net`; no target makes `theta` mean nothing, no
            trust trusts everything.
        start: Points `(L, *S)`.
        beta, gamma, theta: Weights, one for all lanes or one for each.
    """
    lanes = len(origin)
    start = origin if start is None else start
    count, none = np.zeros(lanes, np.int32), np.zeros((lanes, 1), np.float32)
    return Net(
        x=start,
        active=np.ones(lanes, bool),
        aim=aim,
        slope=slope,
        low=low,
        high=high,
        origin=origin,
        previous=start,
        beta=np.full(lanes, beta, np.float32),
        gamma=np.full(lanes, gamma, np.float32),
        theta=np.full(lanes, theta, np.float32),
        target=none if target is None else target,
        trust=trust or Trust(none[..., None], none, none[:, 0]),
        steps=count,
        waited=count,
        best=start,
        best_scores=np.zeros_like(aim.wanted),
        best_cost=np.full(lanes, np.inf, np.float32),
    )


def slopes(lanes: int, **values: float | np.ndarray) -> Slope:
    """A `Slope` with values for all lanes or one for each; see its attributes."""
    kinds = {"decay": bool, "limit": np.int32, "patience": np.int32}
    return Slope(
        **{name: np.full(lanes, value, kinds.get(name, np.float32)) for name, value in values.items()}
    )
