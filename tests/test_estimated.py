"""Slopes from answers alone: inside the bounds, exact where they can be, at a price known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES, SHAPE, Counting, Linear, rowwise, weights

from explainer_runtime.driver import Budget, estimated, solve
from explainer_runtime.driver.estimated import CentralDifferences, RandomDirections, estimate
from explainer_runtime.driver.meter import Meter
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.search.asks import Slopes, Stop
from explainer_runtime.spec import CEM, Counterfactual, CounterfactualProto, Inputs, Limits

W = weights(seed=3)
PATIENT = Limits(max_seconds=3600)
SHAPES = [(9,), (4, 4, 1), (6, 10, 2)]


def told(x: np.ndarray, estimator, function, budget: Budget | None = None):
    """Values `(N, 1)` and slopes of a function `(N, *S) -> (N,)`, as an estimator has them."""
    ask = Slopes(x, lambda said, which: np.ones_like(said))
    return estimate(ask, estimator, lambda rows: function(rows)[:, None], Meter(budget or Budget()))


def linear(g: np.ndarray):
    """The function whose slope is `g` everywhere, each row on its own."""
    return lambda rows: (rows.astype("d") * g).reshape(len(rows), -1).sum(axis=1)


# --- inside the bounds ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([(0.0, 1.0), (-0.5, 0.5), (0.0, 255.0)]),
    st.floats(1e-4, 2.0), st.sampled_from([CentralDifferences, RandomDirections]),
)  # fmt: skip
def test_no_pair_lies_outside_the_bounds_wherever_the_point_lies(shape, seed, bounds, eps, kind):
    low, high = map(np.float32, bounds)
    rng = np.random.default_rng(seed)
    x = rng.uniform(low, high, shape).astype("f")
    x[rng.random(shape) < 0.5] = low
    x[rng.random(shape) < 0.3] = high
    for up, down in kind(eps * (high - low), low, high).pairs(x, seed % 7):
        for side in (up, down):
            assert side.dtype == np.float32
            assert ((side >= low) & (side <= high)).all()


@pytest.mark.parametrize("gradient", ["random", "full"])
@pytest.mark.parametrize("schedule", ["fast", "reference"])
def test_a_model_is_never_asked_about_rows_outside_its_range(gradient, schedule):
    model = rowwise(W)

    def strict(x):
        assert ((x >= 0) & (x <= 1)).all()
        return model(x)

    inputs = Inputs(shape=SHAPE, low=0, high=1, classes=CLASSES)
    x = np.random.default_rng(1).integers(0, 2, (2, *SHAPE)).astype("f")  # black and white
    short = {"schedule": schedule, "gradient": gradient}
    if schedule == "fast":
        short["effort"] = "quick"
    steps = {"max_iterations": 5, "c_steps": 2}
    for spec in (
        Counterfactual(**short, tol=0.3, max_iter=10, max_lam_steps=1),
        CounterfactualProto(**short, **steps),
        CEM(**short, **steps, no_info_val=0.5, mode="PP"),
    ):
        run = prepare(fit(spec, inputs=inputs), Counting(strict, 4096))
        assert len(run(x, {"max_rows": 3000}, limits=PATIENT)["found"]) == 2


# --- central differences --------------------------------------------------------------------------------


def test_central_differences_are_exact_for_a_quadratic():
    rng = np.random.default_rng(7)
    a, x = rng.normal(size=(3, 2)), rng.uniform(-1, 1, (2, 3, 2)).astype("f")
    _, slopes = told(x, CentralDifferences(0.1, -5, 5), lambda rows: linear(a)(rows**2))
    # The error of a central difference is the third derivative, which a quadratic does not have; what is
    # left is the rounding of the float32 rows, 1e-7 of 1 over 2e-1.
    np.testing.assert_allclose(slopes, 2 * x * a, atol=1e-5)


def test_differences_of_a_linear_function_are_exact_at_the_bounds_too():
    rng = np.random.default_rng(8)
    g = rng.normal(size=(3, 2))
    x = np.array([[[0, 1], [1, 0], [0.5, 0.004]], [[1, 1], [0, 0], [0.996, 0.3]]], "f")
    _, slopes = told(x, CentralDifferences(0.01, 0, 1), linear(g))
    np.testing.assert_allclose(slopes, np.broadcast_to(g, x.shape), rtol=1e-4)  # 6e-8 of rounding over 1e-2


def test_a_feature_that_cannot_move_has_no_slope():
    low, high = np.zeros(3, "f"), np.array([1, 0, 1], "f")
    _, slopes = told(np.zeros((1, 3), "f"), CentralDifferences(0.01, low, high), linear(np.ones(3)))
    np.testing.assert_allclose(slopes, [[1, 0, 1]], rtol=1e-4)


# --- random directions ----------------------------------------------------------------------------------


def subspace(shape: tuple[int, ...], estimator: RandomDirections) -> np.ndarray:
    """The matrix that projects on all directions there are."""
    everything = RandomDirections(0.01, 0, 1, pairs=10**6, grid=estimator.grid)
    basis = everything.directions(shape, 0)[0].reshape(-1, int(np.prod(shape)))
    return basis.T @ basis


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_are_orthonormal_and_the_same_for_every_row(shape):
    one, again = RandomDirections(0.01, 0, 1, pairs=4), RandomDirections(0.01, 0, 1, pairs=4)
    directions = one.directions(shape, 5)[0].reshape(4, -1)
    np.testing.assert_allclose(directions @ directions.T, np.eye(4), atol=1e-9)
    np.testing.assert_array_equal(again.directions(shape, 5)[0].reshape(4, -1), directions)
    assert np.abs(again.directions(shape, 6)[0].reshape(4, -1) - directions).max() > 1e-3


@pytest.mark.parametrize("shape", [(9,), (6, 6, 1), (12, 12, 1), (5, 20, 2)])
def test_with_as_many_pairs_as_dimensions_the_estimate_is_the_projection(shape):
    g = np.random.default_rng(1).normal(size=shape)
    estimator = RandomDirections(0.01, 0, 1, pairs=10**4, grid=6)
    x = np.random.default_rng(2).integers(0, 2, (1, *shape)).astype("f")  # at the bounds everywhere
    _, slopes = told(x, estimator, linear(g))
    projected = (subspace(shape, estimator) @ g.reshape(-1)).reshape(shape)
    # Rows are rounded to 6e-8, and offsets are .01 in the mean: 1e-5 each, of a sum of a hundred.
    np.testing.assert_allclose(slopes[0], projected, atol=1e-3)


@pytest.mark.parametrize("side", [6, 28])
def test_the_mean_over_steps_of_the_estimate_of_a_linear_function_is_its_projection(side):
    shape, steps = (side, side, 1), 300
    estimator = RandomDirections(0.01, 0, 1, pairs=16)
    rng = np.random.default_rng(0)
    g = rng.normal(size=shape)
    x, mean = np.full(shape, 0.5, "f"), np.zeros(shape)
    for step in range(steps):
        directions, _ = estimator.directions(shape, step)
        # The pair differs by twice the offset, which is the direction times this.
        rises = 2 * estimator.eps * np.sqrt(x.size) * np.tensordot(directions, g, 3)
        mean += estimator.slope(rises, x, step) / steps
    projected = (subspace(shape, estimator) @ g.reshape(-1)).reshape(shape)
    off = np.linalg.norm(mean - projected) / np.linalg.norm(projected)
    # 16 of D dimensions, times D / 16: each step errs by sqrt(D / 16 - 1), independently; four times that.
    size = np.linalg.matrix_rank(subspace(shape, estimator))
    assert off <= 4 * np.sqrt((size / 16 - 1) / steps)


def test_a_smooth_slope_is_nearly_its_own_projection():
    height = np.linspace(-1, 1, 28)
    g = (np.cos(2 * height)[:, None] * np.sin(2 * height)[None])[..., None]
    projected = subspace(g.shape, RandomDirections(0.01, 0, 1)) @ g.reshape(-1)
    # Interpolated on ten cells of .2 each, flat in the half cell at each edge: off by .1 times a slope below
    # 1 in a fifth of the image, by 4 / 8 * .2^2 elsewhere, of a wave whose mean square is .4 and .5.
    off = np.linalg.norm(projected.reshape(g.shape) - g) / np.linalg.norm(g)
    assert off < 0.1


def test_channels_first_is_the_same_directions_seen_otherwise():
    last = RandomDirections(0.01, 0, 1, pairs=5).directions((6, 8, 3), 2)[0]
    first = RandomDirections(0.01, 0, 1, pairs=5, channels_first=True).directions((3, 6, 8), 2)[0]
    np.testing.assert_allclose(np.moveaxis(first, 1, -1), last, atol=1e-12)


# --- both -----------------------------------------------------------------------------------------------


ESTIMATORS = {"full": CentralDifferences(0.01, 0, 1), "random": RandomDirections(0.01, 0, 1, pairs=6)}


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("most", [2**26, 2000])
def test_rows_are_strangers_to_the_last_bit(kind, most, monkeypatch):
    monkeypatch.setattr(estimated, "_BYTES", most)
    x = np.random.default_rng(3).uniform(0, 1, (5, *SHAPE)).astype("f")
    model = Linear(W)
    ask = Slopes(x, lambda said, which: np.exp(said))
    together = estimate(ask, ESTIMATORS[kind], model.log_scores, Meter(Budget()))
    for row in range(5):
        alone = estimate(
            Slopes(x[row : row + 1], ask.pull), ESTIMATORS[kind], model.log_scores, Meter(Budget())
        )
        for ours, theirs in zip(together, alone, strict=True):
            assert ours[row].tobytes() == theirs[0].tobytes()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimated_slopes_are_the_models_own_inside_the_bounds(kind):
    x = np.random.default_rng(3).uniform(0.2, 0.8, (3, *SHAPE)).astype("f")
    gentle = Linear(W / 10)
    pull = lambda said, which: np.eye(CLASSES)[[1] * len(said)]  # noqa: E731
    _, slopes = estimate(
        Slopes(x, pull),
        CentralDifferences(0.01, 0, 1) if kind == "full" else RandomDirections(0.01, 0, 1, pairs=16),
        gentle.log_scores, Meter(Budget()),
    )  # fmt: skip
    exact = gentle.slope(x, lambda said: pull(said, None))[1]
    # Float32 log-scores near 1 are good to 1e-7, over 2e-2; 16 pairs are all directions of 16 pixels.
    np.testing.assert_allclose(slopes, exact, atol=1e-3)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_rows_of_a_slope_are_as_many_as_it_says(kind):
    x = np.random.default_rng(3).uniform(0, 1, (3, *SHAPE)).astype("f")
    seen = []
    model = Linear(W)
    told(x, ESTIMATORS[kind], lambda rows: (seen.append(len(rows)), model.log_scores(rows)[:, 0])[1])
    assert sum(seen) == 3 * (1 + ESTIMATORS[kind].rows(SHAPE))


def test_a_budget_that_does_not_suffice_is_refused_before_a_row_is_made():
    class Untouchable(CentralDifferences):
        def pairs(self, x, step):
            raise AssertionError("rows were made")

    def search():
        try:
            yield Slopes(np.zeros((1, 96, 96, 3), "f"), lambda said, which: said)
        except Stop as stop:
            return stop.status

    predictor = Counting(rowwise(W))
    status, cost = solve(search(), predictor, Budget(rows=1000), estimator=Untouchable(0.01, 0, 1))
    assert (status, cost.rows, predictor.rows) == ("budget_exhausted", 0, 0)


def test_of_a_large_image_no_more_rows_are_made_at_a_time_than_may_be_held():
    x = np.zeros((96, 96, 3), "f")  # 2 x 27,648 rows of 110 kB: 6 GB in all
    up, down = next(CentralDifferences(0.01, 0, 1).pairs(x, 0))
    assert up.nbytes + down.nbytes <= 2**26
    assert len(up) > 100


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_no_more_rows_are_asked_about_at_once_than_may_be_held(kind, monkeypatch):
    monkeypatch.setattr(estimated, "_BYTES", 20 * 64)  # rows of 16 float32 numbers: 20 of them
    x, sizes = np.zeros((7, *SHAPE), "f"), []
    told(x, ESTIMATORS[kind], lambda rows: (sizes.append(len(rows)), np.zeros(len(rows)))[1])
    assert max(sizes) <= 20 + 7  # and the points themselves
    assert sum(sizes) == 7 * (1 + ESTIMATORS[kind].rows(SHAPE))


def test_what_is_random_depends_on_a_rows_own_steps_alone():
    x = np.random.default_rng(3).uniform(0, 1, (3, 8, 8, 1)).astype("f")
    few = RandomDirections(0.01, 0, 1, pairs=5, grid=6)
    model = Linear(weights(features=64))
    ask = Slopes(x, lambda said, which: np.exp(said), steps=np.array([7, 0, 2]))
    _, together = estimate(ask, few, model.log_scores, Meter(Budget()))
    for row, step in enumerate((7, 0, 2)):
        part = Slopes(x[row : row + 1], ask.pull, steps=step)
        _, alone = estimate(part, few, model.log_scores, Meter(Budget()))
        assert alone[0].tobytes() == together[row].tobytes()


@pytest.mark.parametrize(
    "spec",
    [Counterfactual(tol=0.2), Counterfactual(schedule="reference", max_iter=10, max_lam_steps=1)],
    ids=["fast", "reference"],
)
def test_a_batch_whose_rows_take_more_and_fewer_steps_is_answered_as_each_alone(spec):
    shape = (12, 12, 1)
    x = np.random.default_rng(0).uniform(0, 1, (6, *shape)).astype("f")[2:]
    inputs = Inputs(shape=shape, low=0, high=1, classes=CLASSES)
    model = Linear(weights(seed=2, features=144) / 3).function
    run = prepare(fit(spec, inputs=inputs), Counting(model, 4096))
    answer = run(x, limits=PATIENT)
    steps = set()
    for row in range(len(x)):
        alone = run(x[row : row + 1], limits=PATIENT)
        steps.add(alone.cost.steps)
        for name, field in alone.arrays.items():
            np.testing.assert_array_equal(field[0], answer[name][row], err_msg=name)
    assert len(steps) > 1 or spec.schedule == "reference"
