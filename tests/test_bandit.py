"""Bounds of Bernoulli means, the contest between arms, and the test that accepts one of them."""

from __future__ import annotations

from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainer_runtime.search.bandit import (
    Tally,
    contest,
    exceeds,
    kl_bernoulli,
    leading,
    lower_bound,
    upper_bound,
)
from explainer_runtime.search.verify import SLACK, verify

MEANS = st.floats(0, 1)
LEVELS = st.floats(1e-3, 20)
RESOLUTION = 1e-6  # of the bisection


def tally(*arms: tuple[int, int]) -> Tally:
    """Tries and hits of each arm."""
    return Tally(*np.array(arms).T)


def test_kl_has_its_closed_form():
    expected = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)
    assert kl_bernoulli(0.5, 0.25) == pytest.approx(expected, rel=1e-12)


@given(MEANS, MEANS)
def test_kl_is_finite_not_negative_and_zero_where_equal(p, q):
    assert 0 <= kl_bernoulli(p, q) < np.inf
    assert kl_bernoulli(p, p) == 0


@given(MEANS, LEVELS)
def test_bounds_are_the_roots_of_the_kl_equation(mean, level):
    upper, lower = upper_bound(mean, level), lower_bound(mean, level)
    assert 0 <= lower <= mean <= upper <= 1
    # On the far side of each bound the divergence is more than the level, on the near side it is less.
    for bound, outwards in ((upper, RESOLUTION), (lower, -RESOLUTION)):
        if 0 < bound < 1 and 0 <= bound - 2 * outwards <= 1:
            assert kl_bernoulli(mean, np.clip(bound + outwards, 0, 1)) >= level - 1e-9
            assert kl_bernoulli(mean, bound - 2 * outwards) <= level + 1e-9


@given(LEVELS)
def test_bounds_of_a_clean_record_are_exponentials(level):
    assert lower_bound(1.0, level) == pytest.approx(exp(-level), abs=2 * RESOLUTION)
    assert upper_bound(0.0, level) == pytest.approx(1 - exp(-level), abs=2 * RESOLUTION)
    assert (lower_bound(0.0, level), upper_bound(1.0, level)) == (0, 1)


@given(MEANS, LEVELS, LEVELS)
def test_bounds_widen_with_the_level(mean, one, other):
    less, more = sorted((one, other))
    assert upper_bound(mean, less) <= upper_bound(mean, more) + RESOLUTION
    assert lower_bound(mean, less) >= lower_bound(mean, more) - RESOLUTION


@pytest.mark.parametrize("p", [0.05, 0.5, 0.94])
def test_a_bound_fails_no_more_often_than_its_level_says(p):
    tries, level = 60, 2.0
    hits = np.arange(tries + 1)
    chance = np.array([comb(tries, k) * p**k * (1 - p) ** (tries - k) for k in hits])
    assert chance[upper_bound(hits / tries, level / tries) < p].sum() <= exp(-level)
    assert chance[lower_bound(hits / tries, level / tries) > p].sum() <= exp(-level)


@given(st.integers(1, 500), st.data(), st.floats(0.01, 0.99), LEVELS)
def test_exceeding_a_bar_is_having_the_lower_bound_above_it(tries, data, bar, level):
    arm = tally((tries, data.draw(st.integers(0, tries))))
    lower = lower_bound(arm.mean, level / tries)[0]
    if abs(lower - bar) > 2 * RESOLUTION:
        assert exceeds(arm, bar, level)[0] == (lower > bar)


def test_leaders_are_the_highest_means_and_the_longer_record_breaks_a_tie():
    arms = tally((10, 5), (20, 20), (50, 50), (40, 39))
    assert leading(arms, 3).tolist() == [2, 1, 3]


def test_rivals_are_those_that_may_be_better_by_more_than_tau():
    arms = tally((400, 360), (30, 25), (400, 200), (30, 26))
    level, tau = 2.0, 0.05
    round_ = contest(arms, 1, level, tau)
    weakest = lower_bound(0.9, level / 400)
    upper = upper_bound(arms.mean, level / arms.tries)
    assert round_.leaders.tolist() == [0]
    assert set(round_.rivals) == {arm for arm in (1, 2, 3) if upper[arm] - weakest > tau} == {1, 3}
    assert upper[round_.rivals].tolist() == sorted(upper[round_.rivals], reverse=True)


def test_a_contest_of_wide_tolerance_or_of_leaders_only_has_no_rivals():
    arms = tally((5, 3), (5, 2), (5, 4))
    assert not len(contest(arms, 1, 3.0, 0.999).rivals)
    assert not len(contest(arms, 3, 3.0, 0.01).rivals)


def test_an_arm_never_tried_has_a_mean_of_one_half():
    assert tally((0, 0)).mean == 0.5


# --- verification -----------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.floats(1, 15), st.floats(0.1, 0.99))
def test_a_clean_record_is_accepted_once_it_is_long_enough(tries, level, threshold):
    arm = tally((tries, tries))
    accepted = tries * -log(threshold - SLACK) > level  # the divergence of 1 from the bar
    assert verify(arm, arm, threshold, level, 1).valid[0] == accepted


@given(st.integers(300, 1900), st.floats(0.955, 1.0))
def test_the_draws_wanted_suffice_if_the_mean_stays(tries, mean):
    arm = Tally(np.array([tries]), np.array([tries * mean]))
    verdict = verify(arm, arm, 0.95, 4.6, 1)
    more = tries + verdict.wanted[0]
    assert not (verdict.valid[0] and verdict.wanted[0])
    if verdict.wanted[0]:
        assert verify(
            Tally(np.array([more]), np.array([more * mean])),
            *[Tally(np.array([more]), np.array([more * mean])), 0.95, 4.6, 1],
        ).valid[0]


def test_only_draws_of_its_own_prove_an_arm():
    lucky = tally((500, 500))
    assert not verify(lucky, tally((0, 0)), 0.95, 4.6, 100).valid[0]
    assert verify(lucky, tally((0, 0)), 0.95, 4.6, 100).promising[0]


def test_what_is_far_from_the_threshold_or_has_had_its_draws_is_given_up():
    far, long = tally((100, 60)), tally((2000, 1902))
    for arm in (far, long):
        verdict = verify(arm, arm, 0.95, 4.6, 100)
        assert (verdict.valid[0], verdict.wanted[0]) == (False, 0)


@pytest.mark.parametrize("p", [0.9, 0.93])
def test_an_arm_below_the_bar_is_hardly_ever_accepted(p):
    rng, level, accepted = np.random.default_rng(0), log(10 / 0.1), 0
    for _ in range(1000):
        arm = tally((0, 0))
        while (wanted := verify(arm, arm, 0.95, level, 100).wanted[0]) and arm.tries[0] < 2000:
            arm = Tally(arm.tries + wanted, arm.hits + rng.binomial(wanted, p))
        accepted += bool(verify(arm, arm, 0.95, level, 100).valid[0])
    # One look fails with probability .01 at the bar itself, .94, and less below; it looks a few times.
    assert accepted <= 10
