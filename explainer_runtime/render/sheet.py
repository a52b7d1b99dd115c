"""Cards as one image: what goes into a slide, a ticket or a chat.

Pillow's own scalable font is used, so that the same explanation gives the same picture on every machine. It
holds ASCII and little more: arrows are drawn, other letters lose their accents or become a question mark.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from explainer_runtime.explanation import Explanation
from explainer_runtime.pictures import Sent
from explainer_runtime.render.cards import SIZE, Panel, cards
from explainer_runtime.render.panels import diverging, photograph, striped
from explainer_runtime.views import Card, image, side_by_side

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs

_MARGIN, _GAP = 28, 20
_HEADLINE, _TEXT, _SMALL = 20, 15, 12
_INK, _GREY, _LINE, _WHITE = (24, 28, 36), (105, 112, 124), (222, 226, 232), (255, 255, 255)
_KNOWN = set(map(chr, range(32, 127))) | set("·…±")


def picture(
    explanation: Explanation,
    x: np.ndarray,
    inputs: Inputs,
    *,
    row: int | None = None,
    size: int = SIZE,
    sent: Sequence[Sent] = (),
) -> Image.Image:
    """One image of an explanation, its rows in a grid.

    Args:
        explanation: Of the rows `x`.
        x: What was explained, images `(N, H, W)` or `(N, H, W, C)`, in input units.
        inputs: The input contract: range and class names.
        row: The only row to show; None shows all.
        size: Pixels that the longer side of a panel should about have.
        sent: The pictures that the rows were, to draw on; see `cards.drawn`.

    Raises:
        InvalidInput: The rows are not images.
    """
    shown = cards(explanation, x, inputs, size=size, sent=sent)
    return sheet(shown if row is None else [shown[row]])


def png(explanation: Explanation, x: np.ndarray, inputs: Inputs, **more: Any) -> bytes:
    """`picture` as the bytes of a PNG file; `more` as there."""
    return encode(picture(explanation, x, inputs, **more))


def plain(row: np.ndarray, inputs: Inputs) -> Image.Image:
    """A row `(*S)` as people see it, in its own size; bytes of its pixels, 0 to 255, are its range."""
    return Image.fromarray(photograph(image(row, inputs), inputs.low, inputs.high, 1))


def encode(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(shown: Sequence[Card[Panel]]) -> Image.Image:
    """Cards in a grid: one column, or two where there are many."""
    shown = side_by_side(shown)
    most = max(len(_note(card)) for card in shown)
    blocks = [_block(card, most) for card in shown]
    columns = 1 if len(blocks) <= 3 else 2
    wide, tall = blocks[0].size  # all of a size: rows of one batch have one shape
    whole = Image.new("RGB", (columns * wide, -(-len(blocks) // columns) * tall), _WHITE)
    draw = ImageDraw.Draw(whole)
    for index, block in enumerate(blocks):
        left, top = index % columns * wide, index // columns * tall
        whole.paste(block, (left, top))
        if top:
            draw.line((left + _MARGIN, top, left + wide - _MARGIN, top), _LINE)
    return whole


def _block(card: Card[Panel], note: int) -> Image.Image:
    """One card, with room for so many lines of note."""
    side, tall = card.panels[0].pixels.shape[1], card.panels[0].pixels.shape[0]
    width = 2 * _MARGIN + _inner(card)
    top = _MARGIN + _HEADLINE + _TEXT + 30
    below = top + _SMALL + 8 + tall + 2 * _TEXT + (8 if note else 0)
    height = below + note * (_SMALL + 4) + _MARGIN
    block = Image.new("RGB", (width, height), _WHITE)
    draw = ImageDraw.Draw(block)
    inner = _inner(card)
    _write(draw, (_MARGIN, _MARGIN - 6), card.headline, _HEADLINE, _INK, inner)
    size, details = _TEXT, [card.detail]
    if len(_lines(card.detail, _TEXT, inner)) > 1:  # there is room for two lines of small letters
        size, (first, *rest) = _SMALL, _lines(card.detail, _SMALL, inner)
        details = [first, " ".join(rest)]
    for line, words in enumerate(details):
        _write(draw, (_MARGIN, _MARGIN + _HEADLINE + 4 + line * (size + 4)), words, size, _GREY, inner)
    if not card.detail:  # the note stands where the other panels would
        for line, words in enumerate(_lines(card.note, _TEXT, inner - side - _GAP)):
            at = (_MARGIN + side + _GAP, top + _SMALL + 8 + line * (_TEXT + 5))
            _write(draw, at, words, _TEXT, _GREY, inner - side - _GAP)
    for line, words in enumerate(_note(card)):
        _write(draw, (_MARGIN, below + line * (_SMALL + 4)), words, _SMALL, _GREY, inner)
    for index, panel in enumerate(card.panels):
        _panel(block, draw, panel, _MARGIN + index * (side + _GAP), top)
    return block


def _inner(card: Card[Panel]) -> int:
    """Width of what a card shows: that of three panels, so that missing ones leave room for the words."""
    return 3 * card.panels[0].pixels.shape[1] + 2 * _GAP


def _note(card: Card[Panel]) -> list[str]:
    """The note below the panels in lines; none where it stands in place of some."""
    return _lines(card.note, _SMALL, _inner(card)) if card.note and card.detail else []


def _lines(text: str, size: int, width: int) -> list[str]:
    """Words in lines of at most so many pixels."""
    font, lines = _font(size), [""]
    for word in _plain(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _panel(block: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    tall, side = panel.pixels.shape[:2]
    _write(draw, (left, top), panel.title, _SMALL, _GREY, side)
    top += _SMALL + 8
    block.paste(Image.fromarray(panel.pixels), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + tall), outline=_LINE)
    below = top + tall + 10
    if panel.limit is None:
        _write(draw, (left, below), panel.caption, _TEXT, _INK, side)
    else:
        _legend(block, draw, panel, (left, below), side)


def _legend(
    block: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, at: tuple[int, int], side: int
) -> None:
    """A bar of the signed colours, and below it what its two ends mean."""
    (left, top), font, level = at, _font(_SMALL), np.linspace(-1, 1, side)[None].repeat(10, axis=0)
    block.paste(Image.fromarray(striped(diverging(level), level < 0, 5)), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + 10), outline=_LINE)
    less, more = (f"{sign}{panel.limit:.2g} {word}" for sign, word in zip("-+", panel.ends, strict=True))
    draw.text((left, top + 13), less, _GREY, font)
    draw.text((left + side - int(font.getlength(more)), top + 13), more, _GREY, font)


# --- text -----------------------------------------------------------------------------------------------


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """Write `text` in at most `width` pixels; an arrow in it is drawn."""
    font, (left, top) = _font(size), at
    arrow = int(size * 1.9)
    for index, part in enumerate(text.split(" → ")):
        if index:
            _arrow(draw, left + size // 3, top + int(size * 0.72), arrow - 2 * (size // 3) - 2, _GREY)
            left += arrow
        part = _shortened(_plain(part), font, at[0] + width - left)
        draw.text((left, top), part, colour, font)
        left += int(font.getlength(part))


def _arrow(
    draw: ImageDraw.ImageDraw, left: int, middle: int, length: int, colour: tuple[int, int, int]
) -> None:
    right, head = left + length, max(3, length // 5)
    draw.line((left, middle, right - head, middle), colour)
    draw.polygon(((right + 1, middle), (right - head, middle - head), (right - head, middle + head)), colour)


def _shortened(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("−", "-").replace("×", "x"))
    kept = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if letter in _KNOWN else "?" for letter in kept)
