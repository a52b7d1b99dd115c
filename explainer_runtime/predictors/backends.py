"""Keras models, whatever Keras computes with: read from files, given to the predictor of their back end."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from explainer_runtime.errors import InvalidSpec, MissingExtra
from explainer_runtime.predictors import forms, meaning
from explainer_runtime.predictors.forms import FormPredictor
from explainer_runtime.predictors.remote.tensors import one_line
from explainer_runtime.predictors.settings import ModelContract
from explainer_runtime.search.networks import Network

_BACKENDS = "expected tensorflow or jax, say KERAS_BACKEND=jax"


def load(path: str | Path, contract: ModelContract) -> FormPredictor:
    """A predictor over a `.keras` file (in safe mode) or the directory of a SavedModel.

    Raises:
        InvalidSpec: There is no such file, it is another format, it holds code, or does not fit the contract.
        MissingExtra: TensorFlow is not installed.
    """
    path = Path(path)
    if path.is_dir() and (path / "saved_model.pb").is_file():
        from explainer_runtime.predictors.keras import local
        from explainer_runtime.predictors.saved_model import of_saved_model

        return local(of_saved_model(import_tensorflow(), path, contract), contract)
    return of_model(read_model(path), contract, name=str(path))


def of_model(
    model: Any, contract: ModelContract, *, shape: Sequence[int] | None = None, name: str | None = None
) -> FormPredictor:
    """A predictor over a Keras model object, by the back end that it was made with.

    Raises:
        InvalidSpec: It does not fit the contract; the back end is another than TensorFlow and JAX.
    """
    match _backend(model):
        case "tensorflow":
            from explainer_runtime.predictors.keras import local

            return local(
                forms.of_keras(import_tensorflow(), model, contract, shape=shape, name=name), contract
            )
        case "jax":
            from explainer_runtime.predictors import jax

            return jax.of_keras(model, contract, shape=shape, name=name)
        case other:
            raise InvalidSpec(
                f"{name or model.name}: Keras computes with {other}; {_BACKENDS}; {meaning.PAGE}"
            )


def network(model: Any) -> Network:
    """A fitted Keras network, such as an autoencoder or an encoder, as functions of arrays.

    Raises:
        InvalidSpec: The back end is another than TensorFlow and JAX.
    """
    match _backend(model):
        case "tensorflow":
            from explainer_runtime.predictors.keras import KerasNetwork

            return KerasNetwork(model)
        case "jax":
            from explainer_runtime.predictors.jax import JaxNetwork

            return JaxNetwork(model)
        case other:
            raise InvalidSpec(f"{model.name}: Keras computes with {other}; {_BACKENDS}")


def read_model(path: str | Path) -> Any:
    """The Keras model in a `.keras` file, read in safe mode.

    Raises:
        InvalidSpec: There is no such file, it is another format, or it holds code.
        MissingExtra: Keras, or its back end, is not installed.
    """
    path = Path(path)
    check(path, (".keras",))
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for one cause: this file is not a model
        if own := re.search(r"Could not locate (?:class|function) '([^']+)'", str(error)):
            raise InvalidSpec(
                f"{path}: {own[1]} is code of your own, which a .keras file does not hold; write the model "
                f"with `model.export(directory)` and give that directory; {meaning.PAGE}"
            ) from error
        raise InvalidSpec(f"{path}: cannot be loaded as a Keras model: {one_line(str(error))}") from error


def check(path: Path, suffixes: Collection[str] = (".keras", ".onnx", "")) -> None:
    """Refuse what is no model by its name and place, before anything that takes seconds is imported.

    Args:
        path: Of the model.
        suffixes: Of files that are taken; nothing stands for the directory of a SavedModel.

    Raises:
        InvalidSpec: It is none.
    """
    if not path.exists():
        raise InvalidSpec(f"{path}: there is no such file")
    if path.suffix in (".h5", ".hdf5"):
        new = path.with_suffix(".keras").name
        script = f"import keras; keras.saving.load_model('{path}', compile=False).save('{new}')"
        raise InvalidSpec(f'{path}: HDF5 is not read; write it anew: python -c "{script}"; {meaning.PAGE}')
    saved = "" in suffixes and (path / "saved_model.pb").is_file()
    if not (saved or (path.is_file() and path.suffix and path.suffix in suffixes)):
        raise InvalidSpec(
            f"{path}: expected a .keras or .onnx file, or a SavedModel directory; {meaning.PAGE}"
        )


def import_keras() -> Any:
    """Keras, and what it computes with; that is TensorFlow unless `KERAS_BACKEND` says another.

    Raises:
        MissingExtra: It, or its back end, is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "keras" not in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()  # says more than Keras does
    try:
        import keras
    except ImportError as error:
        raise MissingExtra(
            f"Keras, or what it computes with, is not installed ({one_line(str(error))}); "
            "pip install 'explainer-runtime[tensorflow]', or 'explainer-runtime[jax]' with KERAS_BACKEND=jax"
        ) from None
    return keras


def import_tensorflow() -> Any:
    """TensorFlow, quietly.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingExtra(
            "TensorFlow is not installed; pip install 'explainer-runtime[tensorflow]'"
        ) from None
    return tf


def _backend(model: Any) -> str:
    """What a Keras model computes with; Keras 2 knows TensorFlow only."""
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(model).__mro__):
        return "tensorflow"
    return str(import_keras().config.backend())
