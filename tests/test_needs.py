"""Which image an artifact needs, and what a server says that does not hold it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from explainer_runtime import artifact
from explainer_runtime.artifact import Fitted, Report
from explainer_runtime.errors import MissingExtra
from explainer_runtime.hosts.platform import needs
from explainer_runtime.spec import CEM, AnchorImage, Felzenszwalb, Grid, Inputs

CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)


def report(spec, *files):
    manifest = {"spec": spec.model_dump(mode="json")}
    return Report(manifest, "", dict.fromkeys(["explainer.json", *files], 1))


@pytest.mark.parametrize(
    ("spec", "files", "extras", "target"),
    [
        (AnchorImage(segmentation=Grid()), (), [], "mlserver"),
        (AnchorImage(segmentation=Felzenszwalb()), (), ["superpixels"], "mlserver"),
        (CEM(), (), [], "mlserver"),
        (CEM(gradient="exact"), (), ["tensorflow"], "mlserver-tensorflow"),
        (CEM(), ("models/student.json", "models/student.safetensors"), ["tensorflow"], "mlserver-tensorflow"),
    ],
)
def test_needs_are_what_its_method_its_networks_and_its_segmentation_import(spec, files, extras, target):
    found = needs.of(report(spec, *files))
    assert list(found.reasons) == extras
    assert found.target == target
    assert found.tensorflow == (target == "mlserver-tensorflow")


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "tensorflow" else found(name, package)
sys.meta_path.insert(0, Absent())
"""
MAIN = """
from explainer_runtime.cli import main
sys.argv = ["explainer-runtime", *sys.argv[1:]]
main()
"""
SIDECAR = """
import pathlib
from explainer_runtime.hosts.platform import arguments, deployment
line = arguments.read([sys.argv[1], "--model_name=m", "--predictor_host=localhost:8085"])
scratch = pathlib.Path(sys.argv[2])
(served,) = deployment.plan(line, scratch=scratch, model=sys.argv[3], sidecar=True)
print(served["parameters"]["extra"]["predictor"]["url"])
"""


def test_a_server_without_tensorflow_says_in_its_last_line_which_image_to_take(tmp_path):
    path = artifact.save(
        Fitted(CEM(gradient="exact"), CONTRACT, {"no_info": np.zeros(CONTRACT.shape, np.float32)}),
        tmp_path / "cem",
    )
    words = ["serve", str(path), "--predictor", "http://127.0.0.1:1/m"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + MAIN, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "error: cem: the model in the same process, for its gradient needs tensorflow, which is not "
        "installed: take the image with it "
        "(image.tensorflow: true in the chart), or pip install 'explainer-runtime[tensorflow]'"
    )


def test_commands_say_what_is_not_installed_before_they_do_anything(tmp_path):
    (tmp_path / "model.keras").touch()
    (tmp_path / "cf.yaml").write_text("kind: counterfactual\n")
    fit = ["fit", "cf.yaml", "--model", "model.keras", "--data", "nothing.npz", "--out", "cf"]
    for words, what in ((["demo"], "the demo"), (fit, "model.keras")):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT + MAIN, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 2
        assert done.stderr == (
            f"error: {what} needs what is not installed (tensorflow): "
            "pip install 'explainer-runtime[tensorflow]'\n"
        )


def test_networks_may_be_computed_by_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    here = {"jax", "keras"}
    monkeypatch.setattr(needs, "find_spec", lambda name: name if name in here else None)
    needs.check(report(CEM(), "models/autoencoder.json"), "cem")
    here.remove("jax")
    with pytest.raises(MissingExtra, match="needs jax, which is not installed"):
        needs.check(report(CEM(), "models/autoencoder.json"), "cem")


def test_a_sidecar_without_tensorflow_asks_the_model_that_it_cannot_load(tmp_path):
    path = artifact.save(Fitted(AnchorImage(segmentation=Grid()), CONTRACT), tmp_path / "anchor")
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "models" / "1" / "saved_model.pb").touch()
    words = [str(path), str(tmp_path), str(tmp_path / "models")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + SIDECAR, *words], capture_output=True, text=True, check=False
    )
    assert done.stdout == "http://localhost:8085\n", done.stderr
