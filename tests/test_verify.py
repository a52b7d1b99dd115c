"""The test that proves a set: an exact tail, looks that no draw decides about, a risk that is dealt out."""

from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import drive

from explainer_runtime.search.subsets import Rules, hold
from explainer_runtime.search.verify import SHARES, SLACK, Trial, tail

TRIALS = st.builds(Trial.of, st.floats(0.05, 0.999), st.floats(1e-6, 0.9), st.integers(1, 300))


@given(st.integers(0, 60), st.data(), st.floats(0.01, 0.99))
def test_the_tail_is_the_sum_of_the_binomial_distribution(tries, data, p):
    hits = data.draw(st.integers(0, tries))
    expected = sum(comb(tries, k) * p**k * (1 - p) ** (tries - k) for k in range(hits, tries + 1))
    assert tail(hits, tries, p) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("tries", "p"), [(5000, 0.94), (5000, 0.5), (4000, 1e-9)])
def test_the_tail_of_a_long_record_neither_overflows_nor_exceeds_one(tries, p):
    values = [tail(hits, tries, p) for hits in range(0, tries + 1, 250)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)


@given(TRIALS)
def test_what_all_looks_at_all_sets_may_take_is_no_more_than_delta(trial):
    taken = sum(trial.level(rank, look) for rank in range(1, 500) for look in range(len(SHARES)))
    assert taken <= trial.delta
    assert taken == pytest.approx(trial.delta, rel=1 / 400)  # what is left is for sets beyond the 499th


@given(TRIALS, st.integers(1, 5), st.integers(0, 5000))
def test_a_record_is_looked_at_only_where_a_look_was_due(trial, rank, tries):
    if tries not in trial.looks:
        assert not trial.proven(tries, tries, rank)


@given(st.floats(0.3, 0.999), st.floats(1e-3, 0.5))
def test_a_clean_record_proves_the_first_set_after_the_draws_that_are_enough(threshold, delta):
    trial = Trial.of(threshold, delta)
    assert trial.proven(trial.enough, trial.enough, 1)


@given(TRIALS, st.integers(1, 4), st.data())
def test_the_draws_wanted_suffice_where_nothing_fails_any_more(trial, rank, data):
    tries = data.draw(st.sampled_from((0, *trial.looks)))
    hits = data.draw(st.integers(int(0.9 * tries), tries))
    if wanted := trial.wanted(tries, hits, rank):
        assert tries + wanted in trial.looks
        assert trial.proven(tries + wanted, hits + wanted, rank)


@given(TRIALS, st.integers(1, 4), st.data())
def test_what_is_proven_has_hit_as_often_as_the_threshold_says(trial, rank, data):
    tries = data.draw(st.sampled_from(trial.looks))
    least = next((hits for hits in range(tries + 1) if trial.proven(tries, hits, rank)), None)
    assert least is None or least >= trial.threshold * tries


def test_what_is_far_from_the_threshold_or_has_had_its_draws_is_given_up():
    trial = Trial.of(0.95, 0.1)
    most = trial.looks[-1]
    assert trial.wanted(trial.looks[0], trial.looks[0] // 2, 1) == 0
    assert trial.wanted(most, most - most // 18, 1) == 0


@given(st.integers(1, 400))
def test_no_fewer_draws_are_asked_for_than_are_worth_it(least):
    looks = (0, *Trial.of(0.95, 0.1, least).looks)
    assert min(np.diff(looks)) >= least


@pytest.mark.parametrize("precision", [0.85, 0.92, 0.939])
def test_false_acceptance_is_at_most_delta(precision):
    # The worst case: every set misses the bar, .94, by the least, so each proof is an error and there is no
    # other way to end; and the draws say nothing of which set is better.
    delta, searches, wrong = 0.1, 400, 0
    assert precision < 0.95 - SLACK
    for seed in range(searches):
        coin = np.random.default_rng([seed, 1])

        def ask(shown, coin=coin):
            return np.where(coin.random(len(shown)) < precision, 1.0, -1.0)
            yield

        holding = drive(hold(12, Rules(delta=delta, max_anchor_size=3), seed, ask), lambda ask: None)
        wrong += holding.found
    # Were it just delta, more than this many would come up once in a hundred thousand times.
    most = next(k for k in range(searches) if tail(k, searches, delta) < 1e-5)
    assert wrong < most


def test_one_set_alone_is_accepted_falsely_no_more_often_than_its_part_of_delta():
    # Exactly, without draws: the chance that any of the looks at a set of the bar's own probability passes.
    trial = Trial.of(0.95, 0.1)
    alive, accepted = np.ones(1), 0.0
    for before, look in zip((0, *trial.looks[:-1]), trial.looks, strict=True):
        more = look - before
        misses = np.arange(more + 1)
        logs = np.cumsum(np.append(0.0, np.log((more - misses[1:] + 1) / misses[1:])))
        chance = np.exp(logs + misses * log(1 - trial.bar) + (more - misses) * log(trial.bar))
        alive = np.convolve(alive, chance)  # by misses so far, of records that no look has passed
        passed = np.array([trial.proven(look, look - m, 1) for m in range(len(alive))])
        accepted += alive[passed].sum()
        alive[passed] = 0
    assert accepted <= sum(trial.level(1, look) for look in range(len(SHARES))) == pytest.approx(0.05)
