"""Bisection on a weight: brackets shrink, hold their value and close in on the border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer_runtime.search.bisection import UNBOUNDED, Bracket, lower_or_raise, raise_or_lower

outcomes = st.lists(st.booleans(), min_size=1, max_size=30)


@given(outcomes, st.floats(1e-6, 1e3))
def test_brackets_shrink_and_hold_their_value(outcomes, first):
    bracket = Bracket(np.zeros(1), np.full(1, 2 * UNBOUNDED), np.full(1, first))
    for outcome in outcomes:
        after = raise_or_lower(bracket, np.array([outcome]))
        assert bracket.low <= after.low <= after.high <= bracket.high or after.low > UNBOUNDED
        assert after.high - after.low <= bracket.high - bracket.low
        assert after.low <= after.value <= after.high or after.value > UNBOUNDED
        bracket = after


@settings(deadline=None)
@given(outcomes, st.floats(0.1, 100))
def test_a_weight_that_succeeds_is_lowered_and_one_that_fails_is_raised(outcomes, first):
    bracket = Bracket(np.zeros(1), np.full(1, 1e10), np.full(1, first))
    for succeeded in outcomes[:12]:
        tried, before = bracket.value, bracket
        bracket = lower_or_raise(bracket, np.asarray([succeeded]))
        assert bracket.low >= before.low
        assert bracket.high <= before.high
        assert (bracket.value < tried) if succeeded else (bracket.value > tried)


@pytest.mark.parametrize("search", [raise_or_lower, lower_or_raise])
def test_bisection_closes_in_on_the_border(search):
    bracket, border = Bracket(np.zeros(3), np.full(3, 1e10), np.full(3, 1.0)), np.array([0.03, 1.7, 420.0])
    for _ in range(60):
        below = bracket.value <= border
        bracket = search(bracket, below if search is raise_or_lower else ~below)
    np.testing.assert_allclose(bracket.value, border, rtol=1e-9)


def test_brackets_of_several_are_those_of_each():
    bracket = Bracket(np.array([0.0, 1.0]), np.array([1e10, 4.0]), np.array([2.0, 3.0]))
    together = raise_or_lower(bracket, np.array([True, False]))
    for row, succeeded in enumerate((True, False)):
        alone = raise_or_lower(Bracket(*(part[row : row + 1] for part in bracket)), np.array([succeeded]))
        for ours, theirs in zip(alone, together, strict=True):
            assert ours[0] == theirs[row]
