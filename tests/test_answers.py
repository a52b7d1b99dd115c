"""Files that answers become: every method, in every format, whether something was found or not."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from answered import SPECS, X, answered
from PIL import Image

from explainer_runtime import methods
from explainer_runtime.cli import answers
from explainer_runtime.views import MEANINGS, one_scale


@pytest.fixture(params=[(name, found) for name in SPECS for found in (True, False)], ids=str)
def case(request):
    return answered(*request.param)


def test_every_method_is_here():
    assert {spec.kind for spec in SPECS.values()} == set(methods.METHODS)


def test_every_answer_becomes_every_kind_of_file(case, tmp_path):
    fitted, answer = case
    about = {"made on": "2026-02-03", "model": "<tiny>"}
    made = {
        suffix: answers.encoder(tmp_path / f"answer.{suffix}")(answer, X, fitted, (), about)
        for suffix in ("html", "png", "json", "npz")
    }
    page = made["html"].decode()
    for part in (
        "How sure to be",
        "What found means",
        "When it would not hold",
        "2026-02-03",
        "&lt;tiny&gt;",
    ):
        assert part in page
    with Image.open(io.BytesIO(made["png"])) as picture:
        assert picture.format == "PNG"
    assert json.loads(made["json"])["data"]["found"] == answer["found"].tolist()
    with np.load(io.BytesIO(made["npz"])) as arrays:
        assert set(arrays.files) == set(answer.arrays)


def test_every_number_that_is_shown_has_a_meaning(case):
    fitted, answer = case
    seen = methods.of(answer.kind).draw(answer, X, fitted.inputs)
    assert set(seen.numbers.values()) <= set(MEANINGS)
    assert seen.found
    assert seen.limits


def test_a_page_has_one_scale_of_colours(case):
    fitted, answer = case
    seen = methods.of(answer.kind).draw(answer, X, fitted.inputs)
    (scaled,) = one_scale([seen])
    own, shared = (
        [picture.limit for card in view.cards for picture in card.panels if picture.limit is not None]
        for view in (seen, scaled)
    )
    assert shared == [max(own)] * len(own) if own else shared == []


def test_what_a_page_says_of_a_change_that_was_not_found_is_not_that_it_was():
    fitted, answer = answered("counterfactual", False)
    page = answers.encoder(Path("answer.html"))(answer, X, fitted, (), {}).decode()
    assert "Found for 0 of 2" in page
    assert not re.search(r"<td class=\"yes\"", page)
