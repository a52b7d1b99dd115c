"""The README's quick start, word for word, on a small network."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from explainer_runtime import data

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    for line in block.splitlines()
    if not language and re.match(r"explainer-runtime (fit|inspect|explain) ", line)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as a reader would have it: a model, an image, the spec that the README writes down."""
    home = tmp_path_factory.mktemp("reader")
    images = data.load("fashion_mnist", sample=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images.x_train[:2000], images.y_train[:2000], verbose=0)
    (home / "demo").mkdir()
    model.save(home / "demo" / "fashion-cnn.keras")
    boot = {
        "name": "image",
        "shape": [1, 28, 28, 1],
        "datatype": "FP32",
        "data": images.x_test[0].ravel().tolist(),
    }
    (home / "demo" / "request.json").write_text(json.dumps({"inputs": [boot]}))
    (spec,) = (block for language, block in BLOCKS if language == "yaml")
    (home / "cf.yaml").write_text(spec)
    return home


def run(home: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_do_what_they_say(home):
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        words = shlex.split(command)
        run(home, sys.executable, "-m", "explainer_runtime.cli", *words[1:])
    assert (home / "fashion-cf" / "explainer.json").is_file()
    assert "<html" in (home / "boot.html").read_text()


def test_the_python_example_finds_counterfactuals(home):
    (program,) = (block for language, block in BLOCKS if language == "python")
    assert "True" in run(home, sys.executable, "-c", program)


def test_every_link_leads_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    for target in targets:
        assert (Path(__file__).parents[1] / target).exists(), target
