"""Pictures: what a colour means, what a card says, and that a page needs nothing but itself."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from explainer_runtime import render
from explainer_runtime.cli import answers
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explainers import fit, prepare
from explainer_runtime.explanation import Cost, Explanation
from explainer_runtime.methods import parse_spec
from explainer_runtime.render import page, panels
from explainer_runtime.render.cards import Panel
from explainer_runtime.render.sheet import sheet
from explainer_runtime.spec import Inputs
from explainer_runtime.views import Card, Picture, chance

NAMES = ("Sandal", "Sneaker", "<b>Ankle & boot</b>")


def contract(shape=(6, 4, 1), names=NAMES):
    said = {"layout": "channels_last"} if shape == (1, 1, 1) else {}
    return Inputs(shape=shape, low=-0.5, high=0.5, classes=3, class_names=names, **said)


def images(count=2, shape=(6, 4, 1)):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, *shape)).astype(np.float32)


def counterfactuals(x, found=True, before=0, after=1):
    count = len(x)
    changed = x.copy()
    changed[:, 1, 2] = 0.5
    scores = np.full((count, 3), 0.005, np.float32)
    original, final = scores.copy(), scores.copy()
    original[:, before], final[:, after] = 0.99, 0.99
    distance = np.abs(changed - x).reshape(count, -1).sum(axis=1)
    return Explanation(
        "counterfactual",
        {
            "found": np.full(count, found),
            "status": np.full(count, "ok" if found else "budget_exhausted"),
            "counterfactual": changed,
            "original_class": np.full(count, before),
            "original_proba": original,
            "counterfactual_class": np.full(count, after),
            "counterfactual_proba": final,
            "target_proba": final[:, after],
            "distance_l1": distance,
            "distance_l0": np.ones(count, np.int64),
        },
        cost=Cost(3, 1234, 0.5),
    )


def anchors(x, found=True, size=2):
    count, height, width = len(x), *x.shape[1:3]
    segments = np.arange(height)[:, None] // 2 * 2 + np.arange(width)[None] // 2
    mask = segments < size
    return Explanation(
        "anchor_image",
        {
            "found": np.full(count, found),
            "status": np.full(count, "ok" if found else "not_found"),
            "anchor_mask": np.repeat(mask[None], count, axis=0),
            "segments": np.repeat(segments[None], count, axis=0),
            "precision": np.full(count, 0.97, np.float32),
            "coverage": np.full(count, 0.25, np.float32),
            "size": np.full(count, size),
            "prediction": np.full(count, 1),
        },
    )


# --- pixels ---------------------------------------------------------------------------------------------


def test_no_change_is_exactly_white():
    assert (panels.signed(np.zeros((3, 2, 1)), 0.7, 4) == 255).all()


@given(st.floats(0.01, 1))
def test_colours_of_a_change_tell_its_direction(value):
    (red, _, blue), (other_red, _, other_blue) = panels.diverging(np.array([value, -value])).astype(int)
    assert red > blue
    assert other_blue > other_red


def test_colours_are_deeper_for_larger_changes():
    brightness = panels.diverging(np.linspace(0, 1, 20)).astype(int).sum(axis=1)
    assert (np.diff(brightness) < 0).all()


def test_the_signed_map_shows_the_most_changed_channel():
    change = np.array([[[0.1, -0.9, 0.3]]])
    np.testing.assert_array_equal(panels.signed(change, 0.9, 1), panels.diverging(np.array([[-1.0]])))


def test_enlarging_makes_every_pixel_a_square():
    image = np.arange(6).reshape(2, 3)
    enlarged = panels.enlarge(image, 5)
    assert enlarged.shape == (10, 15)
    np.testing.assert_array_equal(enlarged[2::5, 2::5], image)
    np.testing.assert_array_equal(enlarged, np.kron(image, np.ones((5, 5), int)))


def test_the_range_becomes_black_to_white():
    image = np.array([[[-0.5], [0.0], [0.5], [9.0]]])
    np.testing.assert_array_equal(panels.photograph(image, -0.5, 0.5, 1)[0, :, 0], [0, 128, 255, 255])


def test_an_anchor_is_shown_in_full_inside_its_outline():
    image = images(1, (8, 8, 3))[0]
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    shown, plain = (panels.spotlight(image, mask, -0.5, 0.5, 10), panels.photograph(image, -0.5, 0.5, 10))
    np.testing.assert_array_equal(shown[25:55, 25:55], plain[25:55, 25:55])
    assert (shown[:15] != plain[:15]).any(axis=-1).mean() > 0.9


def test_an_anchor_is_outlined_also_at_the_edge_of_the_image():
    shown = panels.spotlight(images(1)[0], np.ones((6, 4), bool), -0.5, 0.5, 6)
    for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
        assert (edge == panels.ACCENT).all()


def test_superpixels_are_outlined_where_they_meet_and_nowhere_else():
    image = np.full((4, 4, 1), -0.5)
    segments = np.array([[0, 0, 1, 1]] * 4)
    changed = (panels.outlined(image, segments, -0.5, 0.5, 6) > 0).any(axis=-1)
    assert changed[:, 11:13].all()
    assert not changed[:, :11].any()
    assert not changed[:, 13:].any()


# --- cards ----------------------------------------------------------------------------------------------


def test_a_counterfactual_card_names_both_classes():
    (card, _) = render.cards(counterfactuals(images()), images(), contract())
    assert card.headline == "Sandal → Sneaker"
    assert [panel.title for panel in card.panels] == ["input", "counterfactual", "difference"]
    assert [panel.caption for panel in card.panels][:2] == ["Sandal 0.99", "Sneaker 0.99"]
    assert "1 of 24 pixels" in card.detail


def test_classes_without_names_are_numbered():
    (card, _) = render.cards(counterfactuals(images()), images(), contract(names=None))
    assert card.headline == "class 0 → class 1"


@pytest.mark.parametrize(("explain", "what"), [(counterfactuals, "counterfactual"), (anchors, "anchor")])
def test_a_row_without_an_explanation_says_so(explain, what):
    (card, _) = render.cards(explain(images(), found=False), images(), contract())
    assert not card.found
    assert f"no {what} found" in card.headline
    assert card.note


def test_a_long_reason_is_read_whole_in_a_picture():
    x = images(1)
    (card,) = render.cards(counterfactuals(x, found=False), x, contract())
    notes = ("Ended.", "Ended. " + "And more. " * 9)
    short, longer = (dataclasses.replace(card, note=note) for note in notes)
    few, many = (np.asarray(sheet([one])) for one in (short, longer))
    assert few.shape == many.shape
    changed = np.flatnonzero((few != many).any(axis=(1, 2)))  # lines of pixels
    assert changed[-1] - changed[0] > 3 * 15  # letters of 15 pixels: more than two lines of them


def test_a_long_line_below_a_headline_is_read_to_its_end():
    x = images(1)
    (card,) = render.cards(counterfactuals(x), x, contract())
    line = "Ankle boot 0.81 before, 0.12 after; Sneaker 0.78 · 1 of 8 superpixels · 18% of the "
    one, other = (
        np.asarray(sheet([dataclasses.replace(card, detail=line + end)])) for end in ("image", "whole")
    )
    assert (one != other).any()


@pytest.mark.parametrize(("side", "large"), [(28, False), (224, True)])
def test_photographs_take_the_width_of_the_page(side, large):
    picture = Picture("input", "boot", "boot", np.zeros((side, side, 1), np.float32))
    panel = Panel(**vars(picture), pixels=np.zeros((336, 336, 3), np.uint8))
    assert ('class="grid large"' in page.gallery([Card(True, "boot", "", (panel,))])) is large


def test_a_row_that_was_not_asked_about_has_no_class():
    answer = counterfactuals(images(), found=False)
    answer = dataclasses.replace(answer, arrays={**answer.arrays, "original_class": np.array([-1, -1])})
    (card, _) = render.cards(answer, images(), contract())
    assert card.headline == "not asked: no counterfactual found"
    assert card.panels[0].caption == "not asked"


def test_an_empty_anchor_says_that_it_is_empty_and_what_to_try():
    (card, _) = render.cards(anchors(images(), size=0), images(), contract())
    assert "empty" in card.headline
    assert card.panels[2].title == "empty anchor"
    assert "Try another fill" in card.note
    assert "Try another fill" in render.html(anchors(images(), size=0), images(), contract())


def test_an_empty_anchor_gives_the_reason_that_came_with_it():
    x = images(1)
    empty = dataclasses.replace(anchors(x, size=0), raw=({"note": "the fill has the class"},))
    (card,) = render.cards(empty, x, contract())
    assert card.note == "The fill has the class"


def test_a_note_makes_room_for_itself_in_every_card_of_a_picture():
    x = images(2)
    plain, noted = anchors(x), anchors(x, size=0)
    assert render.picture(noted, x, contract()).height > render.picture(plain, x, contract()).height


@given(st.floats(0, 1))
def test_only_certainty_is_shown_as_certain(probability):
    said = chance(probability)
    assert (said == "1.00") == (probability == 1)
    assert (said == "0.00") == (probability == 0)


@pytest.mark.parametrize("explain", [counterfactuals, anchors])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3), (300, 200, 3), (1, 1, 1)])
def test_pictures_of_every_size_have_panels_of_a_readable_size(explain, shape):
    x = images(1, shape)
    (card,) = render.cards(explain(x) if shape != (1, 1, 1) else anchors(x), x, contract(shape))
    for panel in card.panels:
        assert panel.pixels.dtype == np.uint8
        assert panel.pixels.shape[:2] == card.panels[0].pixels.shape[:2]
        assert 100 <= max(panel.pixels.shape) <= 300


def test_what_is_drawn_is_left_as_it_was():
    x = images()
    explanation = counterfactuals(x)
    before = x.copy(), explanation["counterfactual"].copy()
    render.picture(explanation, x, contract())
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(explanation["counterfactual"], before[1])


@pytest.mark.parametrize("shape", [(5,), (6, 4, 2), (2, 6, 4, 1)])
def test_rows_that_are_not_images_are_refused(shape):
    x = images(1, shape)
    with pytest.raises(InvalidInput, match="pictures need images"):
        render.cards(anchors(images(1)), x, contract())


def test_other_rows_than_those_explained_are_refused():
    with pytest.raises(InvalidInput, match="2 rows that were explained, got 3"):
        render.cards(anchors(images(2)), images(3), contract())


# --- the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("explain", [counterfactuals, anchors])
def test_the_same_explanation_gives_the_same_png(explain):
    x = images()
    first, second = (render.png(explain(x), x, contract()) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).format == "PNG"


def test_one_row_of_the_picture_is_that_row_alone():
    x = images(3)
    whole = np.asarray(render.picture(counterfactuals(x), x, contract()))
    alone = np.asarray(render.picture(counterfactuals(x), x, contract(), row=0))
    np.testing.assert_array_equal(whole[: len(alone)], alone)


def test_names_that_the_font_lacks_are_drawn_all_the_same():
    x = images(1)
    names = ("Häkelmütze", "帽子", "x" * 500)
    assert render.picture(counterfactuals(x), x, contract(names=names)).width < 1000


# --- the page -------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Notes tags, attributes, and that every element that is opened is closed in order."""

    VOID = frozenset(("meta", "img", "br", "link"))

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


@pytest.mark.parametrize("explain", [counterfactuals, anchors])
def test_a_page_needs_nothing_but_itself(explain):
    x = images()
    text = render.html(explain(x), x, contract())
    read = Reader(text)
    assert not read.open
    assert not {"link", "iframe", "object"} & set(read.tags)
    assert all(source.startswith("data:image/png;base64,") for source in read.of("img", "src"))
    assert "://" not in text
    assert "url(" not in text


def test_a_page_has_one_script_and_lets_no_other_run():
    x = images()
    text = render.html(counterfactuals(x), x, contract())
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert script == page.shipped("compare.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="content-security-policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.findall(r"<[^>]* on\w+=", text)


@pytest.mark.parametrize("explain", [counterfactuals, anchors])
def test_every_picture_of_a_page_is_described(explain):
    x = images()
    read = Reader(render.html(explain(x), x, contract()))
    assert len(read.of("img", "alt")) == read.tags.count("img") == 6
    assert all(len(alt) > 5 for alt in read.of("img", "alt"))


def test_nothing_that_came_from_outside_is_markup():
    x = images()
    text = render.html(counterfactuals(x, after=2), x, contract(), title='"<i>&')
    assert "b" not in Reader(text).tags
    assert "&lt;b&gt;Ankle &amp; boot&lt;/b&gt;" in text
    assert "<title>&quot;&lt;i&gt;&amp;</title>" in text


def test_pieces_of_a_page_escape_what_they_are_given():
    evil = "<script>alert(1)</script>"
    pieces = page.section(evil, page.prose(evil), page.code(evil), page.table([evil], [[evil]]))
    assert "<script>" not in page.document(evil, evil, pieces)


def test_a_page_tells_what_the_answer_cost():
    x = images()
    assert "asked 3 times about 1,234 rows" in render.html(counterfactuals(x), x, contract())


def test_a_page_gives_no_numbers_for_what_was_not_found():
    x = images()
    text = render.html(counterfactuals(x, found=False), x, contract())
    assert "<td>–</td>" in text
    assert text.count("<img") == 2


def positives(space):
    """A PP of one image: of twelve bright pixels on black (-0.5), the first four are kept."""
    x = np.full((1, 6, 4, 1), -0.5, np.float32)
    x[0, :3] = 0.5
    empty = np.zeros_like(x) if space == "difference" else np.full_like(x, -0.5)
    kept = empty.copy()
    kept[0, 0] = x[0, 0] - x[0, 5] if space == "difference" else 0.5
    scores = np.asarray([[0.9, 0.05, 0.05]], np.float32)
    change = np.abs(kept - empty)
    arrays = {
        "found": np.ones(1, bool),
        "status": np.asarray(["ok"]),
        "pertinent": kept,
        "original_class": np.zeros(1, np.int64),
        "original_proba": scores,
        "pertinent_class": np.zeros(1, np.int64),
        "pertinent_proba": scores,
        "distance_l1": np.asarray([change.sum()]),
        "distance_l0": np.asarray([(change > 0).sum()]),
    }
    spec = {"mode": "PP", "pp_space": space, "no_info_val": -0.5}
    return x, Explanation("cem", arrays, meta={"spec": spec})


@pytest.mark.parametrize("space", ["absolute", "difference"])
def test_all_numbers_of_a_positive_are_of_the_part_that_was_kept(space):
    x, explanation = positives(space)
    (card,) = render.cards(explanation, x, contract())
    assert [panel.title for panel in card.panels] == ["input", "pertinent positive", "kept"]
    assert (card.detail, card.panels[2].caption) == (
        "kept: 4 of 24 values, which add up to 4 (L1)",
        "4 of 24 pixels",
    )
    text = render.html(explanation, x, contract())
    assert "Pertinent positives" in text
    assert "L1 kept" in text
    assert "values kept" in text


def test_a_positive_whose_nothing_is_not_known_shows_its_difference_from_the_input():
    x, explanation = positives("absolute")
    explanation.meta["spec"]["no_info_val"] = None
    (card,) = render.cards(explanation, x, contract())
    assert (card.panels[2].title, card.panels[2].caption) == ("difference", "8 of 24 pixels")
    assert card.detail == "kept: 4 of 24 values, which add up to 4 (L1)"


# --- channels first ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("explain", [counterfactuals, anchors])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_with_its_channels_first_is_drawn_as_with_them_last(explain, channels):
    x = images(2, (16, 12, channels))
    last = explain(x)
    first = Explanation(
        last.kind,
        {
            name: np.moveaxis(array, -1, 1) if array.shape == x.shape else array
            for name, array in last.arrays.items()
        },
    )
    turned = contract((channels, 16, 12))
    assert turned.layout == "channels_first"
    whole = [
        render.png(one, rows, inputs)
        for one, rows, inputs in (
            (last, x, contract((16, 12, channels))),
            (first, np.moveaxis(x, -1, 1), turned),
        )
    ]
    assert whole[0] == whole[1]


@pytest.mark.parametrize("shape", [(5,), (6, 6, 2), (2, 6, 6), (3, 3, 3), (28, 28, 28), (2, 6, 4, 1)])
def test_what_cannot_be_drawn_is_refused_by_its_contract_alone(shape):
    with pytest.raises(InvalidInput, match="pictures need images"):
        render.check(contract(shape))
    render.check(contract((6, 4, 1)))


# --- what does not mislead ----------------------------------------------------------------------------------


def test_less_and_more_differ_without_colours():
    change = np.array([[[-0.6], [0.6]]])
    less, more = np.split(panels.signed(change, 0.6, 24).mean(axis=2), 2, axis=1)
    assert np.ptp(more) == 0  # plain
    assert np.ptp(less) > 100  # striped


def test_an_anchor_of_background_says_so():
    x = np.full((1, 6, 4, 1), -0.5, np.float32)
    x[0, 4:] = images(1)[0, 4:]
    (card,) = render.cards(anchors(x), x, contract())
    assert card.note.startswith("100% of its pixels are one even tone")
    x[0, :2] = images(1)[0, :2]
    (card,) = render.cards(anchors(x), x, contract())
    assert not card.note


def test_an_anchor_whose_class_stays_with_all_hidden_says_so():
    x = images(1)
    (card,) = render.cards(dataclasses.replace(anchors(x), raw=({"holds_masked": True},)), x, contract())
    assert "With everything hidden the class is the same" in card.note


def test_a_page_says_how_hidden_parts_looked_and_no_more():
    x = images(1)
    said = dataclasses.replace(anchors(x), meta={"spec": {"fill": "blur", "threshold": 0.9, "p_sample": 0.4}})
    text = render.html(said, x, contract())
    assert "It was sought with hidden parts showing a blur: with another way" in text
    assert "stayed in 90% or more" in text
    assert "with a chance of 40%" in text


def test_a_page_says_how_often_the_model_is_right_or_that_nobody_said():
    x = images(1)
    assert "Right about 0.851 of 1000 rows" in render.html(
        anchors(x), x, contract(), accuracy="0.851 of 1000 rows"
    )
    assert "How often it is right is not known here" in render.html(anchors(x), x, contract())


# --- in a notebook --------------------------------------------------------------------------------------


def answered_by(kind, shape):
    """What a prepared explainer answers about one row of a model that knows two classes by their sum."""
    inputs = Inputs(shape=shape, low=0, high=1, classes=2)

    def model(x):
        high = 1 / (1 + np.exp(-4 * (x.reshape(len(x), -1).sum(axis=1) - 8)))
        return np.stack([1 - high, high], axis=1)

    return prepare(fit(parse_spec({"kind": kind}), inputs=inputs), model)(np.full((1, *shape), 0.2, "f"))


def test_a_notebook_shows_the_card_of_an_answer_and_says_it_to_those_who_cannot_see_it():
    answer = answered_by("attribution", (8, 8, 1))
    read = Reader(answer._repr_html_())
    assert len(read.of("img", "alt")) == 3
    assert all(len(alt) > 5 for alt in read.of("img", "alt"))
    for source in read.of("img", "src"):
        _, _, data = source.partition("data:image/png;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(data))).width > 100


def test_rows_that_are_no_images_are_shown_in_words():
    answer = answered_by("counterfactual", (16,))
    assert answer._repr_html_() is None
    assert repr(answer).startswith("<Explanation by counterfactual: found 1 of 1; ")
    assert len(repr(answer)) < 100


def test_a_snippet_has_only_its_own_tags():
    x = images(9)
    shown = render.snippet(counterfactuals(x, after=2), x, contract())
    read = Reader(shown)
    assert not read.open
    assert set(read.tags) == {
        "div",
        "style",
        "p",
        "article",
        "h3",
        "figure",
        "img",
        "figcaption",
        "i",
        "span",
    }
    assert re.findall("<style>(.*?) ", shown) == ["@scope"]  # nothing else in the notebook is touched
    assert "The first 8 are shown." in shown


@pytest.mark.parametrize("kept", [True, False])
def test_a_kept_answer_is_said_to_be_one(kept):
    x = images(1)
    answer = counterfactuals(x)
    answer.meta.update({"cached": True} if kept else {})
    assert ("its answer was kept" in render.html(answer, x, contract())) is kept
    told = answers.summary(answer, contract())
    assert told["cached"] is kept
    assert ("kept from earlier" in answers.explained(told, None).caption) is kept


def test_a_page_explains_its_colours_where_it_has_any():
    x = images(1)
    assert "a colour stands for the same number" in render.html(counterfactuals(x), x, contract())
    assert "a colour stands for the same number" not in render.html(anchors(x), x, contract())
