"""The input contract: what a row may be, and what is guessed about it."""

import numpy as np
import pytest
from toys import Linear, weights

from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.methods import parse_spec
from explainer_runtime.spec import Inputs, Limits, parse


def contract(shape, **more):
    return parse(Inputs, {"shape": shape, "low": 0, "high": 1, "classes": 2, **more}, "inputs")


@pytest.mark.parametrize("shape", [(28, 28, 1), (4, 4, 1), (4, 4, 3), (224, 160, 3), (64, 64, 12), (8, 8, 2)])
def test_an_image_with_few_channels_at_the_end_has_them_last(shape):
    assert contract(shape).layout == "channels_last"


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 48), (4, 64, 64), (12, 64, 64), (3, 4, 4)])
def test_an_image_with_few_channels_in_front_has_them_first(shape):
    assert contract(shape).layout == "channels_first"


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 28, 1), (28, 28, 28), (784,), (28, 28), (2, 8, 8, 1)])
def test_a_shape_that_may_be_read_in_two_ways_or_none_has_no_layout(shape):
    assert contract(shape).layout is None


def test_what_is_said_is_not_guessed():
    assert contract((28, 28, 1), layout=None).layout is None
    assert contract((3, 3, 3), layout="channels_first").layout == "channels_first"


def test_a_layout_needs_three_axes():
    with pytest.raises(InvalidSpec, match=r"inputs: .*layout 'channels_last' needs .* three axes.*\(784,\)"):
        contract((784,), layout="channels_last")


def test_a_contract_written_down_is_read_back_as_it_was():
    for shape, more in (((1, 28, 28), {}), ((28, 28, 1), {"layout": None})):
        one = contract(shape, **more)
        assert parse(Inputs, one.model_dump(mode="json"), "inputs") == one


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0, 1e30, "within 1e.15"), (-1e38, 0, "within 1e.15"), (1e6, 1e6 + 1e-3, "too near each other")],
)
def test_a_range_that_float32_cannot_hold_is_refused(low, high, said):
    with pytest.raises(InvalidSpec, match=f"inputs: .*{said}"):
        parse(Inputs, {"shape": (4,), "low": low, "high": high, "classes": 2}, "inputs")


# --- classes by name ------------------------------------------------------------------------------------

BIRDS = Inputs(
    shape=(4, 4, 1), low=0, high=1, classes=4, class_names=("crane", "T-shirt, top", "boot", "crane")
)
ASKING = {
    "counterfactual": lambda named: named,
    "counterfactual_proto": lambda named: [named],
    "attribution": lambda named: named,
    "region": lambda named: named,
}
"""Every method that takes a class, and how it is told."""


@pytest.mark.parametrize("kind", ASKING)
def test_a_class_is_asked_for_by_name_as_by_number_at_fit_and_in_a_request(kind):
    model = Linear(weights(classes=4))
    x = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 1)).astype("f")

    def fitted(**more):
        return fit(parse_spec({"kind": kind, **more}), x, predictor=model, inputs=BIRDS)

    by_name, by_number = (ASKING[kind](named) for named in ("T-shirt, top", 1))
    limits = Limits(max_seconds=3600)
    answers = [
        prepare(fitted(), model)(x[:1], {"target_class": by_number}, limits=limits),
        prepare(fitted(), model)(x[:1], {"target_class": by_name}, limits=limits),
        prepare(fitted(target_class=by_name), model)(x[:1], limits=limits),
    ]
    assert len({answer.to_json() for answer in answers}) == 1
    assert fitted(target_class=by_name).spec == fitted(target_class=by_number).spec  # artifacts hold numbers


@pytest.mark.parametrize("kind", ASKING)
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("crane", "target_class: classes 0, 3 are all called 'crane'; say which"),
        ("bot", "a class from 0 to 3, got 'bot'; near to it are 'boot'"),
        (4, "a class from 0 to 3, got 4"),
    ],
)
def test_a_name_that_is_none_or_several_is_refused_with_what_there_is(kind, named, said):
    model, named = Linear(weights(classes=4)), ASKING[kind](named)
    x = np.zeros((3, 4, 4, 1), "f")
    with pytest.raises(InvalidSpec, match=said):
        fit(parse_spec({"kind": kind, "target_class": named}), x, predictor=model, inputs=BIRDS)
    run = prepare(fit(parse_spec({"kind": kind}), x, predictor=model, inputs=BIRDS), model)
    with pytest.raises(InvalidOption, match=said) as refusal:
        run(x[:1], {"target_class": named})
    assert refusal.value.field == "target_class"


def test_without_names_a_class_is_a_number():
    with pytest.raises(InvalidOption, match="knows no names of classes"):
        Inputs(shape=(2,), low=0, high=1, classes=2).number("boot", "target_class")


def test_a_wrong_count_of_names_says_how_many_were_expected_and_nothing_else():
    with pytest.raises(InvalidSpec) as refusal:
        parse(Inputs, {"shape": (2,), "low": 0, "high": 1, "classes": 3, "class_names": ("a",)}, "inputs")
    assert str(refusal.value) == "inputs: class_names: expected 3, one for each class, got 1"
