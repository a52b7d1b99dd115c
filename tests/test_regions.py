"""The fewest regions to hide, on functions of sets whose smallest answers are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import drive

from explainer_runtime.search.asks import Rows, Stop
from explainer_runtime.search.inpaint import inpainted
from explainer_runtime.search.regions import hide

COUNT = 10
ALL = np.array(list(itertools.product([False, True], repeat=COUNT)))


def additive(seed, level):
    """Each region adds its own to the margin: the smallest sets are those of the largest effects."""
    effects = np.random.default_rng(seed).exponential(1.0, COUNT)
    return lambda hidden: hidden @ effects - level * effects.sum()


def joint(seed, level):
    """Regions that matter by themselves, in pairs and in threes, as eyes and ears do."""
    rng = np.random.default_rng(seed)
    effects = rng.exponential(1.0, COUNT)
    sets = [rng.choice(COUNT, size, replace=False) for size in (2, 2, 2, 3, 3)]
    weights = rng.normal(0, 2.0, len(sets))

    def margin(hidden):
        return (
            hidden @ effects
            + sum(w * hidden[:, one].all(axis=1) for w, one in zip(weights, sets, strict=True))
            - level * effects.sum()
        )

    return margin


def search(margin, asked=None):
    def ask(hidden):
        if asked is not None:
            asked.append(hidden)
        yield Rows(hidden)
        return margin(hidden)

    return hide(COUNT, ask)


def asked_and_told(ask):
    """The functions above answer by themselves."""


def smallest(margin):
    """The least size of a set that changes the answer, of all there are; None where none does."""
    sizes = ALL[margin(ALL) > 0].sum(axis=1)
    return int(sizes.min()) if len(sizes) else None


def mask_of(regions):
    mask = np.zeros((1, COUNT), bool)
    mask[0, list(regions)] = True
    return mask


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_where_regions_add_up_the_set_is_the_smallest_there_is(seed, level):
    margin = additive(seed, level)
    held = drive(search(margin), asked_and_told)
    assert held.found
    assert len(held.regions) == smallest(margin)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.2))
def test_what_is_found_changes_the_answer_and_no_member_can_be_shown_again(seed, level):
    margin = joint(seed, level)
    held = drive(search(margin), asked_and_told)
    assert held.found == (margin(mask_of(held.regions))[0] > 0)
    if held.found:
        assert held.irreducible
        for one in held.regions:
            assert margin(mask_of(set(held.regions) - {one}))[0] <= 0
    assert len(held.effects) == COUNT


def test_sets_are_seldom_larger_than_the_smallest_and_hardly_ever_missed():
    gaps, missed, rows, calls = [], 0, [], []
    for seed in range(150):
        margin, asked = joint(seed, 0.2 + 0.004 * seed), []
        held, least = drive(search(margin, asked), asked_and_told), smallest(margin)
        if least is None:
            assert not held.found
            continue
        missed += not held.found
        if held.found:
            gaps.append(len(held.regions) - least)
        rows.append(sum(map(len, asked)))
        calls.append(len(asked))
    assert missed <= len(gaps) * 0.02
    assert np.mean(np.array(gaps) <= 1) >= 0.97
    assert np.mean(np.array(gaps) == 0) >= 0.8
    assert np.median(rows) <= 90
    assert max(calls) <= 10


def test_nothing_is_hidden_where_nothing_has_to_be():
    held = drive(search(lambda hidden: np.ones(len(hidden))), asked_and_told)
    assert (held.found, held.regions, held.irreducible) == (True, (), True)


def test_where_nothing_helps_nothing_is_found():
    held = drive(search(lambda hidden: -1.0 - hidden.sum(axis=1)), asked_and_told)
    assert not held.found
    assert held.regions == ()


def test_a_model_that_takes_its_word_back_is_not_believed():
    told = {}

    def margin(hidden):
        """Says yes to {0} once, and no ever after; {0, 1} really does."""
        said = []
        for mask in hidden:
            one = tuple(np.flatnonzero(mask))
            told[one] = told.get(one, 0) + 1
            said.append(1.0 if {0, 1} <= set(one) or (one == (0,) and told[one] == 1) else -1.0)
        return np.array(said)

    held = drive(search(margin), asked_and_told)
    assert held.found
    assert held.regions == (0, 1)


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_a_search_that_is_stopped_tells_the_best_so_far(calls):
    margin = joint(3, 0.5)
    running, asked = search(margin), []

    def told(ask):
        if len(asked) == calls:
            return Stop("budget_exhausted")
        asked.append(ask.x)
        return None

    held = drive(running, told)
    if held.stopped is None:  # it needed no more calls
        return
    assert held.stopped == "budget_exhausted"
    known = np.concatenate([np.zeros((0, COUNT), bool), *asked])
    assert held.found == bool((margin(known) > 0).any())
    if held.found:
        assert len(held.regions) == known[margin(known) > 0].sum(axis=1).min()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_a_search_gives_up_where_another_has_ended_with_a_set_no_larger(seed, level):
    margin = additive(seed, level)

    def beside(rivals):
        def ask(hidden):
            yield Rows(hidden)
            return margin(hidden)

        return drive(hide(COUNT, ask, rivals), asked_and_told)

    alone = beside([])
    assert beside([COUNT + 1]) == alone
    for size in range(COUNT + 1):
        held = beside([size])
        assert len(held.regions) < size if held.found else size <= COUNT
    assert not beside([len(alone.regions)]).found


# --- what is seen where something is hidden -------------------------------------------------------------

IMAGES = st.integers(0, 10**6)


def drawn(seed, shape=(7, 9, 3), share=0.5):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, shape).astype("f"), rng.random((4, *shape[:2])) < share


@settings(deadline=None)
@given(IMAGES)
def test_what_is_shown_stays_to_the_bit_and_colours_lie_between_those_shown(seed):
    image, hidden = drawn(seed)
    made = inpainted(image, hidden)
    for one, mask in zip(made, hidden, strict=True):
        assert one[~mask].tobytes() == image[~mask].tobytes()
        if not mask.all():
            low, high = image[~mask].min(axis=0), image[~mask].max(axis=0)
            assert (one >= low - 1e-5).all()
            assert (one <= high + 1e-5).all()


@settings(deadline=None)
@given(IMAGES)
def test_no_pixel_leaves_the_range_of_the_image(seed):
    image, hidden = drawn(seed, share=0.8)
    for ends in (np.sign(image), np.full_like(image, image.max())):
        made = inpainted(ends * np.float32(0.9), np.concatenate([hidden, np.ones_like(hidden[:1])]))
        assert (made >= (ends * np.float32(0.9)).min(axis=(0, 1))).all()
        assert (made <= (ends * np.float32(0.9)).max(axis=(0, 1))).all()


@settings(deadline=None)
@given(IMAGES)
def test_a_plain_image_has_no_visible_holes(seed):
    _, hidden = drawn(seed)
    plain = np.full((7, 9, 3), 0.25, "f")
    np.testing.assert_allclose(inpainted(plain, hidden), np.broadcast_to(plain, (4, 7, 9, 3)), atol=1e-6)


def test_where_all_is_hidden_the_mean_is_seen():
    image, _ = drawn(0, (8, 8, 3))
    made = inpainted(image, np.ones((1, 8, 8), bool))
    np.testing.assert_allclose(made[0], np.broadcast_to(image.mean(axis=(0, 1)), (8, 8, 3)), atol=1e-6)


@settings(deadline=None)
@given(IMAGES)
def test_masks_are_strangers(seed):
    image, hidden = drawn(seed)
    together = inpainted(image, hidden)
    for one, mask in zip(together, hidden, strict=True):
        np.testing.assert_array_equal(one, inpainted(image, mask[None])[0])
