"""The input contract: what a row may be, and what is guessed about it."""

import pytest

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.spec import Inputs, parse


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
