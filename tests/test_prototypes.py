"""What a class looks like near here: nearest prototypes against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from explainer_runtime.search.prototypes import choose, collect, nearest, prototypes, trust


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
    assert found.codes.shape == (4, 3, 5)


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
