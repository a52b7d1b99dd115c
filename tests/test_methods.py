"""A method is one folder behind one protocol: nothing outside tells methods apart, and a stranger can add one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from explainer_runtime import methods

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
