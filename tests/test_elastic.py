"""The FISTA step, the hinge, the bisection on c and nearest prototypes: closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tf = pytest.importorskip("tensorflow")

from explainer_runtime.search import elastic  # noqa: E402
from explainer_runtime.search.bisection import Bracket, lower_or_raise  # noqa: E402
from explainer_runtime.search.penalties import networks  # noqa: E402
from explainer_runtime.search.prototypes import choose, collect, nearest, prototypes, trust  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def aim(wanted, *, c=1.0, kappa=0.0, lead=1.0, level=0.0):
    values = (np.full(len(wanted), value, np.float32) for value in (c, kappa, lead, level))
    return elastic.Contrast(np.asarray(wanted, np.float32), *values)


def begin(origin, *, rate=0.1, beta=0.1, fixed=0.0, scaled=0.0, momentum=0.0, stride=np.inf, start=None):
    lanes = len(origin)
    slope = elastic.slopes(
        lanes, rate=rate, decay=False, fixed=fixed, scaled=scaled, stride=stride, clip_low=-1e3,
        clip_high=1e3, momentum=momentum, limit=1000, patience=1000,
    )  # fmt: skip
    bounds = np.full_like(origin, -1), np.full_like(origin, 1)
    return elastic.begin(
        origin, aim(np.tile([0.0, 1.0], (lanes, 1))), slope, *bounds, start=start, beta=beta, gamma=0, theta=0
    )


def test_steps_converge_to_the_elastic_net_minimiser(rng):
    # min_x  <g, x> + ||x - o||^2 + b ||x - o||_1 has x - o = -sign(g) max(|g| - b, 0) / 2.
    origin, slope = rng.uniform(-0.3, 0.3, (2, 3, 6)).astype("f")
    for momentum in (0.0, 1.0):
        state = begin(origin, scaled=0.1, momentum=momentum)
        for _ in range(200):
            state = elastic.step(state, None, slope)
        least = origin - np.sign(slope) * np.maximum(np.abs(slope) - 0.1, 0) / 2
        np.testing.assert_allclose(state.x, least, atol=1e-5)


def test_a_fixed_threshold_has_a_dead_zone(rng):
    # Nothing moves unless rate * |gradient| passes beta, whatever the step size.
    origin = np.zeros((1, 3), "f")
    state = elastic.step(begin(origin, rate=0.01, fixed=0.1), None, np.asarray([[9.0, 11.0, -11.0]], "f"))
    np.testing.assert_allclose(state.x, [[0, -0.01, 0.01]], atol=1e-6)


def test_no_step_moves_an_element_farther_than_the_stride(rng):
    origin = np.zeros((2, 5), "f")
    gradient = rng.normal(0, 100, (2, 5)).astype("f")
    state = elastic.step(begin(origin, stride=0.05), None, gradient)
    np.testing.assert_allclose(np.abs(state.x).max(axis=1), 0.05, rtol=1e-5)


def test_a_lane_at_a_fixed_point_stops():
    state = elastic.step(begin(np.zeros((1, 3), "f"), scaled=1.0), None, np.full((1, 3), 0.5, "f"))
    assert not state.active[0]


def test_the_best_point_is_the_valid_one_of_least_elastic_net():
    origin = np.zeros((1, 2), "f")
    state = begin(origin, start=np.asarray([[0.4, 0.0]], "f"))
    state = elastic.step(state, np.asarray([[0.3, 0.7]], "f"), np.zeros((1, 2), "f"))
    np.testing.assert_allclose(state.best_cost, 0.1 * 0.4 + 0.16, rtol=1e-6)
    kept = elastic.step(
        state._replace(x=np.asarray([[0.1, 0.0]], "f")), np.asarray([[0.7, 0.3]], "f"), origin
    )
    np.testing.assert_array_equal(kept.best, [[np.float32(0.4), 0]])


def test_a_point_with_its_lead_comes_before_a_nearer_one_without():
    scores = np.asarray([[0.1, 0.9], [0.4, 0.6]], "f")
    wanted = aim([[0, 1], [0, 1]], lead=3)
    valid, deep = elastic.leads(wanted, scores)
    np.testing.assert_array_equal(valid, [True, True])
    np.testing.assert_array_equal(deep, [True, False])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.floats(0, 0.5))
def test_hinge_is_zero_exactly_where_the_lead_is_reached(raw, kappa):
    scores = (np.asarray([raw]) / sum(raw)).astype("f")
    value = float(elastic.hinge(aim([[0, 1, 1]], c=2, kappa=kappa), scores)[0])
    expected = 2 * max(0, scores[0, 0] + np.float32(kappa) - scores[0, 1:].max())
    assert value == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.1, 100))
def test_brackets_on_c_shrink_and_hold_the_border(successes, first):
    bracket = Bracket(np.zeros(1), np.full(1, 1e10), np.full(1, first))
    for succeeded in successes:
        tried, before = bracket.value, bracket
        bracket = lower_or_raise(bracket, np.asarray([succeeded]))
        assert bracket.low >= before.low
        assert bracket.high <= before.high
        assert (bracket.value < tried) if succeeded else (bracket.value > tried)


# --- prototypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("k", [None, 1, 4, 100])
def test_prototypes_are_those_of_brute_force(rng, k, point):
    codes, classes = rng.normal(size=(60, 5)).astype("f"), rng.integers(0, 3, 60)
    asked = rng.normal(size=(4, 5)).astype("f")
    found = prototypes(collect(codes, classes, 4), asked, k, point)
    for row, code in enumerate(asked):
        for wanted in range(3):
            own = codes[classes == wanted].astype("d")
            far = np.linalg.norm(own - code, axis=1)
            order = np.argsort(far)[:k]
            if k is None:
                expected, distance = own.mean(axis=0), np.linalg.norm(own.mean(axis=0) - code)
            elif point:
                expected, distance = own[order[-1]], far[order[-1]]
            else:
                expected, distance = own[order].mean(axis=0), far[order].mean()
            np.testing.assert_allclose(found.codes[row, wanted], expected, rtol=1e-5, atol=1e-6)
            assert found.distances[row, wanted] == pytest.approx(distance, rel=1e-5)
    assert np.isinf(found.distances[:, 3]).all()  # a class without rows


def test_neighbours_do_not_depend_on_the_batch(rng):
    known, asked = rng.normal(size=(200, 7)).astype("f"), rng.normal(size=(9, 7)).astype("f")
    norms = (known**2).sum(axis=1)
    together = nearest(asked, known, norms, 5)
    for row, code in enumerate(asked):
        alone = nearest(code[None], known, norms, 5)
        np.testing.assert_array_equal(together[0][row], alone[0][0])
        np.testing.assert_array_equal(together[1][row], alone[1][0])


def test_the_nearest_allowed_class_is_chosen():
    distances = np.asarray([[0.0, 2.0, 1.0], [3.0, np.inf, np.inf]])
    allowed = np.asarray([[False, True, True], [False, True, True]])
    np.testing.assert_array_equal(choose(distances, allowed), [2, -1])


def test_trust_is_the_ratio_of_distances():
    score = trust(np.zeros((1, 2), "f"), np.asarray([[3.0, 4.0]]), np.asarray([[0.0, 2.0]]))
    assert score[0] == pytest.approx(2.5)


# --- penalties -------------------------------------------------------------------------------------------


def test_curvature_is_the_largest_squared_singular_value(rng):
    import keras

    rebuild, encode = rng.normal(size=(4, 4)).astype("f"), rng.normal(size=(4, 2)).astype("f")
    autoencoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False)])
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    autoencoder.set_weights([rebuild])
    encoder.set_weights([encode])
    found = networks(autoencoder, encoder).curvature(np.zeros((3, 4), "f"))
    expected = [np.linalg.norm(rebuild - np.eye(4), 2) ** 2, np.linalg.norm(encode, 2) ** 2]
    np.testing.assert_allclose(found, expected, rtol=0.1)  # 15 iterations


def test_an_encoder_inside_the_autoencoder_runs_once_and_says_the_same(rng):
    import keras

    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="tanh")])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    rows = keras.Input((4,))
    autoencoder = keras.Model(rows, decoder(encoder(rows)))
    x = rng.normal(size=(3, 4)).astype("f")
    shared = networks(autoencoder, encoder)
    assert shared._decode is not None
    np.testing.assert_allclose(shared.errors(x), networks(autoencoder, None).errors(x), rtol=1e-6)


def test_a_descent_takes_the_same_steps_on_both_roads():
    from toys import SHAPE, graph, rowwise, weights

    from explainer_runtime.predictors import CallablePredictor
    from explainer_runtime.search.gradients import CentralDifferences
    from explainer_runtime.solve import solve

    w, rows = weights(), np.random.default_rng(2).uniform(0.3, 0.7, (2, *SHAPE)).astype("f")
    penalty = networks(None, None).penalty(False, True)
    slope = elastic.slopes(
        2, rate=0.01, decay=False, fixed=0, scaled=0.1, stride=np.inf, clip_low=-1e3, clip_high=1e3,
        momentum=0, limit=3, patience=100,
    )  # fmt: skip
    state = elastic.begin(
        rows, aim(np.tile([0.0, 1.0, 0.0], (2, 1)), lead=1e6), slope, np.zeros_like(rows), np.ones_like(rows),
        beta=0.1, gamma=0, theta=1.0, target=np.full((2, 16), 0.5, "f"),
    )  # fmt: skip

    def search():
        return (yield elastic.descend(state, penalty, log=True, done=(0, 1)))

    exact, _ = solve(search(), graph(w))
    asked, _ = solve(search(), CallablePredictor(rowwise(w)), estimator=CentralDifferences(1e-2))
    # Three steps of 0.01, each with a central difference whose error is eps^2 times a third derivative of
    # at most 3^3, stay within 1e-3; the hinge has a kink where two other classes tie, so not many steps.
    np.testing.assert_allclose(asked.x, exact.x, atol=1e-3)
    assert (exact.x != rows).any()
