"""A method is one folder behind one protocol: nobody else tells them apart, and a stranger can add one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from oip_servers import Model, Output, RestServer
from servers import ask_rest
from test_launcher import launched
from toys import rowwise, weights

from explainer_runtime import artifact, methods, render
from explainer_runtime.errors import InvalidArtifact, InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.predictors import CallablePredictor
from explainer_runtime.spec import Inputs

PACKAGE = Path(methods.__file__).parents[1]
MAY_NAME = {
    "__init__.py": "public names",
    "alibi": "a notebook face for these four classes and no others",
    "demo": "tells the story of two of them, and checks each by its own definition",
}
"""Files and folders that may name a kind, and why."""
SETTINGS = {methods.settings_of(kind).__name__ for kind in methods.METHODS}
FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in {*MAY_NAME, "methods"}
]


def named(source: str) -> set[str]:
    """The kinds, and classes of settings, that code names; what a comment or a docstring says is prose."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=str(word)) if word in methods.METHODS:
                found.add(word)
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word) if word in SETTINGS:
                found.add(word)
            case _:
                pass
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_outside_tells_methods_apart(path):
    assert not named(path.read_text())


def test_code_that_tells_them_apart_is_noticed():
    assert named("from spec import CEM\nif kind == 'anchor_image': pass") == {"CEM", "anchor_image"}
    assert named("import spec\nspec.Counterfactual()") == {"Counterfactual"}


@pytest.mark.parametrize("name", ["counterfactual", "cem", "anchor", "prototype"])
def test_settings_are_had_without_numpy(name):
    code = (
        f"import sys; from explainer_runtime.methods.{name}.settings import Settings; Settings();"
        "sys.exit(bool({'numpy', 'tensorflow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", sorted(methods.METHODS))
def test_an_option_has_the_limits_and_the_words_of_its_setting(kind):
    settings = methods.settings_of(kind).model_json_schema()
    options = methods.options(kind).model_json_schema()
    for name, option in options["properties"].items():
        if not name.startswith("max_") or name in settings["properties"]:
            setting = settings["properties"][name]
            assert option["description"] == setting["description"]
            kinds = setting.get("anyOf", [{key: setting[key] for key in setting if key in LIMITS}])
            assert [one for one in option["anyOf"] if one not in kinds] in ([], [{"type": "null"}])


LIMITS = {"type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "items", "minItems"}


# --- a method of somebody else's --------------------------------------------------------------------------

CONTRACT = Inputs(shape=(4, 4, 1), low=0, high=1, classes=3)
TRAIN = np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype(np.float32)
MODEL = CallablePredictor(rowwise(weights()))


@pytest.fixture
def admitted(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    methods.admit(["weakest_pixel"])


@pytest.fixture
def saved(admitted, tmp_path):
    spec = methods.parse_spec({"kind": "weakest_pixel"})
    return artifact.save(fit(spec, TRAIN, predictor=MODEL, inputs=CONTRACT), tmp_path / "weakest")


def test_nothing_is_admitted_by_being_installed(saved, monkeypatch):
    monkeypatch.delitem(methods.METHODS, "weakest_pixel")
    with pytest.raises(InvalidArtifact, match=r"kind: 'weakest_pixel' is not known here; known are "):
        artifact.load(saved)
    monkeypatch.setenv(methods.ADMITTED, " weakest_pixel,")
    assert artifact.load(saved).spec.kind == "weakest_pixel"


@pytest.mark.parametrize(
    ("name", "says"), [("stranger", "nothing installed offers 'stranger'"), ("cem", "several methods 'cem'")]
)
def test_what_nobody_offers_or_has_already_is_not_admitted(name, says):
    with pytest.raises(InvalidSpec, match=says):
        methods.admit([name])


def test_it_explains_from_an_artifact_with_options_and_a_card(saved):
    fitted = artifact.load(saved)
    explain, x = prepare(fitted, MODEL), TRAIN[:2]
    answer = explain(x)
    scores = MODEL(x)
    faded = x.reshape(2, 1, 16) + np.eye(16) * (fitted.arrays["mean"].reshape(-1) - x.reshape(2, 1, 16))
    told = np.stack([MODEL(rows.reshape(16, 4, 4, 1).astype("f")) for rows in faded])
    loss = np.stack([scores[i].max() - told[i][:, scores[i].argmax()] for i in range(2)])
    np.testing.assert_array_equal(answer["pixel"], loss.argmax(axis=1))
    assert {name: (a.dtype.kind, a.shape[1:]) for name, a in answer.arrays.items()} == {
        name: ({"BOOL": "b", "BYTES": "U", "INT64": "i", "FP32": "f"}[datatype], shape)
        for name, (datatype, shape) in methods.fields(fitted).items()
    }
    assert (explain(x, {"fade": 0.0})["loss"] == 0).all()
    with pytest.raises(InvalidOption, match=r"fade: expected at most 1"):
        explain(x, {"fade": 2})
    assert not explain(x, {"max_rows": 5})["found"].any()
    (card, _) = render.cards(answer, x, CONTRACT)
    assert card.panels[1].title == "weakest pixel"
    assert "Weakest pixels" in render.html(answer, x, CONTRACT)


def test_it_is_served_where_the_operator_says_so(saved, tmp_path):
    pytest.importorskip("mlserver")
    x, expected = TRAIN[:1], prepare(artifact.load(saved), MODEL)(TRAIN[:1], {"fade": 0.5})

    def respond(x):
        scores = MODEL(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    place = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with RestServer(Model(respond=respond)) as model:
        words = [saved, "--predictor", f"http://127.0.0.1:{model.port}/linear", "--methods", "weakest_pixel"]
        with launched(words, tmp_path / "run", **place) as server:
            answer = ask_rest(server, "weakest", x, parameters={"fade": 0.5})
            np.testing.assert_array_equal(answer.array("pixel"), expected["pixel"])
            picture = ask_rest(server, "weakest", x, outputs=[{"name": "picture"}])
            assert picture.status == 200
            described = httpx.get(server.rest("/v2/models/weakest")).json()
            assert "fade" in described["parameters"]["explain_parameters"]
