"""The recorded reference: what the known implementation did on the same weights and images.

It lies outside the repository (`EXPLAINER_RUNTIME_REFERENCE`, or `../shared/reference` beside it) and is
optional: without it the suites that need its weights say so and are left out.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from explainer_runtime import data
from explainer_runtime.predictors.keras import KerasPredictor

ROOT = Path(__file__).parents[1]
HOME = Path(os.environ.get("EXPLAINER_RUNTIME_REFERENCE", ROOT.parent / "shared" / "reference"))
MNIST = Path(os.environ.get("EXPLAINER_RUNTIME_DATA", ROOT.parent / "shared" / "data"))


def present() -> bool:
    """Whether there is a reference to compare with."""
    return (HOME / "results.json").is_file()


@cache
def case(name: str) -> dict[str, Any]:
    """What is recorded of a case."""
    return dict(json.loads((HOME / "results.json").read_text())["cases"][name])


@cache
def model(name: str) -> KerasPredictor:
    """One of the reference's networks."""
    return KerasPredictor.load(HOME / "models" / f"{name}.keras")


@cache
def keras_model(name: str) -> Any:
    """One of its autoencoders or encoders, as the Keras model that it is."""
    import keras

    return keras.saving.load_model(path(name), compile=False)


def path(name: str) -> Path:
    """Where that network lies."""
    return HOME / "models" / f"{name}.keras"


@cache
def images(name: str, scale: data.Scale = "symmetric") -> np.ndarray:
    """Test images in canonical order: all of MNIST's, the first 1,000 of Fashion-MNIST's."""
    if name == "mnist":
        return data.load("mnist", scale=scale, root=MNIST).x_test
    return data.load("fashion_mnist", sample=True, scale=scale).x_test
