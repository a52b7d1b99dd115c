"""What an explainer is fitted from: a spec, training rows, names of classes.

Bytes are pixels: 0 to 255 become the range that the model takes, linearly, and that range must be known.
Other numbers are taken as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from explainer_runtime.cli import files
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.methods import parse_spec
from explainer_runtime.search.kept import scaled
from explainer_runtime.spec import Spec

if TYPE_CHECKING:
    from explainer_runtime.predictors import Predictor


class Training(NamedTuple):
    """Rows to fit on `(M, *S)`, float32, or none; the class of each `(M,)` where known, the range of their
    values, names of classes where known, and the shape of a row."""

    x: np.ndarray | None
    y: np.ndarray | None
    low: float
    high: float
    class_names: tuple[str, ...] | None
    shape: tuple[int, ...]

    def probe(self) -> np.ndarray:
        """A row to ask the model about `(1, *S)`, in order to see how it answers."""
        return np.full((1, *self.shape), self.low, np.float32) if self.x is None else self.x[:1]

    def seen(self) -> str:
        """What has been read, in one line."""
        count, size = 0 if self.x is None else len(self.x), " × ".join(str(side) for side in self.shape)
        labels = "no labels" if self.y is None else f"labels of {len(np.unique(self.y))} classes"
        return f"{count:,} rows of {size}, from {self.low:g} to {self.high:g}, {labels}"


def read_spec(path: Path) -> Spec:
    """The spec in a YAML or JSON file.

    Raises:
        InvalidInput: It cannot be read.
        InvalidSpec: It is not a spec.
    """
    import yaml

    try:
        return parse_spec(yaml.safe_load(files.text(path, "spec")))
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def read_network(path: str | None) -> Any:
    """The Keras model in a `.keras` file that an explainer is to keep, or None.

    Raises:
        InvalidSpec: It cannot be loaded.
        MissingExtra: TensorFlow is not installed.
    """
    if path is None:
        return None
    from explainer_runtime.predictors.backends import read_model

    return read_model(path)


def read_encoder(said: str | None) -> Any:
    """The Keras model in a `.keras` file, or what else was said: the name of a layer of the model."""
    return said if file_of(said) is None else read_network(said)


def file_of(encoder: str | None) -> str | None:
    """What was said of an encoder, where that is a file."""
    return encoder if encoder is not None and (encoder.endswith(".keras") or Path(encoder).exists()) else None


def read_training(source: str, value_range: tuple[float, float] | None) -> Training:
    """Training rows from a file, or from a data set by name.

    Args:
        source: A `.npz` with `x_train` or `x`, and `y_train` or `y` where classes are known; a `.npy`,
            `fashion_mnist` or `mnist`.
        value_range: Lowest and highest value that the model takes; None takes those of the data, and for a
            data set by name [-0.5, 0.5], as in the literature.

    Raises:
        InvalidInput: Not numbers, not finite, outside the range, or bytes without a range.
    """
    value_range = value_range and _ordered(value_range)
    names = y = None
    if source in ("fashion_mnist", "mnist"):
        from explainer_runtime import data

        found = data.load(source, scale=None)  # type: ignore[arg-type]
        x, y, names = found.x_train, found.y_train, found.class_names
        value_range = value_range or (-0.5, 0.5)
    else:
        x = files.array(Path(source), ("x_train", "x"), "data")
        y = files.labels(Path(source), ("y_train", "y"))
    if x.ndim < 2 or not len(x):
        raise InvalidInput(f"expected rows (M, ...), at least one, got shape {x.shape}", "data")
    if x.dtype == np.uint8:
        if value_range is None:
            raise InvalidInput(
                "bytes need --range LOW HIGH, the values the model was trained on, such as --range -0.5 0.5",
                "data",
            )
        x = scaled(x, *value_range)
    x = files.finite(x, "data")
    low, high = value_range or (float(x.min()), float(x.max()))
    if x.min() < low or x.max() > high:
        raise InvalidInput(
            f"expected values in --range [{low:g}, {high:g}], got [{x.min():.4g}, {x.max():.4g}]", "data"
        )
    return Training(x, y, low, high, names, x.shape[1:])


def without_data(shape: str | None, value_range: tuple[float, float] | None, model: Predictor) -> Training:
    """What is fitted from no rows: their shape is as was said, or as the model in this process says.

    Raises:
        InvalidInput: Neither says it; or the range was not said, which nothing else tells.
    """
    if value_range is None:
        raise InvalidInput(
            "without --data, --range LOW HIGH has to say which values the model takes", "range"
        )
    low, high = _ordered(value_range)
    sizes = getattr(model, "shape", ()) if shape is None else tuple(map(_size, shape.split(",")))
    if not sizes or None in sizes:
        raise InvalidInput(
            "without --data, --shape 224,224,3 has to say what a row is: the model does not", "shape"
        )
    return Training(None, None, low, high, None, sizes)


def _size(word: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise InvalidInput(
            f"expected sizes with commas between them, such as 224,224,3, got {word!r}", "shape"
        )
    return int(word)


def _ordered(value_range: tuple[float, float]) -> tuple[float, float]:
    if value_range[0] >= value_range[1]:
        raise InvalidInput("expected LOW below HIGH, got {:g} {:g}".format(*value_range), "range")
    return value_range


def read_names(text: str | None) -> tuple[str, ...] | None:
    """Class names separated by commas, or one a line in the file named after an `@`."""
    if text is None:
        return None
    if text.startswith("@"):
        return tuple(name.strip() for name in files.text(Path(text[1:]), "class-names").rstrip().splitlines())
    return tuple(name.strip() for name in text.split(","))
