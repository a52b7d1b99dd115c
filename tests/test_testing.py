"""docs/testing.md, word for word: the fake explainer that users are told to write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from explainer_runtime import Counterfactual, connect, fit, prepare, render
from explainer_runtime.spec import Inputs

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()
INPUTS = Inputs(shape=(4, 4, 1), low=-1, high=1, classes=2)
X = np.stack([np.ones((4, 4, 1)), np.zeros((4, 4, 1))]).astype(np.float32)


@pytest.fixture(scope="module")
def page():
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    return names


def test_a_fake_says_what_an_explainer_says(page):
    fake = page["fake_explainer"](X)
    model = connect(
        lambda x: np.stack([x.mean(axis=(1, 2, 3)) > 0, x.mean(axis=(1, 2, 3)) <= 0], 1) * 0.8 + 0.1
    )
    real = prepare(fit(Counterfactual(effort="quick"), inputs=INPUTS), model)(X)
    assert set(fake.arrays) <= set(real.arrays)
    for name, array in fake.arrays.items():
        assert (array.dtype.kind, array.shape) == (real[name].dtype.kind, real[name].shape), name
    np.testing.assert_array_equal(fake["found"], [True, False])


def test_a_fake_is_drawn_and_written(page):
    fake = page["fake_explainer"](X)
    assert render.png(fake, X, INPUTS).startswith(b"\x89PNG")
    assert json.loads(fake.to_json())["data"]["status"] == ["ok", "not_found"]


def test_a_fake_is_served(page):
    tensor = {"name": "image", "datatype": "FP32", "shape": [2, 4, 4, 1], "data": X.ravel().tolist()}
    answer = json.loads(page["respond"](json.dumps({"inputs": [tensor]}).encode()))
    (said,) = answer["outputs"][0]["data"]
    assert json.loads(said) == json.loads(page["fake_explainer"](X).to_json())
