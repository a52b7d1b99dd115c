"""Shapley values by regression, against their definition, the sum over all sets."""

from __future__ import annotations

import itertools
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer_runtime.search.shapley import _solved, design, values

seeds = st.integers(0, 10**6)


def every(count):
    return np.array(list(itertools.product([False, True], repeat=count)))


def joint(seed, count):
    """A probability: regions matter by themselves, in pairs, threes and fours."""
    rng = np.random.default_rng(seed)
    effects = rng.exponential(1, count)
    sets = [rng.choice(count, min(size, count), replace=False) for size in (2, 2, 2, 3, 3, 4)]
    weights = rng.normal(0, 2, len(sets))

    def said(shown):
        pairs = sum(w * shown[:, one].all(axis=1) for w, one in zip(weights, sets, strict=True))
        return 1 / (1 + np.exp(0.5 * effects.sum() - shown @ effects - pairs))

    return said


def exact(said, count):
    """By definition: what each adds, averaged over all orders in which regions could be shown."""
    sets = every(count)
    value = dict(zip(map(tuple, sets.tolist()), said(sets).tolist(), strict=True))
    found = np.zeros(count)
    for one in range(count):
        for shown in sets[~sets[:, one]]:
            size, more = int(shown.sum()), shown.copy()
            more[one] = True
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            found[one] += weight * (value[tuple(more.tolist())] - value[tuple(shown.tolist())])
    return found


def estimated(said, count, rows, seed=0):
    plan = design(count, rows, np.random.default_rng(seed))
    ends = said(np.array([[False] * count, [True] * count]))
    return *values(plan, said(plan.shown), *ends), plan, ends


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 8))
def test_with_all_sets_the_values_are_exact(seed, count):
    said = joint(seed, count)
    found, errors, plan, _ = estimated(said, count, 2**count)
    assert len(plan.shown) == 2**count - 2
    assert (errors == 0).all()
    np.testing.assert_allclose(found, exact(said, count), atol=1e-9)


@settings(deadline=None)
@given(seeds, st.integers(2, 30), st.integers(2, 300))
def test_values_add_up_whatever_was_asked(seed, count, rows):
    said = joint(seed, count)
    found, _, plan, (nothing, everything) = estimated(said, count, rows, seed)
    assert len(plan.shown) <= rows
    np.testing.assert_allclose(found.sum(), everything - nothing, atol=1e-9)
    assert not plan.shown.all(axis=1).any()
    assert plan.shown.any(axis=1).all()


@settings(deadline=None)
@given(seeds, st.integers(3, 30))
def test_where_regions_only_add_up_a_few_questions_are_exact(seed, count):
    effects = np.random.default_rng(seed).normal(size=count)
    found, errors, *_ = estimated(lambda shown: 0.3 + shown @ effects, count, 8 * count, seed)
    np.testing.assert_allclose(found, effects, atol=1e-7)
    np.testing.assert_allclose(errors, 0, atol=1e-7)


def test_at_200_questions_of_12_regions_the_order_is_nearly_that_of_the_exact_values():
    ranks = []
    for seed in range(20):
        said = joint(seed, 12)
        found, *_ = estimated(said, 12, 200, seed)
        order = [one.argsort().argsort() for one in (found, exact(said, 12))]
        ranks.append(np.corrcoef(*order)[0, 1])
    assert np.mean(ranks) >= 0.94


def test_the_standard_error_says_how_far_a_value_may_be_off():
    inside = []
    for seed in range(20):
        said, truth = joint(seed, 10), exact(joint(seed, 10), 10)
        for draw in range(5):
            found, errors, *_ = estimated(said, 10, 120, draw)
            inside.append(np.abs(found - truth) <= 2 * errors)
    assert 0.85 <= np.mean(inside) <= 0.995


@pytest.mark.parametrize("rows", [0, 2, 3])
def test_a_handful_of_questions_is_not_trusted(rows):
    found, errors, *_ = estimated(joint(0, 10), 10, rows)
    assert (errors >= np.abs(found)).all()
    assert np.isfinite(errors).all()


@pytest.mark.parametrize(("count", "rows"), [(3, 4), (6, 6), (20, 40), (40, 30)])
def test_with_few_different_sets_no_value_is_sure(count, rows):
    for seed in range(20):
        found, errors, plan, _ = estimated(joint(seed, count), count, rows, seed)
        if len(np.unique(plan.shown, axis=0)) < 2**count - 2:
            assert (errors >= np.abs(found)).all()


def test_equal_regions_are_treated_alike_however_few_questions_there_are():
    found, *_ = estimated(lambda shown: shown.mean(axis=1), 40, 30)
    np.testing.assert_allclose(found, 1 / 40, atol=1e-9)


def test_what_was_not_asked_is_guessed_better_than_it_is_left_out():
    rng, errors = np.random.default_rng(0), []
    for seed in range(10):
        weights, triples = rng.normal(size=10), rng.integers(10, size=(12, 3))

        def score(shown, weights=weights, triples=triples):
            return np.tanh((shown @ weights + shown[:, triples].all(axis=2).sum(axis=1)) / 2)

        plan = design(10, 120, np.random.default_rng(seed))
        ends = score(np.repeat([[False], [True]], 10, axis=1))
        truth = exact(score, 10)
        guessed, _ = values(plan, score(plan.shown), *ends)
        errors.append(
            [np.abs(one - truth).mean() for one in (guessed, _solved(plan, score(plan.shown), *ends))]
        )
    better = np.array(errors).mean(axis=0)
    assert better[0] < 0.9 * better[1]
