"""A notebook as people have them runs top to bottom with another import, by Keras 3 and by Keras 2."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("skimage")

NOTEBOOK = Path(__file__).parent / "notebooks" / "older.py"
LATE = """
import tensorflow as tf
from explainer_runtime.alibi import CEM
tf.compat.v1.disable_v2_behavior()
x_in = tf.keras.layers.Input(shape=(4,))
CEM(tf.keras.models.Model(x_in, tf.keras.layers.Dense(2, "softmax")(x_in)), "PN", (1, 4), no_info_val=0.0)
"""
CAUGHT = """
import warnings
caught = warnings.catch_warnings(record=True).__enter__()
warnings.simplefilter("always")
"""
JUDGED = """
import json
said = [str(one.message) for one in caught]
steps = SAW["steps"]
classified = lambda x: int(cnn.predict(x, verbose=0).argmax())
print(json.dumps({
    "keras": type(cnn).__module__.partition(".")[0],
    "said": sorted({text for text in said}),
    "found": SAW["cf"].success,
    "distances": [step["distance"] for step in steps],
    "lambdas": [step["lambda"] for step in steps],
    "answer": [SAW["cf"].cf["distance"], SAW["cf"].cf["lambda"]],
    "sneaker": classified(SAW["sneaker"].cf["X"]),
    "pn": [bool((SAW["pn"][0] == SAW["pn"][1]).all()), classified(SAW["pn"][2])],
    "pn_pred": SAW["pn"][3], "own": SAW["cf"].orig_class,
    "pp_pred": SAW["pp"].PP_pred,
    "protos": [[SAW[name].cf["class"], SAW[name].id_proto] for name in ("proto", "function")],
    "precision": SAW["anchor"].precision,
}, default=lambda value: value.item()))
"""


def run(source: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    how = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, **how)


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def told(request, tmp_path_factory):
    """What the notebook found, by each Keras."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    legacy = {"TF_USE_LEGACY_KERAS": "1"} if request.param == "tf_keras" else {}
    done = run(CAUGHT + NOTEBOOK.read_text() + JUDGED, tmp_path_factory.mktemp(request.param), **legacy)
    assert done.returncode == 0, done.stderr[-3000:]
    *bars, last = done.stdout.splitlines()
    found = {**json.loads(last), "bars": bars}
    assert found["keras"] == request.param
    return found


def test_every_story_ends_in_an_answer_that_the_model_confirms(told):
    assert told["found"]
    assert told["sneaker"] == 7
    same, seen = told["pn"]
    assert same
    assert seen == told["pn_pred"] != told["own"] == told["pp_pred"]
    assert all(found == proto != told["own"] for found, proto in told["protos"])
    assert told["precision"] >= 0.95


def test_the_way_to_an_answer_leads_nearer_under_a_lambda_of_each_point(told):
    distances, lambdas = told["distances"], told["lambdas"]
    assert len(distances) >= 3
    assert distances[-1] < distances[0]
    assert len(set(lambdas)) > len(lambdas) / 2
    assert min(lambdas) > 0
    assert [distances[-1], lambdas[-1]] == pytest.approx(told["answer"], rel=1e-6)  # float32, and Python's


def test_what_is_out_of_date_is_said_in_a_sentence(told):
    assert any("delete `tf.compat.v1.disable_v2_behavior()`" in text for text in told["said"])
    assert any(text.startswith("sess has no effect here") for text in told["said"])
    assert "CounterFactual is now called Counterfactual" in told["said"]


def test_a_function_that_calls_predict_draws_no_bars(told):
    assert told["bars"] == []


def test_a_model_built_without_eager_execution_is_refused_with_what_to_delete(tmp_path):
    done = run(LATE, tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "explainer_runtime.errors.InvalidSpec: TensorFlow runs without eager execution, and models built so "
        "cannot be explained: delete `tf.compat.v1.disable_v2_behavior()` and start the notebook anew"
    )
