"""RISE and HSIC: what they say of functions whose answers are known, and what they do not claim."""

from __future__ import annotations

import numpy as np
import pytest

from explainer_runtime.search.occlusion import halves, hsic, rise

WEIGHTS = np.array([3, -2, 1, 0.5, 0, 0, 0, 0])


def told(algorithm, function, rows=400, seed=0):
    masks = halves(8, rows, np.random.default_rng(seed), paired=algorithm is rise)
    return algorithm(masks, function(masks))


def test_rise_says_of_a_linear_function_half_its_weights_within_its_errors():
    values, errors = np.array([told(rise, lambda m: m @ WEIGHTS, seed=seed) for seed in range(50)]).swapaxes(
        0, 1
    )
    # The mean of fifty has a seventh of their spread; five of these are hardly ever passed.
    np.testing.assert_allclose(values.mean(axis=0), WEIGHTS / 2, atol=5 * errors.mean() / np.sqrt(50))
    assert 0.9 < (np.abs(values - WEIGHTS / 2) < 2 * errors).mean() <= 1


def test_rise_with_all_masks_is_the_mean_over_masks_that_show_a_region():
    rng = np.random.default_rng(1)
    masks = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)
    half = masks[:128]
    paired, score = np.concatenate([half, ~half]), rng.normal(size=256)
    at = paired @ (1 << np.arange(8))
    values, _ = rise(paired, score[at])
    truth = [score[masks[:, one]].mean() - score.mean() for one in range(8)]
    np.testing.assert_allclose(values, truth, atol=1e-12)


def test_hsic_is_the_trace_of_the_centred_kernels_less_its_mean_by_chance():
    rng = np.random.default_rng(2)
    masks, score = halves(5, 40, rng, paired=False), rng.normal(size=40)
    values, _ = hsic(masks, score)
    apart = np.abs(score[:, None] - score)
    kernel = np.exp(-0.5 * (apart / np.median(apart[np.triu_indices(40, 1)])) ** 2)
    centre = np.eye(40) - 1 / 40
    for one, value in enumerate(values):
        same = centre @ (masks[:, None, one] == masks[:, one]).astype(float) @ centre
        truth = np.trace(same @ kernel) - np.trace(same) * np.trace(centre @ kernel) / 39
        assert value == pytest.approx(truth / 40**2, abs=1e-12)
    drawn = [hsic(masks[rng.permutation(40)], score)[0] for _ in range(2000)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), 0, atol=5 * np.std(drawn) / np.sqrt(2000))


def test_hsic_orders_regions_by_what_they_do_and_sees_what_has_no_direction():
    values, errors = told(hsic, lambda m: m @ WEIGHTS, rows=2000)
    assert list(np.argsort(-values)[:4]) == [0, 1, 2, 3]
    values, errors = told(hsic, lambda m: np.where(m[:, 0] == m[:, 1], 1.0, -1.0) + m[:, 2])
    assert values[2] > 2 * errors[2]


@pytest.mark.parametrize("algorithm", [rise, hsic])
def test_hardly_anything_is_claimed_of_a_region_that_does_nothing(algorithm):
    claims = []
    for seed in range(100):
        values, errors = told(algorithm, lambda m: m @ WEIGHTS, rows=200, seed=seed)
        claims.append(np.abs(values[4:]) > 2 * errors[4:])
    assert np.mean(claims) < 0.08


@pytest.mark.parametrize("algorithm", [rise, hsic])
def test_nothing_is_claimed_of_a_score_that_never_changes(algorithm):
    values, errors = told(algorithm, lambda m: np.ones(len(m)))
    assert not (np.abs(values) > 2 * errors).any()
