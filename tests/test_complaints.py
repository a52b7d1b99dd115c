"""What is said of settings that cannot be: in the words of whoever wrote them, whatever is wrong."""

from __future__ import annotations

import pytest

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.predictors.settings import parse_predictor
from explainer_runtime.spec import parse, parse_spec

SAID = [
    ({"max_body": "x"}, "guard.max_body: expected a whole number, got 'x'"),
    ({"max_bodi": 3}, "guard.max_bodi: is not known here; did you mean max_body?"),
    ({"max_depth": 1}, "guard.max_depth: expected at least 4, got 1"),
    ({"max_body": -1}, "guard.max_body: expected more than 0, got -1"),
    ({"max_depth": 3.5}, "guard.max_depth: expected a whole number, got 3.5"),
    ({"management": "maybe"}, "guard.management: expected true or false, got 'maybe'"),
    ({"grace": None}, "guard.grace: expected a number, got None"),
    ({"tls_cert": 3}, "guard.tls_cert: expected a path, got 3"),
    ({"client_header": [1]}, "guard.client_header: expected text, got [1]"),
    ([], "guard: expected an object, got []"),
]


@pytest.mark.parametrize(("written", "said"), SAID)
def test_a_complaint_says_what_is_expected_and_what_came(written, said):
    with pytest.raises(InvalidSpec) as refusal:
        parse(Guard, written, "guard")
    assert str(refusal.value) == said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"kind": "cemm"}, "kind: 'cemm' is not known here; did you mean cem?"),
        ({"kind": "cem", "mode": "XX"}, "cem.mode: expected 'PN' or 'PP', got 'XX'"),
        ({"tol": 0.05}, "kind: is missing in {'tol': 0.05}; known are anchor_image, "),
        (None, "kind: is missing in None; known are anchor_image, "),
    ],
)
def test_a_spec_that_is_none_hears_what_one_is(written, said):
    with pytest.raises(InvalidSpec) as refusal:
        parse_spec(written)
    assert str(refusal.value).startswith(said)


def test_a_name_that_is_near_none_hears_all():
    with pytest.raises(InvalidSpec, match="is not known here; known are body_seconds, client_header, "):
        parse(Guard, {"zzzzz": 1}, "guard")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            {"url": "file:///x", "model": "m"},
            "predictor.v2.url: expected text that matches ^(https?|grpcs?)://",
        ),
        ({"url": "http://x", "model": ""}, "predictor.v2.model: expected at least 1 characters, got ''"),
    ],
)
def test_text_that_is_the_wrong_text_hears_what_the_right_one_is(written, said):
    with pytest.raises(InvalidSpec) as refusal:
        parse_predictor({"kind": "v2", **written})
    assert str(refusal.value).startswith(said)
