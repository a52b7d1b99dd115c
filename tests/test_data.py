"""Data sets: found where people put them, read strictly, and a sample that is always there."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explainer_runtime import data
from explainer_runtime.data import CLASS_NAMES, load, scale_pixels, unscale
from explainer_runtime.data.idx import read_idx
from explainer_runtime.errors import InvalidInput

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
BYTES = np.arange(256, dtype=np.uint8)
fixed = settings(derandomize=True, deadline=None, database=None, max_examples=40)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def put(folder: Path, first: int = 0, *, gz: bool = False) -> Path:
    """A tiny data set whose first training pixel is `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", 3), ("t10k", 2)):
        x = np.full((rows, 28, 28), first, np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", x), (f"{part}-labels-idx1-ubyte", x[:, 0, 0] % 10)):
            if gz:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A machine without any data set but the packaged one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EXPLAINER_RUNTIME_DATA", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")
    return tmp_path


def first(**options) -> int:
    return int(load(scale=None, **options).x_train[0, 0, 0, 0])


# --- the packaged sample ------------------------------------------------------------------------------


def test_the_sample_has_the_promised_shapes_types_and_range():
    sample = load(sample=True)
    assert sample.x_train.shape == (6000, 28, 28, 1)
    assert sample.x_test.shape == (1000, 28, 28, 1)
    assert sample.x_train.dtype == sample.x_test.dtype == np.float32
    assert sample.y_train.dtype == sample.y_test.dtype == np.int64
    assert (sample.x_train.min(), sample.x_train.max()) == (-0.5, 0.5)
    assert set(sample.y_train) == set(sample.y_test) == set(range(10))
    assert len(sample.class_names) == 10
    assert "sample" in sample.source


def test_the_sample_begins_with_an_ankle_boot_as_fashion_mnist_does():
    sample = load(sample=True)
    # The first labels of both halves, as printed in the Keras tutorial on classification.
    assert [sample.class_names[label] for label in sample.y_train[:3]] == ["Ankle boot"] + ["T-shirt/top"] * 2
    assert sample.class_names[sample.y_test[0]] == "Ankle boot"


def test_the_sample_equals_the_first_rows_of_the_full_set():
    full, sample = load(scale=None), load(scale=None, sample=True)
    if len(full.x_train) == len(sample.x_train):
        pytest.skip("the full Fashion-MNIST is not installed; apt-get install dataset-fashion-mnist")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        ours = getattr(sample, name)
        np.testing.assert_array_equal(ours, getattr(full, name)[: len(ours)])


def test_the_sample_ships_with_its_licence_and_in_four_megabytes():
    folder = Path(data.__file__).parent
    assert (folder / "fashion_mnist.npz").stat().st_size <= 4_000_000
    notice = (folder / "NOTICE").read_text()
    assert "Zalando SE" in notice
    assert "Permission is hereby granted" in notice


def test_mnist_has_no_sample_and_says_where_to_put_it(bare):
    for options in ({"sample": True}, {}):
        with pytest.raises(InvalidInput, match=r"train-images-idx3-ubyte.*root or EXPLAINER_RUNTIME_DATA"):
            load("mnist", **options)


# --- scaling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "low", "high"), [("symmetric", -0.5, 0.5), ("unit", 0.0, 1.0)])
def test_scaling_reaches_both_ends_exactly_and_grows_evenly(scale, low, high):
    x = scale_pixels(BYTES, scale)
    assert (x[0], x[-1], x.dtype) == (low, high, np.float32)
    # Rounding x / 255 and the difference to 0.5, each to half a unit in the last place of 1.
    np.testing.assert_allclose(np.diff(x), 1 / 255, atol=4 * 2.0**-24)


@pytest.mark.parametrize("scale", ["symmetric", "unit", None])
def test_unscale_undoes_scale(scale):
    np.testing.assert_array_equal(unscale(scale_pixels(BYTES, scale), scale), BYTES)


def test_unscale_clips_what_lies_outside():
    np.testing.assert_array_equal(unscale(np.array([-9.0, -0.5, 0.5, 9.0]), "symmetric"), [0, 0, 255, 255])


@pytest.mark.parametrize("scale", ["symmetric", "unit"])
def test_scaling_images_is_scaling_each_pixel(scale):
    whole = load(sample=True, scale=scale).x_test[:5]
    np.testing.assert_array_equal(whole, scale_pixels(load(sample=True, scale=None).x_test[:5], scale))


@pytest.mark.parametrize(("options", "field"), [({"name": "cifar"}, "name"), ({"scale": "log"}, "scale")])
def test_an_unknown_name_or_scale_is_refused(options, field):
    with pytest.raises(InvalidInput, match=f"^{field}: expected") as caught:
        load(sample=True, **options)
    assert caught.value.field == field


# --- where full sets are found ------------------------------------------------------------------------


def test_without_any_full_set_the_sample_is_taken(bare):
    assert len(load().x_train) == 6000


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("folder", ["", "fashion-mnist", "fashion_mnist"])
def test_root_holds_the_files_or_a_folder_of_them(bare, folder, gz):
    put(bare / "root" / folder, 7, gz=gz)
    found = load(root=bare / "root", scale=None)
    assert (found.x_train == 7).all()
    assert (found.y_test == 7).all()
    assert found.source == str(bare / "root" / folder)


def test_places_are_looked_at_in_order(bare, monkeypatch):
    put(bare / "home/.keras/datasets/fashion-mnist", 1, gz=True)
    assert first() == 1
    put(bare / "debian/fashion-mnist", 2, gz=True)
    assert first() == 2
    monkeypatch.setenv("EXPLAINER_RUNTIME_DATA", str(put(bare / "env", 3)))
    assert first() == 3
    put(bare / "env/fashion_mnist", 4)
    assert first() == 4
    assert first(root=put(bare / "root", 5)) == 5
    assert load(sample=True).x_train.shape == (6000, 28, 28, 1)


def test_mnist_is_found_in_the_cache_of_keras(bare, monkeypatch):
    cache = bare / "home/.keras/datasets"
    cache.mkdir(parents=True)
    x, y = np.full((3, 28, 28), 9, np.uint8), np.arange(3, dtype=np.uint8)
    np.savez(cache / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert load("mnist", scale=None).x_train[0, 0, 0, 0] == 9
    assert load("mnist").class_names == CLASS_NAMES["mnist"]
    monkeypatch.setenv("KERAS_HOME", str(bare / "elsewhere"))
    with pytest.raises(InvalidInput, match="mnist is not packaged"):
        load("mnist")


def test_a_root_without_the_set_and_a_place_that_is_none_are_refused(bare, monkeypatch):
    with pytest.raises(InvalidInput, match=f"{bare}: has no train-images"):
        load(root=bare)
    monkeypatch.setenv("EXPLAINER_RUNTIME_DATA", str(bare / "nowhere"))
    with pytest.raises(InvalidInput, match=r"EXPLAINER_RUNTIME_DATA: .*nowhere is not a directory"):
        load()


def test_shared_mnist_is_read_in_full():
    if not SHARED_MNIST.is_dir():
        pytest.skip("no MNIST in ../shared/data/mnist")
    mnist = load("mnist", root=SHARED_MNIST)
    assert (len(mnist.x_train), len(mnist.x_test)) == (60_000, 10_000)
    # How often each digit occurs among the training labels, as LeCun et al. publish it.
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


# --- IDX is read strictly -----------------------------------------------------------------------------


@fixed
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)),
    gz=st.booleans(),
)
def test_an_idx_file_comes_back_as_it_was_written(tmp_path_factory, array, gz):
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if gz else "x")
    path.write_bytes(gzip.compress(idx(array)) if gz else idx(array))
    np.testing.assert_array_equal(read_idx(path, array.ndim), array, strict=True)


GOOD = idx(np.zeros((2, 3), np.uint8))
DAMAGE = {
    "an empty file": (b"", "magic number 00000802"),
    "floats": (b"\0\0\x0d\2" + GOOD[4:], "magic number .* got 00000d02"),
    "another number of axes": (idx(np.zeros(3, np.uint8)), "magic number .* got 00000801"),
    "half a header": (GOOD[:9], "ends within its header"),
    "a byte less": (GOOD[:-1], "promises 6 bytes of data, it has 5"),
    "a byte more": (GOOD + b"\0", "promises 6 bytes of data, it has more"),
    "a header that promises the world": (
        GOOD[:4] + b"\xff" * 8,
        "promises 18446744065119617025 bytes, at most",
    ),
}


@pytest.mark.parametrize(("content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, content, message):
    for path, written in ((tmp_path / "x", content), (tmp_path / "x.gz", gzip.compress(content))):
        path.write_bytes(written)
        with pytest.raises(InvalidInput, match=f"^{path}: .*{message}"):
            read_idx(path, 2)


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(GOOD, mtime=0)[:-9], gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20],
)
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"{tmp_path}/x\.gz: "):
        read_idx(tmp_path / "x.gz", 2)


def test_a_missing_part_is_named(bare):
    (put(bare / "root") / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InvalidInput, match=r"t10k-labels-idx1-ubyte\.gz: cannot be read"):
        load(root=bare / "root")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((3, 27, 28), np.uint8), "28x28 bytes"),
        ("train-labels-idx1-ubyte", np.zeros(2, np.uint8), "a label from 0 to 9 for each of 3 images"),
        ("t10k-labels-idx1-ubyte", np.full(2, 10, np.uint8), "a label from 0 to 9 for each of 2 images"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(bare, name, array, message):
    (put(bare / "root") / name).write_bytes(idx(array))
    with pytest.raises(InvalidInput, match=f"{bare / 'root'}: .*{message}"):
        load(root=bare / "root")


def test_a_cache_that_would_have_to_be_unpickled_is_refused(bare):
    cache = bare / "home/.keras/datasets"
    cache.mkdir(parents=True)
    np.savez(cache / "mnist.npz", x_train=np.array([os.getcwd], dtype=object))
    with pytest.raises(InvalidInput, match=r"mnist\.npz: cannot be read: Object arrays cannot be loaded"):
        load("mnist")
