"""The tutorials run as they stand, what they say is true, and what is committed is worth looking at.

Each is run in a namespace of its own, in an empty folder, shortened by `EXPLAINER_RUNTIME_LIGHT`. Cells are
plain Python, so neither Jupyter is needed nor the ports of its kernels. Then its variables are judged.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from explainer_runtime import data
from explainer_runtime.errors import InvalidInput

pytest.importorskip("tensorflow")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib").use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
MNIST = Path(os.environ.get("EXPLAINER_RUNTIME_DATA", ROOT.parent / "shared" / "data"))
SLACK = 1e-4
"""Of a probability: here the network is asked by Keras, whose graph may differ in float32's last digits."""

pytestmark = pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")


def cells(name: str, kind: str) -> list[dict]:
    whole = json.loads((FOLDER / f"{name}.ipynb").read_text())
    return [cell for cell in whole["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tutorial and returns its variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPLAINER_RUNTIME_LIGHT", "1")
    if MNIST.is_dir():
        monkeypatch.setenv("EXPLAINER_RUNTIME_DATA", str(MNIST))

    def execute(name: str) -> SimpleNamespace:
        scope = {"__name__": "__main__"}
        for number, cell in enumerate(cells(name, "code"), 1):
            exec(compile("".join(cell["source"]), f"{name}, code cell {number}", "exec"), scope)
        for figure in pyplot.get_fignums():
            pyplot.figure(figure).canvas.draw()
        return SimpleNamespace(**scope)

    yield execute
    pyplot.close("all")


@pytest.fixture
def mnist():
    try:
        data.load("mnist", root=MNIST if MNIST.is_dir() else None)
    except InvalidInput as error:
        pytest.skip(f"MNIST is not here. {error}")


def scores(tutorial: SimpleNamespace, x: np.ndarray) -> np.ndarray:
    """What the tutorial's network says of one row, by Keras' own road."""
    return tutorial.cnn.predict(x, verbose=0)[0]


def assert_sure(tutorial, explanations):
    for one in explanations:
        assert scores(tutorial, one.cf["X"])[one.cf["class"]] >= 0.99 - SLACK


def assert_flipped(tutorial, explanations):
    for one in explanations:
        assert scores(tutorial, one.cf["X"]).argmax() == one.cf["class"] != one.orig_class


# --- what they say --------------------------------------------------------------------------------------


def test_counterfactuals_of_fashion_are_valid_and_farther_the_surer(run):
    it = run("counterfactual_fashion_mnist")
    assert_sure(it, [it.explanation, *it.nearest, *it.sneakers])
    assert_flipped(it, [it.explanation, *it.nearest])
    assert {one.cf["class"] for one in it.sneakers} == {7}
    for one, x in zip(it.nearest, it.pictures, strict=True):
        np.testing.assert_allclose(one.cf["distance"], np.abs(one.cf["X"] - x).sum(), rtol=1e-4)
    assert (np.diff(np.median(it.distances, axis=1)) > 0).all()
    assert it.answer["found"].all()
    assert (it.answer["counterfactual_class"] == 7).all()


def test_answers_in_codes_are_valid_and_keep_what_lies_outside_a_region(run):
    it = run("latent_fashion_mnist")
    for answer in (it.pixels, it.latent, it.sneakers):
        assert answer["found"].all()
        said = it.cnn.predict(answer["counterfactual"], verbose=0)
        np.testing.assert_array_equal(said.argmax(axis=1), answer["counterfactual_class"])
        assert (said.max(axis=1) >= 0.99 - SLACK).all()
        assert (answer["counterfactual_class"] != answer["original_class"]).all()
    assert (it.half["counterfactual"][:, 14:] == it.boots[:, 14:]).all()
    assert it.agrees["codes"] >= it.agrees["pixels"]
    assert it.answer["counterfactual"].tobytes() == it.latent["counterfactual"].tobytes()


def test_counterfactuals_of_digits_are_valid_by_either_schedule_and_without_a_graph(run, mnist):
    it = run("counterfactual_mnist")
    assert_sure(it, [it.explanation, it.classical, it.estimated, *it.nearest, *it.ones])
    assert_flipped(it, [it.explanation, it.classical, it.estimated, *it.nearest, *it.ones])
    assert {one.cf["class"] for one in it.ones} == {1}
    found = [one["X"] for each in it.classical.all.values() for one in each]
    assert any(np.array_equal(x, it.classical.cf["X"]) for x in found)
    assert it.answer["found"].all()


def test_prototypes_change_the_class_in_every_way_that_is_shown(run, mnist):
    it = run("prototype_mnist")
    assert len(it.ways) == 8
    for explanations in it.ways.values():
        assert len(explanations) == len(it.digits)
        assert_flipped(it, explanations)
    assert_flipped(it, it.aimed)
    assert {one.cf["class"] for one in it.aimed} | {one.id_proto for one in it.aimed} <= {*it.wanted}
    assert {one.id_proto for one in it.ways["no prototypes"]} == {None}
    assert max(one.meta["cost"]["calls"] for one in it.ways["no gradient"]) <= 30
    assert it.answer["found"].all()


def test_pertinent_negatives_only_add_and_positives_only_keep(run, mnist):
    it = run("cem_mnist")
    for one in it.negatives:
        assert scores(it, one.PN).argmax() == one.PN_pred != one.X_pred
        assert (one.PN >= one.X).all()
    for one in it.positives:
        assert scores(it, one.PP)[one.X_pred] >= 0.5 - SLACK
        assert (one.PP <= one.X).all()
        assert one.PP.min() >= it.x_train.min()
    second, first = np.sort(scores(it, it.surer.PN))[-2:]
    assert first - second >= 0.9 - SLACK
    assert it.answer["found"].all()


def test_anchors_hold_what_they_promise_on_fresh_samples(run):
    it = run("anchor_fashion_mnist")
    assert (it.fresh >= 0.94).all()
    for one in [*it.explanations, *it.stricter]:
        assert one.raw["success"]
        assert one.precision >= 0.95
        assert (one.anchor[~np.isin(one.segments, one.raw["feature"])] == 0).all()
    assert it.same
    np.testing.assert_array_equal(it.answer["precision"], [one.precision for one in it.explanations])


def test_what_is_said_of_photographs_is_what_the_network_says(run):
    """Here of a network without weights: its reasons are nothing, but what is said of them has to be so."""
    it = run("photographs")

    def said(pictures):
        return it.cnn.predict(pictures, verbose=0).argmax(axis=1)

    np.testing.assert_array_equal(said(it.X), it.hidden["original_class"])
    for answer in (it.hidden, it.pasted):
        found = answer["found"]
        assert found.any()
        np.testing.assert_array_equal(said(answer["hidden"])[found], answer["hidden_class"][found])
        assert (answer["hidden_class"] != answer["original_class"])[found].all()
    for name, array in it.hidden.arrays.items():
        if array.dtype.kind == "f":  # in batches of other sizes Keras rounds otherwise
            np.testing.assert_allclose(it.both[name], array, rtol=1e-3)
        else:
            np.testing.assert_array_equal(it.both[name], array)
    steps = it.slopes["integrated gradients"]
    whole = steps["attribution"].sum(axis=(1, 2)) - steps["completeness_gap"]
    np.testing.assert_allclose(whole, steps["value"] - steps["base_value"], atol=1e-5)
    assert it.answer["hidden"].tobytes() == it.hidden["hidden"].tobytes()


# --- what is committed ----------------------------------------------------------------------------------


def test_every_tutorial_is_linked():
    assert len(NAMES) == 7
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert [name for name in NAMES if f"(tutorials/{name}.ipynb)" not in page] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_was_run_from_the_top_without_a_complaint(name):
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_has_pictures_and_is_small(name):
    outputs = [output.get("data", {}) for cell in cells(name, "code") for output in cell["outputs"]]
    pictures = [base64.b64decode(output["image/png"]) for output in outputs if "image/png" in output]
    assert len(pictures) >= 4
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_knows_no_machine(name):
    text = (FOLDER / f"{name}.ipynb").read_text()
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert re.findall(r"(?<![\w.])/(?:home|root|usr|tmp|work|opt|var|mnt|Users)/", without_pictures) == []


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_tutorial_lead_somewhere(name):
    text = "\n".join("".join(cell["source"]) for cell in cells(name, "markdown"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert "../serving.md" in links
    assert [link for link in links if not (FOLDER / link).exists()] == []
