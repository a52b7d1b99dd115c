"""The schedules that people know, step by step: what a threshold leaves alone, which lambda is tried next."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Linear, drive, weights

from explainer_runtime.search import fista, wachter
from explainer_runtime.search.best import Best
from explainer_runtime.search.bisection import UNBOUNDED
from explainer_runtime.search.criterion import criterion, one_hot
from explainer_runtime.search.least_change import Problem
from explainer_runtime.search.spaces import Pixels

W = weights(seed=5, classes=2)
X = np.random.default_rng(1).uniform(0.3, 0.7, (3, 16)).astype("f")
MODEL = Linear(W)
LANES = np.arange(3)


def problem(beta: float = 0.1) -> Problem:
    space = Pixels(X, 1.0, np.zeros(16, "f"), np.ones(16, "f"))
    none = np.zeros_like(X)
    other = one_hot(1 - MODEL.log_scores(X).argmax(axis=1), 2)
    return Problem(space, *space.bounds(), none, criterion(other), np.full(3, beta, "f"), np.ones(3, "f"))


def proximal(**settings) -> tuple[Best, list[np.ndarray], list[np.ndarray]]:
    """What a search by proximal steps holds, where it went and the slopes that it was told."""
    known = {
        "c_init": 1.0, "c_steps": 1, "max_iterations": 1, "learning_rate_init": 0.01, "beta": 0.1,
        "momentum": False, "clip": (-1e3, 1e3),
    } | settings  # fmt: skip
    sought, went, slopes = problem(known["beta"]), [], []
    best = Best(sought.start, MODEL.log_scores(X))

    def answer(ask):
        assert ask.alone  # many hundred steps: the last bit must not depend on the batch
        said, slope = MODEL.slope(ask.x, lambda said: ask.pull(said, LANES))
        went.append(ask.x - X)
        slopes.append(slope)
        return said, slope

    drive(fista.bisect(sought, fista.Fista(**known), LANES, best), answer)
    return best, went, slopes


@pytest.mark.parametrize("c", [1.0, 30.0, 300.0])
def test_a_fixed_threshold_has_a_dead_zone(c):
    # Nothing moves unless rate * |gradient| passes beta, whatever the step size.
    _, (_, moved), (slope, _) = proximal(c_init=c)
    step = 0.01 * slope
    expected = -np.sign(step) * np.maximum(np.abs(step) - 0.1, 0)
    np.testing.assert_allclose(moved, np.clip(expected, -X, 1 - X), atol=1e-6)


def test_gradients_are_clipped():
    _, (_, moved), _ = proximal(c_init=1e6, beta=0.0, clip=(-5.0, 3.0))
    assert set(np.unique(moved.round(4))) <= {np.float32(0.05), np.float32(-0.03), 0.0}


def test_without_a_threshold_the_steps_end_at_the_least_square():
    # c |w.d - need|_+ + |d|^2 for a c large enough: the projection on the border of the class.
    best, _, _ = proximal(
        beta=0.0, c_init=10.0, c_steps=6, max_iterations=300, learning_rate_init=0.02, momentum=True
    )
    slope = (W[1] - W[0]).astype("d")
    assert best.found.all()
    for row, d in zip(X, best.x, strict=True):
        least = abs(slope @ row) / np.linalg.norm(slope)
        assert least * 0.999 <= np.linalg.norm(d) <= least * 1.1


def test_the_tag_is_the_weight_that_led_there():
    best, _, _ = proximal(c_init=3.0, max_iterations=100, beta=0.001)
    np.testing.assert_array_equal(best.tag[best.found], 3.0)


# --- Adam -----------------------------------------------------------------------------------------------


def walked(**settings) -> tuple[Best, list[np.ndarray]]:
    known = {
        "target_proba": 1.0, "lam_init": 0.1, "max_lam_steps": 2, "max_iter": 20, "early_stop": 50,
        "learning_rate_init": 0.05, "decay": True,
    } | settings  # fmt: skip
    sought, went = problem(), []
    asked = sought.criterion._replace(least=np.full(3, 2.0))
    best = Best(sought.start, MODEL.log_scores(X))

    def answer(ask):
        assert ask.alone
        went.append(ask.x)
        return MODEL.slope(ask.x, lambda said: ask.pull(said, np.arange(len(ask.x))))

    adam = wachter.Adam(**known)
    drive(wachter.bisect(sought.space, sought.low, sought.high, asked, adam, LANES, best), answer)
    return best, went


def test_the_first_step_of_adam_is_the_rate_along_the_sign_of_the_slope():
    _, went = walked()
    # (f - p)^2 falls as the wanted class rises; at the input the L1 distance has no slope.
    wanted = problem().criterion.wanted
    slope = np.where(wanted[:, :1], W[0] - W[1], W[1] - W[0])
    # m / sqrt(v) is the sign at the first step; the least slope here is 1.5e-7, beside an epsilon of 1e-8.
    np.testing.assert_allclose(went[1] - went[0], 0.05 * np.sign(slope), rtol=0.1)


def test_the_nearest_valid_point_on_the_way_is_held_under_its_lambda():
    best, went = walked(max_iter=300)
    assert best.found.any()
    for lane in np.flatnonzero(best.found):
        odds = problem().criterion.odds(MODEL.log_scores(X + best.x))[lane]
        assert odds >= 2.0
        assert best.cost[lane] == pytest.approx(np.abs(best.x[lane]).sum(), rel=1e-6)
        assert best.tag[lane] > 0
    assert all(((rows >= 0) & (rows <= 1)).all() for rows in went)


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [
        ([0, 0, 3, 4, 5], 1e-4, 1e-2),  # the second largest that did, the smallest that did not
        ([0, 0, 0, 0, 2], 1e-5, 1e-4),  # only one did
        ([1, 2, 3, 4, 5], 1e-2, 1e-1),  # all did: up to the first
        ([0, 0, 0, 0, 0], 0.0, 1e-5),  # none did
        ([5, 0, 0, 0, 5], 1e-5, 1e-4),  # as each starts where another ended, they may cross
    ],
)
def test_the_bracket_on_lambda_is_what_the_sweep_has_shown(hits, low, high):
    lams = 0.1 / 10.0 ** np.arange(5)
    bracket = wachter._bracket(lams, np.array(hits)[:, None])
    assert bracket.low == pytest.approx(low)
    assert bracket.high == pytest.approx(high)
    assert bracket.low <= bracket.value <= bracket.high < UNBOUNDED
