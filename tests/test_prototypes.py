"""What a class looks like near here: nearest prototypes against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from explainer_runtime.search.kept import Kept, as_bytes, halved, scaled
from explainer_runtime.search.prototypes import choose, collect, coreset, nearest, prototypes, trust


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("k", [None, 1, 4, 100])
def test_prototypes_are_those_of_brute_force(rng, k, point):
    codes, classes = rng.normal(size=(60, 5)).astype("f"), rng.integers(0, 3, 60) * 2
    asked = rng.normal(size=(4, 5)).astype("f")
    found = prototypes(collect(codes, classes), asked, 6, k, point)
    for row, code in enumerate(asked):
        for wanted in (0, 2, 4):
            own = codes[classes == wanted].astype("d")
            far = np.linalg.norm(own - code, axis=1)
            order = np.argsort(far)[:k]
            if k is None:
                expected, distance = own.mean(axis=0), np.linalg.norm(own.mean(axis=0) - code)
            elif point:
                expected, distance = own[order[-1]], far[order[-1]]
            else:
                expected, distance = own[order].mean(axis=0), far[order].mean()
            np.testing.assert_allclose(
                found.of(np.array([row]), np.array([wanted]))[0], expected, rtol=1e-5, atol=1e-6
            )
            assert found.distances[row, wanted] == pytest.approx(distance, rel=1e-5)
    assert np.isinf(found.distances[:, [1, 3, 5]]).all()  # classes without rows, of which nothing is kept


def test_neighbours_do_not_depend_on_the_batch(rng):
    known, asked = rng.normal(size=(200, 7)).astype("f"), rng.normal(size=(9, 7)).astype("f")
    together = nearest(asked, known, 5)
    for row, code in enumerate(asked):
        alone = nearest(code[None], known, 5)
        np.testing.assert_array_equal(together[0][row], alone[0][0])
        np.testing.assert_array_equal(together[1][row], alone[1][0])


def test_the_nearest_allowed_class_is_chosen():
    distances = np.asarray([[0.0, 2.0, 1.0], [3.0, np.inf, np.inf]])
    allowed = np.asarray([[False, True, True], [False, True, True]])
    np.testing.assert_array_equal(choose(distances, allowed), [2, -1])


def test_trust_is_the_ratio_of_distances():
    score = trust(np.zeros((1, 2), "f"), np.asarray([[3.0, 4.0]]), np.asarray([[0.0, 2.0]]))
    assert score[0] == pytest.approx(2.5)


@pytest.mark.parametrize("far", [0, 1e3, 1e4])
def test_neighbours_far_from_zero_are_the_nearest_as_well(rng, far):
    known = (far + rng.uniform(0, 1, (300, 50))).astype("f")
    asked = (far + rng.uniform(0, 1, (20, 50))).astype("f")
    exact = np.linalg.norm(asked[:, None].astype(float) - known[None], axis=2)
    np.testing.assert_array_equal(nearest(asked, known, 1)[0][:, 0], exact.argmin(axis=1))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.5, 0.5), (-0.9921875, 1), (0, 255), (-3, 40)])
def test_pixels_that_were_bytes_are_kept_as_bytes(rng, low, high):
    levels = rng.integers(0, 256, (7, 3, 2), np.uint8)
    x = scaled(levels, low, high)
    held = as_bytes(x, low, high)
    np.testing.assert_array_equal(held, levels)
    np.testing.assert_array_equal(Kept(held, low, high)[2:4], x[2:4])
    np.testing.assert_allclose(Kept(held, low, high, high - low)[1], x[1] / (high - low), rtol=1e-6)
    other = x.copy()
    other[6, 2, 1] = low + (high - low) * 0.3 / 255
    assert as_bytes(other, low, high) is other


def test_codes_are_halved_where_that_does_no_harm(rng):
    codes = rng.normal(size=(50, 8)).astype("f")
    half = Kept(halved(codes))
    assert half.held.dtype == np.float16
    moved = np.linalg.norm(half[:] - codes, axis=1)
    assert moved.max() <= 1e-3 * np.median(np.linalg.norm(codes - codes.mean(axis=0), axis=1))
    for far in (codes + 1e3, codes * 1e6, codes * 1e-8):  # of few digits there, none, or hardly any
        assert halved(far) is far


def test_a_coreset_keeps_what_the_others_lie_near_to(rng):
    middles = rng.normal(size=(6, 40)).astype("f") * 10
    codes = np.concatenate([one + rng.normal(size=(50, 40)).astype("f") * 0.1 for one in middles])
    kept = coreset(codes, 6)
    assert sorted(kept // 50) == list(range(6))  # one of each heap
    np.testing.assert_array_equal(kept, coreset(codes, 6))
    np.testing.assert_array_equal(coreset(codes, 300), np.arange(300))
    by_chance = rng.permutation(300)[:30]

    def far(chosen):
        return (nearest(codes, codes[np.sort(chosen)], 1)[1] ** 2).sum()

    assert far(coreset(codes, 30)) < far(by_chance)


def test_what_is_read_a_few_at_a_time_is_what_is_read_at_once(rng, monkeypatch):
    known, asked = rng.normal(size=(90, 7)).astype("f"), rng.normal(size=(5, 7)).astype("f")
    own = np.arange(10, 80)
    once = nearest(asked, known, 4, own)
    monkeypatch.setattr("explainer_runtime.search.prototypes._TOGETHER", 7 * 11)
    for one, few in zip(once, nearest(asked, Kept(known), 4, own), strict=True):
        np.testing.assert_array_equal(one, few)
