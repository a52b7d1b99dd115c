"""The surrogate of masks: it knows which features matter from few draws, and how often a set should hold."""

from __future__ import annotations

import numpy as np
import pytest

from explainer_runtime.search import mask_surrogate

FEATURES = 12


def masks(count, seed=0, share=0.5):
    return np.random.default_rng(seed).random((count, FEATURES)) < share


def test_a_logistic_model_of_masks_is_recovered():
    weights = np.random.default_rng(1).normal(0, 1.5, FEATURES)
    shown = masks(20_000)
    kept = np.random.default_rng(2).random(len(shown)) < 1 / (1 + np.exp(-(shown @ weights - 1)))
    taught = mask_surrogate.fit(shown, np.where(kept, 1.0, -1.0))
    # A weight's standard error is 2 / sqrt(20,000 p (1 - p)), about .05 where answers are mixed.
    np.testing.assert_allclose(taught.weights, weights, atol=0.25)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_leads_teach_the_order_of_features_from_a_few_draws_in_any_unit(unit):
    weights = np.linspace(-1, 1, FEATURES)
    shown = masks(62)
    taught = mask_surrogate.fit(shown, unit * (shown @ weights - 0.2))
    assert np.argsort(taught.weights)[-3:].tolist() == [FEATURES - 3, FEATURES - 2, FEATURES - 1]
    np.testing.assert_allclose(
        taught.weights, mask_surrogate.fit(shown, shown @ weights - 0.2).weights, atol=1e-6
    )


def test_precision_is_the_mean_over_masks_that_show_the_set():
    taught = mask_surrogate.fit(masks(200), masks(200) @ np.linspace(-1, 1, FEATURES))
    sets, chance = masks(5, seed=3, share=0.2), masks(64, seed=4)
    expected = [
        np.mean([1 / (1 + np.exp(-(taught.bias + (one | mask) @ taught.weights))) for mask in chance])
        for one in sets
    ]
    np.testing.assert_allclose(taught.precision(sets, chance), expected, rtol=1e-9)


@pytest.mark.parametrize("lead", [1.0, -1.0, 0.0])
def test_answers_that_are_all_alike_are_no_trouble(lead):
    taught = mask_surrogate.fit(masks(30), np.full(30, lead))
    assert np.isfinite(taught.weights).all()
    (said,) = taught.precision(np.zeros((1, FEATURES), bool), masks(64))
    assert abs(said - (1 + np.sign(lead)) / 2) < 0.1


def test_more_features_than_draws_are_no_trouble():
    shown = np.random.default_rng(0).random((40, 300)) < 0.5
    taught = mask_surrogate.fit(shown, shown[:, 7] - 0.5)
    assert taught.weights.argmax() == 7
