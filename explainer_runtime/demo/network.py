"""The network to explain, the small Fashion-MNIST CNN of the literature, and another one to hold it against.

Both are trained in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from explainer_runtime.data import Dataset

PARAMETERS = 412_778
EPOCHS = 6
_BATCH = 64


def build() -> Any:
    """The network with fresh weights: images `(N, 28, 28, 1)` to probabilities `(N, 10)`."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(64, 2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Conv2D(32, 2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ],
        name="fashion_cnn",
    )
    assert model.count_params() == PARAMETERS
    return model


def build_second() -> Any:
    """A smaller network of another shape, with fresh weights: as good, and not the same."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ],
        name="second_cnn",
    )


def train(
    made: Callable[[], Any],
    dataset: Dataset,
    path: Path,
    told: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Train a network on `dataset` with a fixed seed, and save it as the `.keras` file `path`.

    Args:
        made: Makes it: `build` or `build_second`.
        dataset: Images in the range that the model is to take.
        path: Where to save it.
        told: Told the fraction that is done.
    """
    import keras

    keras.utils.set_random_seed(0)
    model = made()
    steps = EPOCHS * -(-len(dataset.x_train) // _BATCH)
    # Warm up, then let the rate fall to nothing: a few epochs do the work of many at a constant rate.
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps, alpha=0.01, warmup_target=2e-3, warmup_steps=steps // 8
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: told((epoch + 1) / EPOCHS))
    model.fit(dataset.x_train, dataset.y_train, _BATCH, EPOCHS, verbose=0, callbacks=[tell])
    # Renamed only when it is whole, so that an interrupted run leaves nothing that looks like a model.
    unfinished = path.with_name(f"unfinished-{path.name}")
    model.save(unfinished)
    unfinished.replace(path)


def accuracy(predictor: Callable[[np.ndarray], np.ndarray], dataset: Dataset) -> float:
    """The share of test images that the model gives their class."""
    return float((predictor(dataset.x_test).argmax(axis=1) == dataset.y_test).mean())
