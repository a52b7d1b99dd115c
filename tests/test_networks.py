"""Penalties of fitted networks: slopes against finite differences, curvature against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer_runtime.search.networks import Networks, Penalty, curvature

SHAPE = (3, 2, 1)
SIZE = 6
UNITS = [1.0, 255.0]


class Layer:
    """`f(x W)` of a row, with its slope, in float64: the networks that a penalty asks, as functions.

    Args:
        w: Weights `(6, T)`.
        shape: Of one row of its values.
        bent: Whether f is a hyperbolic tangent; else it is linear.
    """

    def __init__(self, w: np.ndarray, shape: tuple[int, ...], bent: bool = False) -> None:
        self.w, self.shape, self.bent = w, shape, bent

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x.reshape(len(x), -1).astype("d") @ self.w
        return (np.tanh(y) if self.bent else y).reshape(len(x), *self.shape)

    def slope(self, x, pull):
        y = self(x)
        weight = np.asarray(pull(y), "d").reshape(len(x), -1)
        if self.bent:
            weight = weight * (1 - y.reshape(len(x), -1) ** 2)
        slope = (weight @ self.w.T).reshape(x.shape)
        slope.flags.writeable = False  # as frameworks' arrays are
        return y, slope


def networks(seed: int, unit: float, bent: bool = True, encoder: bool = True) -> Networks:
    rng = np.random.default_rng(seed)
    scale = 1 / unit  # a network of rows in this unit
    rebuild = Layer(rng.normal(size=(SIZE, SIZE)) * scale, SHAPE, bent)
    return Networks(rebuild, Layer(rng.normal(size=(SIZE, 4)) * scale, (4,), bent) if encoder else None, unit)


def penalty(nets: Networks, seed: int, gamma: float, theta: float) -> tuple[Penalty, np.ndarray]:
    rng = np.random.default_rng(seed + 1)
    x = rng.uniform(0, nets.unit, (5, *SHAPE)).astype("f")
    codes = rng.normal(size=nets.codes(x).shape).astype("f")
    weights = (np.full(5, value, "f") * np.arange(1, 6, dtype="f") for value in (gamma, theta))
    return Penalty(nets, *weights, codes), x


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from(UNITS),
    st.booleans(),
    st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)]),
)
def test_slopes_are_finite_differences_of_values(seed, unit, encoder, weights):
    loss, x = penalty(networks(seed, unit, encoder=encoder), seed, *weights)
    lanes, nudge = np.array([4, 2, 0, 1, 3]), 1e-3 * unit
    value, slope = loss(x, lanes)
    np.testing.assert_allclose(value, loss.values(x, lanes), rtol=1e-5)
    for element in np.ndindex(SHAPE):
        up, down = x.astype("d"), x.astype("d")
        up[(slice(None), *element)] += nudge
        down[(slice(None), *element)] -= nudge
        rise = (loss.values(up, lanes).astype("d") - loss.values(down, lanes)) / (2 * nudge)
        # Values of some hundred at most in float32, so good to 1e-5, over 2e-3 of the unit.
        scale = 1e-2 * max(1.0, float(np.abs(value).max())) / unit
        np.testing.assert_allclose(slope[(slice(None), *element)], rise, rtol=1e-2, atol=scale)


@pytest.mark.parametrize("encoder", [True, False])
def test_the_loss_is_that_of_the_papers(encoder):
    nets = networks(0, 1.0, encoder=encoder)
    loss, x = penalty(nets, 0, 0.5, 2.0)
    lanes = np.arange(5)
    rebuilt = ((nets.autoencoder(x) - x) ** 2).reshape(5, -1).sum(axis=1)
    codes = nets.encoder(x) if encoder else x.reshape(5, -1)
    away = ((codes - loss.target) ** 2).sum(axis=1)
    np.testing.assert_allclose(loss.values(x, lanes), loss.gamma * rebuilt + loss.theta * away, rtol=1e-5)


def test_lengths_are_in_ranges_of_a_feature_whatever_the_unit():
    rng = np.random.default_rng(3)
    rebuild, encode, target = rng.normal(size=(SIZE, SIZE)), rng.normal(size=(SIZE, 4)), rng.normal(size=4)
    x = rng.uniform(0, 1, (5, *SHAPE)).astype("f")
    losses = []
    for unit in UNITS:  # the same rows and the same networks, in this unit
        nets = Networks(Layer(rebuild, SHAPE), Layer(encode / unit, (4,)), unit)
        loss = Penalty(nets, np.ones(5, "f"), np.ones(5, "f"), np.tile(target, (5, 1)).astype("f"))
        value, slope = loss(x * np.float32(unit), np.arange(5))
        losses.append((value, slope * unit))
    for one, other in zip(*losses, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_the_curvature_of_linear_networks_is_their_largest_squared_singular_value(unit):
    nets = networks(2, unit, bent=False)
    x = np.random.default_rng(0).uniform(0, unit, (3, *SHAPE)).astype("f")
    found = curvature(nets, x)
    expected = [
        np.linalg.norm(nets.autoencoder.w - np.eye(SIZE), 2) ** 2,
        np.linalg.norm(nets.encoder.w * unit, 2) ** 2,
    ]
    np.testing.assert_allclose(found, expected, rtol=0.1)  # 15 iterations, a gap of singular values as it is


def test_without_networks_the_curvature_is_that_of_the_square():
    assert curvature(Networks(None, None), np.zeros((1, *SHAPE), "f")).tolist() == [0, 1]


def test_twice_the_curvature_bounds_how_the_loss_of_linear_networks_bends():
    nets = networks(4, 1.0, bent=False)
    loss, x = penalty(nets, 4, 0.7, 1.3)
    lanes = np.arange(5)
    bend = loss.bend(curvature(nets, x))
    rng = np.random.default_rng(9)
    for _ in range(20):
        step = rng.normal(size=x.shape).astype("f")
        ahead, here, behind = (loss.values(x + side * step, lanes).astype("d") for side in (1, 0, -1))
        along = (ahead - 2 * here + behind) / (step**2).reshape(5, -1).sum(axis=1)
        # A tenth for the power iteration, and rounding of float32 values of some hundred.
        assert (along <= bend * 1.1 + 1e-2).all()


def test_what_weighs_nothing_is_not_asked():
    def untouchable(*_):
        raise AssertionError("asked")

    class Network:
        slope = __call__ = staticmethod(untouchable)

    nets = Networks(Network(), Network())
    loss = Penalty(nets, np.zeros(2, "f"), np.zeros(2, "f"), np.zeros((2, 4), "f"))
    x = np.ones((2, *SHAPE), "f")
    assert loss.empty
    np.testing.assert_array_equal(loss.values(x, np.arange(2)), 0)
    np.testing.assert_array_equal(loss(x, np.arange(2))[1], 0)
    assert not Penalty(nets, np.ones(2, "f"), np.zeros(2, "f")).empty
