"""Artifacts that earlier versions have saved still load, and explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toys import rowwise, weights

from explainer_runtime import load, prepare, verify
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import Limits

HOME = Path(__file__).parent / "artifacts"
SAVED = sorted(path for version in HOME.iterdir() for path in version.iterdir())
"""Explainers of a linear softmax of rows (4, 4, 1), each in a folder named for the version that saved it."""
W = weights(seed=4)
MODEL = CallablePredictor(rowwise(W))
RETIRED = pytest.mark.filterwarnings("ignore:.*has no effect any more:DeprecationWarning")


@RETIRED
@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_artifact_of_an_earlier_version_explains(path):
    assert verify(path).manifest["kind"] == load(path).spec.kind
    x = np.random.default_rng(1).uniform(0.2, 0.8, (3, 4, 4, 1)).astype("f")
    answer = prepare(load(path), MODEL, warm=False)(x, limits=Limits(max_seconds=3600))
    assert answer["found"].all()
    if "counterfactual" in answer.arrays:
        again = rowwise(W)(answer["counterfactual"])
        np.testing.assert_allclose(again, answer["counterfactual_proba"], atol=1e-5)
        assert (again.argmax(axis=1) != answer["original_class"]).all()
