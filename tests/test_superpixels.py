"""How images are cut into parts, and what they look like with parts masked."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainer_runtime.errors import MissingExtra
from explainer_runtime.search import masking, superpixels
from explainer_runtime.search.masking import Canvas

SIZES = st.integers(1, 40)


def photo(shape=(24, 20, 3)):
    """Smooth blobs with some noise, in [0, 1]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(rows / (3 + c)) * np.cos(columns / (4 + c)) for c in range(shape[2])]
    return np.clip(np.stack(waves, axis=-1) / 2 + 0.5 + rng.normal(0, 0.02, shape), 0, 1).astype("f")


def segmenters():
    pytest.importorskip("skimage")
    return {
        "slic": lambda image: superpixels.slic(image, 10, 10.0, 0.5),
        "felzenszwalb": lambda image: superpixels.felzenszwalb(image, 1.0, 0.8, 20),
        "quickshift": lambda image: superpixels.quickshift(image, 5.0, 10.0, 1.0),
    }


def without_gaps(labels):
    return np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


# --- cutting ----------------------------------------------------------------------------------------------


@given(SIZES, SIZES, SIZES, SIZES)
def test_grid_cells_tile_the_image_in_sizes_that_differ_by_at_most_one(height, width, rows, columns):
    labels = superpixels.grid(height, width, rows, columns)
    assert labels.shape == (height, width)
    assert labels.dtype == np.int64
    assert without_gaps(labels)
    rows, columns = min(rows, height), min(columns, width)
    assert labels.max() + 1 == rows * columns
    for cell in range(rows * columns):
        down, across = np.nonzero(labels == cell)
        tall, wide = np.ptp(down) + 1, np.ptp(across) + 1
        assert len(down) == tall * wide  # a rectangle
        assert height // rows <= tall <= -(-height // rows)
        assert width // columns <= wide <= -(-width // columns)


def test_grid_cells_are_numbered_along_the_rows():
    np.testing.assert_array_equal(superpixels.grid(2, 4, 2, 2), [[0, 0, 1, 1], [2, 2, 3, 3]])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30))
def test_relabelling_keeps_the_parts_and_closes_the_gaps(values):
    labels = np.array([values])
    compact = superpixels.relabel(labels)
    assert without_gaps(compact)
    np.testing.assert_array_equal(compact[0][:, None] == compact[0], labels[0][:, None] == labels[0])


@pytest.mark.parametrize("name", ["slic", "felzenszwalb", "quickshift"])
@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 20, 1), (24, 20, 4), (7, 9, 2)])
def test_superpixels_cover_the_image_and_are_numbered_without_gaps(name, shape):
    image = photo(shape)
    kept = image.copy()
    labels = segmenters()[name](image)
    assert labels.shape == shape[:2]
    assert labels.dtype == np.int64
    assert without_gaps(labels)
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("name", ["slic", "felzenszwalb", "quickshift"])
def test_a_grey_image_is_cut_like_the_same_image_in_rgb(name):
    grey, cut = photo((24, 20, 1)), segmenters()[name]
    np.testing.assert_array_equal(cut(grey), cut(np.repeat(grey, 3, axis=2)))


@pytest.mark.parametrize("name", ["slic", "felzenszwalb", "quickshift"])
def test_a_constant_image_is_cut_too(name):
    assert without_gaps(segmenters()[name](np.full((12, 12, 1), 0.3, "f")))


def test_without_scikit_image_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtra, match=r"explainer-runtime\[superpixels\]"):
        superpixels.slic(photo(), 10, 10.0, 0.5)


# --- masking ----------------------------------------------------------------------------------------------


def test_a_canvas_shows_the_image_where_it_is_shown_and_the_fill_elsewhere():
    image, segments = photo(), superpixels.grid(24, 20, 2, 3)
    fills = np.stack([np.zeros_like(image), np.ones_like(image)])
    rng = np.random.default_rng(1)
    shown, which = rng.random((5, 6)) > 0.5, rng.integers(2, size=5)
    drawn = Canvas(image, segments, fills).draw(shown, which)
    assert drawn.dtype == np.float32
    for picture, mask, fill in zip(drawn, shown, which, strict=True):
        for cell in range(6):
            expected = image if mask[cell] else fills[fill]
            np.testing.assert_array_equal(picture[segments == cell], expected[segments == cell])


def test_every_superpixel_is_filled_with_its_own_mean_colour():
    image, segments = photo(), superpixels.relabel(superpixels.grid(24, 20, 3, 2) // 2)
    fill = masking.segment_mean(image, segments)
    for cell in range(segments.max() + 1):
        expected = image[segments == cell].mean(axis=0, dtype=np.float64)
        # float32 of values near one
        np.testing.assert_allclose(
            fill[segments == cell], np.tile(expected, ((segments == cell).sum(), 1)), atol=1e-7
        )


def test_an_image_of_one_part_is_filled_with_its_mean():
    image = photo()
    whole = masking.segment_mean(image, np.zeros(image.shape[:2], np.int64))
    np.testing.assert_allclose(whole, masking.image_mean(image), atol=1e-7)


@pytest.mark.parametrize("shape", [(24, 20, 3), (5, 9, 1), (1, 1, 1)])
def test_a_blur_stays_in_range_and_leaves_a_constant_alone(shape):
    image = photo(shape)
    blurred = masking.blurred(image)
    assert blurred.shape == shape
    assert (blurred >= image.min() - 1e-6).all()
    assert (blurred <= image.max() + 1e-6).all()
    assert blurred.var() <= image.var() + 1e-12
    np.testing.assert_allclose(masking.blurred(np.full(shape, 0.3, "f")), 0.3, atol=1e-6)
