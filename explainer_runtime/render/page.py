"""Cards as one self-contained HTML page: no script, no font, no image is fetched from anywhere.

`html` makes the page of one explanation, `fragment` what stands in a page of somebody else's. The pieces they
are built from are public, for reports that show several: each returns HTML in which everything that came from
outside has been escaped. One script of ours, `compare.js`, comes with a page; all is there without it, too,
and the page lets no other one run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from explainer_runtime import __version__
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.pictures import Sent
from explainer_runtime.render.cards import SIZE, Panel, drawn, view
from explainer_runtime.render.sheet import encode
from explainer_runtime.views import MEANINGS, Card, View, number, side_by_side

if TYPE_CHECKING:
    from explainer_runtime.spec import Inputs


def html(
    explanation: Explanation,
    x: np.ndarray,
    inputs: Inputs,
    *,
    title: str | None = None,
    size: int = 2 * SIZE,
    sent: Sequence[Sent] = (),
    accuracy: str | None = None,
    about: Mapping[str, str] | None = None,
) -> str:
    """The page of one explanation: how sure to be, pictures, numbers, where it comes from and what it took.

    Args:
        explanation: Of the rows `x`.
        x: What was explained, images `(N, H, W)` or `(N, H, W, C)`, in input units.
        inputs: The input contract: range and class names.
        title: What to call the page; None names the method.
        size: Pixels that the longer side of a panel should about have.
        sent: The pictures that the rows were, to draw on; see `cards.drawn`.
        accuracy: How often the model is right, in words, such as ".85 of 1000 rows"; None is not known.
        about: Where it comes from, such as the date, the model, the artifact and their digests, the data.

    Raises:
        InvalidInput: The rows are not images.
    """
    seen = view(explanation, x, inputs)
    shown = drawn(seen, inputs, size, sent)
    found = sum(card.found for card in shown)
    return document(
        title or seen.title,
        f"{seen.idea} Found for {found} of {len(shown)}.",
        section("How sure to be", terms(_sure(explanation, seen, accuracy))),
        section("The answers", prose(reading(shown)), gallery(shown)),
        section("Numbers", _numbers(explanation, seen)),
        section("Where it comes from", *_provenance(explanation, about or {})),
    )


def fragment(
    explanation: Explanation,
    x: np.ndarray,
    inputs: Inputs,
    *,
    size: int = 2 * SIZE,
    sent: Sequence[Sent] = (),
    accuracy: str | None = None,
    about: Mapping[str, str] | None = None,
) -> str:
    """The cards of one explanation for a document that has `card.css`: what it took in a line below them, and
    what few people look at folded away. Arguments and errors are those of `html`. How long it took is left
    out: the same answer gives the same bytes.
    """
    explanation = replace(explanation, cost=replace(explanation.cost, seconds=0))
    seen = view(explanation, x, inputs)
    shown = drawn(seen, inputs, size, sent)
    took, *more = _provenance(explanation, about or {})
    return "\n".join(
        (
            prose(seen.idea),
            gallery(shown),
            took,
            folded("How sure to be", terms(_sure(explanation, seen, accuracy)), prose(reading(shown))),
            folded("Numbers, and what they mean", _numbers(explanation, seen)),
            folded("Where it comes from", *more),
        )
    )


def snippet(explanation: Explanation, x: np.ndarray, inputs: Inputs, most: int = 8) -> str | None:
    """The cards of the first `most` rows for the cell of a notebook, with a style that is theirs alone.

    Returns:
        None where the rows are no images.
    """
    try:
        seen = view(explanation, x, inputs)
    except InvalidInput:
        return None
    words = f"{seen.idea} Found for {sum(card.found for card in seen.cards)} of {len(seen.cards)}."
    if len(seen.cards) > most:
        words += f" The first {most} are shown."
    shown = drawn(replace(seen, cards=seen.cards[:most]), inputs, SIZE)
    return f"<div><style>@scope {{\n{shipped('card.css')}}}</style>{prose(words)}{gallery(shown)}</div>"


_SMALL = 100
"""Pixels of the longer side of images that can be seen in a sixth of a page's width; others take a third."""
_LONGEST = 200
"""Characters of a setting that are shown."""


# --- pieces ---------------------------------------------------------------------------------------------


def document(title: str, lead: str, *parts: str) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="content-security-policy" content="{policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{shipped('card.css')}{shipped('page.css')}</style>\n"
        "</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + f'\n</main>\n<script type="module">{shipped("compare.js")}</script>\n</body>\n</html>\n'
    )


def policy() -> str:
    """The content security policy of a page: `compare.js` may run in it, and nothing else."""
    only = base64.b64encode(hashlib.sha256(shipped("compare.js").encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{only}'"


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def prose(text: str) -> str:
    """One paragraph."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Something to copy into a terminal, or to read as it is."""
    return f"<pre><code>{escape(text)}</code></pre>"


def terms(said: Mapping[str, str]) -> str:
    """Words, and what is to be said of each."""
    pairs = [f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>\n" for word, text in said.items() if text]
    return f'<dl class="terms">\n{"".join(pairs)}</dl>' if pairs else ""


def details(title: str, values: Mapping[str, Any]) -> str:
    """Values that few people look at, behind their title, long ones cut; in print they are shown."""
    words = {name: str(value) for name, value in values.items()}
    said = terms({name: text[:_LONGEST] + "…" * (len(text) > _LONGEST) for name, text in words.items()})
    return folded(title, said) if values else ""


def folded(title: str, *parts: str) -> str:
    """What stands behind its title until somebody opens it; in print it is shown."""
    inner = "\n".join(parts)
    return f'<details class="folded"><summary>{escape(title)}</summary>\n{inner}</details>'


def reading(shown: Iterable[Card[Panel]]) -> str:
    """How the cards are read, in sentences."""
    maps = any(panel.limit is not None for card in side_by_side(shown) for panel in card.panels)
    return "The number after a class is the probability, or score, that the model gives it." + maps * (
        " In maps red is more and blue, which is striped, is less; in all maps of a kind on this page a "
        "colour stands for the same number."
    )


def gallery(shown: Sequence[Card[Panel]], questions: Sequence[str] = ()) -> str:
    """Cards in a grid that follows the width of the window, each below the question it answers, if any."""
    asked = [*questions, *[""] * (len(shown) - len(questions))]
    each = [
        _card(one, question)
        for card, question in zip(shown, asked, strict=True)
        for one in side_by_side([card])
    ]
    # In a third of half a page a photograph shows nothing.
    large = any(max(panel.image.shape[:2]) > _SMALL for card in shown for panel in card.panels)
    return f'<div class="grid{" large" * large}">\n' + "\n".join(each) + "\n</div>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; truths are marked, words in the first column stand left, the rest right."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(header[0])}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return '<td class="yes">yes</td>' if value else '<td class="no">no</td>'
    return f"<td>{escape(number(value) if isinstance(value, float) else str(value))}</td>"


def _card(card: Card[Panel], question: str) -> str:
    asked = f'<p class="asked">{escape(question)}</p>\n' if question else ""
    note = f'\n<p class="note">{escape(card.note)}</p>' if card.note and card.detail else ""
    return (
        f'<article class="card{"" if card.found else " missing"}">\n{asked}<h3>{escape(card.headline)}</h3>\n'
        f'<p class="detail">{escape(card.detail or card.note)}</p>\n'
        f'<div class="panels">\n{"".join(map(_figure, card.panels))}</div>{note}\n</article>'
    )


def _figure(panel: Panel) -> str:
    height, width = panel.pixels.shape[:2]
    data = base64.b64encode(encode(Image.fromarray(panel.pixels))).decode()
    below = f"<figcaption>{escape(panel.caption)}</figcaption>"
    if panel.limit is not None:
        ends = (f"{sign}{panel.limit:.2g} {word}" for sign, word in zip("−+", panel.ends, strict=True))
        words = "".join(f"<span>{escape(end)}</span>" for end in ends)
        below = f'<div class="legend" aria-hidden="true"><i></i>{words}</div>'
    another = " data-another" * panel.another
    return (
        f'<figure{another}><div class="over">{escape(panel.title)}</div>'
        f'<img alt="{escape(panel.alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">{below}</figure>\n'
    )


def _numbers(explanation: Explanation, seen: View) -> str:
    columns = {name: word for name, word in seen.numbers.items() if name in explanation.arrays}
    shown = table(
        ["answer", "found", "status", *columns.values()],
        [
            [card.headline, card.found, explanation["status"][row]]
            + [explanation[name][row].item() if card.told else "–" for name in columns]
            for row, card in enumerate(seen.cards)
        ],
    )
    return shown + terms({word: MEANINGS.get(word, "") for word in columns.values()})


def _sure(explanation: Explanation, seen: View, accuracy: str | None) -> dict[str, str]:
    right = (
        f"Right about {accuracy} of those the explainer was fitted with, and most likely less often about "
        "others, if it was trained on them."
        if accuracy
        else "How often it is right is not known here; an explainer that was fitted with labels says it."
    )
    return {
        "The model": f"{right} An explanation says why it answers so, not whether the answer is right.",
        "What found means": seen.found,
        "When it would not hold": seen.limits,
        "Warning": " ".join(explanation.meta.get("warnings", ())),
    }


def _provenance(explanation: Explanation, about: Mapping[str, str]) -> Iterable[str]:
    cost = explanation.cost
    # An explanation that came over a wire does not say how long it took.
    seconds = f", which took {cost.seconds:.2f} seconds" if cost.seconds else ""
    times, rows = (
        f"{many:,} {word}{'s' * (many != 1)}" for many, word in ((cost.calls, "time"), (cost.rows, "row"))
    )
    # A kept answer says what giving it again cost, which is not what finding it did.
    kept = (
        "The same was asked before, and its answer was kept. To give it again, the"
        if explanation.meta.get("cached")
        else "The"
    )
    yield prose(f"{kept} model was asked {times} about {rows} in all{seconds}.")
    yield terms({"made by": f"explainer_runtime {__version__}", **about})
    yield details("Settings", explanation.meta.get("spec", {}))


@cache
def shipped(name: str) -> str:
    """A file beside this one: `card.css`, `page.css` or `compare.js`."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
