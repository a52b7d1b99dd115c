"""Images to explain: MNIST or Fashion-MNIST from wherever they are, else a sample that is always there.

Nothing is downloaded. Full sets are looked for where people and packages put them; the packaged sample is the
first 6,000 training and 1,000 test images of Fashion-MNIST, so that an index means the same image in both.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from explainer_runtime.data.idx import read_idx
from explainer_runtime.errors import InvalidInput

Name = Literal["fashion_mnist", "mnist"]
Scale = Literal["symmetric", "unit"] | None
_SHIFTS = {"unit": np.float32(0), "symmetric": np.float32(0.5)}
"""By how much the numbers of a scale lie below x / 255."""

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "mnist": tuple("0123456789"),
}
ENVIRONMENT = "EXPLAINER_RUNTIME_DATA"
"""Environment variable: a directory with IDX files, or with one directory of them for each data set."""
DEBIAN = Path("/usr/share/datasets")
"""Where Debian's `dataset-fashion-mnist` puts its files."""

_PARTS = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class Dataset:
    """Images and the class of each.

    Attributes:
        x_train: `(N, 28, 28, 1)`, float32 in the range of the scale, or uint8 without one.
        y_train: `(N,)`, int64, 0 to 9.
        x_test: Like `x_train`.
        y_test: Like `y_train`.
        class_names: A name for each class.
        name: Which data set.
        source: Where it came from, for people.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    name: str
    source: str


def load(
    name: Name = "fashion_mnist",
    *,
    sample: bool = False,
    scale: Scale = "symmetric",
    root: str | Path | None = None,
) -> Dataset:
    """A data set, in full where it can be found.

    Looked for in this order: `root`; the directory in `EXPLAINER_RUNTIME_DATA`; Debian's package; Keras'
    cache; for Fashion-MNIST the packaged sample. In the first two, files in a subdirectory named like the
    data set (`fashion-mnist` or `fashion_mnist`) go before files in the directory itself; those are taken to
    be of the data set asked for, since both sets use the same file names.

    Args:
        name: Which data set.
        sample: Take the packaged sample even where the full set is there.
        scale: `symmetric`, [-0.5, 0.5]; `unit`, [0, 1]; None, the bytes as they are.
        root: Directory that must have it.

    Raises:
        InvalidInput: It is nowhere, or a file is damaged; the message names the file, or where to put it.
    """
    if name not in CLASS_NAMES:
        raise InvalidInput(f"name: expected one of {', '.join(CLASS_NAMES)}, got {name!r}", "name")
    full = None if sample else _full(name, root)
    arrays, source = full or _sample(name)
    _check(arrays, source)
    return Dataset(
        x_train=scale_pixels(arrays["x_train"][..., None], scale),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=scale_pixels(arrays["x_test"][..., None], scale),
        y_test=arrays["y_test"].astype(np.int64),
        class_names=CLASS_NAMES[name],
        name=name,
        source=source,
    )


def scale_pixels(x: np.ndarray, scale: Scale) -> np.ndarray:
    """Bytes as the numbers a model takes.

    Args:
        x: uint8, of any shape.
        scale: `symmetric`, x / 255 - 0.5; `unit`, x / 255; None, unchanged.

    Returns:
        float32 like `x`, or `x` itself for None.
    """
    if scale is None:
        return x
    if scale not in _SHIFTS:
        raise InvalidInput(f"scale: expected 'symmetric', 'unit' or None, got {scale!r}", "scale")
    return x.astype(np.float32) / np.float32(255) - _SHIFTS[scale]


def unscale(x: np.ndarray, scale: Scale) -> np.ndarray:
    """The inverse of `scale_pixels`, for pictures: the nearest byte of each number, within 0 to 255."""
    if scale is None:
        return x
    return np.clip(np.rint((np.asarray(x, np.float64) + _SHIFTS[scale]) * 255), 0, 255).astype(np.uint8)


Found = tuple[dict[str, np.ndarray], str]


def _sample(name: str) -> Found:
    if name != "fashion_mnist":
        raise InvalidInput(
            f"name: {name} is not packaged and was not found; put {', '.join(_PARTS.values())} "
            f"(or these with .gz) into a directory, and name it in root or {ENVIRONMENT}",
            "name",
        )
    content = resources.files(__package__).joinpath("fashion_mnist.npz").read_bytes()
    return _read_npz(io.BytesIO(content), "the packaged sample"), "the packaged sample (6,000 + 1,000 images)"


def _full(name: str, root: str | Path | None) -> Found | None:
    if root is not None:
        found = _read_folder(Path(root), name)
        if found is None:
            raise InvalidInput(f"{root}: has no {_PARTS['x_train']} or {_PARTS['x_train']}.gz", "root")
        return found
    for place in _places():
        if found := _read_folder(place, name):
            return found
    return _keras_mnist() if name == "mnist" else None


def _places() -> Iterator[Path]:
    if chosen := os.environ.get(ENVIRONMENT):
        if not Path(chosen).is_dir():
            raise InvalidInput(f"{ENVIRONMENT}: {chosen} is not a directory", ENVIRONMENT)
        yield Path(chosen)
    yield DEBIAN
    yield _keras_cache()


def _read_folder(place: Path, name: str) -> Found | None:
    for folder in (place / name.replace("_", "-"), place / name, place):
        files = {key: _plain_or_gz(folder / stem) for key, stem in _PARTS.items()}
        if not any(file.exists() for file in files.values()):
            continue
        return {
            key: read_idx(file, axes=3 if key.startswith("x") else 1) for key, file in files.items()
        }, str(folder)
    return None


def _plain_or_gz(file: Path) -> Path:
    return file if file.exists() else file.with_name(f"{file.name}.gz")


def _keras_cache() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets"


def _keras_mnist() -> Found | None:
    path = _keras_cache() / "mnist.npz"
    return (_read_npz(path, str(path)), str(path)) if path.is_file() else None


def _read_npz(file: Any, source: str) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as npz:
            return {key: npz[key] for key in _PARTS}
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{source}: cannot be read: {error}", "data") from None


def _check(arrays: dict[str, np.ndarray], source: str) -> None:
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
            raise InvalidInput(f"{source}: expected images of 28x28 bytes, got {x.dtype} {x.shape}", "data")
        if y.shape != (len(x),) or y.dtype != np.uint8 or (len(y) and y.max() > 9):
            raise InvalidInput(f"{source}: expected a label from 0 to 9 for each of {len(x)} images", "data")
