"""What is asked of an answer: probabilities and ratios as people say them, log-odds as searches use them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from explainer_runtime.search.criterion import Criterion, criterion, log_odds, one_hot

LANES = 20
CLEAR = 1e-3
"""Two numbers nearer than this are a kink to a finite difference, or a tie to a comparison of roundings."""
probabilities = st.floats(0.01, 0.99)


def log_scores(classes: int, seed: int, exclusive: bool = True, spread: float = 3.0) -> np.ndarray:
    """Of random logits `(LANES, classes)`, float64: finite differences of float32 numbers say little."""
    logits = np.random.default_rng(seed).normal(0, spread, (LANES, classes))
    if not exclusive:
        return -np.logaddexp(0, -logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def masks(classes: int, seed: int) -> np.ndarray:
    """Some wanted classes a lane, neither none nor all."""
    wanted = np.random.default_rng(seed).random((LANES, classes)) < 0.5
    wanted[np.arange(LANES), seed % classes] = True
    wanted[np.arange(LANES), (seed + 1) % classes] = False
    return wanted


def best(scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.where(among, scores, -np.inf).max(axis=1)


def decided(scores: np.ndarray, *masked: np.ndarray) -> np.ndarray:
    """Lanes whose best class is ahead of the second, in each of these masks."""
    ahead = np.ones(len(scores), bool)
    for among in masked:
        ranked = np.sort(np.where(among, scores, -1e9 * np.arange(1, 1 + scores.shape[1])), axis=1)
        ahead &= ranked[:, -1] - ranked[:, -2] > CLEAR
    return ahead


def finite_difference(function, at: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """The slope of a lane's value with respect to each of its numbers `(L, K)`."""
    nudges = eps * np.eye(at.shape[1])
    return np.stack([(function(at + one) - function(at - one)) / (2 * eps) for one in nudges], axis=1)


@st.composite
def criteria(draw) -> tuple[Criterion, np.ndarray]:
    """Any criterion, and scores that it may be asked about."""
    classes, seed, exclusive = draw(st.integers(2, 6)), draw(st.integers(0, 10**6)), draw(st.booleans())
    wanted, level = masks(classes, seed), draw(st.just(0.0) | probabilities)
    asked = criterion(
        wanted,
        against=draw(st.sampled_from([None, np.zeros_like(wanted)])),
        level=level,
        sign=draw(st.sampled_from([1.0, -1.0])) if level else 1.0,
        least=draw(st.just(0.0) | st.floats(0.01, 0.5)),
        most=draw(st.just(1.0) | st.floats(0.5, 0.99)),
        lead=draw(st.floats(1, 20)),
        kappa=draw(st.just(0.0) | st.floats(0.01, 0.5)),
        exclusive=exclusive,
    )
    return asked, log_scores(classes, seed + 1, exclusive)


# --- one number, its slope, its sign --------------------------------------------------------------------


@settings(deadline=None)
@given(criteria())
def test_pull_is_the_slope_of_the_margin(case):
    asked, scores = case
    likely, ahead = asked._parts(scores)
    smooth = decided(scores, asked.wanted, asked.against) & (np.abs(likely - ahead) > CLEAR)
    smooth &= best(scores, asked.wanted) < -CLEAR  # log(1 - p) has a pole at 0
    some, at = asked.only(smooth), scores[smooth]
    # Near that pole a central difference errs by (1e-6 / 1e-3)^2 / 3 of the slope, its rounding is 1e-10
    # of the values, and the slope itself is kept in float32.
    np.testing.assert_allclose(some.pull(at), finite_difference(some.margin, at), rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(criteria())
def test_valid_means_that_nothing_is_left_to_spare_but_more_than_nought(case):
    asked, scores = case
    np.testing.assert_array_equal(asked.valid(scores), asked.spare(scores) >= 0)


@settings(deadline=None)
@given(criteria())
def test_what_is_aimed_for_is_valid_where_the_aim_lies_in_the_band(case):
    asked, scores = case
    odds = asked.odds(scores)
    inside = (odds >= asked.least) & (odds <= asked.most)
    aimed = (asked.margin(scores) >= 0) & inside
    assert asked.valid(scores)[aimed].all()


@settings(deadline=None)
@given(criteria(), st.floats(-3, 3))
def test_a_shift_asks_for_so_many_log_odds_more(case, shift):
    asked, scores = case
    more = asked._replace(shift=np.full(LANES, shift))
    finite = asked.margin(scores) < 1e6  # what is not asked for is infinitely far met
    np.testing.assert_allclose((asked.margin(scores) - more.margin(scores))[finite], shift, atol=1e-9)
    upper = asked.most - asked.odds(scores)  # the far end of a band does not move
    free = (asked.spare(scores) < upper) & (more.spare(scores) < upper) & (asked.spare(scores) < 1e6)
    np.testing.assert_allclose((asked.spare(scores) - more.spare(scores))[free], shift, atol=1e-9)


def test_a_part_of_the_lanes_is_asked_what_the_whole_asks_of_them():
    scores = log_scores(4, 3)
    asked = criterion(masks(4, 2), level=np.linspace(0.1, 0.9, LANES), kappa=np.linspace(0, 0.4, LANES))
    some = np.array([7, 2, 11])
    for method in ("margin", "pull", "valid", "spare", "odds"):
        whole = getattr(asked, method)(scores)
        np.testing.assert_array_equal(getattr(asked.only(some), method)(scores[some]), whole[some])


# --- in the words of the papers -------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), probabilities, st.booleans())
def test_a_level_is_a_probability_of_the_best_wanted_class(classes, seed, level, exclusive):
    scores, wanted = log_scores(classes, seed, exclusive), masks(classes, seed)
    asked = criterion(wanted, against=np.zeros_like(wanted), level=level, exclusive=exclusive)
    p = np.exp(best(scores, wanted))
    assume((np.abs(p - level) > 1e-9).all())
    np.testing.assert_array_equal(asked.margin(scores) >= 0, p >= level)
    np.testing.assert_allclose(asked.margin(scores), np.log(p / (1 - p)) - np.log(level / (1 - level)), 1e-6)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), probabilities)
def test_a_falling_probability_arrives_from_above(classes, seed, level):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked = criterion(wanted, against=np.zeros_like(wanted), level=level, sign=-1)
    p = np.exp(best(scores, wanted))
    assume((np.abs(p - level) > 1e-9).all())
    np.testing.assert_array_equal(asked.margin(scores) >= 0, p <= level)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 0.5), st.floats(1, 20))
def test_a_lead_is_a_ratio_and_kappa_a_difference_of_probabilities(classes, seed, kappa, lead):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked = criterion(wanted, kappa=kappa, lead=lead)
    own, other = np.exp(best(scores, wanted)), np.exp(best(scores, ~wanted))
    assume((np.abs(own - lead * other - kappa) > 1e-9).all() and (np.abs(own - other - kappa) > 1e-9).all())
    np.testing.assert_array_equal(asked.margin(scores) >= 0, own >= lead * other + kappa)
    np.testing.assert_array_equal(asked.valid(scores), own >= other + kappa)  # the lead is only aimed for
    np.testing.assert_allclose(asked.margin(scores), np.log(own / (lead * other + kappa)), atol=1e-9)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.01, 0.6), st.floats(0.05, 0.4))
def test_valid_is_a_band_of_probabilities(classes, seed, least, width):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked = criterion(wanted, against=np.zeros_like(wanted), least=least, most=least + width)
    p = np.exp(best(scores, wanted))
    assume((np.abs(p - least) > 1e-9).all() and (np.abs(p - least - width) > 1e-9).all())
    np.testing.assert_array_equal(asked.valid(scores), (p >= least) & (p <= least + width))


def test_what_is_not_asked_for_is_met_by_any_scores():
    scores, wanted = log_scores(3, 0), masks(3, 0)
    asked = criterion(wanted, against=np.zeros_like(wanted))
    assert asked.valid(scores).all()
    assert (asked.margin(scores) > 1e6).all()


def test_to_change_the_class_the_new_one_has_to_lead():
    own, other, tie = np.log([[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]])
    asked = criterion(one_hot(np.ones(3, int), 2))
    np.testing.assert_array_equal(asked.valid(np.stack([own, other, tie])), [False, True, False])


def test_of_classes_that_share_the_first_place_the_one_of_lowest_number_is_the_answer():
    tied = np.log(np.float32([[0.4, 0.4, 0.2]]))
    assert criterion(one_hot([0], 3)).valid(tied).all()
    assert not criterion(one_hot([1], 3)).valid(tied).any()
    assert not criterion(~one_hot([0], 3), against=one_hot([0], 3)).valid(tied).any()


def test_log_odds_end_where_float32_probabilities_do():
    assert log_odds(np.array([0.5])) == 0
    assert log_odds(np.array([1.0])) == log_odds(np.array([1 - 1e-7])) == pytest.approx(16.118, abs=1e-3)
    assert np.isfinite(log_odds(np.array([0.0]))).all()


# --- probabilities that vanish --------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1.0, 30.0, 87.0, 200.0, 1000.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_no_gap_of_logits_is_too_wide(gap, exclusive):
    logits = np.array([[0.0, gap], [gap, 0.0], [gap, gap]], np.float32)
    if exclusive:
        shifted = logits - logits.max(axis=1, keepdims=True)
        scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    else:
        scores = -np.logaddexp(np.float32(0), -logits)
    wanted = one_hot(np.zeros(3, int), 2)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for kappa, lead, level in ((0.0, 1.0, 0.0), (0.1, 12.0, 0.0), (0.0, 1.0, 0.99)):
            asked = criterion(wanted, kappa=kappa, lead=lead, level=level, exclusive=exclusive)
            values = [asked.margin(scores), asked.pull(scores), asked.spare(scores), asked.odds(scores)]
            values += [*asked.hinge(scores), *asked.chance(scores)]
            assert all(np.isfinite(value).all() for value in values)
            assert (asked.pull(scores)[:, 0] > 0).all()  # a class of no probability is still to be had


@pytest.mark.parametrize("gap", [1.0, 30.0, 200.0, 1000.0])
def test_the_margin_of_two_classes_is_the_gap_of_their_logits(gap):
    scores = np.array([[-gap - np.log1p(np.exp(-gap)), -np.log1p(np.exp(-gap))]], np.float32)
    asked = criterion(one_hot(np.zeros(1, int), 2), level=0.5)
    # Float32 keeps the log-score of the loser to 6e-8 of itself.
    np.testing.assert_allclose(asked.margin(scores), -gap, rtol=1e-6)
    np.testing.assert_allclose(asked.pull(scores), [[1, -1]], rtol=1e-6)


# --- losses of the reference schedules ------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 0.5))
def test_the_hinge_is_zero_exactly_where_the_lead_is_reached(classes, seed, kappa):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked = criterion(wanted, kappa=kappa)
    lag = np.exp(best(scores, ~wanted)) + kappa - np.exp(best(scores, wanted))
    np.testing.assert_allclose(asked.hinge(scores)[0], np.maximum(lag, 0), atol=1e-9)
    smooth = decided(scores, wanted, ~wanted) & (np.abs(lag) > CLEAR)
    some, at = asked.only(smooth), scores[smooth]
    np.testing.assert_allclose(
        some.hinge(at)[1], finite_difference(lambda s: some.hinge(s)[0], at), atol=1e-6
    )


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_the_hinge_asks_for_the_least_probability_as_well(classes, seed, least):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked = criterion(wanted, against=np.zeros_like(wanted), least=least)
    p = np.exp(best(scores, wanted))
    np.testing.assert_allclose(asked.hinge(scores)[0], np.maximum(least - p, 0), atol=1e-9)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_the_chance_is_the_probability_of_the_best_wanted_class(classes, seed):
    scores, wanted = log_scores(classes, seed), masks(classes, seed)
    asked, clear = criterion(wanted), decided(scores, wanted)
    value, slope = asked.only(clear).chance(scores[clear])
    np.testing.assert_allclose(value, np.exp(best(scores, wanted))[clear], rtol=1e-12)
    np.testing.assert_allclose(
        slope, finite_difference(lambda s: asked.only(clear).chance(s)[0], scores[clear]), atol=1e-8
    )
