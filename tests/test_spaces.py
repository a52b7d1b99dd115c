"""What a change is: nothing changed is the row itself, and every row lies inside its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainer_runtime.search.spaces import Pixels, Smooth

SHAPE = (4, 5, 1)
LANES = np.arange(3)
UNITS = {"bytes": (0.0, 255.0), "unit": (0.0, 1.0), "centred": (-0.5, 0.5), "odd": (-1.7, 0.3)}
units = st.sampled_from(list(UNITS))
seeds = st.integers(0, 10**6)


def space(unit: str, seed: int, **more) -> Pixels:
    low, high = UNITS[unit]
    origin = np.random.default_rng(seed).uniform(low, high, (3, *SHAPE)).astype("f")
    return Pixels(origin, high - low, np.full(SHAPE, low, "f"), np.full(SHAPE, high, "f"), **more)


@settings(deadline=None)
@given(units, seeds)
def test_nothing_changed_is_the_row_itself_to_the_bit(unit, seed):
    place = space(unit, seed)
    assert place.rows(np.zeros_like(place.origin), LANES).tobytes() == place.origin.tobytes()


@settings(deadline=None)
@given(units, seeds, st.floats(0, 10))
def test_every_row_lies_inside_its_bounds(unit, seed, size):
    place = space(unit, seed)
    d = np.random.default_rng(seed + 1).normal(0, size, place.origin.shape).astype("f")
    rows = place.rows(d, LANES)
    assert ((rows >= place.low) & (rows <= place.high)).all()
    assert rows.dtype == np.float32


@settings(deadline=None)
@given(units, seeds)
def test_the_largest_changes_reach_the_bounds(unit, seed):
    place = space(unit, seed)
    for d, bound in zip(place.bounds(), (place.low, place.high), strict=True):
        # Rounded to float32 in shares of the range and once more in units.
        np.testing.assert_allclose(place.rows(d, LANES), bound, atol=3e-7 * place.unit)


@settings(deadline=None)
@given(units, seeds)
def test_the_change_toward_a_row_leads_there(unit, seed):
    place, other = space(unit, seed), space(unit, seed + 1).origin
    there = place.rows(place.toward(other, LANES), LANES)
    np.testing.assert_allclose(there, other, atol=3e-7 * place.unit)


@settings(deadline=None)
@given(seeds)
def test_a_change_is_a_share_of_the_range_whatever_the_unit(seed):
    share = np.random.default_rng(seed).uniform(-1, 1, (3, *SHAPE)).astype("f")
    moved = []
    for low, high in UNITS.values():
        middle = np.full((3, *SHAPE), (low + high) / 2, "f")
        place = Pixels(middle, high - low, np.full(SHAPE, low, "f"), np.full(SHAPE, high, "f"))
        moved.append((place.rows(share, LANES) - low) / (high - low))
    for other in moved[1:]:
        np.testing.assert_allclose(other, moved[0], atol=1e-6)


@settings(deadline=None)
@given(units, seeds)
def test_a_slope_in_changes_is_the_slope_of_what_the_change_leads_to(unit, seed):
    place = space(unit, seed)
    w = np.random.default_rng(seed + 2).normal(size=SHAPE)
    d = 0.1 * place.bounds()[1] + 0.1 * place.bounds()[0]  # inside, where no bound bends it
    slope = place.back(np.broadcast_to(w, place.origin.shape).astype("f"), d, LANES)
    nudge = np.float32(1e-3)
    for element in np.ndindex(SHAPE):
        up, down = d.copy(), d.copy()
        up[(slice(None), *element)] += nudge
        down[(slice(None), *element)] -= nudge
        rise = ((place.rows(up, LANES) - place.rows(down, LANES)).astype("d") * w).sum(axis=(1, 2, 3))
        # A difference of rows near 1 in their unit is good to 1e-7 of it, over 2e-3.
        np.testing.assert_allclose(
            rise / (2 * nudge), slope[(slice(None), *element)], rtol=1e-3, atol=2e-3 * place.unit
        )


def test_a_model_of_whole_numbers_is_shown_whole_numbers():
    place = space("bytes", 3, snap=np.rint)
    d = np.random.default_rng(4).uniform(-1, 1, place.origin.shape).astype("f")
    rows = place.rows(d, LANES)
    np.testing.assert_array_equal(rows, np.rint(rows))
    assert ((rows >= 0) & (rows <= 255)).all()


def test_lanes_have_their_own_origins_and_bounds():
    place = space("unit", 5)
    d = np.random.default_rng(6).normal(0, 1, place.origin.shape).astype("f")
    np.testing.assert_array_equal(place.rows(d[[2, 0]], np.array([2, 0])), place.rows(d, LANES)[[2, 0]])


# --- neighbours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plane", "axes"), [((0, 1), (1, 2)), ((1, 2), (2, 3))])
def test_smoothing_averages_with_the_neighbours_along_height_and_width(plane, axes):
    shape = (1, 7, 7, 1) if plane == (0, 1) else (1, 1, 7, 7)
    origin = np.zeros(shape, "f")
    place = Pixels(origin, 1.0, np.zeros(shape[1:], "f"), np.ones(shape[1:], "f"), plane=plane)
    one = origin.copy()
    one[tuple(3 if axis in axes else 0 for axis in range(4))] = 16
    expected = np.zeros((7, 7))
    expected[2:5, 2:5] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]  # 1, 2, 1 along both axes
    np.testing.assert_array_equal(place.smooth(one).squeeze(), expected)
    np.testing.assert_array_equal(place.smooth(np.ones_like(origin)), 1)  # the edge is its own neighbour


def test_where_there_are_no_neighbours_nothing_is_smoothed():
    place = Pixels(np.zeros((2, 9), "f"), 1.0, np.zeros(9, "f"), np.ones(9, "f"))
    d = np.random.default_rng(7).normal(size=(2, 9)).astype("f")
    np.testing.assert_array_equal(place.smooth(d), d)


# --- smooth changes -------------------------------------------------------------------------------------

LAYOUTS = {"last": ((9, 12, 2), (0, 1)), "first": ((2, 9, 12), (1, 2))}
layouts = st.sampled_from(list(LAYOUTS))


def coarse(
    unit: str, seed: int, layout: str = "last", cells: int = 3, most: float = 1.0, free=None
) -> Smooth:
    (low, high), (shape, plane) = UNITS[unit], LAYOUTS[layout]
    origin = np.random.default_rng(seed).uniform(low, high, (3, *shape)).astype("f")
    bounds = (np.full(shape, low, "f"), np.full(shape, high, "f"))
    if free is not None:
        bounds = tuple(np.where(free, bound, origin) for bound in bounds)
    return Smooth(Pixels(origin, high - low, *bounds, plane=plane), cells, most)


@settings(deadline=None)
@given(units, seeds, layouts)
def test_a_smooth_change_of_nothing_is_the_row_itself_and_every_row_lies_inside(unit, seed, layout):
    place = coarse(unit, seed, layout)
    least, _ = place.bounds()
    assert place.rows(np.zeros_like(least), LANES).tobytes() == place.origin.tobytes()
    d = np.random.default_rng(seed + 1).normal(size=least.shape).astype("f")
    rows = place.rows(d, LANES)
    assert ((rows >= place.pixels.low) & (rows <= place.pixels.high)).all()
    np.testing.assert_array_equal(place.rows(d[[2, 0]], LANES[[2, 0]]), rows[[2, 0]])


@settings(deadline=None)
@given(units, layouts, st.integers(1, 20), st.floats(-0.3, 0.3))
def test_cells_that_change_alike_move_every_pixel_alike(unit, layout, cells, size):
    place = coarse(unit, 0, layout, cells)
    (low, high), even = UNITS[unit], place.bounds()[0] * 0 + np.float32(size)
    place.pixels.origin[:] = (low + high) / 2
    moved = (place.rows(even, LANES) - place.origin) / place.pixels.unit
    np.testing.assert_allclose(moved, size, atol=1e-6)  # the cells' weights add up to 1, in float32


@settings(deadline=None)
@given(units, seeds, layouts)
def test_a_slope_in_cells_is_that_of_what_the_cells_lead_to(unit, seed, layout):
    place = coarse(unit, seed, layout)
    place.pixels.origin[:] = place.pixels.origin / 2 + sum(UNITS[unit]) / 4  # where no bound bends it
    rng = np.random.default_rng(seed + 2)
    w = rng.normal(size=place.origin.shape).astype("f")
    zero = np.zeros_like(place.bounds()[0])
    slope, nudge = place.back(w, zero, LANES), rng.uniform(-0.1, 0.1, zero.shape).astype("f")
    rise = ((place.rows(nudge, LANES) - place.rows(-nudge, LANES)).astype("d") * w).sum(axis=(1, 2, 3)) / 2
    np.testing.assert_allclose(
        rise, (slope * nudge).sum(axis=(1, 2, 3)), rtol=1e-3, atol=1e-3 * place.pixels.unit
    )


@settings(deadline=None)
@given(seeds, layouts)
def test_the_cells_of_a_smooth_change_are_found_again(seed, layout):
    place = coarse("unit", seed, layout)
    place.pixels.origin[:] = 0.5
    d = np.random.default_rng(seed).uniform(-0.3, 0.3, place.bounds()[0].shape).astype("f")
    np.testing.assert_allclose(place.toward(place.rows(d, LANES), LANES), d, atol=1e-5)


@settings(deadline=None)
@given(units, seeds)
def test_no_cell_goes_further_than_its_pixels_may_or_than_it_is_let(unit, seed):
    free = np.arange(9)[:, None, None] < 3  # the upper cells only; what is below has its bump there, too
    place = coarse(unit, seed, most=0.25, free=np.broadcast_to(free, (9, 12, 2)))
    least, most = place.bounds()
    assert ((least <= 0) & (most >= 0) & (most - least <= 0.5)).all()
    assert not least[:, 2].any()
    assert not most[:, 2].any()
    moved = place.rows(most, LANES)
    assert moved[:, 3:].tobytes() == place.origin[:, 3:].tobytes()
    assert (np.abs(moved - place.origin) <= 0.25 * place.pixels.unit * (1 + 1e-5)).all()
