"""White boxes by JAX: the same laws, and the same answers as by TensorFlow, in an environment without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from explainer_runtime import artifact
from explainer_runtime.errors import MissingExtra
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors.jax import JaxPredictor
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.spec import Counterfactual, CounterfactualProto, Inputs

keras = pytest.importorskip("keras")
layers = keras.layers

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-jax" / "bin" / "python"
CONTRACT = Inputs(shape=(8, 8, 1), low=0, high=1, classes=4)


def written(folder):
    """A CNN, explainers of it with and without networks of their own, and what TensorFlow makes of them."""
    keras.utils.set_random_seed(0)
    head = [layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    cnn = keras.Sequential([keras.Input(CONTRACT.shape), *head, layers.Dense(4, activation="softmax")])
    cnn.layers[-1].kernel.assign(cnn.layers[-1].kernel * 5)  # as sure of itself as one that was trained
    keep = keras.Sequential(
        [keras.Input(CONTRACT.shape), layers.Conv2D(4, 3, padding="same", activation="relu"),
         layers.Conv2D(1, 3, padding="same")]
    )  # fmt: skip
    cnn.save(folder / "cnn.keras")
    rng = np.random.default_rng(0)
    x, train = (rng.uniform(size=(rows, *CONTRACT.shape)).astype(np.float32) for rows in (6, 80))
    predictor = KerasPredictor.of(cnn)
    w = rng.normal(size=(6, 4)).astype(np.float32)
    said = {"x": x, "w": w, "scores": predictor(x), "log_scores": predictor.log_scores(x)}
    said |= {"slope": predictor.slope(x, lambda logs: w)[1], "digest": predictor.identity()["digest"]}
    for objective in ("balanced", "smallest"):
        fitted = fit(Counterfactual(objective=objective), inputs=CONTRACT, predictor=predictor)
        artifact.save(fitted, folder / objective)
        said[f"{objective}_l1"] = prepare(fitted, predictor)(x)["distance_l1"]
    fitted = fit(
        CounterfactualProto(k=1, gamma=1),
        train,
        inputs=CONTRACT,
        predictor=predictor,
        autoencoder=keep,
    )
    artifact.save(fitted, folder / "proto")
    said["proto_l1"] = prepare(fitted, predictor)(x)["distance_l1"]
    np.savez(folder / "said.npz", **said)


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-jax; `make test` builds it")
def test_the_laws_of_white_boxes_hold_by_jax(tmp_path):
    written(tmp_path)
    laws = [PYTHON, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", HERE / "jax_laws.py"]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_LAWS": str(tmp_path)}
    done = subprocess.run(
        [*map(str, laws)], env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-8000:]


def test_without_jax_the_message_says_what_to_install():
    pytest.importorskip("tensorflow")  # where JAX is there is none
    with pytest.raises(MissingExtra, match=r"explainer-runtime\[jax\]"):
        JaxPredictor(lambda x: x, (4,))
