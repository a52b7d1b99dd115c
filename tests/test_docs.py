"""The pages of the methods and the glossary name what the code has, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import METHODS as BY_KIND
from explainer_runtime.methods import options
from explainer_runtime.spec import BudgetOptions, Inputs, parse_spec
from explainer_runtime.wire import describe_outputs

HOME = Path(__file__).parents[1]
METHODS = sorted(BY_KIND)
IMAGES = {"anchor_image", "attribution", "region"}
"""Methods whose rows are images."""
UNSAID = {"kind"}
"""Fields of a spec that are no options."""
INPUTS = Inputs(shape=(4, 5, 1), low=0, high=1, classes=3)
FITTED = {  # with everything that `fit` may keep
    kind: Fitted(
        parse_spec({"kind": kind, **({"theta": 1} if kind == "counterfactual_proto" else {})}),
        INPUTS,
        {"codes": np.zeros((1, 1), np.float32), "reference_rows": np.zeros((1, 4, 5, 1), np.float32)},
        {} if kind in IMAGES else {"autoencoder": None, "encoder": None},
    )
    for kind in METHODS
}


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the first table under a heading, without its head."""
    text = (HOME / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("kind", METHODS)
def test_options_are_the_settings_of_the_spec(kind):
    settings = type(FITTED[kind].spec).model_fields
    rows = table(f"docs/methods/{kind}.md", "Options")
    listed = [name for cell, *_ in rows for name in names(cell)]
    assert sorted(listed) == sorted(set(settings) - UNSAID)

    budget = set(BudgetOptions.model_fields)
    asked = {name for cell, _, yes, _ in rows for name in names(cell) if yes == "yes"}
    assert asked == set(options(kind).model_fields) - budget


@pytest.mark.parametrize("kind", METHODS)
def test_defaults_are_those_of_the_spec(kind):
    spec = FITTED[kind].spec.model_copy(update={"theta": 0.0})
    for cell, default, *_ in table(f"docs/methods/{kind}.md", "Options"):
        (name,), said = names(cell), default.strip("`")
        value = getattr(spec, name)
        if name == "segmentation":
            assert said == value.kind
        elif said == "none":
            assert value is None, name
        else:
            assert json.loads(said) == (list(value) if isinstance(value, tuple) else value), name


def fields(kind):
    """Shape of a row of each field of an answer."""
    described = describe_outputs(FITTED[kind])
    return {one.name: one.shape[1:] for one in described if one.name != "explanation"}


@pytest.mark.parametrize("kind", METHODS)
def test_fields_are_those_of_an_answer(kind):
    rows = table(f"docs/methods/{kind}.md", "What it answers")
    listed = [name for cell, *_ in rows for name in names(cell)]
    assert sorted(listed) == sorted(fields(kind))


@pytest.mark.parametrize("kind", METHODS)
def test_shapes_are_those_of_an_answer(kind):
    shapes = fields(kind)
    words = {(): "(N,)", INPUTS.shape: "(N, *S)", (INPUTS.classes,): "(N, K)"}
    words |= {INPUTS.shape: "(N, H, W, C)", INPUTS.shape[:-1]: "(N, H, W)"} if kind in IMAGES else {}
    for cell, shape, *_ in table(f"docs/methods/{kind}.md", "What it answers"):
        listed, said = names(cell), names(shape)
        for name, one in zip(listed, said * len(listed) if len(said) == 1 else said, strict=True):
            assert one == words[shapes[name]], name


def test_the_readme_names_every_method():
    listed = [names(cell)[0] for cell, *_ in table("README.md", "Methods")]
    assert sorted(listed) == METHODS


IDEAS = [(names(idea), said, names(where)) for idea, said, where in table("docs/glossary.md", "Ideas")]


def test_the_glossary_is_short_and_in_order():
    listed = [idea[0] for idea, *_ in IDEAS]
    assert len(listed) <= 40
    assert listed == sorted(set(listed))
    assert all(said.endswith(".") for _, said, _ in IDEAS)


@pytest.mark.parametrize(("idea", "where"), [(idea[0], where[0]) for idea, _, where in IDEAS])
def test_each_idea_is_used_where_the_glossary_says(idea, where):
    place = HOME / "explainer_runtime" / where
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", " ".join(file.read_text() for file in files))
    text = re.sub(r"[\s_-]+", " ", words).lower()
    assert re.search(rf"\b{re.escape(idea.lower())}(s|es)?\b", text)


@pytest.mark.parametrize(
    "page",
    [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").rglob("*.md"))],
    ids=lambda page: page.stem,
)
def test_links_lead_somewhere(page):
    links = r"(?:\]\(|^\[[^\]]+\]: )(?!https?:)([^)\s]+)"
    for target in re.findall(links, page.read_text(), flags=re.MULTILINE):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target
