"""Laws of the building blocks: each is a closed form or an invariant over random inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, drive, graph, rowwise, weights

tf = pytest.importorskip("tensorflow")

from explainer_runtime.search.gradients import CentralDifferences, RandomDirections  # noqa: E402
from explainer_runtime.search.growth import grow  # noqa: E402
from explainer_runtime.search.incumbents import Incumbents  # noqa: E402
from explainer_runtime.search.proximal import project, shrink  # noqa: E402
from explainer_runtime.search.pruning import drop_harmless, drop_smallest, land, pull_in  # noqa: E402
from explainer_runtime.search.sparse import sparse_descent  # noqa: E402
from explainer_runtime.search.targets import Aim, arrived, log_reach, one_hot, reach  # noqa: E402
from explainer_runtime.solve import solve  # noqa: E402

from explainer_runtime.predictors import CallablePredictor  # noqa: E402
from explainer_runtime.search.asks import Rows, Stop, lockstep  # noqa: E402
from explainer_runtime.search.bisection import UNBOUNDED, Bracket, raise_or_lower  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# --- proximal --------------------------------------------------------------------------------------------


def test_shrink_returns_the_minimiser(rng):
    z, origin = rng.normal(size=(2, 5, 4)).astype("float32")
    shrunk = shrink(z, origin, 0.3).numpy()

    def cost(p):
        return 0.5 * (p - z) ** 2 + 0.3 * abs(p - origin)

    for nudge in (-1e-2, 1e-2):  # float32 resolves a cost change of 5e-5 near 1
        assert (cost(shrunk) <= cost(shrunk + nudge) + 1e-6).all()


def test_shrink_stays_between_its_arguments(rng):
    z, origin = rng.normal(size=(2, 50)).astype("float32")
    shrunk = shrink(z, origin, 0.5).numpy()
    assert (np.minimum(z, origin) <= shrunk).all()
    assert (shrunk <= np.maximum(z, origin)).all()


def test_project_is_idempotent_and_nearest(rng):
    z = rng.normal(size=(6, 3)).astype("float32")
    inside = project(z, -0.5, 0.25).numpy()
    np.testing.assert_array_equal(project(inside, -0.5, 0.25), inside)
    np.testing.assert_array_equal(inside, np.clip(z, np.float32(-0.5), np.float32(0.25)))


# --- bisection -------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(1e-6, 1e3))
def test_brackets_shrink_and_hold_their_value(outcomes, first):
    bracket = Bracket(np.zeros(1), np.full(1, 2 * UNBOUNDED), np.full(1, first))
    for outcome in outcomes:
        after = raise_or_lower(bracket, np.array([outcome]))
        assert bracket.low <= after.low <= after.high <= bracket.high or after.low > UNBOUNDED
        assert after.high - after.low <= bracket.high - bracket.low
        assert after.low <= after.value <= after.high or after.value > UNBOUNDED
        bracket = after


def test_bisection_closes_in_on_the_border():
    bracket, border = Bracket(np.zeros(3), np.full(3, 1e10), np.full(3, 1.0)), np.array([0.03, 1.7, 420.0])
    for _ in range(60):
        bracket = raise_or_lower(bracket, bracket.value <= border)
    np.testing.assert_allclose(bracket.value, border, rtol=1e-9)


# --- targets ---------------------------------------------------------------------------------------------


def test_reach_is_the_largest_probability_that_counts(rng):
    scores = rng.dirichlet(np.ones(5), size=8).astype("float32")
    classes = rng.integers(0, 5, 8)
    other = Aim(1 - one_hot(classes, 5), np.ones(8, "f"), np.full(8, 0.5, "f"))
    expected = [
        max(p for c, p in enumerate(row) if c != own) for row, own in zip(scores, classes, strict=True)
    ]
    np.testing.assert_array_equal(reach(other, scores), expected)
    np.testing.assert_array_equal(arrived(other, scores), np.array(expected) >= 0.5)


def test_falling_aims_arrive_below_their_level():
    scores = np.array([[0.2, 0.8], [0.6, 0.4]], "f")
    aim = Aim(np.array([[1, 0], [1, 0]], "f"), np.full(2, -1, "f"), np.full(2, 0.5, "f"))
    np.testing.assert_array_equal(arrived(aim, scores), [True, False])
    assert (np.diff(log_reach(aim, scores)) < 0).all()  # less of a falling class is better


# --- pruning ---------------------------------------------------------------------------------------------


def threshold_judge(origin, x, least):
    """Valid while the sum of changes, as the toy model reports it, stays at `least`."""
    return lambda points, scores, owner: scores[:, 0] >= least


def summed(ask: Rows) -> np.ndarray:
    return ask.x.reshape(len(ask.x), -1).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("prune", [drop_smallest, pull_in])
def test_pruning_never_loses_validity_and_never_moves_away(prune, rng):
    origin = np.zeros((6, 9), "f")
    x = rng.uniform(0, 1, (6, 9)).astype("f")
    judge = threshold_judge(origin, x, 2.0)
    kept = drive(prune(origin, x, judge), summed)
    was_valid = x.sum(axis=1) >= 2.0
    assert (kept.sum(axis=1)[was_valid] >= 2.0).all()
    assert (kept.sum(axis=1) <= x.sum(axis=1)).all()
    assert ((kept >= 0) & (kept <= x)).all()


def test_drop_smallest_undoes_exactly_what_may_go():
    origin, x = np.zeros((1, 5), "f"), np.array([[0.1, 5, 0.2, 3, 0.3]], "f")
    kept = drive(drop_smallest(origin, x, threshold_judge(origin, x, 8.25)), summed)
    np.testing.assert_array_equal(kept, np.array([[0, 5, 0, 3, 0.3]], "f"))


def test_drop_harmless_undoes_what_the_model_does_not_need():
    w = np.array([0, 0, 1, 0, 0, 1.0])
    origin, x = np.zeros((1, 6), "f"), np.array([[9, 9, 1, 9, 9, 1]], "f")
    kept = drive(
        drop_harmless(origin, x, lambda p, s, o: s[:, 0] >= 2, lambda s, o: s[:, 0]),
        lambda ask: (ask.x * w).sum(axis=1, keepdims=True),
    )
    np.testing.assert_array_equal(kept, [[0, 0, 1, 0, 0, 1]])


def test_land_finds_where_the_line_crosses():
    origin, x = np.zeros((3, 2), "f"), np.ones((3, 2), "f")
    border = np.array([0.1, 0.5, 1.9])
    landed = drive(land(origin, x, lambda p, s, o: s[:, 0] >= border[o]), summed)
    crossed = landed.sum(axis=1)
    assert (crossed >= border).all()
    assert (crossed - border <= 2 / 16**3 + 1e-6).all()


def test_incumbents_keep_the_closest_valid_point():
    held = Incumbents(np.zeros((2, 3), "f"), np.zeros((2, 3), "f"), np.full((2, 2), 0.5, "f"))
    points = np.array([[3, 0, 0], [1, 0, 0], [0.5, 0, 0], [2, 0, 0]], "f")
    held.offer(np.array([0, 0, 0, 1]), points, np.ones((4, 2), "f"), np.array([True, True, False, True]))
    np.testing.assert_array_equal(held.distance, [1, 2])
    np.testing.assert_array_equal(held.x, points[[1, 3]])


# --- gradients -------------------------------------------------------------------------------------------


def finite_difference(function, x, eps=1e-3):
    ahead = [
        function(x + eps * e.reshape(x.shape)) - function(x - eps * e.reshape(x.shape))
        for e in np.eye(x.size)
    ]
    return np.reshape(ahead, x.shape) / (2 * eps)


def test_central_differences_are_exact_for_a_quadratic(rng):
    a = rng.normal(size=12)
    estimate, x = CentralDifferences(0.1), rng.normal(size=(2, 3, 2))
    offsets = estimate.offsets((3, 2), 0).astype(np.float64)
    values = np.stack([[((row + o).reshape(-1) ** 2 @ np.tile(a, 1)[:6]) for o in offsets] for row in x])
    # The error of a central difference is the third derivative, which a quadratic does not have; what is
    # left is the rounding of the float32 offsets, 1e-8 of 1e-1.
    np.testing.assert_allclose(
        estimate.gradient(values, offsets), 2 * x * a[:6].reshape(3, 2), rtol=1e-5, atol=1e-5
    )


def test_random_directions_point_along_the_gradient_of_a_smooth_slope():
    height = np.linspace(-1, 1, 12)
    slope = np.cos(height)[:, None, None] * np.sin(height)[None, :, None] + 0.0
    estimate = RandomDirections(0.1, pairs=400, grid=6, seed=3)
    offsets = estimate.offsets(slope.shape, 0)
    gradient = estimate.gradient((offsets * slope).sum(axis=(1, 2, 3))[None], offsets)[0]
    cosine = (gradient * slope).sum() / np.linalg.norm(gradient) / np.linalg.norm(slope)
    # 36 dimensions and 400 pairs: the expected cosine is 1 / sqrt(1 + 37 / 400) = .957 of the projection.
    assert cosine > 0.9


def test_random_directions_are_the_same_for_every_row():
    estimate = RandomDirections(0.01, pairs=4)
    offsets = estimate.offsets(SHAPE, 5)
    values = np.random.default_rng(0).normal(size=(6, 8))
    together = estimate.gradient(values, offsets)
    alone = np.concatenate([estimate.gradient(row[None], offsets) for row in values])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(offsets, RandomDirections(0.01, pairs=4).offsets(SHAPE, 5))


def test_graph_gradients_equal_finite_differences_of_the_same_model(rng):
    w = weights()
    x = rng.uniform(0, 1, SHAPE).astype("f")
    aim = Aim(one_hot(np.array([1]), CLASSES), np.ones(1, "f"), np.ones(1, "f"))
    point = tf.constant(x[None])
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = log_reach(aim, graph(w).graph(point))
    exact = tape.gradient(value, point)[0].numpy()

    def log_p(at):
        logits = w.astype(np.float64) @ at.reshape(-1)
        return logits[1] - np.log(np.exp(logits).sum())

    # Second-order differences at 1e-3: error below 1e-5 of slopes of order 1, float32 adds 1e-6.
    np.testing.assert_allclose(exact, finite_difference(log_p, x.astype(np.float64)), atol=2e-4)


@pytest.mark.parametrize("coherent", [True, False])
def test_growing_by_graph_equals_growing_by_finite_differences(coherent, rng):
    w = weights()
    x = rng.uniform(0.3, 0.7, (5, *SHAPE)).astype("f")
    classes = (rowwise(w)(x).argmax(axis=1) + 1) % CLASSES
    bound = np.zeros((5, 1, 1, 1), "f")
    aim = Aim(one_hot(classes, CLASSES), np.ones(5, "f"), np.full(5, 0.9, "f"))

    def search():
        return (yield grow(x, aim, bound, bound + 1, width=2, patience=10, coherent=coherent))

    exact, _ = solve(search(), graph(w))
    estimated, _ = solve(search(), CallablePredictor(rowwise(w)), estimator=CentralDifferences(1e-2))
    np.testing.assert_array_equal(exact.steps, estimated.steps)
    np.testing.assert_allclose(exact.x, estimated.x, atol=1e-6)
    if not coherent:  # the neighbours of a random weight say nothing about it
        assert (rowwise(w)(exact.x)[np.arange(5), classes] >= 0.9 - 1e-6).all()


def test_coherent_growth_moves_the_pixel_whose_neighbourhood_counts_most():
    # One lone steep pixel, and a block of pixels half as steep: 1:2:1 along both axes gives the lone one
    # 4/16 of 2.0, and the middle of the block 16/16 of 1.0.
    slope = np.zeros((8, 8, 1), "f")
    slope[1, 1] = 2.0
    slope[4:7, 4:7] = 1.0
    w = np.stack([np.zeros(64, "f"), slope.ravel()])
    aim = Aim(one_hot(np.ones(1, int), 2), np.ones(1, "f"), np.full(1, 0.999, "f"))
    bound = np.zeros((1, 1, 1, 1), "f")
    moved = {}
    for coherent in (True, False):
        ask = grow(
            np.zeros((1, 8, 8, 1), "f"),
            aim,
            bound,
            bound + 1,
            width=1,
            patience=9,
            steps=1,
            coherent=coherent,
        )
        state, _ = solve(iter_once(ask), graph(w, (8, 8, 1)))
        moved[coherent] = np.argwhere(state.x[0, :, :, 0]).tolist()
    assert moved == {True: [[5, 5]], False: [[1, 1]]}


def test_descent_finds_a_change_that_no_neighbourhood_points_to():
    # Neighbours pull in opposite directions: smoothed, the slope is nought but at the border.
    signs = np.where(np.indices((6, 6)).sum(axis=0) % 2, 1.0, -1.0).astype("f")[..., None]
    w = np.stack([np.zeros(36, "f"), signs.ravel()])
    x = np.full((1, 6, 6, 1), 0.5, "f")
    bound = np.zeros((1, 1, 1, 1), "f")
    aim = Aim(one_hot(np.ones(1, int), 2), np.ones(1, "f"), np.full(1, 0.99, "f"))
    valid = []

    def judge(points, scores, lanes):
        valid.append(scores[:, 1] >= 0.99)
        return valid[-1]

    solve(
        sparse_descent(
            x, np.zeros(1, int), aim, bound, bound + 1, judge, width=2, patience=3, refine_steps=0
        ),
        graph(w, (6, 6, 1)),
    )
    assert np.concatenate(valid).any()


def test_growth_moves_at_most_the_features_it_may(rng):
    w = weights()
    x = rng.uniform(0.3, 0.7, (4, *SHAPE)).astype("f")
    bound = np.zeros((4, 1, 1, 1), "f")
    classes = (rowwise(w)(x).argmax(axis=1) + 1) % CLASSES
    aim = Aim(one_hot(classes, CLASSES), np.ones(4, "f"), np.full(4, 0.999, "f"))
    ask = grow(x, aim, bound, bound + 1, width=1, patience=100)
    state, _ = solve(iter_once(ask), graph(w))
    changed = (state.x != x).reshape(4, -1).sum(axis=1)
    assert (changed <= state.steps).all()
    assert ((state.x >= 0) & (state.x <= 1)).all()


def iter_once(ask):
    return (yield ask)


# --- lockstep --------------------------------------------------------------------------------------------


def counting_down(start):
    told = []
    while start:
        told.append(float((yield Rows(np.full((start, 1), start, "f"))).sum()))
        start -= 1
    return told


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_lockstep_tells_each_search_what_it_would_be_told_alone(starts):
    asks = []

    def answer(ask):
        asks.append(len(ask.x))
        return ask.x * 2

    together = drive(lockstep([counting_down(n) for n in starts]), answer)
    rounds = len(asks)
    assert together == [drive(counting_down(n), lambda ask: ask.x * 2) for n in starts]
    assert rounds == max(starts)


def test_a_stop_reaches_every_search_of_a_lockstep():
    def patient(name):
        try:
            yield Rows(np.zeros((1, 1), "f"))
        except Stop as stop:
            return f"{name} {stop.status}"

    assert drive(lockstep([patient("a"), patient("b")]), lambda ask: Stop("tired")) == ["a tired", "b tired"]
